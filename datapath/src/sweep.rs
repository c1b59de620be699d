//! Ending sessions by order: of servers that were disabled or removed at once, and those `session kill` names. At most 64
//! records are looked at per burst.

use std::sync::atomic::Ordering::Relaxed; // One writer.

use shm_layout::limits::RECORDS_PER_BURST;
use shm_layout::published::{Generation, Published, admin};
use shm_layout::ring::Args;
use shm_layout::session::{SessionRow, flag};
use shm_layout::slot::Slot;

/// Orders waiting at most; further ones are told to try again by control, which counts sessions afterwards.
const ORDERS: usize = 8;

/// A pass over the records of the slot.
#[derive(Debug, Default)]
pub struct Sweep {
    at: Option<usize>,
    disabled: bool,
    orders: [Option<Args>; ORDERS],
    /// Asked for while a pass was under way: another one follows.
    again: bool,
}

impl Sweep {
    /// Ends the sessions of disabled servers.
    pub fn start_disabled(&mut self) {
        self.disabled = true;
        self.start();
    }

    /// Ends the sessions an order matches.
    pub fn start_kill(&mut self, order: Args) {
        if let Some(free) = self.orders.iter_mut().find(|o| o.is_none()) {
            *free = Some(order);
        }
        self.start();
    }

    fn start(&mut self) {
        self.again = self.at.is_some();
        self.at.get_or_insert(0);
    }

    /// Is a pass under way?
    #[must_use]
    pub fn active(&self) -> bool {
        self.at.is_some()
    }

    /// Records to end, out of the next [`RECORDS_PER_BURST`].
    pub fn next(
        &mut self,
        slot: &Slot,
        published: &Published,
        generation: Generation,
    ) -> impl Iterator<Item = u32> + use<> {
        let mut found = [0; RECORDS_PER_BURST];
        let mut count = 0;
        let from = self.at.unwrap_or(0);
        // Records never used yet hold nothing.
        let used = (slot.table.fresh.load(Relaxed) as usize).min(slot.sessions.len());
        let until = (from + RECORDS_PER_BURST).min(used);
        for index in from..until {
            let Some(row) = slot.sessions.get(index).filter(|r| r.flags.load(Relaxed) & flag::INDEXED != 0) else {
                continue;
            };
            let ordered = self.orders.iter().flatten().any(|order| matches(row, order));
            if ordered || (self.disabled && ended_by_admin(row, published, generation)) {
                found[count] = u32::try_from(index).unwrap_or(u32::MAX);
                count += 1;
            }
        }
        self.at = Some(until);
        if until >= used {
            self.at = self.again.then_some(0);
            if !self.again {
                *self = Self::default();
            }
            self.again = false;
        }
        found.into_iter().take(count)
    }
}

fn ended_by_admin(row: &SessionRow, published: &Published, generation: Generation) -> bool {
    let member = published.server(generation, row.server_id.load(Relaxed));
    member.is_some_and(|m| matches!(m.admin.load(Relaxed), admin::DISABLED | admin::REMOVED_NOW))
}

/// Order: client address, client port, VIP address, VIP port, protocol; 0 matches any.
fn matches(row: &SessionRow, order: &Args) -> bool {
    let udp = row.flags.load(Relaxed) & flag::UDP != 0;
    let has = [
        row.client_ip.load(Relaxed),
        u32::from(row.client_port.load(Relaxed)),
        row.vip.load(Relaxed),
        u32::from(row.vip_port.load(Relaxed)),
        if udp { 17 } else { 6 },
    ];
    order.iter().zip(has).all(|(wanted, has)| *wanted == 0 || *wanted == has)
}

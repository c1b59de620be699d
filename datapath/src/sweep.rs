//! Ending sessions by order: of servers that were disabled or removed at once, and those `session kill` names. At most 64
//! records are looked at per burst; both sides get a reset with the number they expect.

use std::sync::atomic::Ordering::Relaxed; // One writer.

use shm_layout::limits::RECORDS_PER_BURST;
use shm_layout::published::{Generation, Published, admin};
use shm_layout::ring::Args;
use shm_layout::session::{SessionRow, flag};

use crate::answer::Reset;
use crate::io::Io;
use crate::runner::SlotRunner;

/// Orders carried out by one pass; further ones are refused: control counts the sessions left and says so.
const ORDERS: usize = 8;

/// What the pass under way looks for.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    disabled: bool,
    orders: [Option<Args>; ORDERS],
}

impl Sweep {
    /// End the sessions of disabled servers.
    pub(crate) fn want_disabled(&mut self) {
        self.disabled = true;
    }

    /// End the sessions an order matches.
    pub(crate) fn want_kill(&mut self, order: Args) {
        if let Some(free) = self.orders.iter_mut().find(|o| o.is_none()) {
            *free = Some(order);
        }
    }

    fn wants(&self, row: &SessionRow, published: &Published, generation: Generation) -> bool {
        self.orders.iter().flatten().any(|order| matches(row, order))
            || (self.disabled && ended_by_admin(row, published, generation))
    }
}

impl SlotRunner {
    /// Looks at the next records of the pass under way; returns how many sessions it ended.
    pub(crate) fn sweep_on<I: Io>(&mut self, io: &mut I, generation: Generation) -> usize {
        let mut resets = [Reset::default(); 2 * RECORDS_PER_BURST];
        let mut count = 0;
        let (sweep, published) = (&self.sweep, &self.shared.published);
        let swept = self.sessions.sweep(
            RECORDS_PER_BURST,
            |row| sweep.wants(row, published, generation),
            |_, row| {
                for (to, reset) in resets.iter_mut().skip(count).zip(Reset::both(row).into_iter().flatten()) {
                    *to = reset;
                    count += 1;
                }
            },
        );
        for reset in resets.iter().take(count) {
            self.send_reset(io, reset);
        }
        if swept.done {
            self.sweep = Sweep::default();
        }
        swept.closed
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

//! Ending sessions by order: of servers that were disabled or removed at once, and those `session kill` names. At most 64
//! records are looked at per burst; both sides get a reset with the number they expect.

use std::sync::atomic::Ordering::Relaxed; // One writer.

use packet::ipv6;
use shm_layout::limits::{RECORDS_PER_BURST, TX_HELD};
use shm_layout::neighbours::{Ip, ip4};
use shm_layout::published::{Generation, Published, admin};
use shm_layout::ring::Args;
use shm_layout::session::{AddressLine, SessionRow};

use crate::answer::Reset;
use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::{SessionTable, protocol_of};
use crate::wide::load;

/// Orders carried out at once; further ones are refused: control counts the sessions left and says so.
const ORDERS: usize = 8;

/// Something to end sessions for.
#[derive(Clone, Copy, Debug)]
struct Wish {
    what: Wanted,
    /// Came while a pass was under way: another pass is made for the records that one had passed already. (Beginning
    /// anew instead would never come to the last records while orders keep coming.)
    late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Sessions of disabled servers and of those removed at once.
    Disabled,
    /// Sessions an order matches.
    Matching(Order),
}

/// Sessions that are to end; zeros match any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Client and VIP.
    addresses: [Ip; 2],
    ports: [u32; 2],
    protocol: u32,
}

impl Order {
    /// As control sends it: see [`RecordKind::Kill`](shm_layout::ring::RecordKind::Kill).
    pub(crate) fn of([client, client_port, vip, vip_port, protocol]: Args, frame: &[u8]) -> Self {
        let v4 = |word: u32| if word == 0 { ANY } else { ip4(word) };
        let addresses = match frame.as_chunks::<16>() {
            ([client, vip], []) => [client, vip].map(|bytes| ipv6::from_bytes(*bytes)),
            _ => [v4(client), v4(vip)],
        };
        Self { addresses, ports: [client_port, vip_port], protocol }
    }

    fn matches(&self, row: &SessionRow, line: Option<&AddressLine>) -> bool {
        let addresses = match line {
            Some(line) => [&line.client, &line.vip].map(load),
            None => [&row.client_ip, &row.vip].map(|word| ip4(word.load(Relaxed))),
        };
        let ports = [&row.client_port, &row.vip_port].map(|port| u32::from(port.load(Relaxed)));
        let protocol = u32::from(protocol_of(row));
        let address = self.addresses.iter().zip(addresses).all(|(wanted, has)| *wanted == ANY || *wanted == has);
        let port = self.ports.iter().zip(ports).all(|(wanted, has)| *wanted == 0 || *wanted == has);
        address && port && (self.protocol == 0 || self.protocol == protocol)
    }
}

/// Any address.
const ANY: Ip = [0, 0];

/// What the pass under way looks for.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    disabled: Option<Wish>,
    orders: [Option<Wish>; ORDERS],
}

impl Sweep {
    /// End the sessions of disabled servers.
    pub(crate) fn want_disabled(&mut self, sessions: &mut SessionTable) {
        self.disabled = Some(Wish { what: Wanted::Disabled, late: self.join(sessions) });
    }

    /// End the sessions an order matches.
    pub(crate) fn want_kill(&mut self, order: Order, sessions: &mut SessionTable) {
        let late = self.join(sessions);
        let what = Wanted::Matching(order);
        let same = self.orders.iter().position(|o| o.is_some_and(|o| o.what == what));
        let place = same.or_else(|| self.orders.iter().position(Option::is_none));
        if let Some(to) = place.and_then(|at| self.orders.get_mut(at)) {
            *to = Some(Wish { what, late });
        }
    }

    /// Makes sure that a pass is under way. `true`: one was.
    fn join(&self, sessions: &mut SessionTable) -> bool {
        let idle = self.disabled.is_none() && self.orders.iter().all(Option::is_none);
        if idle {
            sessions.sweep_start(); // Also when a dead owner's pass is under way: nobody knows what it looked for.
        }
        !idle
    }

    /// A pass is done: what came while it was under way gets another.
    fn pass_done(&mut self, sessions: &mut SessionTable) {
        let mut again = false;
        for wish in self.orders.iter_mut().chain([&mut self.disabled]) {
            *wish = wish.filter(|w| w.late).map(|w| Wish { late: false, ..w });
            again |= wish.is_some();
        }
        if again {
            sessions.sweep_start();
        }
    }

    fn wants(
        &self,
        row: &SessionRow,
        line: Option<&AddressLine>,
        published: &Published,
        generation: Generation,
    ) -> bool {
        self.orders.iter().chain([&self.disabled]).flatten().any(|wish| match &wish.what {
            Wanted::Disabled => ended_by_admin(row, published, generation),
            Wanted::Matching(order) => order.matches(row, line),
        })
    }
}

impl SlotRunner {
    /// Looks at the next records of the pass under way, no more than there is room to send resets for; returns how many
    /// sessions it ended.
    pub(crate) fn sweep_on<I: Io>(&mut self, io: &mut I, generation: Generation) -> usize {
        let mut resets = [Reset::default(); 2 * RECORDS_PER_BURST];
        let mut count = 0;
        let room = TX_HELD.saturating_sub(io.queued()) / 2;
        let (sweep, published, slot) = (&self.sweep, &self.shared.published, &self.slot);
        let swept = self.sessions.sweep(
            RECORDS_PER_BURST.min(room),
            |record, row| sweep.wants(row, slot.line(record), published, generation),
            |record, row| {
                let both = Reset::both(row, slot.line(record)).into_iter().flatten();
                for (to, reset) in resets.iter_mut().skip(count).zip(both) {
                    *to = reset;
                    count += 1;
                }
            },
        );
        for reset in resets.iter().take(count) {
            self.send_reset(io, reset);
        }
        if swept.done {
            self.sweep.pass_done(&mut self.sessions);
        }
        swept.closed
    }
}

fn ended_by_admin(row: &SessionRow, published: &Published, generation: Generation) -> bool {
    let member = published.server(generation, row.server_id.load(Relaxed));
    member.is_some_and(|m| matches!(m.admin.load(Relaxed), admin::DISABLED | admin::REMOVED_NOW))
}

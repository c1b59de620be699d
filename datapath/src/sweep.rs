//! Ending sessions by order: of servers that were disabled or removed at once, and those `session kill` names. At most 64
//! records are looked at per burst; both sides get a reset with the number they expect.

use std::sync::atomic::Ordering::Relaxed; // One writer.

use shm_layout::limits::{RECORDS_PER_BURST, TX_HELD};
use shm_layout::published::{Generation, Published, admin};
use shm_layout::ring::Args;
use shm_layout::session::{SessionRow, flag};

use crate::answer::Reset;
use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::SessionTable;

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
    Matching(Args),
}

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
    pub(crate) fn want_kill(&mut self, order: Args, sessions: &mut SessionTable) {
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

    fn wants(&self, row: &SessionRow, published: &Published, generation: Generation) -> bool {
        self.orders.iter().chain([&self.disabled]).flatten().any(|wish| match &wish.what {
            Wanted::Disabled => ended_by_admin(row, published, generation),
            Wanted::Matching(order) => matches(row, order),
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
        let (sweep, published) = (&self.sweep, &self.shared.published);
        let swept = self.sessions.sweep(
            RECORDS_PER_BURST.min(room),
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
            self.sweep.pass_done(&mut self.sessions);
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

//! How long a session may be idle: its service's word, or the default for one whose server is no longer known.

use std::sync::atomic::Ordering::Relaxed; // Published rows do not change.

use shm_layout::published::{Generation, Published};
use shm_layout::session::{SessionRow, TIMEOUTS};

/// Timeouts of orphans (sessions whose server id has no row), ms, by state.
const ORPHAN: [u32; TIMEOUTS] = [0, 5_000, 10_000, 90_000, 30_000, 30_000, 5_000, 3_000, 1_000, 30_000];

/// Idle time after which the session is over, ms.
#[must_use]
pub fn of(published: &Published, generation: Generation, row: &SessionRow) -> u32 {
    let state = usize::from(row.state.load(Relaxed));
    let member = published.server(generation, row.server_id.load(Relaxed));
    let service = member.and_then(|m| published.service(generation, m.service.load(Relaxed)));
    let timeouts = service.map(|s| &s.timeouts);
    let own = timeouts.and_then(|t| t.get(state)).map(|t| t.load(Relaxed)).filter(|t| *t > 0);
    own.unwrap_or_else(|| ORPHAN.get(state).copied().unwrap_or(0))
}

//! The short list of sessions that are over: their ports are free again after the state's timeout, long before the wheel
//! comes round (the talk's "fast session release").

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed; // One writer.

use shm_layout::session::{SessionRow, State, flag};

use crate::session::SessionTable;

/// Most sessions in the list; beyond, the oldest is released at once.
const MOST: usize = 1 << 16;
/// Records looked at per burst.
const PER_BURST: usize = 64;

/// Sessions that are over, oldest first. Lives in the owner alone: after its death the wheel does the work, later.
#[derive(Debug)]
pub struct Closing(VecDeque<u32>);

impl Default for Closing {
    fn default() -> Self {
        Self(VecDeque::with_capacity(MOST))
    }
}

impl Closing {
    /// Takes up a session that has just been closed by its peers. Returns the one to release now, if the list is full.
    pub fn push(&mut self, index: u32) -> Option<u32> {
        let oldest = if self.0.len() == MOST { self.0.pop_front() } else { None };
        self.0.push_back(index);
        oldest
    }

    /// Releases what is due at the head of the list; returns how many sessions ended.
    pub fn run(&mut self, sessions: &mut SessionTable, now_ms: u64, timeout: &impl Fn(&SessionRow) -> u32) -> usize {
        let mut ended = 0;
        for _ in 0..PER_BURST {
            let Some(&index) = self.0.front() else { break };
            match sessions.row(index) {
                Some(row) if over(row) => {
                    #[allow(clippy::cast_possible_truncation, reason = "the tables' clock wraps by design")]
                    let idle = (now_ms as u32).wrapping_sub(row.last_seen.load(Relaxed));
                    if idle < timeout(row) {
                        break;
                    }
                    sessions.close(index);
                    ended += 1;
                }
                _ => {} // Reopened, or released by the wheel meanwhile.
            }
            self.0.pop_front();
        }
        ended
    }
}

fn over(row: &SessionRow) -> bool {
    let state = row.state.load(Relaxed);
    row.flags.load(Relaxed) & flag::INDEXED != 0 && (state == State::TimeWait as u8 || state == State::Close as u8)
}

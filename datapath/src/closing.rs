//! The short list of sessions that are over: their ports are free again after the state's timeout, long before the wheel
//! comes round (the talk's "fast session release").

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed; // One writer.

use shm_layout::published::{Generation, Published};
use shm_layout::session::{SessionRow, State, flag};

use crate::ahead::{ENDING, foresee_end};
use crate::session::SessionTable;
use crate::timeout;

/// Most sessions in the list; beyond, the oldest is released at once.
const MOST: usize = 1 << 16;
/// Records looked at per burst.
const PER_BURST: usize = 64;

/// Where timeouts stand.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// All generations.
    pub published: &'a Published,
    /// The present one.
    pub generation: Generation,
    /// They are large: what will be read is asked for ahead.
    pub large: bool,
}

/// A session that is over.
#[derive(Clone, Copy, Debug)]
struct Over {
    index: u32,
    /// Since when as far as the list knows, ms, wrapping.
    since: u32,
}

/// Sessions that are over, oldest first. Lives in the owner alone: after its death the wheel does the work, later.
///
/// A record in the list may have been reopened, or freed by the wheel and used anew: it is looked at before it is ended.
#[derive(Debug)]
pub struct Closing(VecDeque<Over>);

impl Default for Closing {
    fn default() -> Self {
        Self(VecDeque::with_capacity(MOST))
    }
}

impl Closing {
    /// Takes up a session that has just been closed by its peers. Returns how many sessions ended: one when the list is
    /// full.
    pub fn push(&mut self, sessions: &mut SessionTable, index: u32, now_ms: u64) -> usize {
        let oldest = if self.0.len() == MOST { self.0.pop_front() } else { None };
        self.0.push_back(Over { index, since: wrapped(now_ms) });
        let oldest = oldest.filter(|o| sessions.row(o.index).is_some_and(over));
        usize::from(oldest.is_some_and(|o| sessions.close(o.index)))
    }

    /// Is no session in it?
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Releases what is due at the head of the list; returns how many sessions ended.
    pub fn run(&mut self, sessions: &mut SessionTable, now_ms: u64, tables: Tables<'_>) -> usize {
        let mut ended = 0;
        let timeout = |row: &SessionRow| timeout::of(tables.published, tables.generation, row);
        for _ in 0..PER_BURST {
            let Some(&Over { index, since }) = self.0.front() else { break };
            let mut later = None;
            if let Some(row) = sessions.row(index).filter(|row| over(row)) {
                let (now, most) = (wrapped(now_ms), timeout(row));
                if now.wrapping_sub(since) < most {
                    break;
                }
                let seen = row.last_seen.load(Relaxed);
                if now.wrapping_sub(seen) < most {
                    // A packet came meanwhile. It goes to the back: one peer that does not stop sending holds up nobody.
                    later = Some(Over { index, since: seen });
                } else {
                    ended += usize::from(sessions.close(index));
                }
            }
            self.0.pop_front();
            self.0.extend(later);
            for (step, distance) in ENDING.into_iter().enumerate().take_while(|_| tables.large) {
                if let Some(over) = self.0.get(distance) {
                    foresee_end(sessions, tables.published, tables.generation, over.index, step);
                }
            }
        }
        ended
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the tables' clock wraps by design")]
const fn wrapped(now_ms: u64) -> u32 {
    now_ms as u32
}

fn over(row: &SessionRow) -> bool {
    let state = row.state.load(Relaxed);
    row.flags.load(Relaxed) & flag::INDEXED != 0 && (state == State::TimeWait as u8 || state == State::Close as u8)
}

//! The stages over one burst. Batching and prefetch are written here and nowhere else.
//!
//! | stage | touches | asks for |
//! |---|---|---|
//! | parse | headers | index bucket |
//! | probe | index bucket | session line |
//! | match | session line | counter line of the server |
//! | act | session, counter and next-hop lines, headers | – |

use packet::parse::{self, Parsed};
use shm_layout::limits::RX_BURST;

use crate::io::Io;
use crate::runner::{Origin, SlotRunner};
use crate::session::{Direction, Key};

/// What the stages know of one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub parsed: Parsed,
    pub key: Key,
    pub hash: u64,
}

/// Where a packet stands between the stages.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Not TCP or UDP over IPv4, or refused by the parser: the slow way.
    Other,
    /// Keyed, bucket asked for.
    Keyed,
    /// A record whose tag fits, line asked for.
    Candidate(u32),
    /// Its session.
    Known(u32, Direction),
}

impl SlotRunner {
    /// Takes every packet of `rx[0..count]` to its one verdict.
    pub(crate) fn burst<I: Io>(&mut self, io: &mut I, count: usize, origin: Origin) {
        let count = count.min(RX_BURST);
        let mut stages = [Stage::Other; RX_BURST];
        let mut flights = [Flight { parsed: Parsed::EMPTY, key: Key::EMPTY, hash: 0 }; RX_BURST];

        for place in 0..count {
            io.prefetch(place);
        }
        for place in 0..count {
            let Some(frame) = io.frame(place) else { continue };
            self.counts.add(shm_layout::counters::Flow::RxBytes, frame.len() as u64);
            if let Ok(parsed) = parse::transport(frame, self.port.mac) {
                let key = Key::of(&parsed);
                let hash = self.sessions.hash(&key);
                self.sessions.prefetch_bucket(hash);
                flights[place] = Flight { parsed, key, hash };
                stages[place] = Stage::Keyed;
            }
        }
        for place in 0..count {
            if matches!(stages[place], Stage::Keyed)
                && let Some(index) = self.sessions.candidate(flights[place].hash)
            {
                self.sessions.prefetch_session(index);
                stages[place] = Stage::Candidate(index);
            }
        }
        for place in 0..count {
            if let Stage::Candidate(index) = stages[place] {
                stages[place] = match self.sessions.verify(index, &flights[place].key) {
                    Some(direction) => {
                        self.sessions.prefetch_counts(index);
                        Stage::Known(index, direction)
                    }
                    None => Stage::Keyed,
                };
            }
        }
        for place in 0..count {
            match stages[place] {
                Stage::Known(index, direction) => self.established(io, place, &flights[place], index, direction),
                Stage::Keyed | Stage::Candidate(_) => self.unknown(io, place, &flights[place], origin),
                Stage::Other => self.other(io, place, origin),
            }
        }
    }
}

//! Who is probed when, and what a result does. Pure: time is an argument, probes are begun and ended by the caller.
//!
//! Timing: from the start of one probe to the start of the next at most `interval`; jitter only shortens (90–100 %), so
//! that a dead server is known within `interval × fall + timeout`. Probes of one server may overlap when its timeout is
//! longer than its interval; only a result of a probe begun later than the last one counted is counted.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shm_layout::board::Probed;

use crate::random::Random;
use crate::state::Machine;
use crate::target::{Check, Target};

/// Shortest interval, whatever the board says: a row of zeros must not become a busy loop.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Time between the first probes of targets that come together: a single one is probed at once, thousands do not come
/// as one burst, and none waits longer than its interval.
const FIRST_GAP: Duration = Duration::from_micros(500);
/// Probes of one target at a time (timeout longer than interval).
const OVERLAP_MAX: u32 = 16;
/// Jitter and spreading shorten an interval to no less than this, per cent.
const JITTER_LOW: u32 = 90;
const SPREAD_LOW: u32 = 10;

/// A probe to begin.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which one, for [`Schedule::finish`].
    pub ticket: Ticket,
    /// Whom.
    pub target: Arc<Target>,
}

/// Names one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    id: u32,
    /// Which use of the id, in the order of our readings: a result for an earlier one is late.
    born: u64,
    /// Probes of this target, from 1.
    serial: u64,
    begun: Instant,
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Good,
    /// The server failed: [`shm_layout::board::failure`] and its detail.
    Bad(Reason),
    /// The fault is on our side (no descriptors, no source address): says nothing about the server.
    Void(Reason),
}

/// Why a probe failed, in the board's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// [`shm_layout::board::failure`].
    pub kind: u8,
    /// errno or HTTP status.
    pub detail: u32,
}

/// What a result means for the board.
#[derive(Clone, Debug)]
pub struct Effect {
    /// Whose.
    pub target: Arc<Target>,
    /// The new state, if it changed.
    pub change: Option<Probed>,
    /// The failure to show; `None`: clear it.
    pub failure: Option<Reason>,
}

#[derive(Debug)]
struct Entry {
    target: Arc<Target>,
    machine: Machine,
    born: u64,
    /// The one valid mark in the heap; others of this target are leftovers.
    turn: u64,
    due: Instant,
    started: u64,
    counted: u64,
    running: u32,
    /// Take a random part of the next interval: spreads targets that were probed in one burst.
    spread: bool,
}

/// Servers in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Probed, up.
    pub up: usize,
    /// Probed, down.
    pub down: usize,
    /// Probed, no result yet.
    pub unknown: usize,
}

/// The targets and the order of their probes.
#[derive(Debug)]
pub struct Schedule {
    entries: HashMap<u32, Entry>,
    heap: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    turns: u64,
    random: Random,
}

impl Schedule {
    /// An empty one; `seed` decides the jitter.
    pub fn new(seed: u64) -> Self {
        Self { entries: HashMap::new(), heap: BinaryHeap::new(), turns: 0, random: Random::new(seed) }
    }

    /// Takes a new reading of the board. Equal targets go on as they are, changed and new ones begin in the state that
    /// `known` tells of them (the board's), the others end.
    pub fn replace(&mut self, targets: Vec<Target>, known: impl Fn(&Target) -> Probed, now: Instant) {
        let mut before = std::mem::take(&mut self.entries);
        let mut fresh = Vec::new();
        for target in targets {
            match before.remove(&target.id) {
                Some(entry) if *entry.target == target => {
                    self.entries.insert(target.id, entry);
                }
                _ => fresh.push(target),
            }
        }
        let window = FIRST_GAP * u32::try_from(fresh.len()).unwrap_or(u32::MAX);
        for target in fresh {
            let first = if window <= FIRST_GAP { Duration::ZERO } else { window.min(target.interval) };
            self.turns += 1;
            let entry = Entry {
                machine: Machine::new(target.limits, known(&target)),
                born: self.turns,
                turn: self.turns,
                due: now + self.random.part(first, 0),
                started: 0,
                counted: 0,
                running: 0,
                spread: true,
                target: Arc::new(target),
            };
            if entry.target.check != Check::None {
                self.heap.push(Reverse((entry.due, entry.turn, entry.target.id)));
            }
            self.entries.insert(entry.target.id, entry);
        }
    }

    /// When the next probe is due.
    pub fn next_due(&mut self) -> Option<Instant> {
        loop {
            let Reverse((due, turn, id)) = *self.heap.peek()?;
            if self.entries.get(&id).is_some_and(|e| e.turn == turn) {
                return Some(due);
            }
            self.heap.pop();
        }
    }

    /// The next probe that is due by `now`; its successor is scheduled.
    pub fn start(&mut self, now: Instant) -> Option<Start> {
        loop {
            if self.next_due()? > now {
                return None;
            }
            let Reverse((due, _, id)) = self.heap.pop()?;
            let entry = self.entries.get_mut(&id)?;
            let target = &entry.target;
            let whole = if entry.machine.in_doubt() { target.fast } else { target.interval }.max(INTERVAL_MIN);
            // Late by more than a quarter: we slept, and so did everybody else's probe. Spread them again.
            let spread = std::mem::take(&mut entry.spread) || now - due > whole / 4;
            let gap = self.random.part(whole, if spread { SPREAD_LOW } else { JITTER_LOW });
            let free = entry.running < OVERLAP_MAX;
            if free {
                entry.running += 1;
                entry.started += 1;
            }
            let ticket = Ticket { id, born: entry.born, serial: entry.started, begun: now };
            let start = Start { ticket, target: Arc::clone(&entry.target) };
            Self::mark(&mut self.heap, &mut self.turns, entry, now + gap);
            if free {
                return Some(start);
            }
        }
    }

    /// Takes the end of a probe; `None`: it is late, its target is no more, or a later probe has already spoken.
    pub fn finish(&mut self, ticket: Ticket, verdict: Verdict, now: Instant) -> Option<Effect> {
        let entry = self.entries.get_mut(&ticket.id).filter(|e| e.born == ticket.born)?;
        entry.running = entry.running.saturating_sub(1);
        if ticket.serial < entry.counted {
            return None;
        }
        let target = Arc::clone(&entry.target);
        let (success, failure) = match verdict {
            Verdict::Good => (true, None),
            Verdict::Bad(reason) => (false, Some(reason)),
            Verdict::Void(reason) => return Some(Effect { target, change: None, failure: Some(reason) }),
        };
        entry.counted = ticket.serial;
        let change = entry.machine.result(success);
        if entry.machine.in_doubt() {
            let due = (ticket.begun + self.random.part(target.fast.max(INTERVAL_MIN), JITTER_LOW)).max(now);
            if due < entry.due {
                Self::mark(&mut self.heap, &mut self.turns, entry, due);
            }
        }
        Some(Effect { target, change, failure })
    }

    /// Is this very target still to be probed?
    pub fn current(&self, target: &Arc<Target>) -> bool {
        self.entries.get(&target.id).is_some_and(|e| Arc::ptr_eq(&e.target, target))
    }

    /// Every target with its state.
    pub fn states(&self) -> impl Iterator<Item = (&Arc<Target>, Probed)> {
        self.entries.values().map(|e| (&e.target, e.machine.state()))
    }

    /// Counts the servers that are probed.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for (target, state) in self.states() {
            match state {
                _ if target.check == Check::None => {}
                Probed::Up => census.up += 1,
                Probed::Down => census.down += 1,
                Probed::Unknown => census.unknown += 1,
            }
        }
        census
    }

    fn mark(heap: &mut BinaryHeap<Reverse<(Instant, u64, u32)>>, turns: &mut u64, entry: &mut Entry, due: Instant) {
        *turns += 1;
        entry.turn = *turns;
        entry.due = due;
        heap.push(Reverse((due, entry.turn, entry.target.id)));
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;

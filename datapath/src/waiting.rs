//! Packets that wait for a neighbour's address: few, each for a short time, and never lost silently.

use shm_layout::limits::{NEIGH_WAIT, NEIGH_WAIT_PER_HOP};
use shm_layout::neighbours::{Hop, Ip, Neighbours};

/// How long a packet waits, ms. Control asks three times within it.
const WAIT_MS: u64 = 1000;
/// Time between two requests to control for the same neighbour, ms.
const ASK_MS: u64 = 200;

#[derive(Clone, Copy, Debug)]
struct Waiter {
    neighbour: Ip,
    port: u8,
    until_ms: u64,
}

/// Who waits in which place of the ledger's `wait` array.
#[derive(Debug)]
pub struct Waiting {
    places: [Option<Waiter>; NEIGH_WAIT],
    count: usize,
    epoch: u64,
    next_look_ms: u64,
    /// Neighbours asked for lately.
    asked: [(Ip, u8, u64); 8],
    asked_next: usize,
}

/// What became of a waiting packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its neighbour is known: send it there.
    Go(Hop),
    /// It has waited too long.
    GiveUp,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            places: [None; NEIGH_WAIT],
            count: 0,
            epoch: 0,
            next_look_ms: 0,
            asked: [([0; 2], 0, 0); 8],
            asked_next: 0,
        }
    }
}

impl Waiting {
    /// Packets waiting.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// A place for one more packet to this neighbour; `None`: enough wait already.
    pub fn admit(&mut self, neighbour: Ip, port: u8, now_ms: u64) -> Option<usize> {
        let same = self.places.iter().flatten().filter(|w| w.neighbour == neighbour && w.port == port).count();
        let at = self.places.iter().position(Option::is_none).filter(|_| same < NEIGH_WAIT_PER_HOP)?;
        self.places[at] = Some(Waiter { neighbour, port, until_ms: now_ms + WAIT_MS });
        self.count += 1;
        Some(at)
    }

    /// Should control be asked for this neighbour now? (Not for every packet.)
    pub fn ask(&mut self, neighbour: Ip, port: u8, now_ms: u64) -> bool {
        let lately = |(ip, p, at): &(Ip, u8, u64)| *ip == neighbour && *p == port && now_ms < *at + ASK_MS;
        if self.asked.iter().any(lately) {
            return false;
        }
        self.asked[self.asked_next] = (neighbour, port, now_ms);
        self.asked_next = (self.asked_next + 1) % self.asked.len();
        true
    }

    /// Is it time to look? When the neighbour table moved, or a packet may have waited too long.
    pub fn due(&mut self, epoch: u64, now_ms: u64) -> bool {
        if self.count == 0 || (epoch == self.epoch && now_ms < self.next_look_ms) {
            return false;
        }
        self.epoch = epoch;
        self.next_look_ms = now_ms + 50;
        true
    }

    /// Next packet at or after place `from` whose fate is known; its place is free then.
    pub fn settle(&mut self, from: usize, neighbours: &Neighbours, now_ms: u64) -> Option<(usize, Fate)> {
        for at in from..self.places.len() {
            let Some(waiter) = self.places[at] else { continue };
            let hop = neighbours.find(waiter.neighbour, waiter.port).map(|(_, hop)| hop).filter(|hop| hop.resolved());
            let fate = match hop {
                Some(hop) => Fate::Go(hop),
                None if now_ms >= waiter.until_ms => Fate::GiveUp,
                None => continue,
            };
            self.places[at] = None;
            self.count -= 1;
            return Some((at, fate));
        }
        None
    }
}

//! Packets that wait for a neighbour's address: few, each for a short time, and never lost silently.

use std::sync::atomic::Ordering::Relaxed; // One thread writes and reads; a successor reads after it took the slot.

use shm_layout::limits::NEIGH_WAIT_PER_HOP;
use shm_layout::neighbours::{Hop, Ip, Neighbours};
use shm_layout::segment::Rows;
use shm_layout::slot::WaitRow;

/// How long a packet waits, ms. Control asks three times within it.
const WAIT_MS: u64 = 1000;
/// Time between two requests to control for the same neighbour, ms.
const ASK_MS: u64 = 200;

/// Who waits in which place of the ledger's `wait` array. The rows lie in the slot: they pass with the buffers.
#[derive(Debug)]
pub struct Waiting {
    places: Rows<WaitRow>,
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

impl Waiting {
    /// What waits in `places`.
    #[must_use]
    pub fn resume(places: Rows<WaitRow>) -> Self {
        let count = places.iter().filter(|row| waits(row)).count();
        Self { places, count, epoch: 0, next_look_ms: 0, asked: [([0; 2], 0, 0); 8], asked_next: 0 }
    }

    /// Nothing waits: the buffers in the ledger are gone.
    #[must_use]
    pub fn anew(places: Rows<WaitRow>) -> Self {
        places.iter().for_each(|row| row.until_ms.store(0, Relaxed));
        Self::resume(places)
    }

    /// Packets waiting.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// A place for one more packet to this neighbour; `None`: enough wait already.
    pub fn admit(&mut self, neighbour: Ip, port: u8, now_ms: u64) -> Option<usize> {
        let same = |row: &&WaitRow| waits(row) && waits_for(row) == (neighbour, port);
        let same = self.places.iter().filter(same).count();
        let at = self.places.iter().position(|row| !waits(row)).filter(|_| same < NEIGH_WAIT_PER_HOP)?;
        let row = &self.places[at];
        row.neighbour[0].store(neighbour[0], Relaxed);
        row.neighbour[1].store(neighbour[1], Relaxed);
        row.port.store(port.into(), Relaxed);
        row.until_ms.store(now_ms + WAIT_MS, Relaxed);
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
            let row = &self.places[at];
            if !waits(row) {
                continue;
            }
            let (neighbour, port) = waits_for(row);
            let hop = neighbours.find(neighbour, port).map(|(_, hop)| hop).filter(|hop| hop.resolved());
            let fate = match hop {
                Some(hop) => Fate::Go(hop),
                None if now_ms >= row.until_ms.load(Relaxed) => Fate::GiveUp,
                None => continue,
            };
            row.until_ms.store(0, Relaxed);
            self.count -= 1;
            return Some((at, fate));
        }
        None
    }
}

fn waits(row: &WaitRow) -> bool {
    row.until_ms.load(Relaxed) != 0
}

fn waits_for(row: &WaitRow) -> (Ip, u8) {
    let neighbour = [row.neighbour[0].load(Relaxed), row.neighbour[1].load(Relaxed)];
    // A damaged number is no port of ours: the packet is given up in time.
    (neighbour, u8::try_from(row.port.load(Relaxed)).unwrap_or(u8::MAX))
}

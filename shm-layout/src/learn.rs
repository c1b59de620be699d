//! The writer of the neighbour table: gives rows to addresses, says what is known of them, takes rows back.
//!
//! Readers use row numbers that sessions keep for long, so a row given to another neighbour gets another tag, and a row is
//! emptied in an order that never shows one neighbour's MAC under another's address.

use crate::failpoint::{self, Bug};
use crate::neighbours::{Hop, Ip, Neighbours, PLACES, neighbour_state};
use crate::sync::Ordering::{Relaxed, Release};
use crate::sync::fence;

/// No row for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// All rows are in use.
    #[error("neighbour table is full: {limit} rows; hint: raise limits.neighbours, which needs a restart")]
    Full {
        /// Rows.
        limit: usize,
    },
    /// Its bucket of the index is full.
    #[error(
        "all {PLACES} places of a neighbour's index bucket are taken; hint: raise limits.neighbours, which needs a restart"
    )]
    Bucket,
}

/// The one writer of the table. Rows are numbered from 1.
#[derive(Debug)]
pub struct Learner {
    table: Neighbours,
    free: Vec<u16>,
}

impl Learner {
    /// Takes over a table, fresh or used: rows in the index stay, rows that a dead writer left half-made are freed.
    #[must_use]
    pub fn attach(table: Neighbours) -> Self {
        let rows = u16::try_from(table.rows.len().saturating_sub(1)).unwrap_or(u16::MAX - 1);
        let mut indexed = vec![false; usize::from(rows) + 1];
        for place in table.buckets.iter().flat_map(|bucket| &bucket.rows) {
            let number = place.load(Relaxed) as usize;
            match indexed.get_mut(number) {
                Some(seen) if number != 0 && !*seen => *seen = true,
                Some(_) if number == 0 => {}
                _ => place.store(0, Release), // Beyond the table, or named twice: no row.
            }
        }
        // Highest first on the stack, so that low numbers are given out first.
        let free: Vec<u16> = (1..=rows).rev().filter(|n| !indexed[usize::from(*n)]).collect();
        for number in &free {
            table.rows[usize::from(*number)].state.store(neighbour_state::FREE, Relaxed);
        }
        table.head.used.store(u64::from(rows) - free.len() as u64, Relaxed);
        Self { table, free }
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Neighbours {
        &self.table
    }

    /// Rows not in use.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Row of an address behind a port; made unresolved if there is none.
    ///
    /// # Errors
    /// No room.
    pub fn row(&mut self, ip: Ip, port: u8) -> Result<u16, LearnError> {
        if let Some((number, _)) = self.table.find(ip, port) {
            return Ok(number);
        }
        let places = &self.table.bucket(ip, port).rows;
        let place = places.iter().find(|p| p.load(Relaxed) == 0).ok_or(LearnError::Bucket)?;
        let number = self.free.pop().ok_or(LearnError::Full { limit: self.table.rows.len() - 1 })?;
        let row = &self.table.rows[usize::from(number)];
        let tag = Hop(row.hop.load(Relaxed)).tag();
        let next = |n: u8| tag.wrapping_add(if failpoint::planted(Bug::TagKept) { 0 } else { n });
        // Two new tags: whoever sees a word of the new address no longer sees the last neighbour's hop, and whoever sees
        // the second tag sees the whole address. Both pair with `Neighbours::find`.
        row.hop.store(Hop::new([0; 6], next(1), port, false).0, Relaxed); // Relaxed: ordered by the fence.
        fence(Release);
        row.ip[0].store(ip[0], Relaxed);
        row.ip[1].store(ip[1], Relaxed);
        row.hop.store(Hop::new([0; 6], next(2), port, false).0, Release);
        row.confirmed_ms.store(0, Relaxed);
        row.asked_ms.store(0, Relaxed);
        row.state.store(neighbour_state::INCOMPLETE, Relaxed);
        row.port.store(u32::from(port), Relaxed);
        place.store(u32::from(number), Release); // Pairs with the Acquire in `find`: the row is complete.
        self.table.head.used.store(self.used(), Relaxed);
        Ok(number)
    }

    fn used(&self) -> u64 {
        (self.table.rows.len() - 1 - self.free.len()) as u64
    }

    /// The neighbour answered from `mac`.
    pub fn confirm(&mut self, number: u16, mac: [u8; 6], now_ms: u64) {
        let row = &self.table.rows[usize::from(number)];
        let before = Hop(row.hop.load(Relaxed));
        let hop = Hop::new(mac, before.tag(), before.port(), true);
        row.confirmed_ms.store(now_ms, Relaxed);
        row.state.store(neighbour_state::REACHABLE, Relaxed);
        if hop != before {
            row.hop.store(hop.0, Release); // Pairs with the Acquire in `Neighbours::hop`.
            self.raise();
        }
    }

    /// The neighbour is being asked.
    pub fn asked(&mut self, number: u16, state: u32, now_ms: u64) {
        let row = &self.table.rows[usize::from(number)];
        row.asked_ms.store(now_ms, Relaxed);
        row.state.store(state, Relaxed);
    }

    /// The neighbour does not answer: nothing is sent to it any more.
    pub fn fail(&mut self, number: u16) {
        let row = &self.table.rows[usize::from(number)];
        let before = Hop(row.hop.load(Relaxed));
        row.state.store(neighbour_state::FAILED, Relaxed);
        if before.resolved() {
            row.hop.store(Hop::new([0; 6], before.tag(), before.port(), false).0, Release);
        }
        self.raise(); // Who waits for it gives up.
    }

    /// Takes a row back. Sessions that still name it see another tag.
    pub fn forget(&mut self, number: u16) {
        let row = &self.table.rows[usize::from(number)];
        let hop = Hop(row.hop.load(Relaxed));
        let ip = [row.ip[0].load(Relaxed), row.ip[1].load(Relaxed)];
        let places = &self.table.bucket(ip, hop.port()).rows;
        let Some(place) = places.iter().find(|p| p.load(Relaxed) == u32::from(number)) else { return };
        place.store(0, Release);
        let kept = failpoint::planted(Bug::TagKept);
        row.hop.store(Hop::new([0; 6], hop.tag().wrapping_add(u8::from(!kept)), hop.port(), false).0, Release);
        row.state.store(neighbour_state::FREE, Relaxed);
        self.free.push(number);
        self.table.head.used.store(self.used(), Relaxed);
        self.raise();
    }

    fn raise(&self) {
        let epoch = self.table.head.epoch.load(Relaxed); // Relaxed: one writer.
        self.table.head.epoch.store(epoch + 1, Release); // Pairs with the Acquire of whoever waits for a hop.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbours::ip4;

    #[test]
    fn rows_are_found_confirmed_failed_and_recycled() {
        let table = Neighbours::anonymous(64).unwrap();
        let mut learner = Learner::attach(table.clone());
        let a = learner.row(ip4(1), 0).unwrap();
        assert_eq!((a, learner.row(ip4(1), 0).unwrap(), learner.free()), (1, 1, 63));
        assert_ne!(learner.row(ip4(1), 1).unwrap(), a, "the same address behind another port is another neighbour");
        let epoch = table.head.epoch.load(Relaxed);
        learner.confirm(a, [2, 0, 0, 0, 0, 9], 50);
        let hop = table.hop(a);
        assert!(hop.resolved() && hop.mac() == [2, 0, 0, 0, 0, 9] && table.head.epoch.load(Relaxed) > epoch);
        let epoch = table.head.epoch.load(Relaxed);
        learner.confirm(a, [2, 0, 0, 0, 0, 9], 60);
        assert_eq!(table.head.epoch.load(Relaxed), epoch, "nothing changed for those who wait");
        learner.fail(a);
        assert!(!table.hop(a).resolved() && table.hop(a).tag() == hop.tag());
        learner.forget(a);
        assert_eq!(table.find(ip4(1), 0), None);
        let again = learner.row(ip4(7), 0).unwrap();
        assert_eq!(again, a);
        assert_ne!(table.hop(a).tag(), hop.tag());
    }

    #[test]
    fn full_is_said_and_a_restart_keeps_rows() {
        let table = Neighbours::anonymous(64).unwrap();
        let mut learner = Learner::attach(table.clone());
        let mut made = 0;
        let error = loop {
            match learner.row(ip4(made + 1), 0) {
                Ok(number) => learner.confirm(number, [2; 6], 1),
                Err(error) => break error,
            }
            made += 1;
        };
        assert!(made > 40, "{made} rows, then {error}");
        let mut again = Learner::attach(table.clone());
        assert_eq!(again.free(), learner.free());
        assert!(table.find(ip4(1), 0).unwrap().1.resolved());
        assert_eq!(again.row(ip4(1), 0), learner.row(ip4(1), 0));
    }
}

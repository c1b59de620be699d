//! Which rows of an arena are free: ranges, first fit, merged when given back.

use std::collections::BTreeMap;
use std::ops::Range;

/// Free ranges of `0..size`.
#[derive(Clone, Debug)]
pub struct Arena {
    size: u32,
    free: BTreeMap<u32, u32>,
}

impl Arena {
    /// An arena of which nothing is used.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self { size, free: BTreeMap::from([(0, size)]) }
    }

    /// `count` rows in a piece, or `None`. Small pieces come from the low end. A piece of more than an eighth of the
    /// arena goes to that end of its hole which is the arena's own: two versions of one huge service then lie at both
    /// ends, and the hole between stays whole for the next.
    pub fn take(&mut self, count: u32) -> Option<Range<u32>> {
        if count == 0 {
            return Some(0..0);
        }
        let (start, length) = self.free.iter().map(|(s, l)| (*s, *l)).find(|(_, length)| *length >= count)?;
        let high = count > self.size / 8 && start != 0 && start + length == self.size;
        let at = if high { start + length - count } else { start };
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at - start);
        }
        if at + count < start + length {
            self.free.insert(at + count, start + length - at - count);
        }
        Some(at..at + count)
    }

    /// Takes exactly this range, for rebuilding. `false`: not wholly free.
    pub fn claim(&mut self, range: &Range<u32>) -> bool {
        if range.is_empty() {
            return true;
        }
        let Some((start, length)) = self.free.range(..=range.start).next_back().map(|(s, l)| (*s, *l)) else {
            return false;
        };
        if start + length < range.end {
            return false;
        }
        self.free.remove(&start);
        if range.start > start {
            self.free.insert(start, range.start - start);
        }
        if range.end < start + length {
            self.free.insert(range.end, start + length - range.end);
        }
        true
    }

    /// Gives a range back.
    pub fn give(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((before, length)) = self.free.range(..start).next_back().map(|(s, l)| (*s, *l))
            && before + length == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(length) = self.free.remove(&end) {
            end += length;
        }
        self.free.insert(start, end - start);
    }

    /// Rows free in all.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.values().map(|l| u64::from(*l)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_merges() {
        let mut arena = Arena::new(100);
        let pieces: Vec<_> = (0..10).map(|_| arena.take(10).unwrap()).collect();
        assert_eq!((arena.take(1), arena.free()), (None, 0));
        for i in [1, 3, 2, 0, 9, 8, 4, 7, 5, 6] {
            arena.give(pieces[i].clone());
        }
        assert_eq!(arena.take(100), Some(0..100));
    }

    #[test]
    fn a_claim_needs_free_rows() {
        let mut arena = Arena::new(100);
        assert!(arena.claim(&(10..20)) && arena.claim(&(20..30)) && arena.claim(&(0..10)));
        assert!(!arena.claim(&(29..31)) && !arena.claim(&(90..101)));
        assert_eq!(arena.free(), 70);
    }

    #[test]
    fn a_huge_service_grows_one_by_one() {
        // The sizes of PublishedGeometry::member_rows: twice the limit and 1024.
        let limit = 4096;
        let mut arena = Arena::new(limit * 2 + 1024);
        let mut current = arena.take(1).unwrap();
        for members in 2..=limit {
            let next = arena.take(members).unwrap();
            arena.give(std::mem::replace(&mut current, next));
        }
    }
}

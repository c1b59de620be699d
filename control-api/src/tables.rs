//! Answers made from the tables: `stats show` is the same, whoever reads the counters.

use shm_layout::counters::{Counts, DropReason, Flow};

use crate::views::{Counters, SlotCounters, Stats};

impl From<&Counts> for Counters {
    fn from(counts: &Counts) -> Self {
        Self {
            rx: counts.flow(Flow::Rx),
            tx: counts.flow(Flow::Tx),
            from_ring: counts.flow(Flow::FromRing),
            to_ring: counts.flow(Flow::ToRing),
            to_kernel: counts.flow(Flow::ToKernel),
            from_kernel: counts.flow(Flow::FromKernel),
            originated: counts.flow(Flow::Originated),
            held: counts.flow(Flow::Held),
            drops: DropReason::ALL.iter().map(|r| (r.name().to_owned(), counts.dropped(*r))).collect(),
            rx_bytes: counts.flow(Flow::RxBytes),
            tx_bytes: counts.flow(Flow::TxBytes),
            sessions_created: counts.flow(Flow::Created),
            sessions_ended: counts.flow(Flow::Ended),
            sessions_refused: counts.flow(Flow::Refused),
        }
    }
}

impl Stats {
    /// One consistent reading per slot (slot, zone, counts), and the sum of these very readings.
    #[must_use]
    pub fn of(readings: impl IntoIterator<Item = (u32, u32, Counts)>) -> Self {
        let mut sum = Counts::default();
        let read = |(slot, zone, counts): (u32, u32, Counts)| {
            sum.merge(&counts);
            SlotCounters { slot, zone, counters: Counters::from(&counts) }
        };
        let per_slot = readings.into_iter().map(read).collect();
        Self { sum: Counters::from(&sum), per_slot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_the_law_is_there_and_the_sum_is_that_of_the_slots() {
        let mut counts = Counts::default();
        for (n, word) in (1_u64..).zip(&mut counts.0) {
            *word = n;
        }
        let stats = Stats::of([(0, 0, counts), (1, 1, counts)]);
        assert_eq!(Counters::from(&counts).balance(), counts.balance());
        assert_eq!(stats.sum.balance(), (2 * counts.balance().0, 2 * counts.balance().1));
        assert_eq!((stats.per_slot[1].slot, stats.per_slot[1].zone, stats.per_slot.len()), (1, 1, 2));
    }
}

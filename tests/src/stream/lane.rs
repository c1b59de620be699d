//! The account of one flow: what came, what is missing, when it was silent.

use std::collections::BTreeMap;

use super::numbered::Numbered;
use super::{Loss, StreamReport};
use crate::gaps::Gap;

/// Silences kept per flow: two hours of one per 10 ms.
const MOST_GAPS: usize = 1 << 20;

/// A flow as seen by its receiver.
#[derive(Debug, Default)]
pub struct Lane {
    lane: u32,
    gap_us: u64,
    received: u64,
    duplicated: u64,
    reordered: u64,
    pub foreign: u64,
    pub overflowed: u32,
    longest_us: u64,
    /// The next number if all goes well.
    next: u64,
    last: Option<(u64, Numbered)>,
    /// Runs of numbers below `next` that have not come: first → (end, when the one before was sent).
    missing: BTreeMap<u64, (u64, u64)>,
    gaps: Vec<Gap>,
}

impl Lane {
    /// Flow `lane`, which records silences from `gap_us` on.
    pub fn new(lane: u32, gap_us: u64) -> Self {
        Self { lane, gap_us, ..Self::default() }
    }

    /// A datagram of this flow, stamped by the kernel at `at_us`.
    pub fn came(&mut self, said: Numbered, at_us: u64) {
        self.longest_us = self.longest_us.max(at_us.saturating_sub(said.sent_us));
        if said.number < self.next {
            if self.fill(said.number) {
                self.received += 1;
                self.reordered += 1;
            } else {
                self.duplicated += 1;
            }
            return;
        }
        self.received += 1;
        let (last_us, last_sent) = self.last.map_or((at_us, said.sent_us), |(at, last)| (at, last.sent_us));
        if said.number > self.next {
            self.missing.insert(self.next, (said.number, last_sent));
        }
        let gap_us = at_us.saturating_sub(last_us);
        if gap_us >= self.gap_us && self.gaps.len() < MOST_GAPS {
            let sent_us = said.sent_us.saturating_sub(last_sent);
            self.gaps.push(Gap { lane: self.lane, end_us: at_us, gap_us, sent_us });
        }
        (self.last, self.next) = (Some((at_us, said)), said.number + 1);
    }

    /// Takes a number out of the missing ones; false if it had come.
    fn fill(&mut self, number: u64) -> bool {
        let Some((&first, &(end, at_us))) = self.missing.range(..=number).next_back() else { return false };
        if number >= end {
            return false;
        }
        self.missing.remove(&first);
        if first < number {
            self.missing.insert(first, (number, at_us));
        }
        if number + 1 < end {
            self.missing.insert(number + 1, (end, at_us));
        }
        true
    }

    /// Closes the account: `sent` datagrams were sent.
    pub fn add_to(mut self, report: &mut StreamReport, sent: u64) {
        if self.next < sent {
            self.missing.insert(self.next, (sent, self.last.map_or(report.begin_us, |(_, last)| last.sent_us)));
        }
        let losses = self.missing.iter().map(|(first, (end, at_us))| Loss {
            lane: self.lane,
            at_us: *at_us,
            count: end - first,
        });
        report.losses.extend(losses);
        report.lost += sent.saturating_sub(self.received);
        report.received += self.received;
        report.duplicated += self.duplicated;
        report.reordered += self.reordered;
        report.foreign += self.foreign;
        report.overflowed += u64::from(self.overflowed);
        report.longest_us = report.longest_us.max(self.longest_us);
        report.gaps.extend(self.gaps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as they come, 1 ms apart in sending and receiving.
    fn account(numbers: &[u64], sent: u64) -> StreamReport {
        let mut lane = Lane::new(2, 5000);
        for (at, number) in (0_u64..).zip(numbers) {
            lane.came(Numbered { stream: 0, lane: 2, number: *number, sent_us: number * 1000 }, 10_000 + at * 1000);
        }
        let mut report = StreamReport::default();
        lane.add_to(&mut report, sent);
        report
    }

    #[test]
    fn every_number_is_received_lost_or_double() {
        let report = account(&[0, 1, 4, 3, 3, 7, 1], 10);
        assert_eq!((report.received, report.lost, report.duplicated, report.reordered), (5, 5, 2, 1));
        let runs: Vec<_> = report.losses.iter().map(|l| (l.at_us, l.count)).collect();
        assert_eq!(runs, [(1000, 1), (4000, 2), (7000, 2)]);
        assert_eq!(report.lost_within(1000, 5000), 3);
    }

    #[test]
    fn nothing_received_is_all_lost() {
        let report = account(&[], 4);
        assert_eq!((report.received, report.lost, report.losses.len()), (0, 4, 1));
    }

    #[test]
    fn a_silence_has_its_time_and_the_senders_part() {
        let mut lane = Lane::new(1, 5000);
        let say = |number, sent_us| Numbered { stream: 0, lane: 1, number, sent_us };
        lane.came(say(0, 100), 1000);
        lane.came(say(1, 200), 2000);
        lane.came(say(2, 7000), 9000);
        assert_eq!(lane.gaps, [Gap { lane: 1, end_us: 9000, gap_us: 7000, sent_us: 6800 }]);
    }
}

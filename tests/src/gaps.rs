//! Silences: when nothing came, and how a test asks about them by windows of time.

use serde::{Deserialize, Serialize};

/// A time in which one lane (a flow, a connection) heard nothing.
///
/// Units: microseconds of [`crate::clock::now_us`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Number of the flow or connection.
    pub lane: u32,
    /// When the silence ended.
    pub end_us: u64,
    /// How long it was.
    pub gap_us: u64,
    /// What of it the sender itself was silent: time between the sending of the two packets. 0
    /// where one side waits for the other's answer.
    pub sent_us: u64,
}

impl Gap {
    /// When the silence began.
    #[must_use]
    pub fn begin_us(&self) -> u64 {
        self.end_us.saturating_sub(self.gap_us)
    }
}

/// The longest silence that touches the window, 0 if none that was recorded does.
#[must_use]
pub fn longest_within(gaps: &[Gap], from_us: u64, to_us: u64) -> u64 {
    let touching = gaps.iter().filter(|g| g.begin_us() < to_us && g.end_us > from_us);
    touching.map(|g| g.gap_us).max().unwrap_or(0)
}

/// Time from `at_us` to the end of the silences that began before it or at most `slack_us` after
/// it: how long those who were cut off then waited. `None`: nobody was.
///
/// Only silences of at least `at_least_us` count: the others are the lanes' own rhythm.
#[must_use]
pub fn served_again_after(gaps: &[Gap], at_us: u64, slack_us: u64, at_least_us: u64) -> Option<u64> {
    let cut = gaps.iter().filter(|g| g.begin_us() <= at_us + slack_us && g.end_us > at_us && g.gap_us >= at_least_us);
    cut.map(|g| g.end_us - at_us).max()
}

/// The value below which `percent` of the values lie (nearest rank); 0 of none.
#[must_use]
pub fn percentile(values: &[u64], percent: usize) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn gap(lane: u32, begin_us: u64, end_us: u64) -> Gap {
        Gap { lane, end_us, gap_us: end_us - begin_us, sent_us: 0 }
    }

    #[test]
    fn a_window_sees_what_touches_it() {
        let gaps = [gap(0, 100, 150), gap(1, 200, 300)];
        assert_eq!(longest_within(&gaps, 0, 100), 0);
        assert_eq!(longest_within(&gaps, 120, 130), 50);
        assert_eq!(longest_within(&gaps, 140, 201), 100);
        assert_eq!(longest_within(&gaps, 300, 400), 0);
    }

    #[test]
    fn service_comes_back_with_the_last_of_those_cut_off() {
        let gaps = [gap(0, 990, 1200), gap(1, 1001, 1300), gap(2, 1290, 1900), gap(3, 995, 1005)];
        assert_eq!(served_again_after(&gaps, 1000, 5, 100), Some(300));
        assert_eq!(served_again_after(&gaps, 2000, 5, 100), None);
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let twenty: Vec<u64> = (1..=20).rev().collect();
        assert_eq!((percentile(&twenty, 50), percentile(&twenty, 99), percentile(&twenty, 100)), (10, 20, 20));
        assert_eq!((percentile(&[], 50), percentile(&[7], 1)), (0, 7));
    }
}

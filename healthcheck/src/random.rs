//! Jitter: spreads probes, guards nothing, so a small generator will do.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Evenly from `low` (per cent of `whole`) to `whole`.
    pub fn part(&mut self, whole: Duration, low: u32) -> Duration {
        let least = whole * low / 100;
        let room = u64::try_from((whole - least).as_nanos()).unwrap_or(u64::MAX);
        // High half of the product: even over 0..=room without a division.
        let take = u128::from(self.next()) * (u128::from(room) + 1) >> 64;
        least + Duration::from_nanos(u64::try_from(take).unwrap_or(room))
    }
}

//! Random times and choices of a test, from a seed that is printed.

use crate::Ctx;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    /// From `LB_SEED`, else from the clock; told as a note either way.
    pub fn new(ctx: &Ctx) -> Self {
        let given = std::env::var("LB_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(tests::clock::realtime_us);
        ctx.note(format!("seed {seed} (LB_SEED={seed} repeats it)"));
        Self(seed)
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` (included) to `high` (not).
    pub const fn within(&mut self, low: u64, high: u64) -> u64 {
        let span = if high > low { high - low } else { 1 };
        low + self.next() % span
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = usize::try_from(self.within(0, from.len() as u64)).unwrap_or(0);
        &from[at]
    }
}

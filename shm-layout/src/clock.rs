//! The one clock of the tables: CLOCK_BOOTTIME, alike in every process and over their restarts.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot.
#[must_use]
pub fn now_ns() -> u64 {
    // The clock exists on every Linux since 2.6.39 and the call cannot fail for it.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |t| {
        let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
    })
}

/// Milliseconds since boot.
#[must_use]
pub fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

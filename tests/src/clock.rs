//! The rig's clock: monotonic microseconds, the same in every process of the machine, so that a
//! test can ask of a load's report what happened while it killed something.

use nix::time::{ClockId, clock_gettime};

/// Microseconds of CLOCK_MONOTONIC.
#[must_use]
pub fn now_us() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Microseconds of CLOCK_REALTIME, in which the kernel stamps packets.
#[must_use]
pub fn realtime_us() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

fn read(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux; the call cannot fail for them.
    clock_gettime(clock).map_or(0, |t| {
        u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0) / 1000
    })
}

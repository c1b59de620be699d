//! A moment that outlives processes: by when a change must be confirmed.
//!
//! Within one boot it is kept in CLOCK_BOOTTIME, which goes on over restarts of control and over suspend, and which
//! nobody can set. After a reboot that clock means nothing: then wall time counts, and never for longer than the span
//! that was asked for, because a clock set back must not leave an unconfirmed change in force for days.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The clocks, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Now {
    /// The kernel's id of this boot; empty: unknown.
    pub boot: String,
    /// CLOCK_BOOTTIME, ms.
    pub boot_ms: u64,
    /// Wall time, ms since 1970.
    pub wall_ms: u64,
}

impl Now {
    /// The machine's.
    #[must_use]
    pub fn read() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            boot: boot.trim().to_owned(),
            boot_ms: shm_layout::clock::now_ms(),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// A moment, on both clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// Boot in which `boot_ms` means something.
    boot: String,
    /// The moment, ms of CLOCK_BOOTTIME.
    boot_ms: u64,
    /// The moment, ms since 1970.
    wall_ms: u64,
    /// How far away it was when it was set, ms.
    span_ms: u64,
}

impl Deadline {
    /// In `span` from now.
    #[must_use]
    pub fn after(span: Duration, now: &Now) -> Self {
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            boot: now.boot.clone(),
            boot_ms: now.boot_ms.saturating_add(span_ms),
            wall_ms: now.wall_ms.saturating_add(span_ms),
            span_ms,
        }
    }

    /// Time left; zero: it has come.
    #[must_use]
    pub fn left(&self, now: &Now) -> Duration {
        let left = if self.same_boot(now) {
            self.boot_ms.saturating_sub(now.boot_ms)
        } else {
            self.wall_ms.saturating_sub(now.wall_ms)
        };
        Duration::from_millis(left.min(self.span_ms))
    }

    /// The same moment, set anew on the clock of this boot; `None`: it is on it already.
    #[must_use]
    pub fn in_this_boot(&self, now: &Now) -> Option<Self> {
        (!self.same_boot(now)).then(|| Self::after(self.left(now), now))
    }

    /// Wall time of it, seconds since 1970, for people.
    #[must_use]
    pub fn wall_seconds(&self, now: &Now) -> u64 {
        now.wall_ms.saturating_add(u64::try_from(self.left(now).as_millis()).unwrap_or(0)).div_ceil(1000)
    }

    fn same_boot(&self, now: &Now) -> bool {
        !now.boot.is_empty() && now.boot == self.boot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(boot: &str, boot_ms: u64, wall_ms: u64) -> Now {
        Now { boot: boot.into(), boot_ms, wall_ms }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn within_a_boot_nobody_moves_it() {
        let deadline = Deadline::after(MINUTE, &now("a", 5_000, 1_000_000));
        // The wall clock jumps a day forth and a day back: nothing changes.
        for wall in [0, 1_000_000, 87_400_000] {
            assert_eq!(deadline.left(&now("a", 15_000, wall)), Duration::from_secs(50));
            assert_eq!(deadline.left(&now("a", 65_000, wall)), Duration::ZERO);
        }
        assert_eq!(deadline.in_this_boot(&now("a", 15_000, 0)), None);
    }

    #[test]
    fn after_a_reboot_wall_time_counts_and_never_for_longer_than_asked() {
        let deadline = Deadline::after(MINUTE, &now("a", 5_000, 1_000_000));
        assert_eq!(deadline.left(&now("b", 100, 1_020_000)), Duration::from_secs(40));
        assert_eq!(deadline.left(&now("b", 100, 1_060_000)), Duration::ZERO);
        // Set back by a week: the whole span again, once.
        let again = now("b", 100, 0);
        assert_eq!(deadline.left(&again), MINUTE);
        let moved = deadline.in_this_boot(&again).unwrap();
        assert_eq!(moved.left(&now("b", 60_100, 0)), Duration::ZERO);
        // Without a boot id: wall time, whatever the other clock says.
        assert_eq!(Deadline::after(MINUTE, &now("", 5, 1000)).left(&now("", 900_000, 31_000)), Duration::from_secs(30));
    }

    #[test]
    fn this_machine_has_both_clocks() {
        let now = Now::read();
        assert!(now.boot.len() == 36 && now.boot_ms > 0 && now.wall_ms > 1_700_000_000_000, "{now:?}");
    }
}

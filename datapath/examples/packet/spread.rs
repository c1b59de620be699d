//! Figures of a shared machine: time on the CPU, percentiles, and how much of the time the CPU was ours.

use std::fmt;
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};

/// Time this thread has been on a CPU, ns: what others take of the machine is not in it (but what they do to its caches
/// and clock is).
pub fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned()
}

/// Measurements of one thing.
#[derive(Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    pub fn add(&mut self, value: f64) {
        let at = self.0.partition_point(|v| *v < value);
        self.0.insert(at, value);
    }

    /// A percentile: 0 the least, 50 the median.
    pub fn at(&self, percent: usize) -> f64 {
        self.0.get((self.0.len() - 1) * percent / 100).copied().unwrap_or(f64::NAN)
    }

    pub fn json(&self) -> String {
        let [least, quarter, median, most] = [0, 25, 50, 75].map(|p| self.at(p));
        format!(r#"{{"least":{least:.2},"p25":{quarter:.2},"median":{median:.2},"p75":{most:.2}}}"#)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} (least {:.1}, quartiles {:.1} to {:.1})", self.at(50), self.at(0), self.at(25), self.at(75))
    }
}

/// How much of the time this thread was running.
pub struct Busy(Instant, u64);

impl Busy {
    pub fn begin() -> Self {
        Self(Instant::now(), thread_ns())
    }

    /// 0 to 1.
    pub fn share(&self) -> f64 {
        (thread_ns() - self.1) as f64 / self.0.elapsed().as_nanos() as f64
    }
}

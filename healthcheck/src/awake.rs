//! How long this process itself stood still.
//!
//! A stopped, starved or suspended checker must not take servers down: after 3 s of SIGSTOP every probe's time is over
//! although the answers wait in the sockets. So probes are given the time the process was *awake*.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// The main loop takes a turn at least this often.
pub const TICK: Duration = Duration::from_millis(100);
/// Turns further apart than this: the process stood still.
const STILL: Duration = Duration::from_millis(250);

/// A clock of standing still. One thread uses it; atomics only because tasks must be `Send`, hence Relaxed.
#[derive(Debug)]
pub struct Awake {
    origin: Instant,
    last_us: AtomicU64,
    still_us: AtomicU64,
}

impl Awake {
    /// Begins now.
    pub fn new(now: Instant) -> Self {
        Self { origin: now, last_us: AtomicU64::new(0), still_us: AtomicU64::new(0) }
    }

    /// Notes that the process runs; returns how long it has stood still altogether.
    pub fn turn(&self, now: Instant) -> Duration {
        let now_us = u64::try_from((now - self.origin).as_micros()).unwrap_or(u64::MAX);
        let gap = Duration::from_micros(now_us.saturating_sub(self.last_us.swap(now_us, Ordering::Relaxed)));
        let slept = if gap > STILL { u64::try_from((gap - TICK).as_micros()).unwrap_or(0) } else { 0 };
        Duration::from_micros(self.still_us.fetch_add(slept, Ordering::Relaxed) + slept)
    }

    /// Runs `work` for `limit` of waking time; `None`: not done by then. Work that is ready is preferred to a time that
    /// is over.
    pub async fn within<F: Future>(&self, limit: Duration, work: F) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        let begun = Instant::now();
        let before = self.turn(begun);
        let mut end = begun + limit;
        loop {
            if let Ok(output) = timeout_at(end, work.as_mut()).await {
                return Some(output);
            }
            let now = Instant::now();
            end = begun + limit + (self.turn(now) - before);
            if end <= now {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_gaps_count() {
        let t = Instant::now();
        let awake = Awake::new(t);
        let ms = Duration::from_millis;
        assert_eq!(awake.turn(t + ms(100)), ms(0));
        assert_eq!(awake.turn(t + ms(340)), ms(0));
        assert_eq!(awake.turn(t + ms(3340)), ms(2900));
        assert_eq!(awake.turn(t + ms(3340)), ms(2900));
    }

    #[test]
    fn a_blocked_thread_gives_its_probes_their_time_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let awake = Awake::new(Instant::now());
            let begun = Instant::now();
            let work = async {
                std::thread::sleep(Duration::from_millis(600)); // The whole loop stands still.
                tokio::time::sleep(Duration::from_millis(100)).await; // The server's own time: within the limit of 200.
            };
            assert_eq!(awake.within(Duration::from_millis(200), work).await, Some(()));
            assert!(begun.elapsed() >= Duration::from_millis(700));
            let never = std::future::pending::<()>();
            let begun = Instant::now();
            assert_eq!(awake.within(Duration::from_millis(100), never).await, None);
            assert!(begun.elapsed() < Duration::from_millis(200));
        });
    }
}

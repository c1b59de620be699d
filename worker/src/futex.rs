//! Sleeping on a word of shared memory: an heir and the owner it waits for may share a CPU, so neither spins.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex::{Flags, Timespec, wait as futex_wait, wake as futex_wake};

/// Sleeps while `word` is `value`, at most `limit`; may wake without a reason.
pub fn wait(word: &AtomicU32, value: u32, limit: Duration) {
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
    // Whatever the reason it returned for: the caller looks again.
    let _ = futex_wait(word, Flags::empty(), value, Some(&limit));
}

/// Wakes all that sleep on `word`.
pub fn wake(word: &AtomicU32) {
    // Fails only for a word that is not mapped.
    let _ = futex_wake(word, Flags::empty(), u32::MAX);
}

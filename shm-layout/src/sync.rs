//! The atomics of the tables, by one name: the models in `shm-layout/models` compile the same files over loom's.

pub use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// Stores words, each as by a relaxed store, in any order.
#[inline(always)]
pub fn store_words(to: &[AtomicU64], from: &[u64]) {
    arch::store_words(to, from);
}

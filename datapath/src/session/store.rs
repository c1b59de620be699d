//! Every store of a change goes through [`Put`]: in program order, and countable by tests.
//!
//! What a killed owner has stored, its successor sees: all stores before the kill, none after. That makes *program
//! order* the only order that matters, so each is a Release store: the compiler may not move it before an earlier one,
//! and on x86 it is the same plain `mov`. The successor's first load is ordered by the take-over itself.

use shm_layout::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A store that keeps its place among the others.
pub(super) trait Put<T> {
    /// Stores `value` after everything stored before.
    fn put(&self, value: T);
}

macro_rules! put {
    ($($atomic:ty, $value:ty);+) => {$(
        impl Put<$value> for $atomic {
            #[inline(always)]
            fn put(&self, value: $value) {
                // Release: see the module. Pairs with the take-over of the slot, and with the readers' Acquire fence.
                self.store(value, Ordering::Release);
                failpoint::store();
            }
        }
    )+};
}
put!(AtomicU8, u8; AtomicU16, u16; AtomicU32, u32; AtomicU64, u64);

/// Moves a counter to the nearest value whose low byte is `target`.
///
/// Counters change by one or two per operation, so the low byte names the value after it: storing "the value after" is
/// idempotent where adding is not, and eight bits per counter fit ten counters in the intent line.
#[inline(always)]
pub(super) fn settle32(word: &AtomicU32, target: u8) {
    let now = word.load(Ordering::Relaxed); // Relaxed: own data.
    let change = i32::from(target.wrapping_sub(now.to_le_bytes()[0]).cast_signed());
    if change != 0 {
        word.put(now.wrapping_add_signed(change));
    }
}

/// As [`settle32`].
#[inline(always)]
pub(super) fn settle64(word: &AtomicU64, target: u8) {
    let now = word.load(Ordering::Relaxed); // Relaxed: own data.
    let change = i64::from(target.wrapping_sub(now.to_le_bytes()[0]).cast_signed());
    if change != 0 {
        word.put(now.wrapping_add_signed(change));
    }
}

#[cfg(any(test, feature = "failpoints"))]
pub use shm_layout::failpoint::counted as failpoint;
#[cfg(not(any(test, feature = "failpoints")))]
pub(super) use shm_layout::failpoint::nothing as failpoint;

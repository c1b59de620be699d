//! A sequence beside rows that one writer changes in place: odd while it writes, raised by 2 per change (Boehm, "Can
//! seqlocks get along with programming language memory models?", MSPC 2012).
//!
//! A reader copies between two looks at the sequence, a bounded number of times: a writer may have died in between.

use crate::sync::{AtomicU64, Ordering, fence};

/// Begins a change; odd already if a writer died in one. Give the number to [`end`].
#[must_use]
pub fn begin(sequence: &AtomicU64) -> u64 {
    let odd = sequence.load(Ordering::Relaxed) | 1; // Relaxed: one writer.
    sequence.store(odd, Ordering::Relaxed); // Relaxed: ordered by the fence.
    // The rows are not stored before the odd number: pairs with the fence in `read`.
    fence(Ordering::Release);
    odd
}

/// Ends the change that [`begin`] began.
pub fn end(sequence: &AtomicU64, odd: u64) {
    sequence.store(odd.wrapping_add(1), Ordering::Release); // Pairs with the Acquire in `read`: the rows are there.
}

/// A copy of rows that belong together, with its sequence number; `None`: the writer was at them at each of `tries`. The
/// copy is made of Relaxed loads.
pub fn read<T>(sequence: &AtomicU64, tries: usize, mut copy: impl FnMut() -> T) -> Option<(u64, T)> {
    for _ in 0..tries {
        let before = sequence.load(Ordering::Acquire); // Pairs with the Release in `end`.
        if !before.is_multiple_of(2) {
            std::hint::spin_loop();
            continue;
        }
        let copied = copy();
        fence(Ordering::Acquire); // The loads above are done before the sequence is looked at again.
        if sequence.load(Ordering::Relaxed) == before {
            return Some((before, copied));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_written_is_not_read() {
        let (sequence, word) = (AtomicU64::new(0), AtomicU64::new(7));
        let look = || read(&sequence, 3, || word.load(Ordering::Relaxed));
        assert_eq!(look(), Some((0, 7)));
        let odd = begin(&sequence);
        assert_eq!((odd, look()), (1, None));
        word.store(8, Ordering::Relaxed);
        assert_eq!(begin(&sequence), 1, "one that died in it is followed by one that ends it");
        end(&sequence, odd);
        assert_eq!(look(), Some((2, 8)));
    }
}

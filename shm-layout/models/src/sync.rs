//! Loom's atomics in place of the machine's.
//!
//! **Own words.** Loom looks for another order of two accesses only when they are the *last* two of one word: a writer that
//! loads its own word before it stores it (`tail.load(Relaxed)` … `tail.store(…)`) hides from loom that a reader had
//! loaded the word before, and the order in which the store comes first is never tried. So a thread that says [`own`]
//! loads a word which nobody else has stored since as the one value it can have, past loom. Without this, half of the
//! weakened orderings the models are tried with are not found.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64 as Plain, Ordering::SeqCst};

pub use loom::sync::atomic::{Ordering, fence};
use loom::thread::ThreadId;

/// Counts stores, so that "since" has a meaning; loom runs one thread at a time.
static CLOCK: Plain = Plain::new(1);

thread_local! {
    /// Threads of the model that have said [`own`], and when. (All of a model's threads run on one of the system's.)
    static OWNERS: RefCell<HashMap<ThreadId, u64>> = RefCell::new(HashMap::new());
}

/// From now on this thread of the model loads its own words past loom: those that nobody else stores after this. Say it
/// first thing in a thread, of words that are its own or were stored before it was spawned.
pub fn own() {
    let now = CLOCK.fetch_add(1, SeqCst);
    OWNERS.with_borrow_mut(|owners| owners.insert(loom::thread::current().id(), now));
}

/// Forgets all owners: before each execution.
pub fn begin() {
    OWNERS.with_borrow_mut(HashMap::clear);
}

/// The last store of a word: who, when, what.
#[derive(Clone, Copy, Debug)]
struct Last {
    by: Option<ThreadId>,
    at: u64,
    value: u64,
}

macro_rules! atomic {
    ($($name:ident, $value:ty);+) => {$(
        /// See the module.
        #[derive(Debug)]
        pub struct $name {
            word: loom::sync::atomic::$name,
            last: std::sync::Mutex<Last>,
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }

        impl $name {
            /// A word.
            #[must_use]
            pub fn new(value: $value) -> Self {
                let last = Last { by: None, at: 0, value: value.into() };
                Self { word: loom::sync::atomic::$name::new(value), last: std::sync::Mutex::new(last) }
            }

            fn note(&self, value: $value) {
                let (by, at) = (Some(loom::thread::current().id()), CLOCK.fetch_add(1, SeqCst));
                *self.last.lock().expect("one thread at a time") = Last { by, at, value: value.into() };
            }

            /// The value, if it is this thread's own word.
            fn owned(&self) -> Option<$value> {
                let me = loom::thread::current().id();
                let since = OWNERS.with_borrow(|owners| owners.get(&me).copied())?;
                let last = *self.last.lock().expect("one thread at a time");
                (last.by == Some(me) || last.at < since).then(|| last.value.try_into().ok()).flatten()
            }

            /// As std's.
            pub fn load(&self, order: Ordering) -> $value {
                let owned = if order == Ordering::Relaxed { self.owned() } else { None };
                owned.unwrap_or_else(|| self.word.load(order))
            }

            /// As std's.
            pub fn store(&self, value: $value, order: Ordering) {
                self.word.store(value, order);
                self.note(value);
            }

            /// As std's.
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                let before = self.word.swap(value, order);
                self.note(value);
                before
            }

            /// As std's.
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                let before = self.word.fetch_add(value, order);
                self.note(before.wrapping_add(value));
                before
            }

            /// As std's.
            ///
            /// # Errors
            /// The value there.
            pub fn compare_exchange(
                &self,
                from: $value,
                to: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let outcome = self.word.compare_exchange(from, to, success, failure);
                if outcome.is_ok() {
                    self.note(to);
                }
                outcome
            }
        }
    )+};
}
atomic!(AtomicU8, u8; AtomicU16, u16; AtomicU32, u32; AtomicU64, u64);

/// As shm-layout's.
pub fn store_words(to: &[AtomicU64], from: &[u64]) {
    to.iter().zip(from).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
}

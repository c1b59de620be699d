//! The atomics of the tables, by one name: the models in `shm-layout/models` compile the same files over loom's.

pub use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

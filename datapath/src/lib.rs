//! The packet's way, as pure functions on a burst: bytes, tables and time come as arguments.
//!
//! `rx → parse → session lookup → (miss: service lookup → schedule → create) → rewrite → tx`; every packet ends in exactly
//! one verdict, and the slot's counters are flipped once per burst.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod io;
pub mod io_memory;
pub mod session;

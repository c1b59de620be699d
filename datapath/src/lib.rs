//! The packet's way, as pure functions on a burst: bytes, tables and time come as arguments.
//!
//! `rx → parse → session lookup → (miss: service lookup → schedule → create) → rewrite → tx`; every packet ends in exactly
//! one verdict, and the slot's counters are flipped once per burst.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod ahead;
mod answer;
mod begin;
mod burst;
pub mod check;
mod closing;
mod discovery;
mod errors;
mod family;
mod forward;
pub mod io;
pub mod io_memory;
mod kernel;
mod one_packet;
mod plain;
mod rate;
mod runner;
pub mod schedule;
pub mod session;
mod shared;
mod sweep;
pub mod tcp;
mod timeout;
mod too_big;
mod tunnel;
mod tunnel_errors;
mod waiting;
mod wide;

pub use runner::SlotRunner;
pub use schedule::{Health, pool_panic_until};
pub use shared::{NextHop, Shared};

//! The safe face of DPDK. All `unsafe` that touches DPDK lives here.
//!
//! | module | what |
//! |---|---|
//! | [`eal`] | start EAL as primary or secondary; look whether a prefix is in use; leave |
//! | [`port`] | configure, start and describe ports (primary); open one (both) |
//! | [`queue`] | receive and transmit bursts |
//! | [`ledger`] | the arrays the bursts run on: words of shared memory that name the packets a slot holds |
//! | [`mbuf`] | one packet: borrowed from a ledger ([`PacketMut`]) or owned ([`Mbuf`]) |
//! | [`mempool`] | kill-safe pools: made, looked up, audited, recovered |
//! | [`tap`] | what net_tap needs that others do not: signals, queue limits, MAC in the device string |
//! | [`log`](mod@log) | DPDK's log lines to the `log` facade |
//!
//! **The rule that replaces locks.** A *slot* is one RX queue, one TX queue, one pool and one ledger. Exactly
//! one thread of one process owns it at a time. The types say what Rust can say (`&mut` for bursts, `!Sync`
//! handles); that two processes do not own one slot is the business of the ownership word in the slot's own
//! memory.
//!
//! Only calls that 22.11, 23.11 and 24.11 share are used. No DPDK heap is used after start-up: a process
//! killed inside `rte_malloc` freezes all others.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests panic"))]

pub mod eal;
pub mod ledger;
pub mod locks;
pub mod log;
pub mod mbuf;
pub mod mempool;
pub mod port;
pub mod queue;
mod recover;
pub mod tap;
pub mod version;

pub use eal::{Eal, EalArgs, EalError, ProcType, exit_now};
pub use ledger::Ledger;
pub use locks::Locks;
pub use mbuf::{Mbuf, PacketMut};
pub use mempool::{Pool, PoolError};
pub use port::{Port, PortConfig, PortError};
pub use queue::{RxQueue, TxQueue};
pub use recover::{AuditReport, RecoverReport};
pub use version::{MAX_LCORES, version};

/// What DPDK says about an error number; positive or negative, as DPDK returns both.
pub(crate) fn strerror(code: i32) -> String {
    // SAFETY: rte_strerror takes any number and returns a NUL-terminated string that lives as long as the thread.
    unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_strerror(code.abs())) }.to_string_lossy().into_owned()
}

/// DPDK's own `errno` of this thread.
pub(crate) fn rte_errno() -> i32 {
    // SAFETY: reads a thread-local integer.
    unsafe { dpdk_sys::lb_errno() }
}

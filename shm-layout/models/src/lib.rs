//! The files of `shm-layout` (and of `datapath` what reads another slot's sessions) that speak to other processes, compiled
//! over loom's atomics, so that `tests/` can try every order in which their loads and stores may take effect.
//!
//! The files are those that are shipped; here are only stand-ins for what they lean on: a mapping is plain memory
//! ([`segment`]), a header is not written ([`header`]), a slot has the rows the models touch ([`slot`]).
// The unit tests of the files compiled here run where they belong.
#![cfg(not(test))]
#![forbid(unsafe_code)]
#![allow(dead_code, reason = "the files have more than the models need")]

// `crate::` of shm-layout's files and `shm_layout::` of datapath's both mean this crate.
extern crate self as shm_layout;

mod layout {
    /// Layout is asserted where it is shipped; over loom's atomics rows have other sizes.
    macro_rules! row {
        ($($anything:tt)*) => {};
    }
    pub(crate) use row;
}
pub(crate) use layout::row;

pub mod header;
pub mod segment;
pub mod slot;
pub mod sync;

#[path = "../../src/board.rs"]
pub mod board;
#[path = "../../src/counters.rs"]
pub mod counters;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/failpoint.rs"]
pub mod failpoint;
#[path = "../../src/learn.rs"]
pub mod learn;
#[path = "../../src/limits.rs"]
pub mod limits;
#[path = "../../src/neighbours.rs"]
pub mod neighbours;
#[path = "../../src/owner.rs"]
pub mod owner;
#[path = "../../src/persistence.rs"]
pub mod persistence;
#[path = "../../src/published/rows.rs"]
pub mod published;
#[path = "../../src/publish/quorum.rs"]
pub mod quorum;
#[path = "../../src/ring.rs"]
pub mod ring;
#[path = "../../src/seqlock.rs"]
pub mod seqlock;
#[path = "../../src/session.rs"]
pub mod session;

pub mod table;

//! The contract between the processes: rows, limits, headers, publication, rings. No DPDK, no async.
//!
//! | segment | where | writer → readers |
//! |---|---|---|
//! | [`published`] | hugetlbfs | control → workers, lbctl |
//! | [`neighbours`] | hugetlbfs | control → workers |
//! | [`slot`] (one file each) | hugetlbfs | the slot's owner → successor, other slots (read-only), lbctl |
//! | [`secrets`] | hugetlbfs, 0600 | holder, once → workers, control |
//! | [`choice`] | hugetlbfs | control → workers, lbctl |
//! | [`persistence`] | hugetlbfs | the slots' owners → all slots |
//! | [`board`] | POSIX shared memory | control (targets), health-checker (results) → all |
//!
//! Offsets and indices only: every process maps at its own address. Each segment begins with a [`header`] that is checked
//! before one other byte is used.
#![deny(missing_docs)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test data"))]

pub mod board;
pub mod choice;
pub mod clock;
pub mod counters;
pub mod error;
pub mod failpoint;
pub mod geometry;
pub mod header;
pub mod in_use;
pub mod learn;
pub mod limits;
pub mod neighbours;
pub mod owner;
pub mod persistence;
pub mod publish;
pub mod published;
pub mod ring;
pub mod secrets;
pub mod segment;
pub mod seqlock;
pub mod session;
pub mod slot;
pub mod sync;

pub use error::SegmentError;

/// Fingerprint of every row's size and of the index hash: two builds that disagree about a row refuse each other even under
/// one version number. It is the same for all minor versions of a layout: what they may add lies in reserved bytes (see
/// [`header::compatible`]), and of the counters their room counts, not how many have a name.
#[must_use]
pub const fn fingerprint() -> u64 {
    let sizes = [
        size_of::<header::SegmentHeader>(),
        size_of::<session::SessionRow>(),
        size_of::<session::BucketRow>(),
        size_of::<session::ExtensionRow>(),
        size_of::<owner::OwnerRow>(),
        size_of::<owner::AutopsyRow>(),
        size_of::<slot::WaitRow>(),
        size_of::<slot::PulseRow>(),
        size_of::<slot::IntentRow>(),
        size_of::<slot::TableRow>(),
        size_of::<slot::ServerCountRow>(),
        size_of::<slot::ServiceCountRow>(),
        size_of::<slot::LedgerRow>(),
        size_of::<counters::CounterBlock>(),
        size_of::<ring::RingControl>(),
        size_of::<published::PortRow>(),
        size_of::<published::SlotRow>(),
        size_of::<published::ServiceRow>(),
        size_of::<published::MemberRow>(),
        size_of::<published::LocalRow>(),
        size_of::<published::DirectoryRow>(),
        size_of::<neighbours::NeighbourRow>(),
        size_of::<board::TargetRow>(),
        size_of::<board::ProfileRow>(),
        limits::INDEX_HASH,
        limits::WHEEL_BUCKETS,
        limits::WHEEL_TICK_MS as usize,
        limits::DIRECTORIES,
        limits::MAX_PORTS,
        limits::MAX_SLOTS,
        limits::MAX_LADDRS,
        counters::FLOWS,
        counters::WORDS,
    ];
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < sizes.len() {
        sum = (sum ^ sizes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(7);
        i += 1;
    }
    sum
}

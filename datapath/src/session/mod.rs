//! The session table of one slot: records, index, timer wheel; one writer, no locks.
//!
//! - **Record** ([`SessionRow`]): one cache line with both tuples and the TCP state. In use from [`SessionTable::create`]
//!   until the wheel lets go of it; in the index only until [`SessionTable::close`]. A wide one (IPv6) has its addresses in a
//!   second line.
//! - **Index** (`index`): a session is found from both sides by one keyed hash each.
//! - **Wheel** (`wheel`): a packet only stores "last seen"; nothing is walked.
//! - **Local ports** (`port`): free iff the reply key is not in the index, so there is nothing to leak.
//! - **Intent line** (`intent`): a killed owner's change is finished by its successor in constant time.
//!
//! **Order.** One thread writes; it reads its own stores. Those who read from outside (other slots, lbctl) copy a record
//! twice and check its keys ([`SessionReader`]). Changes store in program order (`store`); everything a packet alone
//! touches (last seen, sequence numbers) is Relaxed: each word is right by itself.
//!
//! **Damage.** A number from shared memory is checked before it is used. What does not fit is taken out and counted in
//! [`PulseRow::quarantined`](shm_layout::slot::PulseRow::quarantined); the rest of the table goes on.

mod check;
mod create;
mod index;
pub mod intent;
mod key;
mod port;
mod reader;
mod rebuild;
mod room;
mod store;
mod wheel;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "test data")]
mod tests;

use std::sync::atomic::Ordering;

use arch::{Bytes16, HashKey};
use shm_layout::failpoint::{Bug, Op};
use shm_layout::limits::NONE;
use shm_layout::secrets::{self, SecretsRow};
use shm_layout::session::{BucketRow, SessionRow};
use shm_layout::slot::Slot;

pub use check::Recount;
pub use create::{CreateError, New, Wide};
pub(crate) use key::translate;
pub use key::{Direction, Key, Tuple, Wanted, protocol_of};
pub use port::{Address, Local, LocalPool, LocalRange};
pub use reader::{Session, SessionReader};
#[cfg(any(test, feature = "failpoints"))]
pub use store::failpoint;
pub use wheel::Swept;

use index::Index;
use intent::{Plan, op};
use store::{Put, failpoint as hooks};

/// Sessions of one slot, owner's view.
#[derive(Debug)]
pub struct SessionTable {
    slot: Slot,
    index: Index,
    port_key: HashKey,
}

impl SessionTable {
    /// The table of a slot this thread owns now. A change its last owner left half made is finished first.
    #[must_use]
    pub fn attach(slot: Slot, secrets: &SecretsRow) -> Self {
        let index = Index::new(&slot, HashKey::new(secrets::bytes(&secrets.hash_key)));
        let mut table = Self { slot, index, port_key: HashKey::new(secrets::bytes(&secrets.port_key)) };
        table.recover();
        table
    }

    /// Finishes the change in progress, if any. Constant time (but for a [`rebuild`](Self::rebuild) that was killed); may be
    /// killed and begun again. `true`: there was one.
    pub fn recover(&mut self) -> bool {
        let _op = hooks::enter(Op::Redo);
        let change = Plan::read(&self.slot.intent);
        if let Some(plan) = &change {
            let records = &self.slot.table.records;
            let before = records.load(Ordering::Relaxed);
            if !plan.carry_out(&self.slot) {
                self.quarantined();
            }
            if hooks::planted(Bug::RedoCounts) && records.load(Ordering::Relaxed) == before {
                records.put(before.wrapping_add(1));
            }
            self.slot.intent.op.put(op::NONE);
        }
        if self.slot.table.rebuilding.load(Ordering::Relaxed) != 0 {
            self.rebuild();
        }
        change.is_some()
    }

    /// The slot's tables.
    #[inline(always)]
    #[must_use]
    pub const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Key of the index hash.
    #[must_use]
    pub const fn hash_key(&self) -> &HashKey {
        &self.index.key
    }

    /// Stage 1: hash of a packet's key.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, wanted: impl Wanted) -> u64 {
        self.index.hash(wanted.key())
    }

    /// The same of a plain packet ([`packet::plain::key`]).
    #[inline(always)]
    #[must_use]
    pub(crate) fn hash_of(&self, key: Bytes16) -> u64 {
        self.index.hash_of(key)
    }

    /// Stage 1: asks for the key's first bucket.
    #[inline(always)]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch_bucket(key::first_bucket(hash, self.index.count));
    }

    /// Asks for the first buckets of a record's keys.
    pub(crate) fn prefetch_buckets_of(&self, row: &SessionRow) {
        self.prefetch_bucket(self.hash(Key::client_of(row)));
        self.prefetch_bucket(self.hash(Key::server_of(row)));
    }

    /// Stage 2: the first record that carries the key's tag; `None`: no session.
    #[inline(always)]
    #[must_use]
    pub fn candidate(&self, hash: u64) -> Option<u32> {
        self.index.candidate(hash)
    }

    /// Stage 2: asks for a record.
    #[inline(always)]
    pub fn prefetch_session(&self, record: u32) {
        self.index.prefetch_session(record);
    }

    /// Stage 3: is it the record's key, and who sends it?
    #[inline(always)]
    #[must_use]
    pub fn verify(&self, record: u32, wanted: impl Wanted) -> Option<Direction> {
        self.index.verify(record, wanted)
    }

    /// Stage 3: the candidate if it is the one, else (tags alike by chance) a search among all that carry the tag.
    #[inline(always)]
    #[must_use]
    pub fn resolve(&self, candidate: u32, wanted: impl Wanted, hash: u64) -> Option<(u32, Direction)> {
        match self.index.verify(candidate, wanted) {
            Some(direction) => Some((candidate, direction)),
            None => self.search_again(wanted, hash),
        }
    }

    #[cold]
    fn search_again(&self, wanted: impl Wanted, hash: u64) -> Option<(u32, Direction)> {
        self.find_hashed(wanted, hash)
    }

    /// The session of a key and who sends it.
    #[inline]
    #[must_use]
    pub fn find(&self, wanted: impl Wanted) -> Option<(u32, Direction)> {
        self.find_hashed(wanted, self.hash(wanted))
    }

    /// As [`find`](Self::find), hash known.
    #[inline]
    #[must_use]
    pub fn find_hashed(&self, wanted: impl Wanted, hash: u64) -> Option<(u32, Direction)> {
        let found = self.index.search(wanted, hash, |bucket, place| self.quarantine_place(bucket, place))?;
        Some((found.record, found.direction))
    }

    /// A record.
    #[inline(always)]
    #[must_use]
    pub fn row(&self, record: u32) -> Option<&SessionRow> {
        self.slot.sessions.get(record as usize)
    }

    /// A packet of the session was seen.
    #[inline(always)]
    pub fn touch(&self, record: u32, now_ms: u64) {
        if let Some(row) = self.row(record) {
            row.last_seen.store(wrapped(now_ms), Ordering::Relaxed); // Relaxed: a word of its own.
        }
    }

    /// Sessions in the index.
    #[inline]
    #[must_use]
    pub fn active(&self) -> u32 {
        self.slot.table.active.load(Ordering::Relaxed)
    }

    /// Counts a thing that did not fit and was taken out.
    #[cold]
    fn quarantined(&self) {
        let count = &self.slot.pulse.quarantined;
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed); // Relaxed: one writer.
    }

    /// Empties a place that names no session of its own.
    #[cold]
    fn quarantine_place(&self, bucket: &BucketRow, place: usize) {
        if let Some(tag) = bucket.tags.get(place).filter(|tag| tag.load(Ordering::Relaxed) != 0) {
            tag.put(0);
            self.quarantined();
        }
    }
}

/// Milliseconds as records keep them.
#[inline(always)]
const fn wrapped(now_ms: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "wraps by design; ages are compared modulo 2^32")]
    {
        now_ms as u32
    }
}

/// Is it a number and not NONE?
#[inline(always)]
const fn some(index: u32) -> Option<u32> {
    if index == NONE { None } else { Some(index) }
}

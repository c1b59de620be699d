//! The index: two keys per session, buckets of one cache line, each key in its first or its second bucket.
//!
//! A lookup reads the first bucket; the second only when keys of the first lie there (`overflow`). Ten 16-bit tags are
//! compared at once; a tag that fits by chance (one lookup in some thousand) is told apart by the record itself.

use std::sync::atomic::Ordering;

use arch::{Bytes16, HashKey};
use shm_layout::limits::{BUCKET_KEYS, NONE};
use shm_layout::neighbours::Ip;
use shm_layout::segment::Rows;
use shm_layout::session::{AddressLine, BucketRow, SessionRow, flag};
use shm_layout::slot::Slot;

use super::intent::Place;
use super::key::{Direction, Key, Tuple, Wanted, ends_of, first_bucket, second_bucket, tag};

/// Largest number of buckets: a place is `bucket * 16 + place` in 32 bits, NONE excluded.
const MAX_BUCKETS: usize = 1 << 28;

/// Read side of the index; shared by the owner and read-only views.
#[derive(Clone, Debug)]
pub(super) struct Index {
    pub buckets: Rows<BucketRow>,
    pub sessions: Rows<SessionRow>,
    lines: Rows<AddressLine>,
    first_wide: u32,
    pub key: HashKey,
    /// Buckets in use.
    pub count: u32,
}

/// A key found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub record: u32,
    pub direction: Direction,
    pub place: Place,
}

impl Index {
    pub fn new(slot: &Slot, key: HashKey) -> Self {
        let count = u32::try_from(slot.buckets.len().min(MAX_BUCKETS - 1)).unwrap_or(0);
        let (buckets, sessions, lines) = (slot.buckets.clone(), slot.sessions.clone(), slot.lines.clone());
        Self { buckets, sessions, lines, first_wide: slot.first_wide(), key, count }
    }

    /// Addresses of a side's packets of a wide record; `None`: it is none.
    pub fn ends(&self, record: u32, side: Direction) -> Option<[Ip; 2]> {
        let line = self.lines.get(record.checked_sub(self.first_wide)? as usize)?;
        let flags = self.sessions.get(record as usize)?.flags.load(Ordering::Relaxed);
        Some(ends_of(line, flags & flag::DIRECT != 0, side))
    }

    /// What both sides of a record send, addresses included. `None`: the row does not say what its line does, it is damaged.
    pub fn tuples(&self, record: u32) -> Option<[Tuple; 2]> {
        let row = self.sessions.get(record as usize)?;
        let flags = row.flags.load(Ordering::Relaxed);
        let sides = [(Key::client_of(row), Direction::Client), (Key::server_of(row), Direction::Server)];
        if record < self.first_wide {
            let narrow = flags & flag::V6 == 0;
            return narrow.then(|| sides.map(|(key, _)| Tuple { key, ends: key.ends_v4() }));
        }
        let own = sides.map(|(key, side)| {
            let [source, destination, protocol] = [key.b >> 16, key.b, key.b >> 32];
            #[allow(clippy::cast_possible_truncation, reason = "a key's parts")]
            let parts = (source as u16, destination as u16, protocol as u8);
            let tuple = Tuple::new(self.ends(record, side)?, parts.0, parts.1, parts.2, &self.key);
            (tuple.key == key).then_some(tuple)
        });
        let [Some(client), Some(server)] = own else { return None };
        Some([client, server])
    }

    #[inline(always)]
    pub fn hash(&self, key: Key) -> u64 {
        arch::keyed_hash(key.a, key.b, &self.key)
    }

    /// Of a key whose words lie behind one another, `b` first.
    #[inline(always)]
    pub fn hash_of(&self, key: Bytes16) -> u64 {
        arch::keyed_hash16(key, &self.key)
    }

    /// Both buckets of a hash.
    #[inline(always)]
    pub fn buckets_of(&self, hash: u64) -> [u32; 2] {
        let first = first_bucket(hash, self.count);
        [first, second_bucket(first, hash, self.count)]
    }

    #[inline(always)]
    pub fn prefetch_bucket(&self, bucket: u32) {
        arch::prefetch_at(&self.buckets, bucket as usize);
    }

    #[inline(always)]
    pub fn prefetch_session(&self, record: u32) {
        arch::prefetch_at(&self.sessions, record as usize);
    }

    /// First record that carries the tag of `hash`, unverified.
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> Option<u32> {
        let first = first_bucket(hash, self.count);
        let bucket = self.buckets.get(first as usize)?;
        let mask = matches(bucket, tag(hash));
        if mask != 0 {
            return record_at(bucket, mask.trailing_zeros());
        }
        if bucket.overflow.load(Ordering::Relaxed) == 0 { None } else { self.second_candidate(first, hash) }
    }

    /// The same in the second bucket. Not inlined: few take this way, and it needs the registers of those who do not.
    #[inline(never)]
    fn second_candidate(&self, first: u32, hash: u64) -> Option<u32> {
        let bucket = self.buckets.get(second_bucket(first, hash, self.count) as usize)?;
        let mask = matches(bucket, tag(hash));
        if mask == 0 { None } else { record_at(bucket, mask.trailing_zeros()) }
    }

    /// Is it the record's key, and whose? `None` also for a record number outside the table.
    #[inline(always)]
    pub fn verify(&self, record: u32, wanted: impl Wanted) -> Option<Direction> {
        let row = self.sessions.get(record as usize)?;
        let side = if Key::client_of(row) == wanted.key() {
            Direction::Client
        } else if Key::server_of(row) == wanted.key() {
            Direction::Server
        } else {
            return None;
        };
        wanted.is(record, || self.ends(record, side)).then_some(side)
    }

    /// The record of a key. `damaged` is told of places whose record number leaves the table.
    #[inline(always)]
    pub fn search(&self, wanted: impl Wanted, hash: u64, mut damaged: impl FnMut(&BucketRow, usize)) -> Option<Found> {
        let first = first_bucket(hash, self.count);
        let bucket = self.buckets.get(first as usize)?;
        if let Some((record, direction, place)) = self.scan(bucket, wanted, tag(hash), &mut damaged) {
            return Some(Found { record, direction, place: Place { at: first << 4 | place, over: NONE } });
        }
        if bucket.overflow.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let second = second_bucket(first, hash, self.count);
        let bucket = self.buckets.get(second as usize)?;
        let (record, direction, place) = self.scan(bucket, wanted, tag(hash), &mut damaged)?;
        Some(Found { record, direction, place: Place { at: second << 4 | place, over: first } })
    }

    #[inline(always)]
    fn scan(
        &self,
        bucket: &BucketRow,
        wanted: impl Wanted,
        tag: u16,
        damaged: &mut impl FnMut(&BucketRow, usize),
    ) -> Option<(u32, Direction, u32)> {
        let mut mask = matches(bucket, tag);
        while mask != 0 {
            let place = mask.trailing_zeros();
            let record = record_at(bucket, place)?;
            if let Some(direction) = self.verify(record, wanted) {
                return Some((record, direction, place));
            }
            if record as usize >= self.sessions.len() {
                damaged(bucket, place as usize);
            }
            mask &= mask - 1;
        }
        None
    }

    /// A free place of a bucket other than `taken`.
    #[inline]
    pub fn vacancy(&self, bucket: u32, taken: u32) -> Option<u32> {
        let mut mask = matches(self.buckets.get(bucket as usize)?, 0);
        while mask != 0 {
            let at = bucket << 4 | mask.trailing_zeros();
            if at != taken {
                return Some(at);
            }
            mask &= mask - 1;
        }
        None
    }

    /// Record, tag and both buckets (in order) of the key at a place; `None`: empty, or not a key of its record.
    ///
    /// Two keys of one record with one tag never share a bucket (refused when they are made), so the answer is unique.
    pub fn key_at(&self, bucket: u32, place: usize) -> Option<KeyAt> {
        let row = self.buckets.get(bucket as usize)?;
        let stored = row.tags.get(place)?.load(Ordering::Relaxed);
        let record = row.records.get(place)?.load(Ordering::Relaxed);
        let session = self.sessions.get(record as usize)?;
        let sides = [(Key::client_of(session), Direction::Client), (Key::server_of(session), Direction::Server)];
        sides.into_iter().find_map(|(key, direction)| {
            let hash = self.hash(key);
            let buckets = self.buckets_of(hash);
            (stored == tag(hash) && buckets.contains(&bucket)).then_some(KeyAt {
                record,
                direction,
                tag: stored,
                buckets,
            })
        })
    }

    /// Would two keys of one session be told apart wherever they lie? (Else, once in 32,768 × buckets, they are refused.)
    #[inline]
    pub fn distinct(&self, hashes: [u64; 2]) -> bool {
        if tag(hashes[0]) != tag(hashes[1]) {
            return true;
        }
        let [a, b] = [self.buckets_of(hashes[0]), self.buckets_of(hashes[1])];
        !a.iter().any(|bucket| b.contains(bucket))
    }
}

/// What lies at a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyAt {
    pub record: u32,
    pub direction: Direction,
    pub tag: u16,
    /// First and second bucket of the key.
    pub buckets: [u32; 2],
}

/// Places of a bucket that carry `tag`, as bits.
#[inline(always)]
pub(super) fn matches(bucket: &BucketRow, tag: u16) -> u32 {
    arch::match_tags_shared(&bucket.tags, tag)
}

#[inline(always)]
fn record_at(bucket: &BucketRow, place: u32) -> Option<u32> {
    debug_assert!((place as usize) < BUCKET_KEYS, "the mask has as many bits as the bucket places");
    bucket.records.get(place as usize).map(|record| record.load(Ordering::Relaxed))
}

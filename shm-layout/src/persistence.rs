//! Which server a client's prefix has: remembered by each slot for itself, read by all.
//!
//! Not the source of the choice (that is the hash, the same in every slot and on every node), only its memory: it holds a
//! client where it is while servers come, go and change their weight. What is lost or pushed out is chosen anew by hash.

use std::path::Path;
use std::sync::Arc;

use crate::error::SegmentError;
use crate::header::{self, Kind, PARAMS};
use crate::row;
use crate::segment::{Cursor, Mapping, Rows};
use crate::sync::{AtomicU64, Ordering, fence};

/// Name of the file below `tables/`.
pub const FILE: &str = "persistence";
/// Rows in which one prefix may stand: two cache lines.
pub const BUCKET: usize = 4;

/// A prefix and its server.
///
/// Shape: half a line. Writer: the slot's owner. Readers: all slots. Units: ms of CLOCK_BOOTTIME.
#[repr(C, align(32))]
#[derive(Debug, Default)]
pub struct PersistenceRow {
    /// Keyed hash of service and prefix; 0: free, or being written.
    key: AtomicU64,
    /// `tag << 32 | id` of the server.
    server: AtomicU64,
    /// When it was chosen.
    made_ms: AtomicU64,
    /// Forgotten then, unless used before.
    until_ms: AtomicU64,
}
row!(PersistenceRow, size 32, align 32);

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Server id.
    pub id: u32,
    /// Tag of the use of the id that was meant.
    pub tag: u32,
    /// When it was chosen, ms.
    pub made_ms: u64,
    /// Forgotten then, ms.
    pub until_ms: u64,
}

impl PersistenceRow {
    /// What is kept for `key`.
    #[must_use]
    pub fn read(&self, key: u64) -> Option<Kept> {
        // Acquire: pairs with the Release in `write`; what was written before the key is there.
        if self.key.load(Ordering::Acquire) != key {
            return None;
        }
        // Relaxed, here and below: the fence and the second look tell whether another key's words were read.
        let server = self.server.load(Ordering::Relaxed);
        let (made_ms, until_ms) = (self.made_ms.load(Ordering::Relaxed), self.until_ms.load(Ordering::Relaxed));
        fence(Ordering::Acquire); // Pairs with the Release fence in `write`.
        if self.key.load(Ordering::Relaxed) != key {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "two halves of a word")]
        let (id, tag) = (server as u32, (server >> 32) as u32);
        Some(Kept { id, tag, made_ms, until_ms })
    }

    /// Keeps `kept` for `key`. The slot's owner only.
    pub fn write(&self, key: u64, kept: Kept) {
        if self.key.load(Ordering::Relaxed) != key {
            self.key.store(0, Ordering::Relaxed);
            fence(Ordering::Release); // Who reads a word below sees that the old key is gone.
        }
        // The same key: a reader may see the old server with the new times, which is a choice that was made too.
        self.server.store(u64::from(kept.tag) << 32 | u64::from(kept.id), Ordering::Relaxed);
        self.made_ms.store(kept.made_ms, Ordering::Relaxed);
        self.until_ms.store(kept.until_ms, Ordering::Relaxed);
        self.key.store(key, Ordering::Release); // Pairs with the Acquire in `read`.
    }

    /// How soon the row may be given to another key: a free one at once. The slot's owner only.
    #[must_use]
    pub fn due(&self) -> u64 {
        if self.key.load(Ordering::Relaxed) == 0 { 0 } else { self.until_ms.load(Ordering::Relaxed) }
    }
}

/// The tables of all slots.
#[derive(Clone, Debug)]
pub struct Persistence {
    rows: Rows<PersistenceRow>,
    per_slot: usize,
}

impl Persistence {
    /// Rows of a slot that has room for `sessions`: one for every eight, a power of two.
    #[must_use]
    pub const fn rows_per_slot(sessions: u64) -> u64 {
        let rows = (sessions / 8).next_power_of_two();
        if rows < 1024 { 1024 } else { rows }
    }

    /// Bytes of the file.
    #[must_use]
    pub fn bytes(slots: u32, sessions: u64) -> u64 {
        let mut at = Cursor::after_header();
        at.take::<PersistenceRow>(u64::from(slots) * Self::rows_per_slot(sessions));
        at.bytes()
    }

    fn view(map: &Arc<Mapping>, slots: u64, per_slot: u64) -> Result<Self, SegmentError> {
        let count = slots.checked_mul(per_slot).ok_or(SegmentError::TooLarge { bytes: u64::MAX })?;
        let rows = map.rows(Cursor::after_header().take::<PersistenceRow>(count), count)?;
        Ok(Self { rows, per_slot: usize::try_from(per_slot).unwrap_or(0) })
    }

    /// Makes empty tables in `map` (zeroed).
    ///
    /// # Errors
    /// The mapping is too small.
    pub fn format(map: &Arc<Mapping>, slots: u32, sessions: u64) -> Result<Self, SegmentError> {
        let (slots, rows) = (u64::from(slots), Self::rows_per_slot(sessions));
        let tables = Self::view(map, slots, rows)?;
        let mut params = [0; PARAMS];
        params[..2].copy_from_slice(&[slots, rows]);
        header::write(map, Kind::Persistence, &params)?;
        Ok(tables)
    }

    /// Tables in anonymous memory, for tests and benchmarks.
    ///
    /// # Errors
    /// Memory.
    pub fn anonymous(slots: u32, sessions: u64) -> Result<Self, SegmentError> {
        Self::format(&Mapping::anonymous(Self::bytes(slots, sessions), false)?, slots, sessions)
    }

    /// Opens the file below `tables`; `None`: there is none, the tables are of layout 1.0.
    ///
    /// # Errors
    /// Foreign or damaged.
    pub fn open(tables: &Path, writable: bool) -> Result<Option<Self>, SegmentError> {
        let map = match Mapping::open(&tables.join(FILE), writable) {
            Err(SegmentError::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let params = header::check(&map, Kind::Persistence)?;
        Self::view(&map, params[0], params[1]).map(Some)
    }

    /// The rows of `slot` in which `key` may stand; none: there is no such slot.
    #[inline]
    #[must_use]
    pub fn bucket(&self, slot: usize, key: u64) -> &[PersistenceRow] {
        let buckets = self.per_slot / BUCKET;
        let bucket = usize::try_from(key).unwrap_or(0) & buckets.wrapping_sub(1);
        let first = slot.saturating_mul(self.per_slot).saturating_add(bucket * BUCKET);
        self.rows.get(first..first.saturating_add(BUCKET)).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(id: u32, until_ms: u64) -> Kept {
        Kept { id, tag: 9, made_ms: 5, until_ms }
    }

    #[test]
    fn a_row_says_what_was_written_for_its_key() {
        let tables = Persistence::anonymous(2, 0).unwrap();
        let row = &tables.bucket(1, 77)[0];
        assert_eq!((row.read(77), row.due()), (None, 0));
        row.write(77, kept(3, 100));
        assert_eq!((row.read(77), row.read(78), row.due()), (Some(kept(3, 100)), None, 100));
        row.write(78, kept(u32::MAX, 200));
        assert_eq!((row.read(77), row.read(78)), (None, Some(kept(u32::MAX, 200))));
        assert_eq!(tables.bucket(0, 77)[0].read(78), None, "the other slot's");
        assert!(tables.bucket(2, 77).is_empty());
    }

    #[test]
    fn no_reader_sees_words_of_two_keys() {
        let tables = Persistence::anonymous(1, 0).unwrap();
        let row = &tables.bucket(0, 1)[0];
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in (0..200_000_u32).map(|n| n % 100) {
                    row.write(u64::from(n) + 1, Kept { id: n, tag: n, made_ms: n.into(), until_ms: n.into() });
                }
            });
            while !writer.is_finished() {
                for n in 0..100_u32 {
                    if let Some(kept) = row.read(u64::from(n) + 1) {
                        assert_eq!(kept, Kept { id: n, tag: n, made_ms: n.into(), until_ms: n.into() });
                    }
                }
            }
        });
    }
}

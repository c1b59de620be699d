//! Keys of the appliance: made once per boot, inherited by every successor, never shown.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::SegmentError;
use crate::header::{self, Kind, PARAMS};
use crate::row;
use crate::segment::{Cursor, HUGE_PAGE, Mapping, One};

/// Shape: words of random bytes. Writer: holder, once. Readers: workers, control. Mode of the file: 0600.
#[repr(C, align(64))]
pub struct SecretsRow {
    /// Session index and neighbour index.
    pub hash_key: [AtomicU64; 4],
    /// Initial sequence number shifts.
    pub isn_key: [AtomicU64; 4],
    /// Local port choice.
    pub port_key: [AtomicU64; 4],
    /// RSS key of the ports (40 bytes used).
    pub rss_key: [AtomicU64; 8],
    /// SYN cookies, two generations.
    pub cookie_keys: [[AtomicU64; 2]; 2],
}
row!(SecretsRow, size 192, align 64);

/// Name of the file below `tables/`.
pub const FILE: &str = "secrets";
/// Bytes of the segment.
pub const BYTES: u64 = HUGE_PAGE;

/// The keys, mapped.
pub type Secrets = One<SecretsRow>;

impl std::fmt::Debug for SecretsRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretsRow(not shown)")
    }
}

/// Fills a fresh segment with random keys.
///
/// # Errors
/// The segment is too small, or the kernel gives no random bytes.
pub fn format(map: &Arc<Mapping>) -> Result<Secrets, SegmentError> {
    let secrets = map.one::<SecretsRow>(Cursor::after_header().take::<SecretsRow>(1))?;
    let words = secrets.hash_key.iter().chain(&secrets.isn_key).chain(&secrets.port_key).chain(&secrets.rss_key);
    for word in words.chain(secrets.cookie_keys.iter().flatten()) {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| SegmentError::Open {
            path: "getrandom".into(),
            source: std::io::Error::other(error.to_string()),
        })?;
        word.store(u64::from_le_bytes(bytes), Ordering::Relaxed); // Relaxed: published by the header's checksum.
    }
    header::write(map, Kind::Secrets, &[0; PARAMS])?;
    Ok(secrets)
}

/// Keys in anonymous memory, for tests and benchmarks.
///
/// # Errors
/// Memory.
pub fn anonymous() -> Result<Secrets, SegmentError> {
    format(&Mapping::anonymous(BYTES, false)?)
}

/// Opens the keys below `tables`.
///
/// # Errors
/// Missing, foreign or damaged.
pub fn open(tables: &Path) -> Result<Secrets, SegmentError> {
    let map = Mapping::open(&tables.join(FILE), false)?;
    header::check(&map, Kind::Secrets)?;
    map.one(Cursor::after_header().take::<SecretsRow>(1))
}

/// Four key words as bytes.
#[must_use]
pub fn bytes<const N: usize>(words: &[AtomicU64]) -> [u8; N] {
    let mut out = [0; N];
    for (to, word) in out.chunks_mut(8).zip(words) {
        to.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes()[..to.len()]); // Relaxed: never changes.
    }
    out
}

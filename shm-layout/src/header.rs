//! The header every segment begins with; read and checked before one other byte is used.

use std::sync::Arc;

use crate::error::SegmentError;
use crate::limits::LAYOUT_VERSION;
use crate::row;
use crate::segment::Mapping;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Bytes reserved for the header.
pub const HEADER_BYTES: u64 = 4096;
/// "CLBTABLE" read as a little-endian integer.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CLBTABLE");
/// Geometry words a kind may keep in its header.
pub const PARAMS: usize = 16;

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Services, servers, ports: control writes.
    Published = 1,
    /// Next hops: control writes.
    Neighbours = 2,
    /// Sessions, counters, rings of one slot: its owner writes.
    Slot = 3,
    /// Keys, made once per boot.
    Secrets = 4,
    /// Health of the real servers.
    Board = 5,
    /// Choice tables: control writes.
    Choices = 6,
    /// Which server a client's prefix has: each slot's owner writes its part.
    Persistence = 7,
}

/// Shape: first page of a segment. Writer: its creator, once, checksum last. Readers: all. Units: bytes.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct SegmentHeader {
    magic: AtomicU64,
    layout: AtomicU32,
    kind: AtomicU32,
    bytes: AtomicU64,
    fingerprint: AtomicU64,
    boot_id: [AtomicU64; 2],
    params: [AtomicU64; PARAMS],
    checksum: AtomicU64,
    /// Zero; covered by the checksum, so that a minor version may give them a meaning.
    reserved: [AtomicU64; RESERVED],
}
row!(SegmentHeader, size PAGE, align 64, magic @ 0, layout @ 8, params @ 48, checksum @ 176);

/// Words of the page that mean nothing yet.
const RESERVED: usize = (PAGE - 184) / 8;

/// The same as a size.
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == HEADER_BYTES);

/// Geometry of a segment, as its kind reads it.
pub type Params = [u64; PARAMS];

impl SegmentHeader {
    fn fields(&self) -> impl Iterator<Item = u64> + '_ {
        [
            self.magic.load(Ordering::Relaxed),
            u64::from(self.layout.load(Ordering::Relaxed)) << 32 | u64::from(self.kind.load(Ordering::Relaxed)),
            self.bytes.load(Ordering::Relaxed),
            self.fingerprint.load(Ordering::Relaxed),
            self.boot_id[0].load(Ordering::Relaxed),
            self.boot_id[1].load(Ordering::Relaxed),
        ]
        .into_iter()
        .chain(self.params.iter().chain(&self.reserved).map(|p| p.load(Ordering::Relaxed)))
    }

    fn sum(&self) -> u64 {
        checksum(self.fields())
    }
}

/// Writes the header of a fresh segment. The checksum goes last, released: a half-written header never passes [`check`].
///
/// # Errors
/// The segment is smaller than a header.
pub fn write(map: &Arc<Mapping>, kind: Kind, params: &Params) -> Result<(), SegmentError> {
    let header = map.one::<SegmentHeader>(0)?;
    let boot = boot_id();
    header.magic.store(MAGIC, Ordering::Relaxed);
    header.layout.store(layout_version(), Ordering::Relaxed);
    header.kind.store(kind as u32, Ordering::Relaxed);
    header.bytes.store(map.bytes(), Ordering::Relaxed);
    header.fingerprint.store(crate::fingerprint(), Ordering::Relaxed);
    header.boot_id[0].store(boot[0], Ordering::Relaxed);
    header.boot_id[1].store(boot[1], Ordering::Relaxed);
    for (to, from) in header.params.iter().zip(params) {
        to.store(*from, Ordering::Relaxed);
    }
    // Pairs with the Acquire in `check`.
    header.checksum.store(header.sum(), Ordering::Release);
    Ok(())
}

/// Layout version of this build, [`LAYOUT_VERSION`]. Only a build with feature `failpoints` takes another one from the
/// environment (`LB_LAYOUT=1.1`), to see how two builds get on.
#[must_use]
pub fn layout_version() -> u32 {
    #[cfg(feature = "failpoints")]
    {
        static PRETENDED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        *PRETENDED.get_or_init(|| {
            let Ok(text) = std::env::var("LB_LAYOUT") else { return LAYOUT_VERSION };
            layout_of_text(&text).unwrap_or_else(|| {
                eprintln!("LB_LAYOUT={text} is no layout version; hint: MAJOR.MINOR, for instance 1.1");
                LAYOUT_VERSION
            })
        })
    }
    #[cfg(not(feature = "failpoints"))]
    LAYOUT_VERSION
}

/// May a build of layout `own` work with tables of layout `tables`? The same major version, and a minor one not above its
/// own.
///
/// A **minor version** may: give a meaning to reserved bytes and bits, zero of which means "as before"; add drop reasons
/// and flow counters at the end of their lists, within [`counters::WORDS`](crate::counters::WORDS). It may not: move,
/// resize or reinterpret anything, nor move the parts of a segment: the [`fingerprint`](crate::fingerprint) stays. Tables
/// keep the version they were made with, and a newer build writes into them nothing that this version does not know. So
/// it takes over from an older one and gives back to it; tables *made* by the newer one are refused by the older.
///
/// **1.1** gave a meaning to: modes `nat`, `dr`, `tunnel` and the flags of directories and sessions that come with them;
/// schedulers after `lc`, persistence, and the files of both ([`LAYOUT_CHOICES`](crate::limits::LAYOUT_CHOICES)).
///
/// **1.2**: wide session records behind the others and their address lines at the slot's end, as many as its header says
/// (before: none, [`LAYOUT_WIDE`](crate::limits::LAYOUT_WIDE)); [`flag::V6`](crate::session::flag::V6); IPv6 addresses in
/// ring records.
#[must_use]
pub const fn compatible(own: u32, tables: u32) -> bool {
    tables >> 16 == own >> 16 && tables <= own
}

/// Checks that `map` is a whole, undamaged segment of `kind` made by this layout or an older minor version of it; returns
/// its geometry.
///
/// # Errors
/// [`SegmentError::Foreign`] naming the field and both sides.
pub fn check(map: &Arc<Mapping>, kind: Kind) -> Result<Params, SegmentError> {
    let foreign = |field, found: String, expected: String, hint| {
        Err(SegmentError::Foreign { path: map.path().into(), field, found, expected, hint })
    };
    let header = map.one::<SegmentHeader>(0)?;
    // Pairs with the Release in `write`.
    let sum = header.checksum.load(Ordering::Acquire);
    let magic = header.magic.load(Ordering::Relaxed);
    if magic != MAGIC {
        return foreign(
            "magic",
            format!("{magic:#018x}"),
            format!("{MAGIC:#018x}"),
            "; hint: not a ContainerLB segment",
        );
    }
    let (layout, own) = (header.layout.load(Ordering::Relaxed), layout_version());
    if !compatible(own, layout) {
        return foreign(
            "layout version",
            layout_text(layout),
            layout_text(own),
            "; hint: run the version that made it, or drain and remove the tables",
        );
    }
    let found = header.kind.load(Ordering::Relaxed);
    if found != kind as u32 {
        return foreign("kind", found.to_string(), format!("{} ({kind:?})", kind as u32), "");
    }
    let print = header.fingerprint.load(Ordering::Relaxed);
    if print != crate::fingerprint() {
        return foreign(
            "layout fingerprint",
            format!("{print:#018x}"),
            format!("{:#018x}", crate::fingerprint()),
            "; hint: same version number, other row sizes: a development build",
        );
    }
    let bytes = header.bytes.load(Ordering::Relaxed);
    if bytes != map.bytes() {
        return foreign("size", bytes.to_string(), map.bytes().to_string(), "; hint: truncated or grown file");
    }
    if sum != header.sum() {
        return foreign(
            "header checksum",
            format!("{sum:#018x}"),
            format!("{:#018x}", header.sum()),
            "; hint: damaged header",
        );
    }
    let boot = boot_id();
    let theirs = [header.boot_id[0].load(Ordering::Relaxed), header.boot_id[1].load(Ordering::Relaxed)];
    if theirs != boot {
        return foreign(
            "boot id",
            format!("{theirs:x?}"),
            format!("{boot:x?}"),
            "; hint: left over from before a reboot",
        );
    }
    let mut params = [0; PARAMS];
    for (to, from) in params.iter_mut().zip(&header.params) {
        *to = from.load(Ordering::Relaxed);
    }
    Ok(params)
}

/// Layout version a segment was made with; its header was checked.
#[must_use]
pub fn layout_of(map: &Arc<Mapping>) -> u32 {
    map.one::<SegmentHeader>(0).map_or(0, |header| header.layout.load(Ordering::Relaxed)) // Relaxed: never changes.
}

/// "1.0" of 0x0001_0000.
#[must_use]
pub fn layout_text(layout: u32) -> String {
    format!("{}.{}", layout >> 16, layout & 0xffff)
}

/// 0x0001_0000 of "1.0".
#[must_use]
pub fn layout_of_text(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once('.')?;
    Some(u32::from(major.parse::<u16>().ok()?) << 16 | u32::from(minor.parse::<u16>().ok()?))
}

/// The kernel's boot id, as two words; zeros where it cannot be read.
#[must_use]
pub fn boot_id() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let word = |range| u64::from_str_radix(hex.get(range).unwrap_or("0"), 16).unwrap_or(0);
    [word(0..16), word(16..32)]
}

/// 64-bit checksum of a sequence of words: detects damage, not malice (all writers are trusted).
pub fn checksum(words: impl Iterator<Item = u64>) -> u64 {
    let mut sum = 0x9E37_79B9_7F4A_7C15_u64;
    for word in words {
        sum = (sum ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29);
    }
    sum ^ (sum >> 32)
}

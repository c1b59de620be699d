//! Next hops: one row per neighbour, found by address, used by number. Control writes, workers read.

use std::path::Path;
use std::sync::Arc;

use crate::error::SegmentError;
use crate::header::{self, Kind, PARAMS};
use crate::row;
use crate::segment::{Cursor, Mapping, One, Rows};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// An address of either family: IPv4 as `::ffff:a.b.c.d`, two big-endian words.
pub type Ip = [u64; 2];

/// IPv4, host order, as [`Ip`].
#[inline(always)]
#[must_use]
pub const fn ip4(address: u32) -> Ip {
    [0, 0xffff_0000_0000 | address as u64]
}

/// The IPv4 address that [`ip4`] was made of; `None`: an IPv6 one.
#[inline]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the IPv4 address is the low half")]
pub const fn as_v4(ip: Ip) -> Option<u32> {
    if ip[0] == 0 && ip[1] >> 32 == 0xffff { Some(ip[1] as u32) } else { None }
}

/// The address in std's type.
#[must_use]
pub fn to_std(ip: Ip) -> std::net::IpAddr {
    let [high, low] = ip;
    std::net::Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).to_canonical()
}

/// An std address as [`Ip`].
#[must_use]
pub fn from_std(address: std::net::IpAddr) -> Ip {
    let bits = match address {
        std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        std::net::IpAddr::V6(v6) => v6.to_bits(),
    };
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of 128 bits")]
    [(bits >> 64) as u64, bits as u64]
}

/// What a packet needs of its next hop, in one word, so that one load is a consistent reading.
///
/// Bits: 0–47 MAC (first octet lowest), 48–55 tag (changes when the row is given to another neighbour), 56–61 port,
/// 62 resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop(pub u64);

const RESOLVED: u64 = 1 << 62;

impl Hop {
    /// A resolved or unresolved hop. `port` < 64.
    #[must_use]
    pub fn new(mac: [u8; 6], tag: u8, port: u8, resolved: bool) -> Self {
        let [a, b, c, d, e, f] = mac;
        let mac = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let state = if resolved { RESOLVED } else { 0 };
        Self(mac | u64::from(tag) << 48 | u64::from(port & 63) << 56 | state)
    }
    /// May packets go there?
    #[inline(always)]
    #[must_use]
    pub const fn resolved(self) -> bool {
        self.0 & RESOLVED != 0
    }
    /// The MAC address.
    #[inline(always)]
    #[must_use]
    pub const fn mac(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }
    /// Incarnation of the row.
    #[inline(always)]
    #[must_use]
    pub const fn tag(self) -> u8 {
        self.0.to_le_bytes()[6]
    }
    /// A resolved hop by `port` (< 64) of which neither MAC nor tag is known, for [`leads_by`](Self::leads_by).
    #[must_use]
    pub const fn any_by(port: u8) -> Self {
        Self(RESOLVED | (port as u64) << 56)
    }
    /// Is it resolved, by the port of `way` ([`any_by`](Self::any_by)), and still the neighbour whose tag this was?
    #[inline(always)]
    #[must_use]
    pub const fn leads_by(self, way: Self, tag: u64) -> bool {
        // Bit 63 is not used.
        (self.0 ^ way.0) >> 48 == tag
    }
    /// Port it is reached by.
    #[inline(always)]
    #[must_use]
    pub const fn port(self) -> u8 {
        self.0.to_le_bytes()[7] & 63
    }
}

/// States of [`NeighbourRow::state`], for people.
pub mod neighbour_state {
    /// Row is not in use.
    pub const FREE: u32 = 0;
    /// Asked, no answer yet.
    pub const INCOMPLETE: u32 = 1;
    /// Answered.
    pub const REACHABLE: u32 = 2;
    /// Answered earlier, being asked again; still used.
    pub const PROBING: u32 = 3;
    /// Does not answer.
    pub const FAILED: u32 = 4;
}

/// One neighbour.
///
/// Shape: one line. Writer: control. Readers: workers (`hop` alone on the fast path), lbctl. Units: ms of CLOCK_BOOTTIME.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct NeighbourRow {
    /// See [`Hop`].
    pub hop: AtomicU64,
    /// Its address. Written before the index points here, changed only when out of the index.
    pub ip: [AtomicU64; 2],
    /// Last answer, ms.
    pub confirmed_ms: AtomicU64,
    /// Last question, ms.
    pub asked_ms: AtomicU64,
    /// [`neighbour_state`].
    pub state: AtomicU32,
    /// Port.
    pub port: AtomicU32,
    reserved: [AtomicU64; 2],
}
row!(NeighbourRow, size 64, align 64);

/// Shape: one line. Writer: control. Readers: workers.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct NeighbourHead {
    /// Raised after every change of a hop: who waits for one looks again.
    pub epoch: AtomicU64,
    /// Rows in use.
    pub used: AtomicU64,
    reserved: [AtomicU64; 6],
}
row!(NeighbourHead, size 64, align 64);

/// Index places per bucket.
pub const PLACES: usize = 16;

/// A bucket of the index: row numbers, 0 = empty (row 0 is never used).
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct NeighbourBucket {
    /// Row numbers.
    pub rows: [AtomicU32; PLACES],
}
row!(NeighbourBucket, size 64, align 64);

/// Name of the file below `tables/`.
pub const FILE: &str = "neighbours";

/// The neighbour table.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// Epoch.
    pub head: One<NeighbourHead>,
    /// Index by address.
    pub buckets: Rows<NeighbourBucket>,
    /// Rows; 0 is "none".
    pub rows: Rows<NeighbourRow>,
}

/// Rows for `limit` neighbours: row 0 is "none", row numbers are 16 bits.
const fn rows_for(limit: u64) -> u64 {
    if limit > 65_534 { 65_535 } else { limit + 1 }
}

const fn offsets(rows: u64) -> (u64, u64, u64, u64) {
    let mut at = Cursor::after_header();
    let head = at.take::<NeighbourHead>(1);
    let buckets = at.take::<NeighbourBucket>(rows.div_ceil(4));
    let table = at.take::<NeighbourRow>(rows);
    (head, buckets, table, at.bytes())
}

impl Neighbours {
    /// Bytes of the segment for `limit` neighbours.
    #[must_use]
    pub const fn bytes(limit: u64) -> u64 {
        offsets(rows_for(limit)).3
    }

    /// Makes an empty table in `map` (zeroed).
    ///
    /// # Errors
    /// The mapping is too small.
    pub fn format(map: &Arc<Mapping>, limit: u64) -> Result<Self, SegmentError> {
        let mut params = [0; PARAMS];
        params[0] = rows_for(limit);
        let table = Self::view(map, params[0])?;
        header::write(map, Kind::Neighbours, &params)?;
        Ok(table)
    }

    /// A table in anonymous memory, for tests.
    ///
    /// # Errors
    /// Memory.
    pub fn anonymous(limit: u64) -> Result<Self, SegmentError> {
        Self::format(&Mapping::anonymous(Self::bytes(limit), false)?, limit)
    }

    /// Opens the table below `tables`.
    ///
    /// # Errors
    /// Missing, foreign or damaged.
    pub fn open(tables: &Path, writable: bool) -> Result<Self, SegmentError> {
        let map = Mapping::open(&tables.join(FILE), writable)?;
        let params = header::check(&map, Kind::Neighbours)?;
        Self::view(&map, params[0])
    }

    fn view(map: &Arc<Mapping>, rows: u64) -> Result<Self, SegmentError> {
        let (head, buckets, table, _) = offsets(rows);
        Ok(Self { head: map.one(head)?, buckets: map.rows(buckets, rows.div_ceil(4))?, rows: map.rows(table, rows)? })
    }

    /// The hop in row `row`; row 0 and rows that do not exist are unresolved.
    #[inline(always)]
    #[must_use]
    pub fn hop(&self, row: u16) -> Hop {
        self.hop_of(u64::from(row)).unwrap_or(Hop(0))
    }

    /// The hop in row `row`; `None`: there is no such row.
    #[inline(always)]
    #[must_use]
    pub fn hop_of(&self, row: u64) -> Option<Hop> {
        // Acquire pairs with the Release of whoever wrote the hop: its row's address is there too.
        self.rows.get(usize::try_from(row).ok()?).map(|row| Hop(row.hop.load(Ordering::Acquire)))
    }

    /// Bucket of an address. The mix has no key: whoever chooses on-link addresses can fill a bucket, so control lets rows of
    /// stations that do not answer go first.
    #[must_use]
    pub fn bucket(&self, ip: Ip, port: u8) -> &NeighbourBucket {
        let mut x = ip[0] ^ ip[1].rotate_left(32) ^ u64::from(port) << 56;
        x = (x ^ x >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let at = usize::try_from((x >> 32) * self.buckets.len() as u64 >> 32).unwrap_or(0);
        &self.buckets[at]
    }

    /// Row of an address behind a port, resolved or not.
    #[must_use]
    pub fn find(&self, ip: Ip, port: u8) -> Option<(u16, Hop)> {
        self.bucket(ip, port).rows.iter().find_map(|place| {
            let number = place.load(Ordering::Acquire); // Pairs with the Release that put the row in.
            if number == 0 {
                return None;
            }
            let row = self.rows.get(number as usize)?;
            // The row may be given to another neighbour while we look: then its tag changes before its address does
            // (fence in `Learner::row`), and again after it (its Release).
            let hop = Hop(row.hop.load(Ordering::Acquire));
            let same = row.ip[0].load(Ordering::Relaxed) == ip[0] && row.ip[1].load(Ordering::Relaxed) == ip[1];
            fence(Ordering::Acquire);
            let still = Hop(row.hop.load(Ordering::Relaxed)).tag() == hop.tag();
            (same && still && hop.port() == port).then_some((u16::try_from(number).ok()?, hop))
        })
    }
}

//! Choosing by hash: the file of choice tables, and the hash that reads them.
//!
//! Whatever has to be the same on every node of a cluster is here, and depends on nothing but the configuration: who sits
//! where in a table ([`maglev`]), where a client looks first, and where it looks next when that server takes nobody.

pub mod maglev;

use std::path::Path;
use std::sync::Arc;

use arch::siphash13;

use crate::error::SegmentError;
use crate::header::{self, Kind, PARAMS};
use crate::neighbours::Ip;
use crate::segment::{Cursor, Mapping, Rows};
use crate::sync::{AtomicU16, Ordering};
use maglev::PLACES_64;
pub use maglev::{NOBODY, PLACES, Share};

/// Key of [`siphash13`]; `[0, 0]`: as if there were none, everybody can tell who is chosen.
pub type Key = [u64; 2];

/// Hash of what a server is.
fn identity_hash(share: &Share, key: Key) -> u64 {
    let address = siphash13(share.ip[0], share.ip[1], key);
    siphash13(address, u64::from(share.port) << 8 | u64::from(share.protocol), key)
}

/// Hash of a client's address and, where it counts, of more (`extra`). SipHash: without the key nobody can choose addresses
/// that fall on one server; and, unlike the hash of the session index, the same on every CPU.
#[inline]
#[must_use]
pub fn client_hash(ip: Ip, extra: Option<u64>, key: Key) -> u64 {
    let address = siphash13(ip[0], ip[1], key);
    extra.map_or(address, |extra| siphash13(address, extra, key))
}

/// `ip` with all but its first `prefix` bits 0 (as if IPv6: an IPv4 /24 is 120).
#[inline]
#[must_use]
pub fn masked(ip: Ip, prefix: u32) -> Ip {
    let keep = |bits: u32| if bits == 0 { 0 } else { u64::MAX << (64 - bits.min(64)) };
    [ip[0] & keep(prefix.min(64)), ip[1] & keep(prefix.saturating_sub(64))]
}

/// A place from the upper half of a hash, a stride from the lower one.
#[inline]
#[must_use]
pub fn start_and_stride(hash: u64) -> (usize, usize) {
    let part = |half: u64, of: u64| usize::try_from((half * of) >> 32).unwrap_or(0);
    (part(hash >> 32, PLACES_64), 1 + part(hash & 0xffff_ffff, PLACES_64 - 1))
}

/// The place a stride further.
#[inline]
#[must_use]
pub const fn step(at: usize, stride: usize) -> usize {
    let next = at + stride;
    if next >= PLACES { next - PLACES } else { next }
}

/// Name of the file below `tables/`.
pub const FILE: &str = "choices";
/// From one table to the next, places: whole cache lines.
const PITCH: u64 = PLACES_64.next_multiple_of(32);

/// The choice tables.
///
/// Shape: tables of [`PLACES`] member places (of the service's own members), 16 bits each. Writer: control, before the
/// generation that names the table. Readers: workers, lbctl.
#[derive(Clone, Debug)]
pub struct Choices {
    places: Rows<AtomicU16>,
    count: u32,
}

impl Choices {
    /// Bytes of a file of `count` tables.
    #[must_use]
    pub fn bytes(count: u32) -> u64 {
        let mut at = Cursor::after_header();
        at.take::<AtomicU16>(u64::from(count) * PITCH);
        at.bytes()
    }

    fn view(map: &Arc<Mapping>, count: u32) -> Result<Self, SegmentError> {
        let places = u64::from(count) * PITCH;
        Ok(Self { places: map.rows(Cursor::after_header().take::<AtomicU16>(places), places)?, count })
    }

    /// Makes tables that nobody names in `map` (zeroed).
    ///
    /// # Errors
    /// The mapping is too small.
    pub fn format(map: &Arc<Mapping>, count: u32) -> Result<Self, SegmentError> {
        let choices = Self::view(map, count)?;
        let mut params = [0; PARAMS];
        params[0] = count.into();
        header::write(map, Kind::Choices, &params)?;
        Ok(choices)
    }

    /// Tables in anonymous memory, for tests and benchmarks.
    ///
    /// # Errors
    /// Memory.
    pub fn anonymous(count: u32) -> Result<Self, SegmentError> {
        Self::format(&Mapping::anonymous(Self::bytes(count), false)?, count)
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
        let params = header::check(&map, Kind::Choices)?;
        let count = u32::try_from(params[0]).map_err(|_| SegmentError::TooLarge { bytes: params[0] })?;
        Self::view(&map, count).map(Some)
    }

    /// Tables there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Table `number`; `None`: there is none.
    #[inline]
    #[must_use]
    pub fn table(&self, number: u32) -> Option<&[AtomicU16]> {
        let first = usize::try_from(u64::from(number) * PITCH).ok()?;
        self.places.get(first..first.checked_add(PLACES)?)
    }

    /// Writes a table that nobody reads. Control only.
    pub fn write(&self, number: u32, members: &[u16]) {
        for (to, from) in self.table(number).into_iter().flatten().zip(members) {
            to.store(*from, Ordering::Relaxed); // Relaxed: named by a row that is released with its generation.
        }
    }

    /// Checksum of a table, folded to 32 bits.
    #[must_use]
    pub fn sum(&self, number: u32) -> u32 {
        let places = self.table(number).unwrap_or(&[]).iter().map(|place| u64::from(place.load(Ordering::Relaxed)));
        let sum = header::checksum(places);
        #[allow(clippy::cast_possible_truncation, reason = "both halves folded into 32 bits")]
        {
            (sum ^ sum >> 32) as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbours::ip4;

    #[test]
    fn a_prefix_keeps_its_bits() {
        assert_eq!(masked(ip4(0x0a01_02ff), 120), ip4(0x0a01_0200));
        assert_eq!(masked(ip4(0x0a01_02ff), 128), ip4(0x0a01_02ff));
        assert_eq!(masked([u64::MAX, u64::MAX], 48), [0xffff_ffff_ffff_0000, 0]);
        assert_eq!(masked([u64::MAX, u64::MAX], 64), [u64::MAX, 0]);
        assert_eq!(masked([7, 7], 0), [0, 0]);
    }

    #[test]
    fn tables_do_not_touch() {
        let choices = Choices::anonymous(3).unwrap();
        choices.write(1, &vec![7; PLACES]);
        assert!(
            choices.table(0).unwrap().iter().chain(choices.table(2).unwrap()).all(|p| p.load(Ordering::Relaxed) == 0)
        );
        assert!(choices.table(1).unwrap().iter().all(|p| p.load(Ordering::Relaxed) == 7));
        assert!(choices.table(3).is_none());
        assert_ne!(choices.sum(1), choices.sum(0));
        assert_eq!(choices.sum(2), choices.sum(0));
    }

    /// Figures of an implementation of its own, in Python after the two papers. A change of any of them would move the
    /// clients of every cluster while its nodes are upgraded one after the other.
    #[test]
    fn what_a_cluster_relies_on_stays() {
        assert_eq!(client_hash(ip4(0x0a00_000a), None, [0, 0]), 15_597_567_958_769_279_134);
        assert_eq!(client_hash(ip4(0x0a00_000a), Some(40_000), [1, 2]), 2_631_048_412_357_965_186);
        assert_eq!(start_and_stride(0xffff_ffff_ffff_ffff), (65_536, 65_536));
        assert_eq!(start_and_stride(0), (0, 1));
        let share = |n: u32| Share { ip: ip4(0x0a00_0015 + n), port: 8080, protocol: 6, weight: 1 + n as u16 };
        let table = maglev::build(&[share(0), share(1), share(2)], [1, 2]);
        assert_eq!(table[..16], [1, 0, 2, 1, 2, 2, 1, 0, 2, 1, 1, 0, 2, 0, 2, 1]);
        assert_eq!(table[32_768..32_772], [2, 2, 1, 1]);
    }
}

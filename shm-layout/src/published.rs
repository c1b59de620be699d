//! Published tables: services, real servers, local addresses, ports. Control writes, everybody reads.
//!
//! A *generation* is a directory block that names row versions; rows never change after the generation is published by
//! one store of [`RootRow::current`]. Rows that no live directory names are control's to write again, once every live
//! slot has passed a burst boundary ([`PulseRow::seen_generation`](crate::slot::PulseRow::seen_generation)).

mod rows;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::choice::Choices;
use crate::error::SegmentError;
use crate::header::{self, Kind, PARAMS};
use crate::limits::{DIRECTORIES, LAYOUT_CHOICES, MAX_LADDRS, MAX_PORTS, MAX_SLOTS, NONE};
use crate::neighbours::Ip;
use crate::segment::{Cursor, Mapping, One, Rows};

pub use rows::*;

/// Sizes of the published tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedGeometry {
    /// Services (limit).
    pub services: u64,
    /// Real server ids (limit).
    pub servers: u64,
}

impl PublishedGeometry {
    /// Places of the VIP hash tables: at most half full.
    #[must_use]
    pub const fn vip_places(&self) -> u64 {
        (self.services * 2).next_power_of_two()
    }
    /// Service row versions: the current ones, as many changed ones, and a few.
    #[must_use]
    pub const fn service_rows(&self) -> u64 {
        self.services * 2 + 64
    }
    /// Member row versions.
    #[must_use]
    pub const fn member_rows(&self) -> u64 {
        self.servers * 2 + 1024
    }
    /// Places for weighted sequences.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.servers * 8 + 65_536
    }
}

/// Places of the local address hash.
const LOCAL_PLACES: u64 = 2 * MAX_LADDRS as u64;

/// Name of the file below `tables/`.
pub const FILE: &str = "published";

/// One generation's directory.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Head.
    pub head: One<DirectoryRow>,
    /// Service row of each service index, or NONE.
    pub services: Rows<AtomicU32>,
    /// Hash of (address, port, protocol): service index + 1, 0 empty.
    pub vips: Rows<AtomicU32>,
    /// Hash of the address alone: index + 1 of a service that has it, 0 empty.
    pub vip_addresses: Rows<AtomicU32>,
    /// Member row of each server id, or NONE.
    pub servers: Rows<AtomicU32>,
    /// Hash of local addresses: place in `locals` + 1, 0 empty.
    pub local_addresses: Rows<AtomicU32>,
    /// Local addresses.
    pub locals: Rows<LocalRow>,
}

impl Directory {
    /// Checksum of everything a reader relies on.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let arrays = [&self.services, &self.vips, &self.vip_addresses, &self.servers, &self.local_addresses];
        let words = arrays.into_iter().flat_map(|rows| rows.iter().map(|w| u64::from(w.load(Ordering::Relaxed))));
        let used = self.head.locals.load(Ordering::Relaxed) as usize;
        let locals = self.locals.iter().take(used).flat_map(LocalRow::words);
        header::checksum(self.head.words().chain(words).chain(locals))
    }

    /// Where a probe of a hash table begins.
    #[inline]
    #[must_use]
    pub fn first(rows: &Rows<AtomicU32>, hash: u64) -> usize {
        usize::try_from(hash >> 32).unwrap_or(0) & rows.len().wrapping_sub(1)
    }

    fn probe(rows: &Rows<AtomicU32>, hash: u64, mut hit: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = rows.len().wrapping_sub(1);
        let start = Self::first(rows, hash);
        for step in 0..rows.len() {
            let place = rows.get(start.wrapping_add(step) & mask)?.load(Ordering::Relaxed);
            if place == 0 {
                return None;
            }
            if hit(place - 1) {
                return Some(place - 1);
            }
        }
        None
    }
}

/// Mix for the VIP and local address hashes: writer and readers must agree; the keys come from the configuration alone,
/// so it needs no secret.
#[inline]
#[must_use]
pub fn address_hash(ip: Ip, port: u16, protocol: u8) -> u64 {
    let mut x = ip[0] ^ ip[1].rotate_left(17) ^ u64::from(port) << 40 ^ u64::from(protocol) << 56;
    x = (x ^ x >> 31).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ x >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// The published tables.
#[derive(Clone, Debug)]
pub struct Published {
    /// Sizes.
    pub geometry: PublishedGeometry,
    /// Current generation.
    pub root: One<RootRow>,
    /// Ports.
    pub ports: Rows<PortRow>,
    /// Slots.
    pub slots: Rows<SlotRow>,
    /// Directories.
    pub directories: Vec<Directory>,
    /// Service row versions.
    pub services: Rows<ServiceRow>,
    /// Member row versions.
    pub members: Rows<MemberRow>,
    /// Weighted sequences: member places within their service.
    pub steps: Rows<AtomicU32>,
    /// Choice tables; `None`: the tables are of layout 1.0, and nothing that is new since is written into them.
    pub choices: Option<Choices>,
}

/// Choice tables of tables in anonymous memory.
const ANONYMOUS_CHOICES: u32 = 32;

impl Published {
    /// Bytes of the segment.
    #[must_use]
    pub fn bytes(geometry: PublishedGeometry) -> u64 {
        let mut at = Cursor::after_header();
        Self::walk(geometry, &mut at);
        at.bytes()
    }

    fn walk(geometry: PublishedGeometry, at: &mut Cursor) -> ([u64; 6], [[u64; 7]; DIRECTORIES]) {
        let root = at.take::<RootRow>(1);
        let ports = at.take::<PortRow>(MAX_PORTS as u64);
        let slots = at.take::<SlotRow>(MAX_SLOTS as u64);
        let directories = std::array::from_fn(|_| {
            [
                at.take::<DirectoryRow>(1),
                at.take::<AtomicU32>(geometry.services),
                at.take::<AtomicU32>(geometry.vip_places()),
                at.take::<AtomicU32>(geometry.vip_places()),
                at.take::<AtomicU32>(geometry.servers),
                at.take::<AtomicU32>(LOCAL_PLACES),
                at.take::<LocalRow>(MAX_LADDRS as u64),
            ]
        });
        let services = at.take::<ServiceRow>(geometry.service_rows());
        let members = at.take::<MemberRow>(geometry.member_rows());
        let steps = at.take::<AtomicU32>(geometry.steps());
        ([root, ports, slots, services, members, steps], directories)
    }

    fn view(map: &Arc<Mapping>, geometry: PublishedGeometry) -> Result<Self, SegmentError> {
        let ([root, ports, slots, services, members, steps], places) =
            Self::walk(geometry, &mut Cursor::after_header());
        let directory = |at: &[u64; 7]| -> Result<Directory, SegmentError> {
            Ok(Directory {
                head: map.one(at[0])?,
                services: map.rows(at[1], geometry.services)?,
                vips: map.rows(at[2], geometry.vip_places())?,
                vip_addresses: map.rows(at[3], geometry.vip_places())?,
                servers: map.rows(at[4], geometry.servers)?,
                local_addresses: map.rows(at[5], LOCAL_PLACES)?,
                locals: map.rows(at[6], MAX_LADDRS as u64)?,
            })
        };
        Ok(Self {
            geometry,
            root: map.one(root)?,
            ports: map.rows(ports, MAX_PORTS as u64)?,
            slots: map.rows(slots, MAX_SLOTS as u64)?,
            directories: places.iter().map(directory).collect::<Result<_, _>>()?,
            services: map.rows(services, geometry.service_rows())?,
            members: map.rows(members, geometry.member_rows())?,
            steps: map.rows(steps, geometry.steps())?,
            choices: None,
        })
    }

    /// The tables with their choice tables, if they are of a layout that has some.
    #[must_use]
    pub fn with(mut self, choices: Option<Choices>) -> Self {
        self.choices = choices.filter(|_| header::layout_of(self.root.mapping()) >= LAYOUT_CHOICES);
        self
    }

    /// Makes empty tables in `map` (zeroed).
    ///
    /// # Errors
    /// The mapping is too small.
    pub fn format(map: &Arc<Mapping>, geometry: PublishedGeometry) -> Result<Self, SegmentError> {
        let published = Self::view(map, geometry)?;
        let mut params = [0; PARAMS];
        params[..2].copy_from_slice(&[geometry.services, geometry.servers]);
        header::write(map, Kind::Published, &params)?;
        Ok(published)
    }

    /// Tables in anonymous memory, for tests.
    ///
    /// # Errors
    /// Memory.
    pub fn anonymous(geometry: PublishedGeometry) -> Result<Self, SegmentError> {
        let tables = Self::format(&Mapping::anonymous(Self::bytes(geometry), false)?, geometry)?;
        Ok(tables.with(Some(Choices::anonymous(ANONYMOUS_CHOICES)?)))
    }

    /// Opens the tables below `tables`.
    ///
    /// # Errors
    /// Missing, foreign or damaged.
    pub fn open(tables: &Path, writable: bool) -> Result<Self, SegmentError> {
        let map = Mapping::open(&tables.join(FILE), writable)?;
        let params = header::check(&map, Kind::Published)?;
        let published = Self::view(&map, PublishedGeometry { services: params[0], servers: params[1] })?;
        Ok(published.with(Choices::open(tables, writable)?))
    }

    /// The current generation and its directory; `None` before the first publication.
    #[inline(always)]
    #[must_use]
    pub fn current(&self) -> Option<Generation> {
        let word = self.root.in_force();
        let directory = usize::try_from(word & 0xff).unwrap_or(usize::MAX);
        (word >> 8 != 0 && directory < self.directories.len()).then_some(Generation { number: word >> 8, directory })
    }

    /// Directory of a generation.
    #[inline(always)]
    #[must_use]
    pub fn directory(&self, generation: Generation) -> &Directory {
        &self.directories[generation.directory]
    }

    /// Is the directory that of the generation? (No, if the root was damaged.)
    #[must_use]
    pub fn names(&self, generation: Generation) -> bool {
        self.directory(generation).head.generation.load(Ordering::Relaxed) == generation.number
    }

    /// Checks a generation whole: its directory, its services with their members and sequences. O(tables): for who is about
    /// to begin to read, not for bursts. Who is not in the quorum looks again whether the generation is still the current
    /// one before it believes in damage.
    ///
    /// # Errors
    /// [`SegmentError::Foreign`] naming the part.
    pub fn verify(&self, generation: Generation) -> Result<(), SegmentError> {
        let damaged = |field, found: u64, expected: u64| {
            Err(SegmentError::Foreign {
                path: self.root.mapping().path().into(),
                field,
                found: format!("{found:#x}"),
                expected: format!("{expected:#x}"),
                hint: "; hint: damaged; control publishes it anew when it is restarted",
            })
        };
        let directory = self.directory(generation);
        let number = directory.head.generation.load(Ordering::Acquire);
        if number != generation.number {
            return damaged("generation of the directory in force", number, generation.number);
        }
        let sums = (directory.head.checksum.load(Ordering::Relaxed), directory.sum());
        if sums.0 != sums.1 {
            return damaged("checksum of the directory", sums.0, sums.1);
        }
        for row in directory.services.iter().map(|row| row.load(Ordering::Relaxed)).filter(|row| *row != NONE) {
            let Some(service) = self.services.get(row as usize) else {
                return damaged("row of a service", row.into(), self.services.len() as u64);
            };
            let sums = (service.checksum.load(Ordering::Relaxed), self.service_sum(service));
            if sums.0 != sums.1 {
                return damaged("checksum of a service", sums.0.into(), sums.1.into());
            }
            let sums = (service.choice_sum.load(Ordering::Relaxed), self.choice_sum(service));
            if sums.0 != sums.1 {
                return damaged("checksum of a choice table", sums.0.into(), sums.1.into());
            }
        }
        Ok(())
    }

    /// Index of the service at (address, port, protocol).
    #[inline]
    #[must_use]
    pub fn find_service(&self, generation: Generation, ip: Ip, port: u16, protocol: u8) -> Option<u32> {
        let directory = self.directory(generation);
        Directory::probe(&directory.vips, address_hash(ip, port, protocol), |index| {
            self.service(generation, index).is_some_and(|row| {
                row.vip[1].load(Ordering::Relaxed) == ip[1]
                    && row.vip[0].load(Ordering::Relaxed) == ip[0]
                    && row.port.load(Ordering::Relaxed) == port
                    && row.protocol.load(Ordering::Relaxed) == protocol
            })
        })
    }

    /// Is the address a VIP?
    #[inline]
    #[must_use]
    pub fn is_vip(&self, generation: Generation, ip: Ip) -> bool {
        let directory = self.directory(generation);
        Directory::probe(&directory.vip_addresses, address_hash(ip, 0, 0), |index| {
            self.service(generation, index).is_some_and(|row| {
                row.vip[1].load(Ordering::Relaxed) == ip[1] && row.vip[0].load(Ordering::Relaxed) == ip[0]
            })
        })
        .is_some()
    }

    /// The local address row of `ip`.
    #[inline]
    #[must_use]
    pub fn find_local(&self, generation: Generation, ip: Ip) -> Option<&LocalRow> {
        let directory = self.directory(generation);
        let place = Directory::probe(&directory.local_addresses, address_hash(ip, 0, 0), |place| {
            directory.locals.get(place as usize).is_some_and(|row| {
                row.ip[1].load(Ordering::Relaxed) == ip[1] && row.ip[0].load(Ordering::Relaxed) == ip[0]
            })
        })?;
        directory.locals.get(place as usize)
    }

    /// Service row of a service index.
    #[inline]
    #[must_use]
    pub fn service(&self, generation: Generation, index: u32) -> Option<&ServiceRow> {
        let row = self.directory(generation).services.get(index as usize)?.load(Ordering::Relaxed);
        if row == NONE { None } else { self.services.get(row as usize) }
    }

    /// Members of a service version; empty when the row's numbers leave the arena.
    #[inline]
    #[must_use]
    pub fn members(&self, service: &ServiceRow) -> &[MemberRow] {
        let first = service.first_member.load(Ordering::Relaxed) as usize;
        let count = service.members.load(Ordering::Relaxed) as usize;
        self.members.get(first..first.saturating_add(count)).unwrap_or(&[])
    }

    /// Weighted sequence of a service version.
    #[inline]
    #[must_use]
    pub fn steps(&self, service: &ServiceRow) -> &[AtomicU32] {
        let first = service.first_step.load(Ordering::Relaxed) as usize;
        let count = service.steps.load(Ordering::Relaxed) as usize;
        self.steps.get(first..first.saturating_add(count)).unwrap_or(&[])
    }

    /// Choice table of a service version; `None`: it has none.
    #[inline]
    #[must_use]
    pub fn choice(&self, service: &ServiceRow) -> Option<&[AtomicU16]> {
        let number = service.choice.load(Ordering::Relaxed).checked_sub(1)?;
        self.choices.as_ref()?.table(number)
    }

    /// Checksum of the choice table of a service version; 0: it has none. Not part of [`Self::service_sum`], which slots
    /// make between packets: a slot checks each place it reads for itself.
    #[must_use]
    pub fn choice_sum(&self, service: &ServiceRow) -> u32 {
        let number = service.choice.load(Ordering::Relaxed).checked_sub(1);
        number.zip(self.choices.as_ref()).map_or(0, |(number, choices)| choices.sum(number))
    }

    /// Member row of a server id; `None`: an orphan's id.
    #[inline]
    #[must_use]
    pub fn server(&self, generation: Generation, id: u32) -> Option<&MemberRow> {
        let row = self.directory(generation).servers.get(id as usize)?.load(Ordering::Relaxed);
        if row == NONE { None } else { self.members.get(row as usize).filter(|m| m.id.load(Ordering::Relaxed) == id) }
    }

    /// Checksum of a service version with its members and sequence.
    #[must_use]
    pub fn service_sum(&self, service: &ServiceRow) -> u32 {
        let members = self.members(service).iter().flat_map(MemberRow::words);
        let steps = self.steps(service).iter().map(|s| u64::from(s.load(Ordering::Relaxed)));
        let sum = header::checksum(service.words().chain(members).chain(steps));
        #[allow(clippy::cast_possible_truncation, reason = "both halves folded into 32 bits")]
        {
            (sum ^ sum >> 32) as u32
        }
    }
}

/// A generation a reader holds: its number and its directory block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Number, from 1.
    pub number: u64,
    /// Directory block.
    pub directory: usize,
}

/// The slot that owns a local port: a pure function, so that any slot knows where a reply belongs.
#[inline(always)]
#[must_use]
pub const fn owner_slot(local_port: u16, slots: u32) -> u32 {
    if slots == 0 { 0 } else { local_port as u32 % slots }
}

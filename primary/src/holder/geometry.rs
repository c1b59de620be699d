//! Sizes of the tables: from the configuration to bytes and back from the files.

use config::TableSizes;
use serde::{Deserialize, Serialize};
use shm_layout::neighbours::Neighbours;
use shm_layout::published::{Published, PublishedGeometry};
use shm_layout::secrets;
use shm_layout::segment::HUGE_PAGE;
use shm_layout::slot::SlotGeometry;

/// Sessions per extension record: SYN proxy, PROXY v2 and timestamps need one each, and few sessions do.
const SESSIONS_PER_EXTENSION: u64 = 16;

/// Sizes that are fixed for the life of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Slots of all ports.
    pub slots: u32,
    /// Sessions per slot.
    pub sessions: u64,
    /// Real server ids.
    pub servers: u64,
    /// Services.
    pub services: u64,
    /// Next hops.
    pub neighbours: u64,
}

impl Geometry {
    /// What a configuration asks for.
    #[must_use]
    pub fn of(sizes: TableSizes) -> Self {
        Self {
            slots: sizes.slots.into(),
            sessions: sizes.sessions.into(),
            servers: sizes.real_servers.into(),
            services: sizes.services.into(),
            neighbours: sizes.neighbours.into(),
        }
    }

    /// One slot's.
    #[must_use]
    pub fn slot(&self, slot: u32) -> SlotGeometry {
        SlotGeometry {
            slot,
            slots: self.slots,
            sessions: self.sessions,
            servers: self.servers,
            services: self.services,
            extensions: self.sessions.div_ceil(SESSIONS_PER_EXTENSION),
        }
    }

    /// The published tables'.
    #[must_use]
    pub fn published(&self) -> PublishedGeometry {
        PublishedGeometry { services: self.services, servers: self.servers }
    }

    /// Every file with its bytes, rounded to hugepages.
    pub fn files(&self) -> impl Iterator<Item = (String, u64)> {
        let round = |(name, bytes): (String, u64)| (name, bytes.next_multiple_of(HUGE_PAGE));
        let shared = [
            (secrets::FILE.to_owned(), secrets::BYTES),
            (shm_layout::published::FILE.to_owned(), Published::bytes(self.published())),
            (shm_layout::neighbours::FILE.to_owned(), Neighbours::bytes(self.neighbours)),
        ];
        let slot = self.slot(0).bytes();
        let slots = (0..self.slots).map(move |n| (shm_layout::slot::file_name(n), slot));
        shared.into_iter().chain(slots).map(round)
    }
}

impl std::fmt::Display for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} slots of {} sessions, {} real servers, {} services, {} neighbours",
            self.slots, self.sessions, self.servers, self.services, self.neighbours
        )
    }
}

/// Bytes of all table files, for [`config::hugepages_needed`].
#[must_use]
pub fn table_bytes(sizes: TableSizes) -> u64 {
    Geometry::of(sizes).files().map(|(_, bytes)| bytes).sum()
}

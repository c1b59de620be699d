//! Sizes of the tables: which files there are and how many bytes each has. Asked before the tables are made (hugepages a
//! configuration needs) and when they are found again (are they still those?).

use crate::choice::{self, Choices};
use crate::neighbours::{self, Neighbours};
use crate::persistence::{self, Persistence};
use crate::published::{self, Published, PublishedGeometry};
use crate::secrets;
use crate::segment::HUGE_PAGE;
use crate::slot::{self, SlotGeometry};

/// Sessions per extension record: SYN proxy, PROXY v2 and timestamps need one each, and few sessions do.
const SESSIONS_PER_EXTENSION: u64 = 16;

/// Sizes that are fixed for the life of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Geometry {
    /// Slots of all ports.
    pub slots: u32,
    /// IPv4 sessions per slot.
    pub sessions: u64,
    /// IPv6 sessions per slot.
    pub wide_sessions: u64,
    /// Real server ids.
    pub servers: u64,
    /// Services.
    pub services: u64,
    /// Next hops.
    pub neighbours: u64,
    /// Choice tables: two for each service that may have one, for a change writes the new beside the old.
    pub choices: u32,
}

impl Geometry {
    /// One slot's.
    #[must_use]
    pub fn slot(&self, slot: u32) -> SlotGeometry {
        SlotGeometry {
            slot,
            slots: self.slots,
            sessions: self.sessions,
            wide_sessions: self.wide_sessions,
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
        let shared = [
            (choice::FILE.to_owned(), Choices::bytes(self.choices)),
            (persistence::FILE.to_owned(), Persistence::bytes(self.slots, self.sessions)),
            (secrets::FILE.to_owned(), secrets::BYTES),
            (published::FILE.to_owned(), Published::bytes(self.published())),
            (neighbours::FILE.to_owned(), Neighbours::bytes(self.neighbours)),
        ];
        let each = self.slot(0).bytes();
        let slots = (0..self.slots).map(move |number| (slot::file_name(number), each));
        shared.into_iter().chain(slots).map(|(name, bytes)| (name, bytes.next_multiple_of(HUGE_PAGE)))
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files().map(|(_, bytes)| bytes).sum()
    }
}

impl std::fmt::Display for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} slots of {} IPv4 and {} IPv6 sessions, {} real servers, {} services, {} neighbours, {} choice tables",
            self.slots, self.sessions, self.wide_sessions, self.servers, self.services, self.neighbours, self.choices
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_files() {
        let geometry = Geometry {
            slots: 3,
            sessions: 100_000,
            wide_sessions: 10_000,
            servers: 64,
            services: 16,
            neighbours: 1024,
            choices: 4,
        };
        let files: Vec<_> = geometry.files().collect();
        assert_eq!(files.len(), 5 + 3);
        assert!(files.iter().all(|(_, bytes)| *bytes > 0 && bytes.is_multiple_of(HUGE_PAGE)));
        assert_eq!(geometry.bytes(), files.iter().map(|(_, bytes)| bytes).sum::<u64>());
        assert_eq!(geometry.slot(2).extensions, 6250);
    }
}

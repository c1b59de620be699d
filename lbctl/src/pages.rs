//! Hugepages a configuration needs, as `config check` tells: packet buffers and the files of the tables.

use config::TableSizes;
use shm_layout::neighbours::Neighbours;
use shm_layout::published::{Published, PublishedGeometry};
use shm_layout::secrets;
use shm_layout::segment::HUGE_PAGE;
use shm_layout::slot::SlotGeometry;

/// Sessions per extension record, as the holder makes the tables.
const SESSIONS_PER_EXTENSION: u64 = 16;

/// Bytes of all table files, each a whole number of hugepages.
pub fn table_bytes(sizes: TableSizes) -> u64 {
    let (sessions, servers, services) = (sizes.sessions.into(), sizes.real_servers.into(), sizes.services.into());
    let extensions = u64::div_ceil(sessions, SESSIONS_PER_EXTENSION);
    let slot = SlotGeometry { slot: 0, slots: sizes.slots.into(), sessions, servers, services, extensions }.bytes();
    let shared = [
        secrets::BYTES,
        Published::bytes(PublishedGeometry { services, servers }),
        Neighbours::bytes(sizes.neighbours.into()),
    ];
    let shared: u64 = shared.iter().map(|bytes| bytes.next_multiple_of(HUGE_PAGE)).sum();
    shared + u64::from(sizes.slots) * slot.next_multiple_of(HUGE_PAGE)
}

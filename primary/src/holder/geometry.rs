//! The sizes of the tables that a configuration asks for.

use config::TableSizes;
use shm_layout::geometry::Geometry;

/// The tables' sizes.
#[must_use]
pub fn of(sizes: TableSizes) -> Geometry {
    Geometry {
        slots: sizes.slots.into(),
        sessions: sizes.sessions.into(),
        wide_sessions: sizes.sessions_ipv6.into(),
        servers: sizes.real_servers.into(),
        services: sizes.services.into(),
        neighbours: sizes.neighbours.into(),
        choices: sizes.hash_services * 2,
    }
}

/// Bytes of all table files, for [`config::hugepages_needed`].
#[must_use]
pub fn table_bytes(sizes: TableSizes) -> u64 {
    of(sizes).bytes()
}

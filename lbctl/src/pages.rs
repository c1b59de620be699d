//! Hugepages a configuration needs, as `config check` tells: packet buffers and the files of the tables.

use config::TableSizes;
use shm_layout::geometry::Geometry;

/// Bytes of all table files, each a whole number of hugepages.
pub fn table_bytes(sizes: TableSizes) -> u64 {
    let geometry = Geometry {
        slots: sizes.slots.into(),
        sessions: sizes.sessions.into(),
        wide_sessions: sizes.sessions_ipv6.into(),
        servers: sizes.real_servers.into(),
        services: sizes.services.into(),
        neighbours: sizes.neighbours.into(),
        choices: sizes.hash_services * 2,
    };
    geometry.bytes()
}

//! What control and holder tell each other through files of the run directory (serde JSON).

use serde::{Deserialize, Serialize};

/// What the holder found when it opened a port; in the order of the configuration's ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFacts {
    /// DPDK's number of it.
    pub device: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Driver, `net_tap`.
    pub driver: String,
    /// It computes IPv4 header checksums on TX.
    pub tx_ip_checksum: bool,
    /// It computes TCP and UDP checksums on TX.
    pub tx_l4_checksum: bool,
    /// Workers cannot poll it.
    pub pipeline: bool,
    /// [`shm_layout::published::steering`].
    pub steering: u32,
}

/// What only the holder can ask of a port; written to [`PORT_STATS`] once a second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// Name.
    pub name: String,
    /// `up`, `down`, `unknown`.
    pub link: String,
    /// Packets the NIC had no descriptor for.
    pub rx_missed: u64,
    /// Packets the driver had no buffer for.
    pub rx_nombuf: u64,
    /// Free buffers of its queues.
    pub mbufs_free: u64,
}

/// File of [`PortStats`] below the run directory.
pub const PORT_STATS: &str = "ports.json";

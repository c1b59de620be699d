//! What a port is to be, what it can do, what it says.

use std::ffi::CStr;

use dpdk_sys as sys;

use crate::{Pool, tap};

/// Why a port does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No such port.
    #[error("port {0} does not exist: is the device string right, and was EAL started with it?")]
    Missing(String),
    /// The driver refused.
    #[error("port {port}: {what} failed: {reason}")]
    Driver {
        /// The port's name.
        port: String,
        /// What was tried.
        what: &'static str,
        /// DPDK's text.
        reason: String,
    },
    /// A configuration the driver cannot have; found before DPDK was asked.
    #[error("port {port}: {what} is {value}, but {limit}")]
    Limit {
        /// The port's name.
        port: String,
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u32,
        /// What it may be, and what to do.
        limit: String,
    },
    /// Its MAC is given in the device string.
    #[error("port {0}: net_tap takes its MAC from `mac=` in the device string (`tap::with_mac`)")]
    MacInDevargs(String),
}

/// What a port is to be.
pub struct PortConfig<'a> {
    /// RX queues; each fills from the pool of its number.
    pub rx_queues: u16,
    /// TX queues.
    pub tx_queues: u16,
    /// RX descriptors a queue; brought into the driver's limits. net_tap always gets 1, see [`Port::configure`](super::Port::configure).
    pub rx_desc: u16,
    /// TX descriptors a queue; brought into the driver's limits.
    pub tx_desc: u16,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// One pool per RX queue.
    pub pools: &'a [Pool],
    /// Toeplitz key; `None`: the driver's own. Ignored where the driver has no RSS.
    pub rss_key: Option<&'a [u8]>,
    /// Whether to receive frames for other MACs as well.
    pub promiscuous: bool,
}

/// Which checksums a driver computes or checks in hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    /// IPv4 header.
    pub ipv4: bool,
    /// UDP.
    pub udp: bool,
    /// TCP.
    pub tcp: bool,
}

/// What a port can do.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Driver, for instance `net_tap`.
    pub driver: String,
    /// Most RX queues ([`tap::MAX_QUEUES`] for net_tap).
    pub max_rx_queues: u16,
    /// Most TX queues.
    pub max_tx_queues: u16,
    /// Largest MTU, 0 = unknown.
    pub max_mtu: u16,
    /// Checksums it fills. net_tap's are software and slower than ours: not offered.
    pub tx_checksums: Checksums,
    /// Checksums it checks. As above.
    pub rx_checksums: Checksums,
    /// Entries of the RSS redirection table; 0 = none offered, which is no error.
    pub reta_size: u16,
    /// Whether it spreads by RSS over addresses and ports.
    pub rss: bool,
    /// Bytes of the RSS key, 0 = none.
    pub rss_key_size: u8,
}

/// Counters of a port, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets the device dropped because no descriptor was free.
    pub rx_missed: u64,
    /// Damaged packets.
    pub rx_errors: u64,
    /// Packets not sent.
    pub tx_errors: u64,
    /// Times a pool was empty.
    pub rx_nombuf: u64,
}

/// State of the link. Of vdevs it means little (net_tap in another namespace reads down): show, never gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Mbit/s.
    pub speed_mbps: u32,
    /// Full duplex.
    pub full_duplex: bool,
}

pub(super) fn capabilities(info: &sys::rte_eth_dev_info) -> Capabilities {
    let driver = if info.driver_name.is_null() {
        String::new()
    } else {
        // SAFETY: DPDK's driver names are static and NUL-terminated.
        unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
    };
    let is_tap = tap::is_tap(&driver);
    let most = |n: u16| if is_tap { n.min(tap::MAX_QUEUES) } else { n };
    let sums = |capable: u64, bit: [u64; 3]| {
        let has = |b: u64| !is_tap && capable & b != 0;
        Checksums { ipv4: has(bit[0]), udp: has(bit[1]), tcp: has(bit[2]) }
    };
    Capabilities {
        max_rx_queues: most(info.max_rx_queues),
        max_tx_queues: most(info.max_tx_queues),
        max_mtu: info.max_mtu,
        tx_checksums: sums(info.tx_offload_capa, tx_bits()),
        rx_checksums: sums(info.rx_offload_capa, rx_bits()),
        reta_size: info.reta_size,
        rss: !is_tap && info.flow_type_rss_offloads & rss_fields() != 0,
        rss_key_size: info.hash_key_size,
        driver,
    }
}

pub(super) fn bits(sums: Checksums, bit: [u64; 3]) -> u64 {
    [sums.ipv4, sums.udp, sums.tcp].iter().zip(bit).filter(|(on, _)| **on).map(|(_, b)| b).sum()
}

pub(super) fn tx_bits() -> [u64; 3] {
    // SAFETY: a constant of the shim.
    unsafe { sys::lb_tx_cksum }
}

pub(super) fn rx_bits() -> [u64; 3] {
    // SAFETY: a constant of the shim.
    unsafe { sys::lb_rx_cksum }
}

pub(super) fn rss_fields() -> u64 {
    // SAFETY: a constant of the shim.
    unsafe { sys::lb_rss_ip_l4 }
}

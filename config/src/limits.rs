//! What the tables hold at most. The same numbers stand in the shared layout; `lb-primary` asserts that they agree.

/// Ports.
pub const MAX_PORTS: usize = 8;
/// Slots of all ports together.
pub const MAX_SLOTS: usize = 64;
/// Zones, and zone ids 0 to 7.
pub const MAX_ZONES: usize = 8;
/// Own addresses of a port.
pub const MAX_PORT_ADDRESSES: usize = 8;
/// Gateways of a port.
pub const MAX_PORT_GATEWAYS: usize = 4;
/// Local addresses, single ones, over all ports.
pub const MAX_LADDRS: u128 = 1024;
/// Queue pairs of a net_tap device: DPDK 22.11 aborts the primary at five.
pub const MAX_TAP_SLOTS: u16 = 4;
/// Longest path of a Unix socket in bytes (`sun_path` without its closing zero).
pub const MAX_SOCKET_PATH: usize = 107;

//! Keys of a session, and where their hash puts them.

use std::sync::atomic::Ordering;

use shm_layout::published::protocol;
use shm_layout::session::{SessionRow, flag};

/// A packet's tuple in two words, host order: `a = source address << 32 | source port << 16 | destination port`,
/// `b = destination address << 8 | protocol`. Each session has two: of what the client sends to the virtual address, and
/// of what the server sends to the local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Source address, source port, destination port.
    pub a: u64,
    /// Destination address, protocol.
    pub b: u64,
}

/// Who sent a packet of a session; also the index into [`SessionRow::end`] and [`SessionRow::ack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// The client.
    Client = 0,
    /// The real server.
    Server = 1,
}

impl Direction {
    /// The other side.
    #[inline(always)]
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl Key {
    /// Of a packet's addresses, ports and IP protocol.
    #[inline(always)]
    #[must_use]
    pub const fn new(source: u32, source_port: u16, destination: u32, destination_port: u16, protocol: u8) -> Self {
        Self {
            a: (source as u64) << 32 | (source_port as u64) << 16 | destination_port as u64,
            b: (destination as u64) << 8 | protocol as u64,
        }
    }

    /// What the record's client sends.
    #[inline(always)]
    #[must_use]
    pub fn client_of(row: &SessionRow) -> Self {
        let r = Ordering::Relaxed; // Relaxed: the owner's own data; other readers read twice (`reader`).
        let (client, vip) = (row.client_ip.load(r), row.vip.load(r));
        Self::new(client, row.client_port.load(r), vip, row.vip_port.load(r), protocol_of(row))
    }

    /// What the record's server sends.
    #[inline(always)]
    #[must_use]
    pub fn server_of(row: &SessionRow) -> Self {
        let r = Ordering::Relaxed; // Relaxed: as above.
        let (server, local) = (row.server_ip.load(r), row.local_ip.load(r));
        Self::new(server, row.server_port.load(r), local, row.local_port.load(r), protocol_of(row))
    }
}

/// IP protocol of a record.
#[inline(always)]
#[must_use]
pub fn protocol_of(row: &SessionRow) -> u8 {
    protocol_of_flags(row.flags.load(Ordering::Relaxed)) // Relaxed: as above.
}

/// IP protocol by a record's flags.
#[inline(always)]
pub(super) const fn protocol_of_flags(flags: u8) -> u8 {
    if flags & flag::UDP == 0 { protocol::TCP } else { protocol::UDP }
}

/// Tag of a hash: its high bits, never 0 (0 is an empty place).
#[inline(always)]
pub(super) const fn tag(hash: u64) -> u16 {
    #[allow(clippy::cast_possible_truncation, reason = "the shift leaves 16 bits")]
    let high = (hash >> 48) as u16;
    high | 1
}

/// First bucket of a hash among `buckets`: by multiplication, so that any number of buckets will do.
#[inline(always)]
pub(super) const fn first_bucket(hash: u64, buckets: u32) -> u32 {
    scale(hash, buckets)
}

/// Second bucket: another one, by other bits of the hash.
#[inline(always)]
pub(super) const fn second_bucket(first: u32, hash: u64, buckets: u32) -> u32 {
    let other = first as u64 + 1 + scale(hash >> 16, buckets - 1) as u64;
    let wrapped = if other >= buckets as u64 { other - buckets as u64 } else { other };
    #[allow(clippy::cast_possible_truncation, reason = "below `buckets`")]
    {
        wrapped as u32
    }
}

/// Low 32 bits of `hash`, scaled to `0..n`.
#[inline(always)]
const fn scale(hash: u64, n: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "low half times n, high half of the product")]
    {
        ((hash as u32 as u64 * n as u64) >> 32) as u32
    }
}

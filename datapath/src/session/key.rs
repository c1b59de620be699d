//! Keys of a session, and where their hash puts them.

use std::hint::select_unpredictable;
use std::sync::atomic::Ordering;

use arch::{load32, load64};
use packet::plain::Tuple;
use shm_layout::published::protocol;
use shm_layout::session::{SessionRow, flag};

/// A packet's tuple in two words, host order: `a = source address << 32 | destination address`,
/// `b = IP protocol << 32 | source port << 16 | destination port`. Each session has two: of what the client sends to the
/// virtual address, and of what the server sends to the local address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// Source and destination address.
    pub a: u64,
    /// Protocol, source and destination port.
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
            a: (source as u64) << 32 | destination as u64,
            b: (protocol as u64) << 32 | (source_port as u64) << 16 | destination_port as u64,
        }
    }

    /// Of a packet's words.
    #[inline(always)]
    #[must_use]
    pub const fn of(tuple: Tuple, protocol: u8) -> Self {
        Self { a: tuple.addresses, b: (protocol as u64) << 32 | tuple.ports as u64 }
    }

    /// What the record's client sends.
    #[inline(always)]
    #[must_use]
    pub fn client_of(row: &SessionRow) -> Self {
        Self::of(Tuples::of(row).client, protocol_of(row))
    }

    /// What the record's server sends.
    #[inline(always)]
    #[must_use]
    pub fn server_of(row: &SessionRow) -> Self {
        Self::of(Tuples::of(row).server, protocol_of(row))
    }
}

/// Both tuples of a record, as its sides send them, in four loads instead of eight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuples {
    pub client: Tuple,
    pub server: Tuple,
}

const _: () = assert!(std::mem::offset_of!(SessionRow, client_ip) == 0 && std::mem::offset_of!(SessionRow, vip) == 4);
const _: () = assert!(std::mem::offset_of!(SessionRow, client_port) == 8);
const _: () = assert!(std::mem::offset_of!(SessionRow, vip_port) == 10);
const _: () = assert!(std::mem::offset_of!(SessionRow, local_ip) == 12);
const _: () = assert!(std::mem::offset_of!(SessionRow, server_ip) == 16);
const _: () = assert!(std::mem::offset_of!(SessionRow, local_port) == 20);
const _: () = assert!(std::mem::offset_of!(SessionRow, server_port) == 22);

impl Tuples {
    /// The owner's own data; other readers read twice (`reader`).
    #[inline(always)]
    pub fn of(row: &SessionRow) -> Self {
        Self {
            // Client and VIP: the sender lies in the low half.
            client: Tuple { addresses: load64::<0, _>(row), ports: load32::<8, _>(row) }.turned(),
            // Local and server.
            server: Tuple { addresses: load64::<12, _>(row), ports: load32::<20, _>(row) },
        }
    }

    /// Who sends this, and what it is on the other side. Without a branch on the side, which cannot be guessed.
    #[inline(always)]
    pub fn translate(&self, tuple: Tuple) -> Option<(Side, Tuple)> {
        let differs = |own: Tuple| own.addresses ^ tuple.addresses | u64::from(own.ports ^ tuple.ports);
        let side = differs(self.client);
        let either = |yes: Tuple, no: Tuple| Tuple {
            addresses: select_unpredictable(side == 0, yes.addresses, no.addresses),
            ports: select_unpredictable(side == 0, yes.ports, no.ports),
        };
        let onward = either(self.server, self.client).turned();
        (differs(either(self.client, self.server)) == 0).then_some((Side(arch::opaque(u64::from(side != 0))), onward))
    }
}

/// [`Direction`] as a number, to be calculated with: client 0, server 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side(u64);

#[allow(clippy::cast_possible_truncation, reason = "it is 0 or 1")]
impl Side {
    /// 0 or 1.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize & 1
    }

    /// One of two numbers.
    #[inline(always)]
    pub const fn either(self, client: u32, server: u32) -> u32 {
        client ^ (client ^ server) & (self.0 as u32).wrapping_neg()
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

//! Keys of a session, and where their hash puts them.

use std::sync::atomic::{AtomicU64, Ordering};

use arch::{Bytes16, Bytes32, HashKey, Orders, Twelve, load32, load64};
use packet::plain::{RECEIVER_FIRST, SENDER_FIRST};
use shm_layout::neighbours::{Ip, as_v4, ip4};
use shm_layout::published::protocol;
use shm_layout::session::{AddressLine, SessionRow, flag};

/// A packet's tuple in two words, host order: `a = source address << 32 | destination address`,
/// `b = IP protocol << 32 | source port << 16 | destination port`. Each session has two: of what the client sends to the
/// virtual address, and of what the server sends to the local address.
///
/// Of an IPv6 packet `a` is a keyed hash of both addresses and `b` has `IPV6` set: see [`Tuple`].
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

    /// The addresses of an IPv4 key.
    #[allow(clippy::cast_possible_truncation, reason = "its halves")]
    pub(super) const fn ends_v4(&self) -> [Ip; 2] {
        [ip4((self.a >> 32) as u32), ip4(self.a as u32)]
    }

    /// What the record's client sends.
    #[inline(always)]
    #[must_use]
    pub fn client_of(row: &SessionRow) -> Self {
        // Client and VIP, four fields in two loads: the sender lies in the low half.
        let (addresses, ports) = (load64::<0, _>(row), load32::<8, _>(row));
        Self::of(addresses.rotate_left(32), ports.rotate_left(16), row, Direction::Client)
    }

    /// What the record's server sends.
    #[inline(always)]
    #[must_use]
    pub fn server_of(row: &SessionRow) -> Self {
        // Local address and server.
        Self::of(load64::<12, _>(row), load32::<20, _>(row), row, Direction::Server)
    }

    #[inline(always)]
    fn of(addresses: u64, ports: u32, row: &SessionRow, side: Direction) -> Self {
        let flags = row.flags.load(Ordering::Relaxed); // Relaxed: the readers of other slots compare two copies.
        let family = u64::from(flag::sides_v6(flags)[side as usize]) << IPV6.trailing_zeros();
        Self { a: addresses, b: u64::from(protocol_of_flags(flags)) << 32 | u64::from(ports) | family }
    }
}

/// In [`Key::b`]: the key is of IPv6 addresses, so that it equals none of IPv4.
pub(super) const IPV6: u64 = 1 << 40;

/// An IPv6 packet's tuple: its key, and the addresses that the key has a hash of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// What the index knows it by.
    pub key: Key,
    /// From, to.
    pub ends: [Ip; 2],
}

impl Tuple {
    /// Of a packet's addresses of either family, ports and IP protocol; both addresses are of one family.
    #[must_use]
    pub fn new(ends: [Ip; 2], source_port: u16, destination_port: u16, protocol: u8, hash: &HashKey) -> Self {
        let key = match ends.map(as_v4) {
            [Some(source), Some(destination)] => Key::new(source, source_port, destination, destination_port, protocol),
            _ => {
                let ports = Key::new(0, source_port, 0, destination_port, protocol);
                Key { a: hash_of_ends(ends, hash), b: ports.b | IPV6 }
            }
        };
        Self { key, ends }
    }
}

/// 64 bits of both addresses, in their order.
#[inline]
pub(super) fn hash_of_ends([source, destination]: [Ip; 2], key: &HashKey) -> u64 {
    let first = arch::keyed_hash(source[0], source[1], key);
    arch::keyed_hash(destination[0] ^ first, destination[1], key)
}

/// The addresses of a side's packets, as an address line has them.
pub(super) fn ends_of(line: &AddressLine, direct: bool, side: Direction) -> [Ip; 2] {
    let of = |words: &[AtomicU64; 2]| [words[0].load(Ordering::Relaxed), words[1].load(Ordering::Relaxed)];
    match side {
        Direction::Client => [of(&line.client), of(&line.vip)],
        Direction::Server if direct => [of(&line.vip), of(&line.client)],
        Direction::Server => [of(&line.server), of(&line.local)],
    }
}

/// What a search is for: a key, and which of the records that have it.
pub trait Wanted: Copy {
    /// The key.
    fn key(&self) -> Key;
    /// From, to; `None`: the key says everything.
    fn ends(&self) -> Option<[Ip; 2]> {
        None
    }
    /// Is it this record, which has the key on a side? `ends`: that side's addresses, if it is a wide one.
    fn is(&self, record: u32, ends: impl FnOnce() -> Option<[Ip; 2]>) -> bool;
}

/// IPv4: the key says everything.
impl Wanted for Key {
    #[inline(always)]
    fn key(&self) -> Key {
        *self
    }
    #[inline(always)]
    fn is(&self, _record: u32, _ends: impl FnOnce() -> Option<[Ip; 2]>) -> bool {
        true
    }
}

impl Wanted for Tuple {
    #[inline(always)]
    fn key(&self) -> Key {
        self.key
    }
    fn ends(&self) -> Option<[Ip; 2]> {
        Some(self.ends)
    }
    #[inline]
    fn is(&self, _record: u32, ends: impl FnOnce() -> Option<[Ip; 2]>) -> bool {
        // A narrow record's key is of IPv4.
        ends().is_none_or(|ends| ends == self.ends)
    }
}

/// The key of a record itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub key: Key,
    pub record: u32,
}

impl Wanted for Own {
    #[inline(always)]
    fn key(&self) -> Key {
        self.key
    }
    #[inline(always)]
    fn is(&self, record: u32, _ends: impl FnOnce() -> Option<[Ip; 2]>) -> bool {
        self.record == record
    }
}

const _: () = assert!(std::mem::offset_of!(SessionRow, client_ip) == 0 && std::mem::offset_of!(SessionRow, vip) == 4);
const _: () = assert!(std::mem::offset_of!(SessionRow, client_port) == 8);
const _: () = assert!(std::mem::offset_of!(SessionRow, vip_port) == 10);
const _: () = assert!(std::mem::offset_of!(SessionRow, local_ip) == 12);
const _: () = assert!(std::mem::offset_of!(SessionRow, server_ip) == 16);
const _: () = assert!(std::mem::offset_of!(SessionRow, local_port) == 20);
const _: () = assert!(std::mem::offset_of!(SessionRow, server_port) == 22);

/// Who of a record's sides sends a packet with these ends ([`packet::plain::ends`]), and which ends it has on the other
/// side. Without a branch on the side, which cannot be guessed.
///
/// A record has the client's tuple with its sender first, the server's with its receiver first: brought into these two
/// orders, a packet's ends are compared with both in one go, and the other one so brought back is what goes out.
#[inline(always)]
pub(crate) fn translate(row: &SessionRow, ends: Bytes16) -> Option<(Side, Bytes16)> {
    /// The server's tuple in the lower half: what has all words of the upper one in common is the client's.
    const ORDERS: Orders = Orders([RECEIVER_FIRST, SENDER_FIRST]);
    /// The client's and the server's as they are sent to them.
    const BACK: Twelve = Twelve::new(&RECEIVER_FIRST, &SENDER_FIRST);
    const CLIENT: u32 = 0b1100;
    const SERVER: u32 = 0b0011;
    /// By which words are the same: is it one of the two?
    const KNOWN: u32 = {
        let (mut known, mut same) = (0, 0_u32);
        while same < 16 {
            known |= if same & CLIENT == CLIENT || same & SERVER == SERVER { 1 << same } else { 0 };
            same += 1;
        }
        known
    };
    let same = Bytes32::twelve_of_row::<12, 0, _>(row).same_words(Bytes32::twice(ends).ordered(&ORDERS));
    if KNOWN >> same & 1 == 0 {
        return None;
    }
    // 1 for the client's: of 4 bits, those from `CLIENT` on. Calculated, lest the compiler find a branch behind it.
    let side = Side(u64::from((same + 16 - CLIENT) >> 4 ^ 1));
    Some((side, Bytes16::of_row_twelfth(row, side.other()).ordered_by(&BACK, side.other())))
}

/// [`Direction`] as a number, to be calculated with: client 0, server 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side(u64);

#[allow(clippy::cast_possible_truncation, reason = "it is 0 or 1")]
impl Side {
    /// 0 or 1.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// 1 or 0.
    #[inline(always)]
    pub const fn other(self) -> usize {
        self.index() ^ 1
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

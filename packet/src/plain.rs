//! The packets that nearly all are, read and translated in whole words, in one straight line.
//!
//! *Plain* is an untagged IPv4 packet of 54 bytes or more, to the station asked for, with a TTL above 1, that carries UDP,
//! or TCP with ACK and none of SYN, FIN, RST; without IP options and without TCP options (there are none on segments of
//! a session whose SYN lost its timestamps, but for SACK blocks, which must be translated). What is said of it here is what
//! [`crate::classify`] says, and translated it is what [`crate::rewrite_v4`] makes of it: these two take any packet.

use arch::{Bytes16, Order};

use crate::checksum::{fold, sums_to_ones, udp_nonzero};
use crate::ethernet::{self, Mac};
use crate::ipv4;
use crate::wire::{bytes, get16, get32, get64, put64};

/// Bytes of the headers, all that is read and written.
pub const WINDOW: usize = 54;

/// IP and TCP header of a plain packet, bytes.
pub const TCP_HEADERS: u32 = 40;

/// The start of a plain packet.
pub type Window = [u8; WINDOW];

const Z: u8 = Order::ZERO;
/// From addresses and ports as a packet has them (12 bytes, [`ends`]) to little-endian words, the sender's first; and back.
pub const SENDER_FIRST: Order = Order([3, 2, 1, 0, 7, 6, 5, 4, 9, 8, 11, 10, Z, Z, Z, Z]);
/// The same, the receiver's first.
pub const RECEIVER_FIRST: Order = Order([7, 6, 5, 4, 3, 2, 1, 0, 11, 10, 9, 8, Z, Z, Z, Z]);

/// What every plain packet begins with, when it is sent to a certain station.
#[derive(Clone, Copy, Debug)]
pub struct Station {
    start: [u8; 32],
    mask: [u8; 32],
}

impl Station {
    /// Nobody: no packet is plain.
    pub const NOBODY: Self = Self { start: [0xff; 32], mask: [0xff; 32] };

    /// One address; `None`: whomever it is sent to.
    #[must_use]
    pub fn new(mac: Option<Mac>) -> Self {
        let (mut start, mut mask) = ([0; 32], [0; 32]);
        if let Some(mac) = mac {
            start[..6].copy_from_slice(&mac.0);
            mask[..6].fill(0xff);
        }
        // IPv4, in a header of 20 bytes.
        start[12..15].copy_from_slice(&[8, 0, 0x45]);
        mask[12..15].fill(0xff);
        // More fragments, or not the first one.
        mask[20..22].copy_from_slice(&[0x3f, 0xff]);
        Self { start, mask }
    }
}

/// What a plain packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// A segment.
    Tcp,
    /// A datagram.
    Udp,
}

/// The station that sends, as it stands in a frame: address and ethertype IPv4.
#[derive(Clone, Copy, Debug)]
pub struct Source(u64);

impl Source {
    /// Of an address.
    #[must_use]
    pub fn new(mac: Mac) -> Self {
        Self(octets(mac) | 8 << 48)
    }
}

/// An address in the low 48 bits, first octet lowest.
fn octets(mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// What a plain packet carries; `None`: it is not plain, and perhaps not even good.
#[inline(always)]
#[must_use]
pub fn read(frame: &[u8], station: &Station) -> Option<Carries> {
    let window: &Window = frame.first_chunk()?;
    let total_len = total_len(window);
    let room = frame.len() - ethernet::HEADER;
    // TTL, protocol, checksum, source.
    let rest = raw64(window, 22);
    let [ttl, protocol, ..] = rest.to_le_bytes();
    // Summed as the words lie: the checksum does not depend on the byte order (RFC 1071 §2B).
    let sum = add(add(raw64(window, 14), rest), u64::from(raw32(window, 30)));
    if !sums_to_ones(sum) || ttl <= 1 || arch::differ(window.first_chunk()?, &station.start, &station.mask) {
        return None;
    }
    match protocol {
        ipv4::TCP => {
            // Not shorter than the headers, not longer than the frame.
            let whole = usize::from(total_len).wrapping_sub(40) <= room - 40;
            // Of the flags ACK and none of SYN, FIN, RST; no options.
            (whole && raw32(window, 46) & 0x17f0 == 0x1050).then_some(Carries::Tcp)
        }
        ipv4::UDP => {
            let (length, total_len) = (usize::from(get16(window, 38)), usize::from(total_len));
            (length >= 8 && length + 20 <= total_len && total_len <= room).then_some(Carries::Udp)
        }
        _ => None,
    }
}

/// Addresses and ports as they lie in the packet: source, destination, source port, destination port. Four bytes of the
/// next header follow.
#[inline(always)]
#[must_use]
pub fn ends(window: &Window) -> Bytes16 {
    Bytes16::of(&bytes(window, 26))
}

/// Two words: protocol, source and destination port (`protocol << 32 | source << 16 | destination`), then the addresses
/// (`source << 32 | destination`).
#[inline(always)]
#[must_use]
pub fn key(window: &Window) -> Bytes16 {
    /// From the protocol's byte on; the IP header's checksum lies between it and the addresses.
    const KEY: Order = Order([14, 13, 12, 11, 0, Z, Z, Z, 10, 9, 8, 7, 6, 5, 4, 3]);
    Bytes16::of(&bytes(window, 23)).ordered(&KEY)
}

/// Whom a packet is from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
    /// Destination port.
    pub port: u16,
    /// Of layer 4.
    pub protocol: u8,
}

impl Head {
    /// Of a packet, if it is a plain one; else some numbers.
    #[inline]
    #[must_use]
    pub const fn of(window: &Window) -> Self {
        let (source, destination) = (get32(window, 26), get32(window, 30));
        Self { source, destination, port: get16(window, 36), protocol: window[23] }
    }
}

/// IP header and payload, bytes.
#[inline(always)]
#[must_use]
pub const fn total_len(window: &Window) -> u16 {
    get16(window, 16)
}

/// TCP sequence and acknowledgement number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Of the first byte.
    pub seq: u32,
    /// Of the next byte expected.
    pub ack: u32,
}

impl Numbers {
    /// Of a TCP packet.
    #[inline(always)]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the two halves of a word")]
    pub fn of(window: &Window) -> Self {
        let word = get64(window, 38);
        Self { seq: (word >> 32) as u32, ack: word as u32 }
    }

    #[inline(always)]
    const fn word(self) -> u64 {
        (self.seq as u64) << 32 | self.ack as u64
    }
}

/// Addresses the frame of a plain packet to `to`, the 48 low bits of a word, first octet lowest.
#[inline(always)]
pub fn set_link(window: &mut Window, to: u64, from: Source) {
    window[..8].copy_from_slice(&to.to_le_bytes());
    window[6..14].copy_from_slice(&from.0.to_le_bytes());
}

/// Translates a plain TCP packet to other ends and numbers, takes 1 off its TTL, updates both checksums.
#[inline(always)]
pub fn translate_tcp(window: &mut Window, onward: Bytes16, (from, to): (Numbers, Numbers)) {
    // The numbers' words were read in host order, all others as they lie: a byte further up is as good as swapped.
    let numbers = change(from.word(), to.word()).rotate_left(8);
    let (addresses, ports) = translate(window, onward);
    put64(window, 38, to.word());
    put_raw16(window, 50, !fold(add(add(addresses, numbers), ports + rest_of(raw16(window, 50)))));
}

/// Translates a plain UDP packet to other ends, takes 1 off its TTL, updates both checksums ("none" stays none).
#[inline(always)]
pub fn translate_udp(window: &mut Window, onward: Bytes16) {
    let (addresses, ports) = translate(window, onward);
    let checksum = raw16(window, 40);
    if checksum != 0 {
        put_raw16(window, 40, udp_nonzero(!fold(add(addresses, ports + rest_of(checksum)))));
    }
}

/// Addresses, ports, TTL and the IP header's checksum. Returns what addresses and ports add to the sum of layer 4. All
/// sums are of words as they lie in memory.
#[inline(always)]
fn translate(window: &mut Window, onward: Bytes16) -> (u64, u64) {
    let (addresses, ports) = (onward.first64(), onward.third32());
    let (before, ports_before) = (raw64(window, 26), raw32(window, 34));
    let changed = change(before, addresses);
    // TTL is the lower byte of its word: one less is plus the complement of 1.
    put_raw16(window, 24, !fold(add(changed, 0xfffe + rest_of(raw16(window, 24)))));
    window[26..34].copy_from_slice(&addresses.to_le_bytes());
    window[34..38].copy_from_slice(&ports.to_le_bytes());
    window[22] = window[22].wrapping_sub(1);
    (changed, u64::from(ports) + u64::from(!ports_before))
}

/// What words that change add to a sum ([`add`]): new ones less old ones (RFC 1624, equation 3).
#[inline(always)]
fn change(from: u64, to: u64) -> u64 {
    let (difference, borrow) = to.overflowing_sub(from);
    arch::opaque(difference.wrapping_sub(u64::from(borrow)))
}

/// The sum a checksum stands for. Twice 0xffff adds nothing, but keeps the sum from being 0.
#[inline(always)]
fn rest_of(checksum: u16) -> u64 {
    2 * 0xffff - u64::from(checksum)
}

/// Sum with end-around carry: of 64-bit words as good as of the 16-bit words in them.
#[inline(always)]
fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    arch::opaque(sum.wrapping_add(u64::from(carry)))
}

// Words as they lie in memory, first byte lowest.

#[inline(always)]
fn raw16(window: &Window, at: usize) -> u16 {
    u16::from_le_bytes(bytes(window, at))
}

#[inline(always)]
fn put_raw16(window: &mut Window, at: usize, value: u16) {
    [window[at], window[at + 1]] = value.to_le_bytes();
}

#[inline(always)]
fn raw32(window: &Window, at: usize) -> u32 {
    u32::from_le_bytes(bytes(window, at))
}

#[inline(always)]
fn raw64(window: &Window, at: usize) -> u64 {
    u64::from_le_bytes(bytes(window, at))
}

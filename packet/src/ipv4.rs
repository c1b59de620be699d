//! The IPv4 header (RFC 791).

use crate::checksum::{Delta, checksum, fold};
use crate::parse::ParseError;
use crate::wire::{get16, get32, put16, put32};

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Protocol ICMP.
pub const ICMP: u8 = 1;
/// Protocol TCP.
pub const TCP: u8 = 6;
/// Protocol UDP.
pub const UDP: u8 = 17;
/// TTL of what the appliance itself sends (RFC 1700).
pub const TTL: u8 = 64;

/// What the header says. Lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Header with options, 20–60.
    pub len: u8,
    /// Header and payload; at least `len`, and within the data. The data may be longer (Ethernet padding).
    pub total_len: u16,
    /// More fragments follow, or this is not the first.
    pub fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub proto: u8,
    /// From.
    pub src: u32,
    /// To.
    pub dst: u32,
}

/// Reads and checks the header of `packet`, which begins with it and may be padded at its end.
///
/// # Errors
/// In this order: [`ParseError::TooShort`], `BadVersion`, `BadIhl`, `BadTotalLength`, `BadIpChecksum`.
#[inline(always)]
pub fn header(packet: &[u8]) -> Result<Header, ParseError> {
    let window: &[u8; HEADER] = packet.first_chunk().ok_or(ParseError::TooShort)?;
    let first = window[0];
    if first != 0x45 {
        if first >> 4 != 4 {
            return Err(ParseError::BadVersion);
        }
        if first & 0xf < 5 {
            return Err(ParseError::BadIhl);
        }
    }
    let len = (first & 0xf) * 4;
    let total_len = get16(window, 2);
    if total_len < u16::from(len) || usize::from(total_len) > packet.len() {
        return Err(ParseError::BadTotalLength);
    }
    let mut sum: u64 = (0..HEADER).step_by(4).map(|at| u64::from(get32(window, at))).sum();
    if first != 0x45 {
        sum += crate::checksum::sum(packet.get(HEADER..usize::from(len)).unwrap_or_default());
    }
    if fold(sum) != 0xffff {
        return Err(ParseError::BadIpChecksum);
    }
    Ok(Header {
        len,
        total_len,
        fragment: get16(window, 6) & 0x3fff != 0,
        ttl: window[8],
        proto: window[9],
        src: get32(window, 12),
        dst: get32(window, 16),
    })
}

/// Does the checksum of these header bytes (options included) match?
#[inline]
#[must_use]
pub fn verify(header: &[u8]) -> bool {
    fold(crate::checksum::sum(header)) == 0xffff
}

/// May the packet not be fragmented (DF)? `packet` begins with its header.
#[inline]
#[must_use]
pub fn dont_fragment(packet: &[u8]) -> bool {
    packet.get(6).is_some_and(|flags| flags & 0x40 != 0)
}

/// Can a packet really come from this address? Not from "this network", loopback, groups, class E or broadcast
/// (RFC 1122 §3.2.1.3).
#[inline]
#[must_use]
pub const fn is_source(address: u32) -> bool {
    let top = address >> 24;
    top != 0 && top != 127 && top < 224
}

/// Sets source and destination, updating the header checksum. Returns the change for layer 4's checksum, whose pseudo
/// header has the addresses too. `None`: shorter than a header.
#[inline]
pub fn set_addresses(packet: &mut [u8], src: u32, dst: u32) -> Option<Delta> {
    let window: &mut [u8; HEADER] = packet.first_chunk_mut()?;
    let delta = Delta::NONE.long(get32(window, 12), src).long(get32(window, 16), dst);
    put32(window, 12, src);
    put32(window, 16, dst);
    put16(window, 10, delta.apply(get16(window, 10)));
    Some(delta)
}

/// Sets the TTL, updating the header checksum. A packet shorter than a header is left alone.
#[inline]
pub fn set_ttl(packet: &mut [u8], ttl: u8) {
    if let Some(window) = packet.first_chunk_mut::<HEADER>() {
        let delta = Delta::NONE.byte(8, window[8], ttl);
        window[8] = ttl;
        put16(window, 10, delta.apply(get16(window, 10)));
    }
}

/// Sets the type of service, updating the header checksum.
#[inline]
pub fn set_tos(window: &mut [u8; HEADER], tos: u8) {
    let delta = Delta::NONE.byte(1, window[1], tos);
    window[1] = tos;
    put16(window, 10, delta.apply(get16(window, 10)));
}

/// Writes a header without options, DF set, identification 0 (RFC 6864: atomic datagrams need none).
#[inline]
pub fn emit(window: &mut [u8; HEADER], total_len: u16, proto: u8, src: u32, dst: u32) {
    *window = [0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, proto, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    put16(window, 2, total_len);
    put32(window, 12, src);
    put32(window, 16, dst);
    put16(window, 10, checksum(window));
}

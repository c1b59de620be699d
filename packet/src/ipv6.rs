//! The IPv6 header and its extension headers (RFC 8200).

use crate::checksum::{Delta, sum};
use crate::parse::ParseError;
use crate::wire::{get16, get64};

/// An address as two big-endian words.
pub type Ip6 = [u64; 2];

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// What every link carries whole (RFC 8200 §5).
pub const MIN_MTU: u16 = 1280;
/// Next header ICMPv6.
pub const ICMPV6: u8 = 58;
/// Hop limit of what the appliance itself sends.
pub const HOP_LIMIT: u8 = 64;

/// Next header: hop-by-hop options.
const HOP_BY_HOP: u8 = 0;
/// Next header: routing.
const ROUTING: u8 = 43;
/// Next header: fragment.
const FRAGMENT: u8 = 44;
/// Next header: destination options.
const DESTINATION: u8 = 60;

/// Extension headers walked at most.
const HEADERS: usize = 8;
/// Bytes they may have in all: offsets into the frame stay within a byte.
const BYTES: usize = 128;

/// What the header, and the extension headers behind it, say. Lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Fixed header and extension headers.
    pub len: u8,
    /// Header and payload, within the data, which may be longer (Ethernet padding).
    pub total_len: u16,
    /// Hop limit.
    pub hop_limit: u8,
    /// Protocol of the payload: behind all extension headers that are walked over.
    pub proto: u8,
    /// From.
    pub src: Ip6,
    /// To.
    pub dst: Ip6,
}

/// Reads and checks the headers of `packet`, which begins with them and may be padded at its end.
///
/// Walked over are hop-by-hop options (where they may stand: first), destination options, and routing headers that are used up:
/// while segments are left the destination is not the last one, whom the layer-4 checksum names (RFC 8200 §4.4, RFC 5095). Anything else is the payload's protocol: also AH, ESP and mobility, which are left to
/// the caller, as protocols that are not balanced.
///
/// # Errors
/// In this order: [`ParseError::TooShort`], `BadVersion`, `BadTotalLength`; of the extension headers `Fragment`, `BadExtension`.
pub fn header(packet: &[u8]) -> Result<Header, ParseError> {
    let window: &[u8; HEADER] = packet.first_chunk().ok_or(ParseError::TooShort)?;
    if window[0] >> 4 != 6 {
        return Err(ParseError::BadVersion);
    }
    let total_len = get16(window, 4).checked_add(40).ok_or(ParseError::BadTotalLength)?;
    let packet = packet.get(..usize::from(total_len)).ok_or(ParseError::BadTotalLength)?;
    let (proto, len) = walk(packet, window[6])?;
    Ok(Header {
        len,
        total_len,
        hop_limit: window[7],
        proto,
        src: [get64(window, 8), get64(window, 16)],
        dst: [get64(window, 24), get64(window, 32)],
    })
}

/// Where the extension headers of `packet` end, and the protocol behind them; `next` is the fixed header's.
fn walk(packet: &[u8], mut next: u8) -> Result<(u8, u8), ParseError> {
    let mut at = HEADER;
    for number in 0..=HEADERS {
        match next {
            FRAGMENT => return Err(ParseError::Fragment),
            HOP_BY_HOP if number == 0 => {}
            ROUTING | DESTINATION => {}
            HOP_BY_HOP => return Err(ParseError::BadExtension),
            _ => return Ok((next, u8::try_from(at).map_err(|_| ParseError::BadExtension)?)),
        }
        let header = packet.get(at..).and_then(<[u8]>::first_chunk::<8>).ok_or(ParseError::BadExtension)?;
        let segments_left = header[3];
        if next == ROUTING && segments_left != 0 {
            return Err(ParseError::BadExtension);
        }
        at += 8 + 8 * usize::from(header[1]);
        if at > packet.len() || at > HEADER + BYTES {
            return Err(ParseError::BadExtension);
        }
        next = header[0];
    }
    Err(ParseError::BadExtension)
}

/// A group's address?
#[inline]
#[must_use]
pub const fn is_multicast(address: Ip6) -> bool {
    address[0] >> 56 == 0xff
}

/// An IPv4 address in IPv6's clothes (RFC 4291 §2.5.5.2)?
#[inline]
#[must_use]
pub const fn is_v4_mapped(address: Ip6) -> bool {
    address[0] == 0 && address[1] >> 32 == 0xffff
}

/// An address of one link alone (RFC 4291 §2.5.6)?
#[inline]
#[must_use]
pub const fn is_link_local(address: Ip6) -> bool {
    address[0] >> 54 == 0xfe80 >> 6
}

/// Can a packet really come from this address? Not from nowhere, loopback or a group (RFC 4291 §2.5.2, §2.5.3, §2.7), nor
/// from an IPv4 address in IPv6's clothes (RFC 4291 §2.5.5): those are no host's on a wire.
#[inline]
#[must_use]
pub const fn is_source(address: Ip6) -> bool {
    let embedded = address[0] == 0 && matches!(address[1] >> 32, 0 | 0xffff);
    !embedded && !is_multicast(address)
}

/// The address as it lies in a packet.
#[inline]
#[must_use]
pub const fn bytes(address: Ip6) -> [u8; 16] {
    ((address[0] as u128) << 64 | address[1] as u128).to_be_bytes()
}

/// The address that lies so.
#[inline]
#[must_use]
pub const fn from_bytes(bytes: [u8; 16]) -> Ip6 {
    let address = u128::from_be_bytes(bytes);
    #[allow(clippy::cast_possible_truncation, reason = "the two halves")]
    [(address >> 64) as u64, address as u64]
}

/// Sum of the pseudo header of TCP, UDP and ICMPv6 (RFC 8200 §8.1). `len`: bytes of layer 4.
#[inline]
#[must_use]
pub fn pseudo(src: Ip6, dst: Ip6, proto: u8, len: usize) -> u64 {
    sum([bytes(src), bytes(dst)].as_flattened()) + u64::from(proto) + len as u64
}

/// Sets source and destination of a packet that begins with its header. Returns the change for layer 4's checksum, whose pseudo
/// header has the addresses. `None`: shorter than a header.
#[inline]
pub fn set_addresses(packet: &mut [u8], src: Ip6, dst: Ip6) -> Option<Delta> {
    let window: &mut [u8; HEADER] = packet.first_chunk_mut()?;
    let new = [bytes(src), bytes(dst)];
    let delta = Delta::added(&window[8..]).reversed().and(Delta::added(new.as_flattened()));
    window[8..].copy_from_slice(new.as_flattened());
    Some(delta)
}

/// Sets the hop limit. A packet shorter than a header is left alone.
#[inline]
pub fn set_hop_limit(packet: &mut [u8], hop_limit: u8) {
    if let Some(window) = packet.first_chunk_mut::<HEADER>() {
        window[7] = hop_limit;
    }
}

/// Writes a header with traffic class and flow label 0. `len`: bytes behind it.
#[inline]
pub fn emit(window: &mut [u8; HEADER], len: u16, next: u8, hop_limit: u8, src: Ip6, dst: Ip6) {
    let [a, b] = len.to_be_bytes();
    window[..8].copy_from_slice(&[0x60, 0, 0, 0, a, b, next, hop_limit]);
    window[8..].copy_from_slice([bytes(src), bytes(dst)].as_flattened());
}

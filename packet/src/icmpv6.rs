//! ICMPv6 (RFC 4443): echo, answered in place; errors of our own.

use crate::build::Link;
use crate::checksum::{Delta, fold, sum};
use crate::ethernet::{self, Mac};
use crate::ipv6::{self, ICMPV6, Ip6, pseudo};
use crate::parse::{ParseError, V6};
use crate::wire::{get16, put16, put32};

/// Bytes of the header, the word behind the checksum included.
pub const HEADER: usize = 8;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type: echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Code of [`UNREACHABLE`]: port.
pub const PORT_UNREACHABLE: u8 = 4;
/// Types below are errors.
const FIRST_INFORMATION: u8 = 128;

/// Type and code of a message.
///
/// # Errors
/// [`ParseError::IcmpTooShort`].
#[inline]
pub fn kind(message: &[u8]) -> Result<(u8, u8), ParseError> {
    let window: &[u8; HEADER] = message.first_chunk().ok_or(ParseError::IcmpTooShort)?;
    Ok((window[0], window[1]))
}

/// Checksum of a message whose checksum field is zero.
#[must_use]
pub fn checksum(src: Ip6, dst: Ip6, message: &[u8]) -> u16 {
    !fold(pseudo(src, dst, ICMPV6, message.len()) + sum(message))
}

/// Does the checksum in the message match?
#[must_use]
pub fn verify(src: Ip6, dst: Ip6, message: &[u8]) -> bool {
    fold(pseudo(src, dst, ICMPV6, message.len()) + sum(message)) == 0xffff
}

/// Is this packet, as classified, an echo request?
#[inline]
#[must_use]
pub fn is_echo_request(p: &V6) -> bool {
    p.head.proto == ICMPV6 && p.head.dport == u16::from_be_bytes([ECHO_REQUEST, 0])
}

/// Turns the echo request that `p` was read from into its reply, in place: from `own` at `mac`, hop limit fresh, all else kept
/// (RFC 4443 §4.2). A wrong checksum stays wrong. `false`: no echo request, nothing changed.
///
/// The caller has checked that the packet is for an address of its own.
pub fn echo_reply(frame: &mut [u8], p: &V6, mac: Mac) -> bool {
    let Some(src) = ethernet::src(frame) else { return false };
    let Some((front, message)) = frame.split_at_mut_checked(usize::from(p.head.l4)) else { return false };
    let Some(packet) = front.get_mut(usize::from(p.head.l3)..) else { return false };
    let Some(window) = message.first_chunk_mut::<HEADER>() else { return false };
    if !is_echo_request(p) || window[0] != ECHO_REQUEST || ipv6::set_addresses(packet, p.dst, p.src).is_none() {
        return false;
    }
    ipv6::set_hop_limit(packet, ipv6::HOP_LIMIT);
    // Both addresses are still in the pseudo header.
    let delta = Delta::NONE.byte(0, window[0], ECHO_REPLY);
    window[0] = ECHO_REPLY;
    put16(window, 2, delta.apply(get16(window, 2)));
    ethernet::set_addresses(frame, src, mac);
    true
}

/// An error about the packet `p` of `frame`, back the way it came, from address `src` (RFC 4443 §2.4): quotes as much as fits the
/// least MTU. `word`: MTU of [`PACKET_TOO_BIG`], pointer of [`PARAMETER_PROBLEM`], else 0.
///
/// `None` also about an error, a redirect, or a source that cannot be answered; about what went to a group, only
/// [`PACKET_TOO_BIG`]. The caller limits the rate.
pub fn error(buf: &mut [u8], frame: &[u8], p: &V6, src: Ip6, kind: (u8, u8), word: u32) -> Option<usize> {
    const QUOTE: usize = ipv6::MIN_MTU as usize - ipv6::HEADER - HEADER;
    let [about, _] = p.head.dport.to_be_bytes();
    let silent = p.head.proto == ICMPV6 && (about < FIRST_INFORMATION || about == crate::nd::REDIRECT);
    let group = ipv6::is_multicast(p.dst) || ethernet::dst(frame)?.is_multicast();
    if silent || !ipv6::is_source(p.src) || group && kind.0 != PACKET_TOO_BIG {
        return None;
    }
    let quote = frame.get(usize::from(p.head.l3)..p.head.end())?;
    let quote = quote.get(..QUOTE).unwrap_or(quote);
    let (rest, len) = Link::back(frame, p.head.vlan)?.emit(buf, ethernet::IPV6)?;
    let (ip, rest) = rest.split_first_chunk_mut()?;
    let message = rest.get_mut(..HEADER + quote.len())?;
    let (header, quoted) = message.split_first_chunk_mut::<HEADER>()?;
    *header = [kind.0, kind.1, 0, 0, 0, 0, 0, 0];
    put32(header, 4, word);
    quoted.copy_from_slice(quote);
    let sum = checksum(src, p.src, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv6::emit(ip, u16::try_from(message.len()).ok()?, ICMPV6, ipv6::HOP_LIMIT, src, p.src);
    Some(len + ipv6::HEADER + message.len())
}

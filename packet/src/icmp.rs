//! ICMP for IPv4 (RFC 792): echo, answered in place.

use crate::checksum::Delta;
use crate::ethernet::{self, Mac};
use crate::ipv4;
use crate::parse::{ParseError, V4};
use crate::wire::{get16, put16};

/// Bytes of the header.
pub const HEADER: usize = 8;
/// Type: echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;
/// Code of [`UNREACHABLE`]: host.
pub const HOST_UNREACHABLE: u8 = 1;
/// Code of [`UNREACHABLE`]: port.
pub const PORT_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;

/// Type and code of a message.
///
/// # Errors
/// [`ParseError::IcmpTooShort`].
#[inline]
pub fn kind(message: &[u8]) -> Result<(u8, u8), ParseError> {
    let window: &[u8; HEADER] = message.first_chunk().ok_or(ParseError::IcmpTooShort)?;
    Ok((window[0], window[1]))
}

/// Is this packet, as classified, an echo request?
#[inline]
#[must_use]
pub fn is_echo_request(p: &V4) -> bool {
    p.proto == ipv4::ICMP && p.dport == u16::from_be_bytes([ECHO_REQUEST, 0])
}

/// Turns the echo request that `p` was read from into its reply, in place: addresses swapped, from `mac`, TTL fresh, all
/// else kept (RFC 1122 §3.2.2.6). A wrong checksum stays wrong. `false`: no echo request, nothing changed.
///
/// The caller has checked that the packet is for an address of its own, not broadcast.
pub fn echo_reply(frame: &mut [u8], p: &V4, mac: Mac) -> bool {
    let Some(src) = ethernet::src(frame) else { return false };
    let Some((front, message)) = frame.split_at_mut_checked(usize::from(p.l4)) else { return false };
    let Some(packet) = front.get_mut(usize::from(p.l3)..) else { return false };
    let Some(window) = message.first_chunk_mut::<HEADER>() else { return false };
    if !is_echo_request(p) || window[0] != ECHO_REQUEST || ipv4::set_addresses(packet, p.dst, p.src).is_none() {
        return false;
    }
    ipv4::set_ttl(packet, ipv4::TTL);
    let delta = Delta::NONE.byte(0, window[0], ECHO_REPLY);
    window[0] = ECHO_REPLY;
    put16(window, 2, delta.apply(get16(window, 2)));
    ethernet::set_addresses(frame, src, mac);
    true
}

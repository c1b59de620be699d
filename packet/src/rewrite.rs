//! The translation of an established packet: addresses, ports, TTL, sequence numbers, both checksums, in one pass.

use crate::checksum::Delta;
use crate::parse::V4;
use crate::wire::{get32, put_raw16, raw16, swap32};
use crate::{ipv4, tcp, udp};

/// What a packet is translated to; its addresses are of IPv4 unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite<A = u32> {
    /// New source address.
    pub src: A,
    /// New destination address.
    pub dst: A,
    /// New source port.
    pub sport: u16,
    /// New destination port.
    pub dport: u16,
    /// Added to the TCP sequence number (towards the server: the ISN shift), wrapping.
    pub seq_add: u32,
    /// Taken from the TCP acknowledgement number if the ACK flag is set (towards the client: the ISN shift), wrapping.
    pub ack_sub: u32,
}

/// Translates the TCP or UDP packet that `p` was read from, and takes 1 off its TTL (the caller has refused TTL ≤ 1).
///
/// Both checksums are updated by RFC 1624: a corrupted packet stays corrupted, UDP's "none" stays none. SACK blocks are
/// [`crate::tcp_options::shift_sack`]'s. A frame that `p` was not read from is left alone when too short, and so is a
/// packet whose TTL is 0.
#[inline(always)]
pub fn rewrite_v4(frame: &mut [u8], p: &V4, to: &Rewrite) {
    // Untagged and without IP options, as nearly all are: constant offsets, one bounds check.
    const TCP: usize = 34 + tcp::HEADER;
    const UDP: usize = 34 + udp::HEADER;
    let _whole = match (u16::from_ne_bytes([p.l3, p.l4]) == u16::from_ne_bytes([14, 34]), p.proto) {
        (true, ipv4::TCP) => frame.first_chunk_mut::<TCP>().and_then(|window| at(window, 14, 34, p, to)),
        (true, ipv4::UDP) => frame.first_chunk_mut::<UDP>().and_then(|window| at(window, 14, 34, p, to)),
        _ => elsewhere(frame, p, to),
    };
}

#[cold]
#[inline(never)]
fn elsewhere(frame: &mut [u8], p: &V4, to: &Rewrite) -> Option<()> {
    at(frame, usize::from(p.l3), usize::from(p.l4), p, to)
}

/// All sums are taken of words as they lie in memory: what is only replaced is never turned to a number.
#[inline(always)]
fn at(frame: &mut [u8], l3: usize, l4: usize, p: &V4, to: &Rewrite) -> Option<()> {
    let (front, segment) = frame.split_at_mut_checked(l4)?;
    let ip: &mut [u8; ipv4::HEADER] = front.get_mut(l3..)?.first_chunk_mut()?;
    if ip[8] == 0 {
        return None;
    }
    if p.proto == ipv4::TCP {
        let window: &mut [u8; tcp::HEADER] = segment.first_chunk_mut()?;
        let delta = ports(window, to, addresses(ip, to));
        let acks = if p.tcp_flags & tcp::ACK != 0 { to.ack_sub } else { 0 };
        let (seq, ack) = (get32(window, 4).wrapping_add(to.seq_add), get32(window, 8).wrapping_sub(acks));
        let delta = delta.long_pair(swap32(window, 4, seq)).long_pair(swap32(window, 8, ack));
        put_raw16(window, 16, delta.apply(raw16(window, 16)));
    } else if p.proto == ipv4::UDP {
        let window: &mut [u8; udp::HEADER] = segment.first_chunk_mut()?;
        let delta = ports(window, to, addresses(ip, to));
        put_raw16(window, 6, delta.apply_udp(raw16(window, 6)));
    }
    Some(())
}

/// Addresses, TTL and checksum of the IP header; returns what the addresses change in layer 4's pseudo header.
#[inline(always)]
fn addresses(ip: &mut [u8; ipv4::HEADER], to: &Rewrite) -> Delta {
    let delta = Delta::NONE.long_pair(swap32(ip, 12, to.src)).long_pair(swap32(ip, 16, to.dst));
    // The TTL is at least 1: one less of it is one known word less.
    ip[8] = ip[8].wrapping_sub(1);
    put_raw16(ip, 10, delta.word(u16::from_ne_bytes([1, 0]), 0).apply(raw16(ip, 10)));
    delta
}

#[inline(always)]
fn ports<const N: usize>(window: &mut [u8; N], to: &Rewrite, delta: Delta) -> Delta {
    delta.long_pair(swap32(window, 0, u32::from(to.sport) << 16 | u32::from(to.dport)))
}

//! The translation of an established packet: addresses, ports, TTL, sequence numbers, both checksums, in one pass.

use crate::checksum::Delta;
use crate::parse::V4;
use crate::wire::{get16, get32, put16, put32};
use crate::{ipv4, tcp, udp};

/// What a packet is translated to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// New source address.
    pub src: u32,
    /// New destination address.
    pub dst: u32,
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
/// [`crate::tcp_options::shift_sack`]'s. A frame that `p` was not read from is left alone when too short.
#[inline(always)]
pub fn rewrite_v4(frame: &mut [u8], p: &V4, to: &Rewrite) {
    let (l3, l4) = (usize::from(p.l3), usize::from(p.l4));
    let Some((front, segment)) = frame.split_at_mut_checked(l4) else { return };
    let Some(ip) = front.get_mut(l3..).and_then(|ip| ip.first_chunk_mut::<{ ipv4::HEADER }>()) else { return };
    if p.proto == ipv4::TCP {
        let Some(window) = segment.first_chunk_mut::<{ tcp::HEADER }>() else { return };
        let delta = addresses(ip, to).and(ports(window, to));
        let (seq, ack) = (get32(window, 4), get32(window, 8));
        let acks = if p.tcp_flags & tcp::ACK != 0 { to.ack_sub } else { 0 };
        let (new_seq, new_ack) = (seq.wrapping_add(to.seq_add), ack.wrapping_sub(acks));
        put32(window, 4, new_seq);
        put32(window, 8, new_ack);
        put16(window, 16, delta.long(seq, new_seq).long(ack, new_ack).apply(get16(window, 16)));
    } else if p.proto == ipv4::UDP {
        let Some(window) = segment.first_chunk_mut::<{ udp::HEADER }>() else { return };
        let delta = addresses(ip, to).and(ports(window, to));
        put16(window, 6, delta.apply_udp(get16(window, 6)));
    }
}

/// Addresses, TTL and checksum of the IP header; returns what the addresses change in layer 4's pseudo header.
#[inline(always)]
fn addresses(ip: &mut [u8; ipv4::HEADER], to: &Rewrite) -> Delta {
    let delta = Delta::NONE.long(get32(ip, 12), to.src).long(get32(ip, 16), to.dst);
    let ttl = ip[8];
    ip[8] = ttl.saturating_sub(1);
    put32(ip, 12, to.src);
    put32(ip, 16, to.dst);
    put16(ip, 10, delta.byte(8, ttl, ip[8]).apply(get16(ip, 10)));
    delta
}

#[inline(always)]
fn ports<const N: usize>(window: &mut [u8; N], to: &Rewrite) -> Delta {
    let (old, new) = (get32(window, 0), u32::from(to.sport) << 16 | u32::from(to.dport));
    put32(window, 0, new);
    Delta::NONE.long(old, new)
}

//! [`crate::rewrite`] for IPv6: addresses, ports, hop limit, sequence numbers, the checksum. Traffic class, flow label and
//! extension headers stay as they are.

use crate::checksum::Delta;
use crate::ipv6::{self, Ip6};
use crate::parse::{V4, V6};
use crate::rewrite::Rewrite;
use crate::wire::{get16, get32, put16, put32};
use crate::{ipv4, tcp, udp};

/// Translates the TCP or UDP packet that `p` was read from, and takes 1 off its hop limit (the caller has refused those of 1 or
/// less, and UDP without a checksum). A corrupted packet stays corrupted. `None`: the frame is another one; it may be half changed.
pub fn rewrite_v6(frame: &mut [u8], p: &V6, to: &Rewrite<Ip6>) -> Option<()> {
    one_hop(frame, p)?;
    let delta = ipv6::set_addresses(frame.get_mut(usize::from(p.head.l3)..)?, to.src, to.dst)?;
    layer_4(p.head.segment_mut(frame), &p.head, delta, to)
}

/// Takes 1 off the hop limit and changes nothing else.
pub fn one_hop(frame: &mut [u8], p: &V6) -> Option<()> {
    let packet = frame.get_mut(usize::from(p.head.l3)..)?;
    ipv6::set_hop_limit(packet, p.head.ttl.saturating_sub(1));
    Some(())
}

/// Ports and TCP numbers of a segment, and its checksum with what changed before it (`delta`: in the pseudo header).
pub(crate) fn layer_4<A>(segment: &mut [u8], p: &V4, delta: Delta, to: &Rewrite<A>) -> Option<()> {
    let window: &mut [u8; udp::HEADER] = segment.first_chunk_mut()?;
    let delta = delta.word(get16(window, 0), to.sport).word(get16(window, 2), to.dport);
    put16(window, 0, to.sport);
    put16(window, 2, to.dport);
    if p.proto == ipv4::UDP {
        put16(window, 6, delta.apply_udp(get16(window, 6)));
        return Some(());
    }
    let window: &mut [u8; tcp::HEADER] = segment.first_chunk_mut()?;
    let acks = if p.tcp_flags & tcp::ACK != 0 { to.ack_sub } else { 0 };
    let (seq, ack) = (get32(window, 4), get32(window, 8));
    let (new_seq, new_ack) = (seq.wrapping_add(to.seq_add), ack.wrapping_sub(acks));
    put32(window, 4, new_seq);
    put32(window, 8, new_ack);
    put16(window, 16, delta.long(seq, new_seq).long(ack, new_ack).apply(get16(window, 16)));
    Some(())
}

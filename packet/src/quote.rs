//! The packet that an ICMP error is about, as the error quotes it (RFC 792; RFC 1812 §4.3.2.3; RFC 4884): read, and
//! translated back to the numbers its sender knows.

use crate::checksum::{Delta, checksum, fold, sum};
use crate::icmp::{HEADER, PARAMETER_PROBLEM, TIME_EXCEEDED, UNREACHABLE};
use crate::parse::V4;
use crate::rewrite::Rewrite;
use crate::wire::{get16, get32, put16, put32};
use crate::{ipv4, tcp, tunnel};

/// What is quoted of layer 4 at least: ports, and of TCP the sequence number.
pub(crate) const LEAST: usize = 8;

/// The quoted packet. Of TCP and UDP only; its IP checksum is not checked (it is the sender's own packet, or none of ours).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// From: whom the error is for.
    pub src: u32,
    /// To.
    pub dst: u32,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// TCP sequence number, else what stands in its place.
    pub seq: u32,
    /// [`ipv4::TCP`] or [`ipv4::UDP`].
    pub proto: u8,
    /// Where the quoted IP header begins, from the start of the frame.
    pub(crate) l3: usize,
    /// Where layer 4 begins.
    pub(crate) l4: usize,
    /// Where the quote, or the quoted packet if it was shorter, ends.
    pub(crate) end: usize,
}

/// Is this packet, as classified, an error about another packet?
#[must_use]
pub fn is_error(p: &V4) -> bool {
    let [kind, _] = p.dport.to_be_bytes();
    p.proto == ipv4::ICMP && matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// What the ICMP error `p` of `frame` quotes. `None`: no error, a wrong checksum, no first fragment of TCP or UDP, or less of it
/// than [RFC 792](https://www.rfc-editor.org/rfc/rfc792) asks for.
#[must_use]
pub fn read(frame: &[u8], p: &V4) -> Option<Quote> {
    let message = p.segment(frame);
    if !is_error(p) || message.len() < HEADER || fold(sum(message)) != 0xffff {
        return None;
    }
    let l3 = usize::from(p.l4) + HEADER;
    // RFC 4884: of a message with extensions the quote's length stands in the header, in words of four bytes.
    let words = usize::from(*message.get(5)?);
    let most = if words == 0 { p.end() } else { p.end().min(l3 + 4 * words) };
    read_at(frame, l3, most)
}

/// What the ICMP error `p` of `frame` quotes of a packet in a tunnel (RFC 2003): the far end the outer packet was sent to, and
/// the packet within, if enough of it is quoted. The outer packet's source is the error's receiver.
#[must_use]
pub fn read_tunnelled(frame: &[u8], p: &V4) -> Option<(u32, Quote)> {
    let message = p.segment(frame);
    if !is_error(p) || message.len() < HEADER || fold(sum(message)) != 0xffff {
        return None;
    }
    let l3 = usize::from(p.l4) + HEADER;
    let outer: &[u8; ipv4::HEADER] = frame.get(l3..)?.first_chunk()?;
    let len = usize::from(outer[0] & 0xf) * 4;
    if outer[0] >> 4 != 4 || len < ipv4::HEADER || outer[9] != tunnel::OF_IPV4 || get32(outer, 12) != p.dst {
        return None;
    }
    // What extensions may follow is not told from a quote here: the packet within says how long it is.
    Some((get32(outer, 16), read_at(frame, l3 + len, p.end())?))
}

/// Makes the error `p`, of which [`read_tunnelled`] has read `quote`, one about the packet within alone: of `kind`, with `mtu`
/// (0: none) beside it, from `src` to `dst`. Returns the frame's new length. `None`: the frame is another one; it may be half
/// changed.
pub fn untunnel(
    frame: &mut [u8],
    p: &V4,
    quote: &Quote,
    (src, dst): (u32, u32),
    kind: (u8, u8),
    mtu: u16,
) -> Option<usize> {
    let (l3, l4) = (usize::from(p.l3), usize::from(p.l4));
    let (to, len) = (l4 + HEADER, quote.end.checked_sub(quote.l3)?);
    frame.get(..quote.end)?;
    frame.copy_within(quote.l3..quote.end, to);
    let message = frame.get_mut(l4..to + len)?;
    let header: &mut [u8; HEADER] = message.first_chunk_mut()?;
    *header = [kind.0, kind.1, 0, 0, 0, 0, 0, 0];
    put16(header, 6, mtu);
    let sum = checksum(message);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    let packet = frame.get_mut(l3..l4)?;
    let window: &mut [u8; ipv4::HEADER] = packet.first_chunk_mut()?;
    put16(window, 2, u16::try_from(to + len - l3).ok()?);
    put16(window, 10, 0);
    let sum = checksum(packet);
    packet.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
    ipv4::set_addresses(packet, src, dst)?;
    ipv4::set_ttl(packet, p.ttl.saturating_sub(1));
    Some(to + len)
}

/// Reads the packet quoted at `l3`, of which what lies before `most` is quoted.
fn read_at(frame: &[u8], l3: usize, most: usize) -> Option<Quote> {
    let quoted = frame.get(l3..most)?;
    let ip: &[u8; ipv4::HEADER] = quoted.first_chunk()?;
    let (version, len) = (ip[0] >> 4, usize::from(ip[0] & 0xf) * 4);
    let first = get16(ip, 6) & 0x1fff == 0;
    let proto = ip[9];
    if version != 4 || len < ipv4::HEADER || !first || !matches!(proto, ipv4::TCP | ipv4::UDP) {
        return None;
    }
    let end = most.min(l3 + usize::from(get16(ip, 2)));
    let window: &[u8; LEAST] = frame.get(l3 + len..end)?.first_chunk()?;
    Some(Quote {
        src: get32(ip, 12),
        dst: get32(ip, 16),
        sport: get16(window, 0),
        dport: get16(window, 2),
        seq: get32(window, 4),
        proto,
        l3,
        l4: l3 + len,
        end,
    })
}

/// Translates the error `p` that [`read`] has read `quote` from: the outer packet to be from `outer.0` to `outer.1` with a TTL
/// of one less, the quoted packet to `to`. The quoted checksums are updated (as far as quoted), the error's is made anew.
///
/// `None`: the frame is another one; it may be half changed.
pub fn translate(frame: &mut [u8], p: &V4, quote: &Quote, outer: (u32, u32), to: &Rewrite) -> Option<()> {
    let delta = ipv4::set_addresses(frame.get_mut(quote.l3..quote.l4)?, to.src, to.dst)?;
    turn(frame.get_mut(quote.l4..quote.end)?, quote.proto, delta, to)?;
    let packet = frame.get_mut(usize::from(p.l3)..usize::from(p.l4))?;
    ipv4::set_addresses(packet, outer.0, outer.1)?;
    ipv4::set_ttl(packet, p.ttl.saturating_sub(1));
    let message = p.segment_mut(frame);
    message.get_mut(2..4)?.fill(0);
    let sum = checksum(message);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Ports, numbers and checksum of a quoted segment, as far as it is quoted. `delta`: what its pseudo header has changed by. `None`:
/// less than [`LEAST`].
pub(crate) fn turn<A>(segment: &mut [u8], proto: u8, delta: Delta, to: &Rewrite<A>) -> Option<()> {
    let window: &mut [u8; LEAST] = segment.first_chunk_mut()?;
    let delta = delta.word(get16(window, 0), to.sport).word(get16(window, 2), to.dport);
    put16(window, 0, to.sport);
    put16(window, 2, to.dport);
    if proto == ipv4::UDP {
        put16(window, 6, delta.apply_udp(get16(window, 6)));
        return Some(());
    }
    let seq = get32(window, 4).wrapping_add(to.seq_add);
    let mut delta = delta.long(get32(window, 4), seq);
    put32(window, 4, seq);
    // The rest, as far as it is quoted; without its flags it is taken for one with ACK, as all but the first are.
    let acks = segment.get(13).is_none_or(|flags| flags & tcp::ACK != 0);
    if let Some(window) = segment.first_chunk_mut::<12>().filter(|_| acks) {
        let ack = get32(window, 8).wrapping_sub(to.ack_sub);
        delta = delta.long(get32(window, 8), ack);
        put32(window, 8, ack);
    }
    if let Some(window) = segment.first_chunk_mut::<18>() {
        put16(window, 16, delta.apply(get16(window, 16)));
    }
    Some(())
}

//! [`quote`](crate::quote) for ICMPv6 (RFC 4443 §2.4, RFC 4884): the packet that an error is about.

use crate::icmpv6::{self, HEADER, PACKET_TOO_BIG, PARAMETER_PROBLEM, TIME_EXCEEDED, UNREACHABLE};
use crate::ipv6::Ip6;
use crate::parse::V6;
use crate::quote::{LEAST, turn};
use crate::rewrite::Rewrite;
use crate::wire::{get16, get32, get64};
use crate::{ipv4, ipv6};

/// Extension headers that may stand before layer 4 (RFC 8200 §4.1), and how many of them are followed.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const MOST_EXTENSIONS: usize = 8;

/// The quoted packet. Of TCP and UDP only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote6 {
    /// From: whom the error is for.
    pub src: Ip6,
    /// To.
    pub dst: Ip6,
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
pub fn is_error(p: &V6) -> bool {
    let [kind, _] = p.head.dport.to_be_bytes();
    p.head.proto == ipv6::ICMPV6 && matches!(kind, UNREACHABLE | PACKET_TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// What the ICMPv6 error `p` of `frame` quotes. `None`: no error, a wrong checksum, no first fragment of TCP or UDP, or less of it
/// than its first 8 bytes.
#[must_use]
pub fn read(frame: &[u8], p: &V6) -> Option<Quote6> {
    let message = p.head.segment(frame);
    if !is_error(p) || message.len() < HEADER || !icmpv6::verify(p.src, p.dst, message) {
        return None;
    }
    let l3 = usize::from(p.head.l4) + HEADER;
    // RFC 4884: of a message with extensions the quote's length stands in the header, in words of eight bytes.
    let words = match message.first()? {
        &UNREACHABLE | &TIME_EXCEEDED => usize::from(*message.get(4)?),
        _ => 0,
    };
    let most = if words == 0 { p.head.end() } else { p.head.end().min(l3 + 8 * words) };
    let ip: &[u8; ipv6::HEADER] = frame.get(l3..most)?.first_chunk()?;
    if ip[0] >> 4 != 6 {
        return None;
    }
    let end = most.min(l3 + ipv6::HEADER + usize::from(get16(ip, 4)));
    let (proto, l4) = layer4(frame.get(..end)?, l3 + ipv6::HEADER, ip[6])?;
    let window: &[u8; LEAST] = frame.get(l4..end)?.first_chunk()?;
    Some(Quote6 {
        src: [get64(ip, 8), get64(ip, 16)],
        dst: [get64(ip, 24), get64(ip, 32)],
        sport: get16(window, 0),
        dport: get16(window, 2),
        seq: get32(window, 4),
        proto,
        l3,
        l4,
        end,
    })
}

/// Protocol and place of TCP or UDP behind the extension headers that begin at `at`.
fn layer4(packet: &[u8], mut at: usize, mut next: u8) -> Option<(u8, usize)> {
    for _ in 0..=MOST_EXTENSIONS {
        if matches!(next, ipv4::TCP | ipv4::UDP) {
            return Some((next, at));
        }
        let header: &[u8; 8] = packet.get(at..)?.first_chunk()?;
        at += match next {
            HOP_BY_HOP | ROUTING | DESTINATION => 8 + 8 * usize::from(header[1]),
            // The first one has the ports.
            FRAGMENT if get16(header, 2) & 0xfff8 == 0 => 8,
            _ => return None,
        };
        next = header[0];
    }
    None
}

/// Translates the error `p` that [`read`] has read `quote` from: the outer packet to be from `outer.0` to `outer.1` with a hop limit
/// of one less, the quoted packet to `to`. The quoted checksum is updated (if quoted), the error's is made anew.
///
/// `None`: the frame is another one; it may be half changed.
pub fn translate(frame: &mut [u8], p: &V6, quote: &Quote6, outer: (Ip6, Ip6), to: &Rewrite<Ip6>) -> Option<()> {
    let delta = ipv6::set_addresses(frame.get_mut(quote.l3..quote.l4)?, to.src, to.dst)?;
    turn(frame.get_mut(quote.l4..quote.end)?, quote.proto, delta, to)?;
    let packet = frame.get_mut(usize::from(p.head.l3)..usize::from(p.head.l4))?;
    ipv6::set_addresses(packet, outer.0, outer.1)?;
    ipv6::set_hop_limit(packet, p.head.ttl.saturating_sub(1));
    let message = p.head.segment_mut(frame);
    message.get_mut(2..4)?.fill(0);
    let sum = icmpv6::checksum(outer.0, outer.1, message);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

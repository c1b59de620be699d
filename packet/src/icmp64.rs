//! ICMP errors between the families, for NAT64: type, code, pointer and MTU as RFC 7915 §4.2 and §5.2 say, the quoted packet as
//! the one who is told sent it. What has no counterpart there is told to nobody.

use crate::build::Link;
use crate::checksum::Delta;
use crate::icmpv6::{self, PACKET_TOO_BIG};
use crate::ipv6::Ip6;
use crate::parse::{V4, V6};
use crate::quote::{Quote, turn};
use crate::quote6::Quote6;
use crate::rewrite::Rewrite;
use crate::{checksum, ethernet, icmp, ipv4, ipv6};

/// What an IPv6 header is longer than one of IPv4 without options.
const LONGER: u32 = 20;
/// The most of an ICMPv4 error that every host takes (RFC 1812 §4.3.2.3), and what it leaves for the quote.
const MOST_V4: usize = 576 - ipv4::HEADER - icmp::HEADER;
const MOST_V6: usize = ipv6::MIN_MTU as usize - ipv6::HEADER - icmpv6::HEADER;
/// Sizes that links were known to have (RFC 1191 §7.1), for routers that report none.
const PLATEAUS: [u32; 11] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// Type, code, and the word behind the checksum.
type Meaning = (u8, u8, u32);

/// MTUs of the ports that lead to the two ends, bytes: no larger one is told.
#[derive(Clone, Copy, Debug)]
pub struct Mtus {
    /// Of the port towards the IPv6 end.
    pub v6: u32,
    /// Of the port towards the IPv4 end.
    pub v4: u32,
}

/// Writes to `out`, behind an Ethernet header `link`, what the IPv6 end `to.src` is told by the ICMPv4 error `p` of `frame`, of which
/// `quote` was read: from `to.dst`, about the packet `to`. Returns the frame's length. `None`: nothing to tell it (or `out` is too small).
pub fn to_v6(
    out: &mut [u8],
    link: Link,
    (frame, p, quote): (&[u8], &V4, &Quote),
    to: &Rewrite<Ip6>,
    mtus: Mtus,
) -> Option<usize> {
    let ip: &[u8; ipv4::HEADER] = frame.get(quote.l3..)?.first_chunk()?;
    let total = u16::from_be_bytes([ip[2], ip[3]]);
    let message: &[u8; icmp::HEADER] = p.segment(frame).first_chunk()?;
    let meaning = meaning_in_v6(message, total, mtus)?;
    let header = u16::try_from(quote.l4 - quote.l3).ok()?;
    let segment = frame.get(quote.l4..quote.end)?;
    let segment = segment.get(..MOST_V6 - ipv6::HEADER).unwrap_or(segment);
    let (rest, len) = link.emit(out, ethernet::IPV6)?;
    let (outer, rest) = rest.split_first_chunk_mut()?;
    let message = rest.get_mut(..icmpv6::HEADER + ipv6::HEADER + segment.len())?;
    ipv6::emit(outer, u16::try_from(message.len()).ok()?, ipv6::ICMPV6, p.ttl.saturating_sub(1), to.dst, to.src);
    let quoted = message.get_mut(icmpv6::HEADER..)?;
    let (inner, l4) = quoted.split_first_chunk_mut()?;
    ipv6::emit(inner, total.saturating_sub(header), quote.proto, ip[8], to.src, to.dst);
    (inner[0], inner[1]) = (0x60 | ip[1] >> 4, ip[1] << 4);
    l4.copy_from_slice(segment);
    turn(l4, quote.proto, longer(quote.src, to.src).and(longer(quote.dst, to.dst)), to)?;
    begin(message, meaning);
    let sum = icmpv6::checksum(to.dst, to.src, message);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(len + ipv6::HEADER + message.len())
}

/// As [`to_v6`], what the IPv4 end is told by an ICMPv6 error.
pub fn to_v4(
    out: &mut [u8],
    link: Link,
    (frame, p, quote): (&[u8], &V6, &Quote6),
    to: &Rewrite,
    mtus: Mtus,
) -> Option<usize> {
    let ip: &[u8; ipv6::HEADER] = frame.get(quote.l3..)?.first_chunk()?;
    let message: &[u8; icmpv6::HEADER] = p.head.segment(frame).first_chunk()?;
    let meaning = meaning_in_v4(message, mtus)?;
    // Extension headers stay behind (RFC 7915 §5.1.1).
    let behind = usize::from(u16::from_be_bytes([ip[4], ip[5]])) + ipv6::HEADER;
    let total = u16::try_from(behind.checked_sub(quote.l4 - quote.l3)? + ipv4::HEADER).ok()?;
    let segment = frame.get(quote.l4..quote.end)?;
    let segment = segment.get(..MOST_V4 - ipv4::HEADER).unwrap_or(segment);
    let (rest, len) = link.emit(out, ethernet::IPV4)?;
    let (outer, rest) = rest.split_first_chunk_mut()?;
    let message = rest.get_mut(..icmp::HEADER + ipv4::HEADER + segment.len())?;
    let whole = ipv4::HEADER + message.len();
    ipv4::emit(outer, u16::try_from(whole).ok()?, ipv4::ICMP, to.dst, to.src);
    ipv4::set_ttl(outer, p.head.ttl.saturating_sub(1));
    let quoted = message.get_mut(icmp::HEADER..)?;
    let (inner, l4) = quoted.split_first_chunk_mut()?;
    ipv4::emit(inner, total, quote.proto, to.src, to.dst);
    ipv4::set_ttl(inner, ip[7]);
    ipv4::set_tos(inner, ip[0] << 4 | ip[1] >> 4);
    l4.copy_from_slice(segment);
    turn(l4, quote.proto, longer(to.src, quote.src).and(longer(to.dst, quote.dst)).reversed(), to)?;
    begin(message, meaning);
    let sum = checksum::checksum(message);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(len + whole)
}

/// What an address in the place of another one changes in a sum.
fn longer(old: u32, new: Ip6) -> Delta {
    Delta::NONE.long(old, 0).and(Delta::added(&ipv6::bytes(new)))
}

fn begin(message: &mut [u8], (kind, code, word): Meaning) {
    let [a, b, c, d] = word.to_be_bytes();
    if let Some(header) = message.first_chunk_mut() {
        *header = [kind, code, 0, 0, a, b, c, d];
    }
}

/// RFC 7915 §4.2. `total`: length of the quoted packet.
fn meaning_in_v6(message: &[u8; icmp::HEADER], total: u16, mtus: Mtus) -> Option<Meaning> {
    let no_route = (icmpv6::UNREACHABLE, 0, 0);
    let prohibited = (icmpv6::UNREACHABLE, 1, 0);
    let [kind, code, .., high, low] = *message;
    Some(match (kind, code) {
        (icmp::UNREACHABLE, 0 | 1 | 5..=8 | 11 | 12) => no_route,
        (icmp::UNREACHABLE, 2) => (icmpv6::PARAMETER_PROBLEM, 1, 6), // The next header field.
        (icmp::UNREACHABLE, icmp::PORT_UNREACHABLE) => (icmpv6::UNREACHABLE, icmpv6::PORT_UNREACHABLE, 0),
        (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED) => {
            let told = u32::from(u16::from_be_bytes([high, low]));
            let guess = || PLATEAUS.into_iter().find(|plateau| *plateau < total.into()).unwrap_or(0);
            let mtu = if told == 0 { guess() } else { told };
            let least = (mtu + LONGER).min(mtus.v6).min(mtus.v4.saturating_add(LONGER));
            (PACKET_TOO_BIG, 0, least.max(ipv6::MIN_MTU.into()))
        }
        (icmp::UNREACHABLE, 9 | 10 | 13 | 15) => prohibited,
        (icmp::TIME_EXCEEDED, code) => (icmpv6::TIME_EXCEEDED, code, 0),
        (icmp::PARAMETER_PROBLEM, 0 | 2) => {
            let field = match message[4] {
                0 => 0,
                1 => 1,
                2 | 3 => 4,
                8 => 7,
                9 => 6,
                12..16 => 8,
                16..20 => 24,
                _ => return None,
            };
            (icmpv6::PARAMETER_PROBLEM, 0, field)
        }
        _ => return None,
    })
}

/// RFC 7915 §5.2.
fn meaning_in_v4(message: &[u8; icmpv6::HEADER], mtus: Mtus) -> Option<Meaning> {
    let [kind, code, _, _, a, b, c, d] = *message;
    let word = u32::from_be_bytes([a, b, c, d]);
    Some(match (kind, code) {
        (icmpv6::UNREACHABLE, 0 | 2 | 3) => (icmp::UNREACHABLE, 1, 0),
        (icmpv6::UNREACHABLE, 1) => (icmp::UNREACHABLE, 10, 0),
        (icmpv6::UNREACHABLE, icmpv6::PORT_UNREACHABLE) => (icmp::UNREACHABLE, icmp::PORT_UNREACHABLE, 0),
        // Less than every link carries is a lie (RFC 8201 §4).
        (PACKET_TOO_BIG, _) if word >= ipv6::MIN_MTU.into() => {
            let least = (word - LONGER).min(mtus.v4).min(mtus.v6.saturating_sub(LONGER));
            (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, least.min(u16::MAX.into()))
        }
        (icmpv6::TIME_EXCEEDED, code) => (icmp::TIME_EXCEEDED, code, 0),
        (icmpv6::PARAMETER_PROBLEM, 0) => {
            let field = match word {
                0 => 0,
                1 => 1,
                4 | 5 => 2,
                6 => 9,
                7 => 8,
                8..24 => 12,
                24..40 => 16,
                _ => return None,
            };
            (icmp::PARAMETER_PROBLEM, 0, field << 24)
        }
        (icmpv6::PARAMETER_PROBLEM, 1) => (icmp::UNREACHABLE, 2, 0),
        _ => return None,
    })
}

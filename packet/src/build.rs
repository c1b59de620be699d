//! Packets the appliance itself sends. All return the frame's length in bytes, unpadded; `None`: `buf` is too small.

use crate::arp::{self, Arp, Operation};
use crate::ethernet::{self, Mac};
use crate::ipv6::{self, Ip6};
use crate::parse::{V4, V6};
use crate::wire::{put16, put32};
use crate::{checksum, icmp, ipv4, tcp};

/// The Ethernet header of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// To.
    pub dst: Mac,
    /// From.
    pub src: Mac,
    /// VLAN id; 0: no tag.
    pub vlan: u16,
}

impl Link {
    /// The way back of a received frame; `None` when it is too short for a header.
    #[must_use]
    pub fn back(frame: &[u8], vlan: u16) -> Option<Self> {
        Some(Self { dst: ethernet::src(frame)?, src: ethernet::dst(frame)?, vlan })
    }

    /// Writes the header and returns the rest of `buf` and the header's length.
    pub(crate) fn emit(self, buf: &mut [u8], ethertype: u16) -> Option<(&mut [u8], usize)> {
        let len = if self.vlan == 0 { ethernet::HEADER } else { ethernet::TAGGED_HEADER };
        let (header, rest) = buf.split_at_mut_checked(len)?;
        ethernet::set_addresses(header, self.dst, self.src);
        if self.vlan != 0 {
            header[12..14].copy_from_slice(&ethernet::VLAN.to_be_bytes());
            header[14..16].copy_from_slice(&(self.vlan & 0xfff).to_be_bytes());
        }
        header[len - 2..].copy_from_slice(&ethertype.to_be_bytes());
        Some((rest, len))
    }
}

/// An ARP message.
pub fn arp(buf: &mut [u8], link: Link, message: &Arp) -> Option<usize> {
    let (rest, len) = link.emit(buf, ethernet::ARP)?;
    arp::emit(rest.first_chunk_mut()?, message);
    Some(len + arp::MESSAGE)
}

/// Asks everybody (`to` [`Mac::BROADCAST`]), or the one who had it (RFC 1122 §2.3.2.1), for the MAC of `target_ip`.
pub fn arp_request(buf: &mut [u8], to: Mac, mac: Mac, ip: u32, target_ip: u32, vlan: u16) -> Option<usize> {
    let operation = Operation::Request;
    let message = Arp { operation, sender_mac: mac, sender_ip: ip, target_mac: Mac::ZERO, target_ip };
    arp(buf, Link { dst: to, src: mac, vlan }, &message)
}

/// Gratuitous ARP: tells everybody that `mac` has `ip` (a request with both addresses the same, RFC 5227 §3).
pub fn garp(buf: &mut [u8], mac: Mac, ip: u32, vlan: u16) -> Option<usize> {
    arp_request(buf, Mac::BROADCAST, mac, ip, ip, vlan)
}

/// A TCP segment without payload or options; between IPv4 addresses unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<A = u32> {
    /// From.
    pub src: A,
    /// To.
    pub dst: A,
    /// From.
    pub sport: u16,
    /// To.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags, see [`mod@tcp`].
    pub flags: u8,
    /// Window, unscaled.
    pub window: u16,
}

/// A TCP segment without payload or options; 54 bytes, 58 with a tag.
pub fn tcp(buf: &mut [u8], link: Link, segment: &Segment) -> Option<usize> {
    const TOTAL: u16 = 40;
    let (rest, len) = link.emit(buf, ethernet::IPV4)?;
    let (ip, rest) = rest.split_first_chunk_mut()?;
    let header: &mut [u8; tcp::HEADER] = rest.first_chunk_mut()?;
    ipv4::emit(ip, TOTAL, ipv4::TCP, segment.src, segment.dst);
    segment.emit(header);
    let sum = checksum::segment_v4(segment.src, segment.dst, ipv4::TCP, header);
    put16(header, 16, sum);
    Some(len + usize::from(TOTAL))
}

/// As [`tcp()`], over IPv6; 74 bytes, 78 with a tag.
pub fn tcp_v6(buf: &mut [u8], link: Link, segment: &Segment<Ip6>) -> Option<usize> {
    const LEN: u16 = 20;
    let (rest, len) = link.emit(buf, ethernet::IPV6)?;
    let (ip, rest) = rest.split_first_chunk_mut()?;
    let header: &mut [u8; tcp::HEADER] = rest.first_chunk_mut()?;
    ipv6::emit(ip, LEN, ipv4::TCP, ipv6::HOP_LIMIT, segment.src, segment.dst);
    segment.emit(header);
    let sum = ipv6::pseudo(segment.src, segment.dst, ipv4::TCP, header.len()) + checksum::sum(header);
    put16(header, 16, !checksum::fold(sum));
    Some(len + ipv6::HEADER + header.len())
}

impl<A> Segment<A> {
    /// Writes all but the checksum, which is left 0.
    fn emit(&self, header: &mut [u8; tcp::HEADER]) {
        *header = [0; tcp::HEADER];
        put16(header, 0, self.sport);
        put16(header, 2, self.dport);
        put32(header, 4, self.seq);
        put32(header, 8, self.ack);
        header[12] = 5 << 4;
        header[13] = self.flags;
        put16(header, 14, self.window);
    }
}

/// A reset with numbers of our own tracking: what ends a session at one side. `ack` is sent with the ACK flag.
#[must_use]
pub fn rst<A>(from: (A, u16), to: (A, u16), seq: u32, ack: Option<u32>) -> Segment<A> {
    let flags = if ack.is_some() { tcp::RST | tcp::ACK } else { tcp::RST };
    let ((src, sport), (dst, dport)) = (from, to);
    Segment { src, dst, sport, dport, seq, ack: ack.unwrap_or(0), flags, window: 0 }
}

/// The reset that refuses the segment `p` (RFC 9293 §3.5.2): with its ack as number if it has one, else number 0 and an
/// ack of all it carried. `None`: `p` is a reset itself, or no TCP.
#[must_use]
pub fn rst_to(p: &V4) -> Option<Segment> {
    refusal(p, p.dst, p.src)
}

/// [`rst_to`] of a packet between these addresses.
fn refusal<A>(p: &V4, dst: A, src: A) -> Option<Segment<A>> {
    if p.proto != ipv4::TCP || p.tcp_flags & tcp::RST != 0 {
        return None;
    }
    let (from, to) = ((dst, p.dport), (src, p.sport));
    Some(if p.tcp_flags & tcp::ACK != 0 {
        rst(from, to, p.ack, None)
    } else {
        rst(from, to, 0, Some(p.seq.wrapping_add(p.segment_len())))
    })
}

/// Writes the reset that refuses `p` of `frame`, back the way the frame came. `None` also as [`rst_to`].
pub fn tcp_rst(buf: &mut [u8], frame: &[u8], p: &V4) -> Option<usize> {
    tcp(buf, Link::back(frame, p.vlan)?, &rst_to(p)?)
}

/// As [`tcp_rst`], of an IPv6 packet.
pub fn tcp_rst_v6(buf: &mut [u8], frame: &[u8], p: &V6) -> Option<usize> {
    tcp_v6(buf, Link::back(frame, p.head.vlan)?, &refusal(&p.head, p.dst, p.src)?)
}

/// An ICMP error about the packet `p` of `frame`, back the way it came, from address `src` (RFC 792, RFC 1812 §4.3.2):
/// quotes the IP header and up to 548 bytes in all. `mtu`: for [`icmp::FRAGMENTATION_NEEDED`] (RFC 1191), else 0.
///
/// `None` also about ICMP that is no echo, or a source that cannot be answered. The caller limits the rate.
pub fn icmp_error(buf: &mut [u8], frame: &[u8], p: &V4, src: u32, kind: (u8, u8), mtu: u16) -> Option<usize> {
    const QUOTE: usize = 576 - ipv4::HEADER - icmp::HEADER;
    let echo = p.dport >> 8 == u16::from(icmp::ECHO_REQUEST) || p.dport >> 8 == u16::from(icmp::ECHO_REPLY);
    if p.proto == ipv4::ICMP && !echo || !ipv4::is_source(p.src) || ethernet::dst(frame)?.is_multicast() {
        return None;
    }
    let quote = frame.get(usize::from(p.l3)..p.end())?;
    let quote = quote.get(..QUOTE).unwrap_or(quote);
    let (rest, len) = Link::back(frame, p.vlan)?.emit(buf, ethernet::IPV4)?;
    let (ip, rest) = rest.split_first_chunk_mut()?;
    let message = rest.get_mut(..icmp::HEADER + quote.len())?;
    let (header, quoted) = message.split_first_chunk_mut::<{ icmp::HEADER }>()?;
    *header = [kind.0, kind.1, 0, 0, 0, 0, 0, 0];
    put16(header, 6, mtu);
    quoted.copy_from_slice(quote);
    let sum = checksum::checksum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = ipv4::HEADER + message.len();
    ipv4::emit(ip, u16::try_from(total).ok()?, ipv4::ICMP, src, p.src);
    Some(len + total)
}

//! From a frame to what the datapath decides by, in one pass.

use crate::checksum::fold;
use crate::ipv6::Ip6;
use crate::{ethernet, icmp, ipv4, ipv6, tcp, udp, wire};

/// Why a frame is not looked at further. The order of checks is that of the headers; the first failure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum ParseError {
    /// The frame ends within its Ethernet or IP header.
    #[error("frame ends within the Ethernet or IP header")]
    TooShort,
    /// Neither IPv4, IPv6 nor ARP.
    #[error("ethertype is neither IPv4, IPv6 nor ARP")]
    NotIp,
    /// The version in the IP header is not the ethertype's.
    #[error("IP version is not that of the ethertype")]
    BadVersion,
    /// The IPv4 header says it is shorter than 20 bytes.
    #[error("IP header length below 20 bytes")]
    BadIhl,
    /// The IP packet's length is less than its header or more than the frame has.
    #[error("IP total length below its header's, or beyond the frame")]
    BadTotalLength,
    /// The IPv4 header checksum does not match.
    #[error("IP header checksum does not match")]
    BadIpChecksum,
    /// A fragment: ports are unknown.
    #[error("IP fragment")]
    Fragment,
    /// An IPv6 extension header that is cut short, of a kind that is not passed on, or one more than are walked.
    #[error("IPv6 extension header cut short, not passed on, or too many of them")]
    BadExtension,
    /// Less than 20 bytes of TCP.
    #[error("TCP segment below 20 bytes")]
    TcpTooShort,
    /// The TCP data offset is below 5 or beyond the segment.
    #[error("TCP data offset below 5, or beyond the segment")]
    BadTcpOffset,
    /// Less than 8 bytes of UDP.
    #[error("UDP datagram below 8 bytes")]
    UdpTooShort,
    /// The UDP length is below 8 or beyond the IP packet.
    #[error("UDP length below 8, or beyond the IP packet")]
    BadUdpLength,
    /// Less than 8 bytes of ICMP.
    #[error("ICMP message below 8 bytes")]
    IcmpTooShort,
}

/// An IPv4 packet. Shape: 32 bytes. Offsets from the start of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V4 {
    /// From.
    pub src: u32,
    /// To.
    pub dst: u32,
    /// TCP sequence number, else 0.
    pub seq: u32,
    /// TCP acknowledgement number (whatever the flags), else 0.
    pub ack: u32,
    /// TCP or UDP source port, else 0.
    pub sport: u16,
    /// TCP or UDP destination port, else 0. Of ICMP: type in the high byte, code in the low.
    pub dport: u16,
    /// IP header and payload, bytes.
    pub total_len: u16,
    /// VLAN id, 0: none.
    pub vlan: u16,
    /// Where the IP header begins: 14 or 18.
    pub l3: u8,
    /// Where layer 4 begins.
    pub l4: u8,
    /// Where layer 4's payload begins (of `OtherL4`: the same as `l4`).
    pub payload: u8,
    /// IP protocol.
    pub proto: u8,
    /// TCP flags, else 0.
    pub tcp_flags: u8,
    /// Time to live.
    pub ttl: u8,
}

impl V4 {
    /// Where the IP packet ends; what the frame has behind it is padding.
    #[inline(always)]
    #[must_use]
    pub fn end(&self) -> usize {
        usize::from(self.l3) + usize::from(self.total_len)
    }
    /// Bytes of layer 4, header and payload.
    #[inline(always)]
    #[must_use]
    pub fn l4_len(&self) -> usize {
        self.end().saturating_sub(usize::from(self.l4))
    }
    /// Bytes behind layer 4's header.
    #[inline(always)]
    #[must_use]
    pub fn payload_len(&self) -> u32 {
        (u32::from(self.l3) + u32::from(self.total_len)).saturating_sub(u32::from(self.payload))
    }
    /// What a TCP segment takes of the sequence space: payload + SYN + FIN.
    #[inline(always)]
    #[must_use]
    pub fn segment_len(&self) -> u32 {
        tcp::segment_len(self.payload_len(), self.tcp_flags)
    }
    /// Layer 4 of the frame this was read from, padding cut off; empty if it is another frame.
    #[inline]
    #[must_use]
    pub fn segment<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(usize::from(self.l4)..self.end()).unwrap_or_default()
    }
    /// [`V4::segment`], to be changed.
    #[inline]
    #[must_use]
    pub fn segment_mut<'a>(&self, frame: &'a mut [u8]) -> &'a mut [u8] {
        frame.get_mut(usize::from(self.l4)..self.end()).unwrap_or_default()
    }
}

/// An IPv6 packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V6 {
    /// From.
    pub src: Ip6,
    /// To.
    pub dst: Ip6,
    /// Everything that is not its addresses, as of an IPv4 packet whose header is as long as this one's with its extension
    /// headers (`l3..l4`). Its own addresses are 0; `ttl` is the hop limit.
    pub head: V4,
}

/// Where a payload begins that is not looked into here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where the payload of Ethernet begins: 14 or 18.
    pub l3: u8,
    /// VLAN id, 0: none.
    pub vlan: u16,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// IPv4 TCP or UDP, headers checked (the layer-4 checksum is not: the update keeps a wrong one wrong).
    L4(V4),
    /// IPv4 ICMP: type and code in `dport`.
    Icmp(V4),
    /// IPv4 with another protocol.
    OtherL4(V4),
    /// ARP, not looked into: see [`crate::arp::parse`].
    Arp(Link),
    /// IPv6: TCP or UDP with headers checked, ICMPv6 (type and code in `head.dport`), or another protocol, by `head.proto`.
    V6(V6),
}

/// Reads the headers of a frame. Source and destination are not judged, nor is the TTL: that is the forwarder's.
///
/// # Errors
/// One reason per check, in the headers' order.
#[inline(always)]
pub fn classify(frame: &[u8]) -> Result<Parsed, ParseError> {
    match common(frame) {
        Some(v4) => Ok(Parsed::L4(v4)),
        None => {
            // By a place of its own, not as the result: else the compiler keeps the common way's fields in memory too, and
            // reads them back before the stores have left (10.3 ns a packet instead of 4.4).
            let mut found = Err(ParseError::TooShort);
            general(frame, &mut found);
            found
        }
    }
}

/// [`ethernet::HEADER`], [`ethernet::TAGGED_HEADER`], and the header of UDP and of ICMP, in the type of [`V4`]'s offsets.
const UNTAGGED: u8 = 14;
const TAGGED: u8 = 18;
const SHORT: u8 = 8;
const _: () = assert!(UNTAGGED as usize == ethernet::HEADER && TAGGED as usize == ethernet::TAGGED_HEADER);
const _: () = assert!(SHORT as usize == udp::HEADER && SHORT as usize == icmp::HEADER);

/// Bytes of the headers of [`common`] packets.
const COMMON: usize = ethernet::HEADER + ipv4::HEADER + tcp::HEADER;

/// The way nearly all packets take: good untagged IPv4 TCP or UDP without IP options, 54 bytes or more. One bounds check,
/// all offsets constant. `None`: anything else, for [`general`] to find out.
#[inline(always)]
fn common(frame: &[u8]) -> Option<V4> {
    let window: &[u8; COMMON] = frame.first_chunk()?;
    let total_len = wire::get16(window, 16);
    let l4_len = u32::from(total_len).wrapping_sub(20);
    // The checksum does not depend on the byte order (RFC 1071 §2B): summed as the words lie, without turning them.
    let raw = |at| u64::from(wire::raw32(window, at));
    let sum = raw(14) + raw(18) + raw(22) + raw(26) + raw(30);
    let plain = wire::get16(window, 12) == ethernet::IPV4
        && window[14] == 0x45
        && usize::from(total_len) <= frame.len() - ethernet::HEADER
        && wire::get16(window, 20) & 0x3fff == 0
        && fold(sum) == 0xffff;
    let proto = window[23];
    let mut v4 = V4 {
        src: wire::get32(window, 26),
        dst: wire::get32(window, 30),
        sport: wire::get16(window, 34),
        dport: wire::get16(window, 36),
        total_len,
        l3: 14,
        l4: 34,
        payload: 42,
        proto,
        ttl: window[22],
        ..V4::default()
    };
    if proto == ipv4::TCP {
        let header = window[46] >> 4 << 2;
        (v4.seq, v4.ack) = (wire::get32(window, 38), wire::get32(window, 42));
        (v4.tcp_flags, v4.payload) = (window[47], 34 + header);
        // At least 20 bytes of header, and no more than there are: neither difference is negative.
        let (options, payload) = (u32::from(header).wrapping_sub(20), l4_len.wrapping_sub(u32::from(header)));
        (plain && (options | payload).cast_signed() >= 0).then_some(v4)
    } else {
        let length = u32::from(wire::get16(window, 38));
        let (data, rest) = (length.wrapping_sub(8), l4_len.wrapping_sub(length));
        (plain && proto == ipv4::UDP && (data | rest).cast_signed() >= 0).then_some(v4)
    }
}

/// Any frame, header by header.
#[cold]
#[inline(never)]
fn general(frame: &[u8], found: &mut Result<Parsed, ParseError>) {
    *found = headers(frame);
}

fn headers(frame: &[u8]) -> Result<Parsed, ParseError> {
    let header = ethernet::header(frame)?;
    let l3 = if header.len == ethernet::HEADER { UNTAGGED } else { TAGGED };
    let link = Link { l3, vlan: header.vlan };
    match header.ethertype {
        ethernet::IPV4 => ipv4_at(frame, l3, header.vlan),
        ethernet::ARP => Ok(Parsed::Arp(link)),
        ethernet::IPV6 => ipv6_at(frame, l3, header.vlan),
        _ => Err(ParseError::NotIp),
    }
}

fn ipv4_at(frame: &[u8], l3: u8, vlan: u16) -> Result<Parsed, ParseError> {
    let packet = frame.get(usize::from(l3)..).ok_or(ParseError::TooShort)?;
    let ip = ipv4::header(packet)?;
    if ip.fragment {
        return Err(ParseError::Fragment);
    }
    let segment = packet.get(usize::from(ip.len)..usize::from(ip.total_len)).ok_or(ParseError::BadTotalLength)?;
    let l4 = l3 + ip.len;
    let mut v4 = V4 {
        src: ip.src,
        dst: ip.dst,
        total_len: ip.total_len,
        vlan,
        l3,
        l4,
        payload: l4,
        proto: ip.proto,
        ttl: ip.ttl,
        ..V4::default()
    };
    layer_4(&mut v4, segment, ipv4::ICMP)?;
    Ok(match ip.proto {
        ipv4::TCP | ipv4::UDP => Parsed::L4(v4),
        ipv4::ICMP => Parsed::Icmp(v4),
        _ => Parsed::OtherL4(v4),
    })
}

fn ipv6_at(frame: &[u8], l3: u8, vlan: u16) -> Result<Parsed, ParseError> {
    let packet = frame.get(usize::from(l3)..).ok_or(ParseError::TooShort)?;
    let ip = ipv6::header(packet)?;
    let segment = packet.get(usize::from(ip.len)..usize::from(ip.total_len)).ok_or(ParseError::BadTotalLength)?;
    let l4 = l3 + ip.len;
    let (total_len, proto, ttl) = (ip.total_len, ip.proto, ip.hop_limit);
    let mut head = V4 { total_len, vlan, l3, l4, payload: l4, proto, ttl, ..V4::default() };
    layer_4(&mut head, segment, ipv6::ICMPV6)?;
    Ok(Parsed::V6(V6 { src: ip.src, dst: ip.dst, head }))
}

/// What layer 4 says, if it is TCP, UDP, or the ICMP of the packet's family.
fn layer_4(packet: &mut V4, segment: &[u8], icmp: u8) -> Result<(), ParseError> {
    let l4 = packet.l4;
    match packet.proto {
        ipv4::TCP => {
            let header = tcp::header(segment)?;
            (packet.sport, packet.dport, packet.seq, packet.ack) = (header.sport, header.dport, header.seq, header.ack);
            (packet.tcp_flags, packet.payload) = (header.flags, l4 + header.len);
        }
        ipv4::UDP => {
            let header = udp::header(segment)?;
            (packet.sport, packet.dport, packet.payload) = (header.sport, header.dport, l4 + SHORT);
        }
        proto if proto == icmp => {
            let (kind, code) = icmp::kind(segment)?;
            (packet.dport, packet.payload) = (u16::from_be_bytes([kind, code]), l4 + SHORT);
        }
        _ => {}
    }
    Ok(())
}

//! Bytes as they stand in RFCs and on real wires.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use packet::arp::{self, Arp, ArpError, Operation};
use packet::build::{self, Link};
use packet::ethernet::{self, Mac};
use packet::{ParseError, Parsed, V4, checksum, classify, icmp, ipv4, tcp, udp};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A SYN as Linux sends it (made by scapy): MSS 1460, SACK permitted, timestamps, NOP, window scale 7.
/// 10.0.0.1:40000 → 10.0.0.100:80.
const SYN: &str = "02000a000002 02000a000001 0800
    4500003c 1c464000 40060a12 0a000001 0a000064
    9c400050 12345678 00000000 a002faf0 2f680000
    020405b4 0402080a 01020304 00000000 01030307";
/// 8 bytes of UDP without checksum, padded to the Ethernet minimum (scapy).
const UDP: &str = "02000a000002 02000a000001 0800
    45000024 00004000 40112601 0a000001 0a0000c8
    d4310035 00100000 1122334455667788 000000000000 0000";
/// An echo request of 8 bytes with TTL 1 (scapy).
const PING: &str = "02000a000002 02000a000001 0800
    45000024 abcd0000 0101f9a7 0a000001 0a000064
    080092e8 00010002 68656c6c6f212121";

fn l4(frame: &[u8]) -> V4 {
    match classify(frame) {
        Ok(Parsed::L4(v4) | Parsed::Icmp(v4)) => v4,
        other => panic!("{other:?}"),
    }
}

#[test]
fn syn() {
    let frame = hex(SYN);
    let p = l4(&frame);
    let expected = V4 {
        src: 0x0a00_0001,
        dst: 0x0a00_0064,
        seq: 0x1234_5678,
        ack: 0,
        sport: 40000,
        dport: 80,
        total_len: 60,
        vlan: 0,
        l3: 14,
        l4: 34,
        payload: 74,
        proto: ipv4::TCP,
        tcp_flags: tcp::SYN,
        ttl: 64,
    };
    assert_eq!(p, expected);
    assert_eq!((p.end(), p.l4_len(), p.payload_len(), p.segment_len()), (74, 40, 0, 1));
    assert!(tcp::verify(p.src, p.dst, p.segment(&frame)));
    assert_eq!(tcp::header(p.segment(&frame)).unwrap().window, 0xfaf0);
}

#[test]
fn udp_padded_and_without_checksum() {
    let frame = hex(UDP);
    let p = l4(&frame);
    assert_eq!((p.sport, p.dport, p.total_len, p.payload_len(), p.proto), (54321, 53, 36, 8, ipv4::UDP));
    assert_eq!(p.segment(&frame).len(), 16);
    assert!(udp::verify(p.src, p.dst, p.segment(&frame)));
}

#[test]
fn ping_is_answered_in_place() {
    let mut frame = hex(PING);
    let p = l4(&frame);
    assert!(icmp::is_echo_request(&p));
    let own = Mac([2, 0, 10, 0, 0, 2]);
    assert!(icmp::echo_reply(&mut frame, &p, own));
    let reply = hex("02000a000001 02000a000002 0800 45000024 abcd0000 4001baa7 0a000064 0a000001
        00009ae8 00010002 68656c6c6f212121");
    assert_eq!(frame, reply);
    let p = l4(&frame);
    assert_eq!(p.dport, 0);
    assert!(!icmp::echo_reply(&mut frame, &p, own), "a reply is not answered");
}

#[test]
fn kinds() {
    let link = |l3, vlan| packet::parse::Link { l3, vlan };
    let pad = |mut frame: Vec<u8>| {
        frame.resize(60, 0);
        frame
    };
    assert_eq!(classify(&pad(common::ethernet(0x0806, 0))), Ok(Parsed::Arp(link(14, 0))));
    assert_eq!(classify(&pad(common::ethernet(0x0806, 7))), Ok(Parsed::Arp(link(18, 7))));
    assert_eq!(classify(&pad(common::ethernet(0x86dd, 0))), Err(ParseError::BadVersion));
    assert_eq!(classify(&pad(common::ethernet(0x88cc, 0))), Err(ParseError::NotIp));
    assert_eq!(classify(&[]), Err(ParseError::TooShort));
    let mut gre = common::ethernet(0x0800, 0);
    gre.extend(common::ipv4(1, 2, 64, 47, &[], 4));
    gre.extend([0; 4]);
    assert!(matches!(classify(&gre), Ok(Parsed::OtherL4(V4 { proto: 47, l4: 34, payload: 34, .. }))));
}

#[test]
fn macs() {
    let mac: Mac = "02:00:0A:00:00:ff".parse().unwrap();
    assert_eq!(mac, Mac([2, 0, 10, 0, 0, 255]));
    assert_eq!(mac.to_string(), "02:00:0a:00:00:ff");
    assert_eq!("02-00-0a-00-00-ff".parse(), Ok(mac));
    for wrong in
        ["", "02:00:0a:00:00", "02:00:0a:00:00:ff:01", "2:0:a:0:0:ff", "02:00:0a:00:00:fg", "+2:00:0a:00:00:00"]
    {
        assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
    }
    assert!(mac.is_unicast() && !mac.is_multicast() && !Mac::ZERO.is_unicast());
    assert!(
        Mac::BROADCAST.is_broadcast() && Mac::BROADCAST.is_multicast() && Mac([1, 0, 0x5e, 0, 0, 1]).is_multicast()
    );
}

#[test]
fn ethernet_header_and_tag() {
    let mut frame = common::ethernet(0x0800, 100);
    let header = ethernet::header(&frame).unwrap();
    assert_eq!((header.ethertype, header.vlan, header.len), (0x0800, 100, 18));
    assert!(ethernet::set_vlan(&mut frame, 200));
    assert_eq!(frame[14..16], [0x60, 200], "priority kept");
    assert!(!ethernet::set_vlan(&mut common::ethernet(0x0800, 0), 200));
    ethernet::set_addresses(&mut frame, Mac::BROADCAST, Mac(common::MAC_B));
    assert_eq!((ethernet::dst(&frame), ethernet::src(&frame)), (Some(Mac::BROADCAST), Some(Mac(common::MAC_B))));
    assert_eq!(ethernet::header(&frame[..17]), Err(ParseError::TooShort));
}

#[test]
fn arp_messages() {
    let own = Mac([2, 0, 10, 0, 0, 1]);
    let mut buf = [0xaa; 64];
    assert_eq!(build::arp_request(&mut buf, Mac::BROADCAST, own, 0x0a00_0002, 0x0a00_0015, 0), Some(42));
    let request = hex("ffffffffffff 02000a000001 0806 0001 0800 06 04 0001
        02000a000001 0a000002 000000000000 0a000015");
    assert_eq!(buf[..42], request);
    assert_eq!(buf[42..], [0xaa; 22]);

    let mut frame = request;
    frame.resize(60, 0);
    let peer = Mac([2, 0, 10, 0, 0, 21]);
    assert_eq!(arp::reply_in_place(&mut frame, 14, peer), Some(60));
    let reply = hex("02000a000001 02000a000015 0806 0001 0800 06 04 0002
        02000a000015 0a000015 02000a000001 0a000002");
    assert_eq!(frame[..42], reply);
    assert_eq!(arp::reply_in_place(&mut frame, 14, peer), None, "a reply is not answered");

    assert_eq!(build::garp(&mut buf, own, 0x0a00_0064, 5), Some(46));
    assert_eq!(ethernet::header(&buf).unwrap().vlan, 5);
    let garp = arp::parse(&buf[18..46]).unwrap();
    assert!(garp.is_gratuitous());
    let operation = Operation::Request;
    let same =
        Arp { operation, sender_mac: own, sender_ip: 0x0a00_0064, target_mac: Mac::ZERO, target_ip: 0x0a00_0064 };
    assert_eq!(garp, same);
    assert_eq!(build::garp(&mut buf[..45], own, 1, 5), None);
}

#[test]
fn arp_nonsense() {
    let good = &hex("0001 0800 06 04 0002 02000a000015 0a000015 02000a000001 0a000002");
    assert!(arp::parse(good).is_ok());
    for len in 0..good.len() {
        assert_eq!(arp::parse(&good[..len]), Err(ArpError::TooShort));
    }
    for (at, error) in [
        (1, ArpError::BadKind),
        (2, ArpError::BadKind),
        (4, ArpError::BadKind),
        (5, ArpError::BadKind),
        (7, ArpError::BadOperation),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x0c;
        assert_eq!(arp::parse(&bad), Err(error), "byte {at}");
    }
    let mut group = good.clone();
    group[8] |= 1;
    assert_eq!(arp::parse(&group), Err(ArpError::BadSender));
}

#[test]
fn resets() {
    let frame = hex(SYN);
    let mut buf = [0; 64];
    // RFC 9293 §3.5.2, group 1: no ACK in the segment: number 0, ack of all it carried.
    let len = build::tcp_rst(&mut buf, &frame, &l4(&frame)).unwrap();
    assert_eq!(len, 54);
    let rst = l4(&buf[..len]);
    assert_eq!((rst.src, rst.dst, rst.sport, rst.dport), (0x0a00_0064, 0x0a00_0001, 80, 40000));
    assert_eq!((rst.seq, rst.ack, rst.tcp_flags), (0, 0x1234_5679, tcp::RST | tcp::ACK));
    assert_eq!((ethernet::dst(&buf), ethernet::src(&buf)), (ethernet::src(&frame), ethernet::dst(&frame)));
    common::assert_checksums(&buf[..len], &"rst");
    assert_eq!(build::tcp_rst(&mut [0; 64], &buf[..len], &rst), None, "no reset to a reset");
    // With ACK: its ack as number, nothing acknowledged. Tagged.
    let mut data = common::ethernet(0x0800, 9);
    data.extend(common::ipv4(1, 2, 64, 6, &[], 25));
    data.extend(common::tcp((1, 2), (3, 4), (100, 200), tcp::ACK | tcp::FIN, &[], b"hello"));
    let p = l4(&data);
    assert_eq!(p.segment_len(), 6);
    let len = build::tcp_rst(&mut buf, &data, &p).unwrap();
    let rst = l4(&buf[..len]);
    assert_eq!((len, rst.vlan, rst.seq, rst.ack, rst.tcp_flags), (58, 9, 200, 0, tcp::RST));
    common::assert_checksums(&buf[..len], &"rst");
    // Too small a buffer, every length.
    for room in 0..58 {
        assert_eq!(build::tcp_rst(&mut buf[..room], &data, &p), None);
    }
    let link = Link { dst: Mac::ZERO, src: Mac::ZERO, vlan: 0 };
    let mut buf = [0; 54];
    assert_eq!(build::tcp(&mut buf, link, &build::rst((1, 2), (3, 4), 5, Some(6))), Some(54));
    assert_eq!(l4(&buf).tcp_flags, tcp::RST | tcp::ACK);
}

#[test]
fn icmp_errors() {
    let frame = hex(SYN);
    let mut buf = [0; 600];
    let kind = (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED);
    let len = build::icmp_error(&mut buf, &frame, &l4(&frame), 0x0a00_0064, kind, 1400).unwrap();
    assert_eq!(len, 14 + 20 + 8 + 60);
    let p = l4(&buf[..len]);
    assert_eq!((p.src, p.dst, p.dport), (0x0a00_0064, 0x0a00_0001, 0x0304));
    assert_eq!(checksum::checksum(p.segment(&buf)), 0);
    assert_eq!(buf[40..42], 1400_u16.to_be_bytes());
    assert_eq!(buf[42..len], frame[14..]);
    let about = l4(&buf[..len]);
    assert_eq!(build::icmp_error(&mut [0; 600], &buf[..len], &about, 1, kind, 0), None, "no error about an error");
    let mut broadcast = frame.clone();
    broadcast[..6].fill(0xff);
    assert_eq!(build::icmp_error(&mut buf, &broadcast, &l4(&frame), 1, kind, 0), None);
}

/// RFC 1071 §3's example, and RFC 1624 §4's, where equation 2 failed.
#[test]
fn rfc_checksums() {
    assert_eq!(checksum::fold(checksum::sum(&hex("0001f203f4f5f6f7"))), 0xddf2);
    assert_eq!(checksum::checksum(&hex("0001f203f4f5f6f7")), 0x220d);
    assert_eq!(checksum::Delta::NONE.word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    assert_eq!(checksum::Delta::NONE.apply(0x1234), 0x1234);
    assert_eq!(checksum::sum(&[1]), 0x0100_0000);
    assert_eq!(checksum::fold(u64::MAX), 0xffff);
    assert_eq!(checksum::fold(0), 0);
}

/// UDP: 0 says none and stays; what comes out as 0 is sent as 0xffff.
#[test]
fn udp_corner() {
    let to_zero = checksum::Delta::NONE.word(0x5555, 0x3285);
    assert_eq!((to_zero.apply(0xdd2f), to_zero.apply_udp(0xdd2f), to_zero.apply_udp(0)), (0, 0xffff, 0));
    // From 0xffff (a sum that came out as 0) and back again.
    let change = checksum::Delta::NONE.word(0x1111, 0x2222);
    let back = checksum::Delta::NONE.word(0x2222, 0x1111);
    let changed = change.apply_udp(0xffff);
    assert_eq!(changed, !0x1111);
    assert_eq!(back.apply_udp(changed), 0xffff);
}

#[test]
fn sources() {
    for (address, good) in
        [(0, false), (0x0a00_0001, true), (0x7f00_0001, false), (0xe000_0001, false), (u32::MAX, false)]
    {
        assert_eq!(ipv4::is_source(address), good, "{address:x}");
    }
    assert!(ipv4::dont_fragment(&hex(SYN)[14..]) && !ipv4::dont_fragment(&hex(PING)[14..]));
}

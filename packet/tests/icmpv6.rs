//! ICMPv6 and neighbour discovery against packets made by scapy (`scapy/icmpv6.py`), and the tables of RFC 7915.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use packet::build::Link;
use packet::icmp64::{Mtus, to_v4, to_v6};
use packet::nd::{self, Nd, NdError, flag};
use packet::{Ip6, Mac, Parsed, Rewrite, V4, V6, classify, icmpv6, quote, quote6};

const US: Mac = Mac([2, 0, 10, 0, 0, 2]);
const HOST: Mac = Mac([2, 0, 10, 0, 0, 1]);
const VIP: Ip6 = [0x2001_0db8 << 32, 0x100];
const LOCAL: Ip6 = [0x2001_0db8 << 32, 0x80];
const CLIENT: Ip6 = [0x2001_0db8_0001 << 16, 5];
const LOCAL4: u32 = 0x0a00_0080;
const SERVER4: u32 = 0x0a00_0215;
const SHIFT: u32 = 0x0f00_0001;
const WIDE: Mtus = Mtus { v6: 9000, v4: 9000 };

fn made(name: &str) -> Vec<u8> {
    let lines = include_str!("scapy/icmpv6.txt").lines().filter_map(|line| line.split_once(' '));
    let (_, digits) = lines.clone().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no packet {name}"));
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn v6(frame: &[u8]) -> V6 {
    match classify(frame) {
        Ok(Parsed::V6(p)) => p,
        other => panic!("{other:?}"),
    }
}

fn v4(frame: &[u8]) -> V4 {
    match classify(frame) {
        Ok(Parsed::Icmp(p)) => p,
        other => panic!("{other:?}"),
    }
}

fn written(name: &str, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
    let mut buf = [0xa5; 2000];
    let len = write(&mut buf).unwrap();
    assert_eq!(buf[..len], made(name)[..], "{name}");
    assert!(buf[len..].iter().all(|b| *b == 0xa5), "{name}: nothing is written behind the frame");
}

#[test]
fn neighbour_discovery_is_written() {
    written("solicit", |buf| nd::solicit(buf, US, LOCAL, VIP, 0));
    written("solicit_tagged", |buf| nd::solicit(buf, US, LOCAL, VIP, 7));
    written("announce", |buf| nd::announce(buf, US, VIP, 0));
    written("announce_tagged", |buf| nd::announce(buf, US, VIP, 7));
    written("probe", |buf| nd::probe(buf, HOST, US, LOCAL, VIP, 0));
    written("answer", |buf| nd::answer(buf, HOST, CLIENT, US, VIP, 0));
    written("announce", |buf| nd::answer(buf, HOST, [0; 2], US, VIP, 0));
    let whole = made("solicit").len();
    for room in 0..whole {
        assert_eq!(nd::solicit(&mut vec![0; room], US, LOCAL, VIP, 0), None, "{room} bytes");
    }
}

#[test]
fn link_local_addresses_as_linux_makes_them() {
    assert_eq!(nd::link_local(US), [0xfe80 << 48, 0x0000_0aff_fe00_0002]);
}

/// Reads a message of a frame as it is.
fn read(frame: &[u8]) -> Result<Nd, NdError> {
    let p = v6(frame);
    nd::parse(p.src, p.dst, p.head.ttl, p.head.segment(frame))
}

#[test]
fn neighbour_discovery_is_read() {
    let asks = Nd::Solicitation { target: VIP, source: Some(US) };
    assert_eq!(read(&made("solicit")), Ok(asks));
    assert_eq!(read(&made("solicit_tagged")), Ok(asks));
    assert_eq!(read(&made("duplicate_probe")), Ok(Nd::Solicitation { target: VIP, source: None }));
    let says = |flags| Nd::Advertisement { target: VIP, mac: Some(US), flags };
    assert_eq!(read(&made("answer")), Ok(says(flag::SOLICITED | flag::OVERRIDE)));
    assert_eq!(read(&made("announce")), Ok(says(flag::OVERRIDE)));
}

/// A message with some bytes other than in packet `name`, its checksum right again.
fn changed(name: &str, changes: &[(usize, u8)]) -> Result<Nd, NdError> {
    let frame = made(name);
    let p = v6(&frame);
    let mut message = p.head.segment(&frame).to_vec();
    for (at, byte) in changes {
        message[*at] = *byte;
    }
    parse_fresh(p.src, p.dst, p.head.ttl, message)
}

fn parse_fresh(src: Ip6, dst: Ip6, hop_limit: u8, mut message: Vec<u8>) -> Result<Nd, NdError> {
    message[2..4].fill(0);
    let sum = icmpv6::checksum(src, dst, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    nd::parse(src, dst, hop_limit, &message)
}

#[test]
fn what_rfc_4861_forbids_is_not_believed() {
    for name in ["solicit", "answer", "announce"] {
        let frame = made(name);
        let p = v6(&frame);
        let message = p.head.segment(&frame);
        for hop_limit in [0, 1, 64, 254] {
            assert_eq!(nd::parse(p.src, p.dst, hop_limit, message), Err(NdError::BadHopLimit), "{name}");
        }
        for at in 4..message.len() {
            let mut bad = message.to_vec();
            bad[at] ^= 1;
            assert_eq!(nd::parse(p.src, p.dst, 255, &bad), Err(NdError::BadChecksum), "{name} byte {at}");
        }
        for len in 0..24 {
            assert_eq!(nd::parse(p.src, p.dst, 255, &message[..len]), Err(NdError::TooShort), "{name} {len}");
        }
        assert_eq!(changed(name, &[(1, 1)]), Err(NdError::BadCode));
        assert_eq!(changed(name, &[(8, 0xff)]), Err(NdError::BadTarget));
        assert_eq!(changed(name, &[(25, 0)]), Err(NdError::BadOption), "an option of length 0");
        assert_eq!(changed(name, &[(25, 2)]), Err(NdError::BadOption), "beyond the message");
        assert_eq!(changed(name, &[(26, 3)]), Err(NdError::BadOption), "a group's hardware address");
        assert_eq!(changed(name, &[(0, 133)]), Err(NdError::BadKind));
        let mut cut = message.to_vec();
        cut.truncate(31);
        assert_eq!(parse_fresh(p.src, p.dst, 255, cut), Err(NdError::BadOption), "{name}: cut within the option");
        let mut unknown = message.to_vec();
        unknown.splice(24..24, [14, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse_fresh(p.src, p.dst, 255, unknown), read(&frame), "{name}: unknown options are skipped");
    }
    // A probe for duplicates goes to the group and does not tell a hardware address.
    let probe = made("duplicate_probe");
    let p = v6(&probe);
    let message = p.head.segment(&probe).to_vec();
    assert_eq!(parse_fresh([0; 2], VIP, 255, message.clone()), Err(NdError::BadAddresses));
    let with_address = [message, vec![1, 1, 2, 0, 10, 0, 0, 1]].concat();
    assert_eq!(parse_fresh([0; 2], p.dst, 255, with_address), Err(NdError::BadAddresses));
    // An answer to somebody is not sent to all.
    assert_eq!(changed("announce", &[(4, 0x60)]), Err(NdError::BadAddresses));
}

#[test]
fn echo_is_answered_in_place() {
    let mut frame = made("echo");
    let p = v6(&frame);
    assert!(icmpv6::is_echo_request(&p) && icmpv6::echo_reply(&mut frame, &p, US));
    assert_eq!(frame, made("echo_reply"));
    let reply = v6(&frame);
    assert!(!icmpv6::echo_reply(&mut frame, &reply, US), "no reply to a reply");
}

#[test]
fn what_is_too_long_is_refused_with_as_much_of_it_as_fits() {
    let large = made("large");
    let about = v6(&large);
    let kind = (icmpv6::PACKET_TOO_BIG, 0);
    written("large_refused", |buf| icmpv6::error(buf, &large, &about, VIP, kind, 1460));
    let refused = made("large_refused");
    assert_eq!(icmpv6::error(&mut [0; 2000], &refused, &v6(&refused), VIP, kind, 1460), None, "none about an error");
    let unspecified = V6 { src: [0; 2], ..about };
    assert_eq!(icmpv6::error(&mut [0; 2000], &large, &unspecified, VIP, kind, 1460), None, "nobody to tell");
}

const fn told<A: Copy>(src: A, dst: A, ports: (u16, u16), seq_add: u32, ack_sub: u32) -> Rewrite<A> {
    Rewrite { src, dst, sport: ports.0, dport: ports.1, seq_add, ack_sub }
}

const CLIENT_SENT: Rewrite<Ip6> = told(CLIENT, VIP, (40000, 80), SHIFT.wrapping_neg(), 0);
const SERVER_SENT: Rewrite = told(SERVER4, LOCAL4, (8080, 1030), 0, SHIFT.wrapping_neg());
const LINK: Link = Link { dst: HOST, src: US, vlan: 0 };

#[test]
fn quoted_packets_are_those_their_sender_sent() {
    for name in ["tcp_whole", "tcp_part", "tcp_short", "udp_whole", "udp_part", "udp_short"] {
        let mut frame = made(&format!("{name}_66_in"));
        let p = v6(&frame);
        let quote = quote6::read(&frame, &p).unwrap_or_else(|| panic!("{name}"));
        assert_eq!((quote.src, quote.sport, quote.dport), (LOCAL, 1030, 8080));
        quote6::translate(&mut frame, &p, &quote, (VIP, CLIENT), &CLIENT_SENT).unwrap();
        assert_eq!(frame, made(&format!("{name}_66_out")), "{name}");

        let frame = made(&format!("{name}_46_in"));
        let p = v4(&frame);
        let quote = quote::read(&frame, &p).unwrap_or_else(|| panic!("{name}"));
        written(&format!("{name}_46_out"), |buf| to_v6(buf, LINK, (&frame, &p, &quote), &CLIENT_SENT, WIDE));
    }
    for proto in ["tcp", "udp"] {
        for name in ["plain", "options"] {
            let frame = made(&format!("{proto}_{name}_64_in"));
            let p = v6(&frame);
            let quote = quote6::read(&frame, &p).unwrap_or_else(|| panic!("{proto} {name}"));
            assert_eq!((quote.src, quote.dst, quote.sport, quote.dport), (VIP, CLIENT, 80, 40000));
            written(&format!("{proto}_64_out"), |buf| to_v4(buf, LINK, (&frame, &p, &quote), &SERVER_SENT, WIDE));
        }
    }
}

#[test]
fn damaged_quotes_are_not_read() {
    let frame = made("tcp_whole_66_in");
    let p = v6(&frame);
    for at in 54..frame.len() {
        let mut bad = frame.clone();
        bad[at] ^= 0x10;
        assert_eq!(quote6::read(&bad, &p), None, "byte {at}: the checksum does not match");
    }
    for len in 0..48 {
        let message = &p.head.segment(&frame)[..8 + len];
        let short = rebuilt(&frame, message);
        assert_eq!(quote6::read(&short, &v6(&short)), None, "{len} bytes of a quote");
    }
    // Not the first fragment: what stands there are no ports.
    let mut message = p.head.segment(&frame).to_vec();
    message[8 + 6] = 44;
    message.splice(48..48, [6, 0, 0, 8, 0, 0, 0, 1]);
    let later = rebuilt(&frame, &message);
    assert_eq!(quote6::read(&later, &v6(&later)), None);
    message[48 + 3] = 1;
    let first = rebuilt(&frame, &message);
    assert_eq!(quote6::read(&first, &v6(&first)).unwrap().sport, 1030);
}

/// The ICMPv6 frame with another message.
fn rebuilt(frame: &[u8], message: &[u8]) -> Vec<u8> {
    let p = v6(frame);
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = icmpv6::checksum(p.src, p.dst, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&frame[..54], &message].concat();
    frame[18..20].copy_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
    frame
}

/// Type, code and word that an error of family 4 comes out with in family 6.
fn in_v6(kind: u8, code: u8, word: u32, mtus: Mtus) -> Option<(u8, u8, u32)> {
    let mut frame = made("udp_part_46_in");
    let p = v4(&frame);
    (frame[34], frame[35]) = (kind, code);
    frame[38..42].copy_from_slice(&word.to_be_bytes());
    frame[36..38].fill(0);
    let sum = packet::checksum::checksum(&frame[34..]);
    frame[36..38].copy_from_slice(&sum.to_be_bytes());
    let p = V4 { dport: u16::from_be_bytes([kind, code]), ..p };
    let quote = quote::read(&frame, &p)?;
    let mut out = [0; 2000];
    let len = to_v6(&mut out, LINK, (&frame, &p, &quote), &CLIENT_SENT, mtus)?;
    let p = v6(&out[..len]);
    let message = p.head.segment(&out[..len]);
    assert!(icmpv6::verify(p.src, p.dst, message));
    Some((message[0], message[1], u32::from_be_bytes(message[4..8].try_into().unwrap())))
}

fn in_v4(kind: u8, code: u8, word: u32, mtus: Mtus) -> Option<(u8, u8, u32)> {
    let frame = made("udp_plain_64_in");
    let mut message = v6(&frame).head.segment(&frame).to_vec();
    (message[0], message[1]) = (kind, code);
    message[4..8].copy_from_slice(&word.to_be_bytes());
    let frame = rebuilt(&frame, &message);
    let p = v6(&frame);
    let quote = quote6::read(&frame, &p)?;
    let mut out = [0; 2000];
    let len = to_v4(&mut out, LINK, (&frame, &p, &quote), &SERVER_SENT, mtus)?;
    let p = v4(&out[..len]);
    let message = p.segment(&out[..len]);
    assert_eq!(packet::checksum::checksum(message), 0);
    Some((message[0], message[1], u32::from_be_bytes(message[4..8].try_into().unwrap())))
}

#[test]
fn errors_of_ipv4_in_ipv6() {
    // RFC 7915 §4.2, in its order.
    for code in 0..=20 {
        let expected = match code {
            0 | 1 | 5..=8 | 11 | 12 => Some((1, 0, 0)),
            2 => Some((4, 1, 6)),
            3 => Some((1, 4, 0)),
            4 => Some((2, 0, 1420)),
            9 | 10 | 13 | 15 => Some((1, 1, 0)),
            _ => None,
        };
        assert_eq!(in_v6(3, code, 1400, WIDE), expected, "unreachable {code}");
    }
    for code in [0, 1] {
        assert_eq!(in_v6(11, code, 0, WIDE), Some((3, code, 0)), "time exceeded");
    }
    let pointers = [(0, 0), (1, 1), (2, 4), (3, 4), (8, 7), (9, 6), (12, 8), (15, 8), (16, 24), (19, 24)];
    for pointer in 0..=255_u8 {
        let expected = pointers.iter().find(|(from, _)| *from == pointer).map(|(_, to)| *to).or(match pointer {
            12..=15 => Some(8),
            16..=19 => Some(24),
            _ => None,
        });
        let expected = expected.map(|to| (4, 0, to));
        assert_eq!(in_v6(12, 0, u32::from(pointer) << 24, WIDE), expected, "pointer {pointer}");
        assert_eq!(in_v6(12, 2, u32::from(pointer) << 24, WIDE), expected, "bad length, pointer {pointer}");
    }
    assert_eq!(in_v6(12, 1, 0, WIDE), None, "a missing option");
    for kind in [0, 4, 5, 8, 13] {
        assert_eq!(in_v6(kind, 0, 0, WIDE), None, "type {kind} is no error, or obsolete");
    }
}

#[test]
fn path_mtu_of_ipv4_in_ipv6() {
    let mtu = |word, v6, v4| in_v6(3, 4, word, Mtus { v6, v4 }).map(|(_, _, mtu)| mtu);
    assert_eq!(mtu(1400, 1500, 1500), Some(1420), "the header that is 20 longer");
    assert_eq!(mtu(1490, 1500, 1500), Some(1500), "no more than the way to the client");
    assert_eq!(mtu(9000, 9000, 1500), Some(1520), "nor than the way to the server");
    assert_eq!(mtu(576, 1500, 1500), Some(1280), "IPv6 knows no less");
    // Of a router that reports none: the quoted packet has 68 bytes, below which there is no plateau.
    assert_eq!(mtu(0, 1500, 1500), Some(1280));
}

#[test]
fn errors_of_ipv6_in_ipv4() {
    // RFC 7915 §5.2, in its order.
    let unreachable =
        [Some((3, 1, 0)), Some((3, 10, 0)), Some((3, 1, 0)), Some((3, 1, 0)), Some((3, 3, 0)), None, None];
    for (code, expected) in (0..).zip(unreachable) {
        assert_eq!(in_v4(1, code, 0, WIDE), expected, "unreachable {code}");
    }
    for code in [0, 1] {
        assert_eq!(in_v4(3, code, 0, WIDE), Some((11, code, 0)), "time exceeded");
    }
    for pointer in 0..50 {
        let expected = match pointer {
            0 | 1 => Some(pointer),
            4 | 5 => Some(2),
            6 => Some(9),
            7 => Some(8),
            8..=23 => Some(12),
            24..=39 => Some(16),
            _ => None,
        };
        assert_eq!(in_v4(4, 0, pointer, WIDE), expected.map(|to| (12, 0, to << 24)), "pointer {pointer}");
    }
    assert_eq!(in_v4(4, 1, 6, WIDE), Some((3, 2, 0)), "a next header that the client does not know");
    assert_eq!(in_v4(4, 2, 40, WIDE), None, "IPv6 options have no counterpart");
    for kind in [100, 128, 129, 134, 137] {
        assert_eq!(in_v4(kind, 0, 0, WIDE), None, "type {kind}");
    }
    let mtu = |word, v6, v4| in_v4(2, 0, word, Mtus { v6, v4 });
    assert_eq!(mtu(1400, 1500, 1500), Some((3, 4, 1380)));
    assert_eq!(mtu(9000, 1500, 9000), Some((3, 4, 1480)), "no more than the way to the client");
    assert_eq!(mtu(9000, 9000, 1400), Some((3, 4, 1400)), "nor than the way to the server");
    assert_eq!(mtu(1280, 1500, 1500), Some((3, 4, 1260)));
    assert_eq!(mtu(1279, 1500, 1500), None, "a forged one");
}

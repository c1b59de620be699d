//! Plain packets against the parser and the translation of any packet.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "tests cut random words, and may panic")]

mod common;

use arch::Bytes16;
use common::{Random, assert_checksums};
use packet::plain::{self, Carries, Numbers, Station};
use packet::{Mac, Parsed, Rewrite, V4, classify, ipv4, rewrite_v4, tcp};

/// Words that carry over and those that do not.
fn number(random: &mut Random) -> u32 {
    match random.below(6) {
        0 => 0,
        1 => u32::MAX,
        2 => 0xffff_0000,
        _ => random.word() as u32,
    }
}

fn frame(random: &mut Random, udp: bool) -> Vec<u8> {
    let (src, dst) = (number(random), number(random));
    let ports = (number(random) as u16, number(random) as u16);
    let length = 12 + random.below(80);
    let payload = if random.below(8) == 0 { vec![0; length] } else { random.bytes(length) };
    let segment = if udp {
        let mut datagram = common::udp((src, dst), ports, &payload);
        if random.below(4) == 0 {
            datagram[6..8].fill(0);
        }
        datagram
    } else {
        let flags = random.word() as u8 & !(tcp::SYN | tcp::FIN | tcp::RST) | tcp::ACK;
        common::tcp((src, dst), ports, (number(random), number(random)), flags, &[], &payload)
    };
    let mut frame = common::ethernet(0x0800, 0);
    let ttl = random.below(254) as u8 + 2;
    frame.extend(common::ipv4(src, dst, ttl, if udp { 17 } else { 6 }, &[], segment.len()));
    frame.extend(segment);
    frame
}

/// Addresses and ports as a packet has them.
fn ends(p: &V4) -> [u8; 12] {
    let mut ends = [0; 12];
    ends[..4].copy_from_slice(&p.src.to_be_bytes());
    ends[4..8].copy_from_slice(&p.dst.to_be_bytes());
    ends[8..10].copy_from_slice(&p.sport.to_be_bytes());
    ends[10..].copy_from_slice(&p.dport.to_be_bytes());
    ends
}

fn bytes16(of: [u8; 12]) -> Bytes16 {
    Bytes16::of(&std::array::from_fn(|i| of.get(i).copied().unwrap_or(0xa5)))
}

/// Both translations of one frame; the same is in it afterwards.
fn translate(frame: &[u8], to: &Rewrite) -> Vec<u8> {
    let Ok(Parsed::L4(p)) = classify(frame) else { panic!("{frame:02x?}") };
    let (mut general, mut straight) = (frame.to_vec(), frame.to_vec());
    rewrite_v4(&mut general, &p, to);
    let window = straight.first_chunk_mut().unwrap();
    let onward = bytes16(ends(&V4 { src: to.src, dst: to.dst, sport: to.sport, dport: to.dport, ..p }));
    assert_eq!(plain::ends(window).same_words(bytes16(ends(&p))) & 7, 7);
    let words = |ports: u64, addresses: u64| Bytes16::of_words(ports, addresses);
    let (source, destination) = (u64::from(p.src), u64::from(p.dst));
    let (sport, dport) = (u64::from(p.sport), u64::from(p.dport));
    let key = words(u64::from(p.proto) << 32 | sport << 16 | dport, source << 32 | destination);
    assert_eq!(plain::key(window).same_words(key), 15);
    let sent = words(destination << 32 | source, dport << 16 | sport);
    assert_eq!(plain::ends(window).ordered(&plain::SENDER_FIRST).same_words(sent), 15);
    let received = words(source << 32 | destination, sport << 16 | dport);
    assert_eq!(plain::ends(window).ordered(&plain::RECEIVER_FIRST).same_words(received), 15);
    if p.proto == ipv4::TCP {
        let was = Numbers::of(window);
        assert_eq!(was, Numbers { seq: p.seq, ack: p.ack });
        let is = Numbers { seq: p.seq.wrapping_add(to.seq_add), ack: p.ack.wrapping_sub(to.ack_sub) };
        assert_eq!(u32::from(plain::total_len(window)) - plain::TCP_HEADERS, p.payload_len());
        plain::translate_tcp(window, onward, (was, is));
    } else {
        plain::translate_udp(window, onward);
    }
    assert_eq!(straight, general, "{to:x?}");
    straight
}

fn rewrite(random: &mut Random) -> Rewrite {
    let (src, dst) = (number(random), number(random));
    let (sport, dport) = (number(random) as u16, number(random) as u16);
    let shift = number(random);
    let (seq_add, ack_sub) = if random.below(2) == 0 { (shift, 0) } else { (0, shift) };
    Rewrite { src, dst, sport, dport, seq_add, ack_sub }
}

#[test]
fn translated_as_any_packet_is() {
    let mut random = Random(0x91a1_4e57);
    for round in 0..200_000 {
        let udp = round % 2 == 0;
        let mut frame = frame(&mut random, udp);
        let to = rewrite(&mut random);
        let out = translate(&frame, &to);
        if !(udp && frame[40..42] == [0, 0]) {
            assert_checksums(&out, &to);
        }
        // A wrong checksum stays wrong, also one that is all ones or all zeros.
        for sum in [[0, 0], [0xff, 0xff], [random.word() as u8, random.word() as u8]] {
            let at = if udp { 40 } else { 50 };
            frame[at..at + 2].copy_from_slice(&sum);
            translate(&frame, &to);
        }
    }
}

/// A datagram whose checksum comes out as 0 is sent with 0xffff: 0 says "none".
#[test]
fn a_sum_of_zero_is_not_none() {
    let mut random = Random(7);
    for _ in 0..2000 {
        let mut frame = frame(&mut random, true);
        if frame[40..42] == [0, 0] {
            continue;
        }
        let to = rewrite(&mut random);
        let out = translate(&frame, &to);
        // One word of payload takes up what is missing; the checksum stays as it came.
        let add = |word: [u8; 2], by: u16| {
            let sum = u32::from(u16::from_be_bytes(word)) + u32::from(by);
            (sum as u16 + (sum >> 16) as u16).to_be_bytes()
        };
        let (is, was) = (u16::from_be_bytes([out[40], out[41]]), u16::from_be_bytes([frame[40], frame[41]]));
        // New checksum = old one - what is lacking to 0xffff.
        let checksum = add(was.to_be_bytes(), !is);
        frame[40..42].copy_from_slice(&checksum);
        if checksum != [0, 0] {
            assert_eq!(translate(&frame, &to)[40..42], [0xff, 0xff]);
        }
    }
}

/// What is called plain is what the parser calls good, and lacks what a plain packet lacks.
#[test]
fn plain_is_what_the_parser_says() {
    let mut random = Random(0xbeef);
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let (station, anybody) = (Station::new(Some(mac)), Station::new(None));
    let mut counted = [0; 3];
    for round in 0..300_000 {
        let mut frame = frame(&mut random, round % 2 == 0);
        frame[..6].copy_from_slice(&mac.0);
        for _ in 0..random.below(3) {
            let at = random.below(54);
            frame[at] = match random.below(3) {
                0 => frame[at] ^ 1 << random.below(8),
                1 => random.below(64) as u8,
                _ => random.word() as u8,
            };
        }
        if random.below(2) == 0 {
            let sum = packet::checksum::checksum(&[&frame[14..24], &[0, 0], &frame[26..34]].concat());
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        if random.below(8) == 0 {
            frame.truncate(random.below(120));
        }
        let expected = match classify(&frame) {
            Ok(Parsed::L4(p)) if p.vlan == 0 && p.l4 == 34 && p.ttl > 1 && frame.len() >= 54 => {
                let (kinds, wanted) = (tcp::SYN | tcp::FIN | tcp::RST | tcp::ACK, tcp::ACK);
                let bare = p.payload == 54 && p.tcp_flags & kinds == wanted;
                if p.proto == ipv4::UDP { Some(Carries::Udp) } else { bare.then_some(Carries::Tcp) }
            }
            _ => None,
        };
        assert_eq!(plain::read(&frame, &anybody), expected, "{frame:02x?}");
        let ours = expected.filter(|_| frame[..6] == mac.0);
        assert_eq!(plain::read(&frame, &station), ours, "{frame:02x?}");
        assert_eq!(plain::read(&frame, &Station::NOBODY), None);
        counted[ours.map_or(2, |carries| carries as usize)] += 1;
    }
    assert!(counted.iter().all(|n| *n > 10_000), "{counted:?}");
}

#[test]
fn the_link_is_set() {
    let mut random = Random(3);
    let mut frame = frame(&mut random, false);
    let (rest, to) = (frame[12..].to_vec(), u64::from_le_bytes([1, 2, 3, 4, 5, 6, 0xff, 0xff]));
    plain::set_link(frame.first_chunk_mut().unwrap(), to, plain::Source::new(Mac([9, 8, 7, 6, 5, 4])));
    assert_eq!(frame[..12], [1, 2, 3, 4, 5, 6, 9, 8, 7, 6, 5, 4]);
    assert_eq!(frame[12..], rest);
}

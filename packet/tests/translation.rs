//! Incremental against full recomputation (by etherparse), SACK blocks, timestamps.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "tests cut random words, and may panic")]

mod common;

use common::{Random, assert_checksums};
use packet::tcp_options::{self, TcpOption};
use packet::{Parsed, Rewrite, V4, classify, ipv4, rewrite_v4, tcp};

/// Numbers that carry over and those that do not.
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
    let options = random.below(4) * usize::from(random.below(4) == 0) * 4;
    let length = random.below(80);
    let payload = if random.below(8) == 0 { vec![0; length] } else { random.bytes(length) };
    let segment = if udp {
        let mut datagram = common::udp((src, dst), ports, &payload);
        if random.below(4) == 0 {
            datagram[6..8].fill(0);
        }
        datagram
    } else {
        let options = vec![1; random.below(11) * 4];
        common::tcp((src, dst), ports, (number(random), number(random)), random.word() as u8, &options, &payload)
    };
    let mut frame = common::ethernet(0x0800, [0, 0, 0, 42][random.below(4)]);
    frame.extend(common::ipv4(
        src,
        dst,
        random.below(254) as u8 + 2,
        if udp { 17 } else { 6 },
        &vec![1; options],
        segment.len(),
    ));
    frame.extend(segment);
    let padding = random.below(9) * usize::from(random.below(4) == 0);
    frame.extend(random.bytes(padding));
    frame
}

fn l4(frame: &[u8]) -> V4 {
    match classify(frame) {
        Ok(Parsed::L4(v4)) => v4,
        other => panic!("{other:?} of {frame:02x?}"),
    }
}

#[test]
fn rewriting_is_as_if_recomputed() {
    let mut random = Random(0xc0ff_ee00_1234_5677);
    let (mut none, mut ones) = (0, 0);
    for round in 0..100_000 {
        let before = frame(&mut random, round % 2 == 1);
        let p = l4(&before);
        let to = Rewrite {
            src: number(&mut random),
            dst: number(&mut random),
            sport: number(&mut random) as u16,
            dport: number(&mut random) as u16,
            seq_add: number(&mut random),
            ack_sub: number(&mut random),
        };
        let mut after = before.clone();
        rewrite_v4(&mut after, &p, &to);
        let q = l4(&after);
        let tcp = p.proto == ipv4::TCP;
        let acks = tcp && p.tcp_flags & tcp::ACK != 0;
        let expected = V4 {
            src: to.src,
            dst: to.dst,
            sport: to.sport,
            dport: to.dport,
            seq: if tcp { p.seq.wrapping_add(to.seq_add) } else { 0 },
            ack: if acks { p.ack.wrapping_sub(to.ack_sub) } else { p.ack },
            ttl: p.ttl - 1,
            ..p
        };
        assert_eq!(q, expected, "round {round}");
        assert_checksums(&after, &(round, &before, &to));
        if !tcp {
            let at = usize::from(p.l4) + 6;
            assert_eq!(before[at..at + 2] == [0, 0], after[at..at + 2] == [0, 0], "none stays none, and only that");
            none += usize::from(after[at..at + 2] == [0, 0]);
            ones += usize::from(after[at..at + 2] == [0xff, 0xff]);
        }
        // There and back gives the same bytes (but for the TTL).
        let back = Rewrite {
            src: p.src,
            dst: p.dst,
            sport: p.sport,
            dport: p.dport,
            seq_add: to.seq_add.wrapping_neg(),
            ack_sub: to.ack_sub.wrapping_neg(),
        };
        rewrite_v4(&mut after, &V4 { ttl: 2, ..q }, &back);
        assert_eq!(after[usize::from(p.l4)..], before[usize::from(p.l4)..], "round {round}");
    }
    assert!(none > 5000, "{none}");
    println!("UDP: {none} without checksum, {ones} with 0xffff");
}

/// Payloads chosen so that the new checksum comes out as 0: UDP sends 0xffff, TCP 0.
#[test]
fn a_result_of_zero() {
    let mut random = Random(5);
    for round in 0..10_000 {
        let udp = round % 2 == 0;
        let to = Rewrite {
            src: random.word() as u32,
            dst: random.word() as u32,
            sport: 7,
            dport: 9,
            seq_add: 11,
            ack_sub: 13,
        };
        let (old, ports, tail) = ((random.word() as u32, random.word() as u32), (1, 2), random.bytes(6));
        let make = |addresses, ports, numbers, word: u16| {
            let payload = [&word.to_be_bytes()[..], &tail].concat();
            if udp {
                common::udp(addresses, ports, &payload)
            } else {
                common::tcp(addresses, ports, numbers, tcp::ACK, &[], &payload)
            }
        };
        let at = if udp { 6 } else { 16 };
        // With word 0 the target's checksum is c: with word c the sum is 0xffff, the checksum 0.
        let zero = make((to.src, to.dst), (7, 9), (111, 187), 0);
        let word = u16::from_be_bytes([zero[at], zero[at + 1]]);
        let segment = make(old, ports, (100, 200), word);
        let mut frame = common::ethernet(0x0800, 0);
        frame.extend(common::ipv4(old.0, old.1, 9, if udp { 17 } else { 6 }, &[], segment.len()));
        frame.extend(segment);
        let p = l4(&frame);
        rewrite_v4(&mut frame, &p, &to);
        let expected = if udp { [0xff, 0xff] } else { [0, 0] };
        assert_eq!(frame[34 + at..36 + at], expected, "round {round}");
        assert_checksums(&frame, &round);
    }
}

/// A wrong checksum stays wrong: corruption is never hidden.
#[test]
fn corruption_is_kept() {
    let mut random = Random(77);
    for round in 0..10_000 {
        let mut frame = frame(&mut random, round % 2 == 0);
        let p = l4(&frame);
        let at = usize::from(p.l4);
        if p.payload_len() == 0 || p.proto == ipv4::UDP && frame[at + 6..at + 8] == [0, 0] {
            continue;
        }
        let victim = usize::from(p.payload) + random.below(p.payload_len() as usize);
        frame[victim] ^= 1 << random.below(8);
        rewrite_v4(
            &mut frame,
            &p,
            &Rewrite { src: random.word() as u32, dst: random.word() as u32, ..Rewrite::default() },
        );
        let (q, verify) = (l4(&frame), if p.proto == ipv4::TCP { tcp::verify } else { packet::udp::verify });
        assert!(!verify(q.src, q.dst, q.segment(&frame)), "round {round}");
    }
}

/// Options in random order with random padding in front: SACK blocks and timestamps at odd offsets too.
fn with_options(random: &mut Random) -> (Vec<u8>, Vec<u32>, bool) {
    let (mut options, mut edges, mut stamps) = (Vec::new(), Vec::new(), false);
    options.extend(vec![1; random.below(4)]);
    if random.below(2) == 0 {
        options.extend([8, 10]);
        options.extend(random.bytes(8));
        options.extend(vec![1; random.below(3)]);
        stamps = true;
    }
    if random.below(4) != 0 {
        let most = (40 - options.len() - 2) / 8;
        let blocks = random.below(most.min(4)) + 1;
        options.extend([5, 2 + 8 * blocks as u8]);
        for _ in 0..2 * blocks {
            edges.push(number(random));
            options.extend(edges.last().unwrap().to_be_bytes());
        }
    }
    options.resize(options.len().next_multiple_of(4), random.below(2) as u8);
    let (src, dst) = (random.word() as u32, random.word() as u32);
    let length = random.below(50);
    let payload = random.bytes(length);
    let segment = common::tcp((src, dst), (80, 4000), (number(random), number(random)), tcp::ACK, &options, &payload);
    let mut frame = common::ethernet(0x0800, 0);
    frame.extend(common::ipv4(src, dst, 64, 6, &[], segment.len()));
    frame.extend(segment);
    (frame, edges, stamps)
}

fn edges(frame: &[u8], p: &V4) -> Vec<u32> {
    let segment = p.segment(frame);
    let ranges = tcp_options::options(segment).filter_map(|option| match option {
        TcpOption::Sack(range) => Some(range),
        _ => None,
    });
    ranges.flat_map(|range| segment[range].chunks(4).map(|e| u32::from_be_bytes(e.try_into().unwrap()))).collect()
}

#[test]
fn sack_blocks_are_shifted() {
    let mut random = Random(31);
    for round in 0..50_000 {
        let (mut frame, old, _) = with_options(&mut random);
        let p = l4(&frame);
        assert_eq!(edges(&frame, &p), old, "round {round}");
        let shift = number(&mut random);
        let blocks = tcp_options::shift_sack(&mut frame, &p, shift);
        assert_eq!(blocks, if shift == 0 { 0 } else { old.len() / 2 });
        let new: Vec<u32> = old.iter().map(|edge| edge.wrapping_sub(shift)).collect();
        assert_eq!(edges(&frame, &p), new, "round {round}");
        assert_checksums(&frame, &round);
        // Together with the rewrite, in either order.
        rewrite_v4(&mut frame, &p, &Rewrite { src: 1, dst: 2, sport: 3, dport: 4, seq_add: 0, ack_sub: shift });
        assert_checksums(&frame, &round);
    }
}

#[test]
fn timestamps_become_nops() {
    let mut random = Random(32);
    for round in 0..50_000 {
        let (mut frame, blocks, stamps) = with_options(&mut random);
        let p = l4(&frame);
        let before: Vec<_> = tcp_options::options(p.segment(&frame)).collect();
        assert_eq!(tcp_options::erase_timestamps(&mut frame, &p), stamps, "round {round}");
        assert!(!tcp_options::erase_timestamps(&mut frame, &p), "once");
        let kept: Vec<_> = before.into_iter().filter(|o| !matches!(o, TcpOption::Timestamps { .. })).collect();
        assert_eq!(tcp_options::options(p.segment(&frame)).collect::<Vec<_>>(), kept);
        assert_eq!(edges(&frame, &p), blocks);
        assert_checksums(&frame, &round);
    }
}

#[test]
fn options_of_all_kinds() {
    let bytes = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7, 30, 4, 9, 9, 2, 3, 1, 0];
    let segment = common::tcp((1, 2), (3, 4), (5, 6), tcp::SYN, &bytes, b"payload");
    let found: Vec<_> = tcp_options::options(&segment).collect();
    let expected = [
        TcpOption::Mss(1460),
        TcpOption::SackPermitted,
        TcpOption::Timestamps { at: 26, value: 0x0102_0304, echo: 0x0506_0708 },
        TcpOption::WindowScale(7),
        TcpOption::Other { kind: 30, range: 40..44 },
        TcpOption::Other { kind: 2, range: 44..47 }, // MSS of a wrong length
    ];
    assert_eq!(found, expected);
}

/// Lengths 0, 1 and beyond the header end the list; the payload behind is never taken for options.
#[test]
fn truncated_options_end_the_list() {
    for kind in 2..=255_u8 {
        for length in 0..=255_u8 {
            let segment = common::tcp((1, 2), (3, 4), (5, 6), 0, &[1, 1, kind, length], &[8; 300]);
            let count = tcp_options::options(&segment).count();
            assert_eq!(count, usize::from(length == 2), "kind {kind} length {length}");
        }
        let segment = common::tcp((1, 2), (3, 4), (5, 6), 0, &[1, 1, 1, kind], &[2; 300]);
        assert_eq!(tcp_options::options(&segment).count(), 0, "kind {kind} without length");
    }
    for length in 0..20 {
        assert_eq!(tcp_options::options(&vec![0x50; length]).count(), 0);
    }
}

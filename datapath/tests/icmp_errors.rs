//! ICMP errors about packets of sessions. The oracle is the packet as its sender sent it: that is what must be quoted to him.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use packet::V4;
use shm_layout::counters::DropReason;
use world::*;

/// An error from [`ROUTER`] about `frame` as we sent it: type, code, the word behind the checksum, how much is quoted.
#[derive(Clone, Copy)]
struct Report {
    kind: (u8, u8),
    word: u32,
    quoted: usize,
}

const FRAGMENTATION_NEEDED: Report = Report { kind: (3, 4), word: 1400, quoted: usize::MAX };

impl Report {
    fn frame(self, about: &[u8], to: u32) -> Vec<u8> {
        let quote = &about[14..about.len().min(self.quoted.saturating_add(14))];
        icmp_error(self.kind, self.word, quote, to)
    }

    /// The error about `sent`, which was forwarded as `seen`, comes out as one about `sent`.
    fn comes_back(self, world: &mut World, slot: usize, sent: &[u8], seen: &[u8]) -> (usize, V4) {
        let address = |frame: &[u8], at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let (by, frame, outer) = world.one(slot, self.frame(seen, address(seen, 26)));
        assert_eq!(
            (outer.src, outer.dst),
            (address(sent, 30), address(sent, 26)),
            "from where it was sent, to who sent it"
        );
        assert_eq!((outer.ttl, outer.total_len), (59, 28 + seen.len().min(self.quoted.saturating_add(14)) as u16 - 14));
        let message = &frame[34..];
        assert_eq!(internet_checksum(message), 0, "checksum of the error");
        assert_eq!((message[0], message[1], address(message, 4)), (self.kind.0, self.kind.1, self.word));
        let mut expected = sent[14..14 + message.len() - 8].to_vec();
        expected[8] -= 1; // We have taken one off the TTL.
        expected[10..12].fill(0);
        let sum = internet_checksum(&expected[..20]);
        expected[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(message[8..], expected, "the packet as it was sent");
        (by, outer)
    }
}

const REPORTS: [Report; 7] = [
    FRAGMENTATION_NEEDED,
    Report { kind: (3, 1), word: 0, quoted: 28 },
    Report { kind: (11, 0), word: 0, quoted: 40 },
    Report { kind: (12, 0), word: 0x1400_0000, quoted: usize::MAX },
    Report { kind: (3, 13), word: 0, quoted: 36 },
    Report { kind: (11, 1), word: 0, quoted: 32 },
    Report { kind: (3, 0), word: 0, quoted: 38 },
];

#[test]
fn what_a_router_reports_of_a_segment_is_told_to_its_sender() {
    for slot in [0, 1] {
        let mut world = World::usual(2);
        let c = Connection::open(&mut world, 0, 40_000);
        let sent = c.client_says("P", &[7; 900]).frame();
        let (_, seen, _) = world.one(0, sent.clone());
        let answer = c.server_says("P", &[8; 901]).frame();
        let (_, told, _) = world.one(0, answer.clone());
        let before = world.session(40_000);
        for report in REPORTS {
            let (by, _) = report.comes_back(&mut world, slot, &sent, &seen);
            assert_eq!(by, 0, "by the slot that has the session");
            report.comes_back(&mut world, slot, &answer, &told);
        }
        assert_eq!(world.session(40_000), before, "an error changes nothing");
        world.rest();
    }
}

#[test]
fn what_a_host_reports_of_a_datagram_is_told_to_its_sender() {
    let port_unreachable = Report { kind: (3, 3), word: 0, quoted: 28 };
    let mut world = World::usual(2);
    let sent = udp((CLIENT, 40_000), (VIP, 53), b"question");
    let (_, seen, packet) = world.one(1, sent.clone());
    port_unreachable.comes_back(&mut world, 0, &sent, &seen);
    let answer = udp((packet.dst, packet.dport), (packet.src, packet.sport), b"the answer");
    let (_, told, _) = world.one(1, answer.clone());
    port_unreachable.comes_back(&mut world, 1, &answer, &told);
    // "No checksum" stays none.
    let mut bare = sent;
    bare[40..42].fill(0);
    let seen = world.deliver(1, bare.clone()).remove(0).1;
    FRAGMENTATION_NEEDED.comes_back(&mut world, 1, &bare, &seen);
    world.rest();
}

#[test]
fn a_quote_with_extensions_ends_where_its_length_says() {
    // RFC 4884: the quote in 32 words, zeros behind the packet, then the extension; the L4 checksum is of the packet alone.
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    let sent = c.client_says("P", b"0123456789").frame();
    let (_, mut seen, _) = world.one(0, sent.clone());
    let mut padded = sent;
    for frame in [&mut seen, &mut padded] {
        frame.resize(14 + 128, 0);
        frame.extend([0x20, 0, 0xde, 0xad, 0, 8, 1, 1, 0, 0, 0, 1]);
    }
    Report { kind: (11, 0), word: 0x0020_0000, quoted: usize::MAX }.comes_back(&mut world, 0, &padded, &seen);
}

#[test]
fn a_forged_error_reaches_nobody() {
    let mut world = World::usual(1);
    let mut c = Connection::open(&mut world, 0, 40_000);
    let (_, seen, _) = world.one(0, c.client_says("P", &[1; 100]).frame());
    c.client_seq += 100;
    world.one(0, c.server_says("", &[]).frame()); // Acknowledges all of it.
    let local = c.local.0;
    let refused = |world: &mut World, frame: Vec<u8>, reason: DropReason| {
        let before = world.dropped(reason);
        assert!(world.deliver(0, frame).is_empty());
        assert_eq!(world.dropped(reason), before + 1, "{:?}", world.drops());
    };
    // About what was acknowledged already; about what was never sent.
    refused(&mut world, FRAGMENTATION_NEEDED.frame(&seen, local), DropReason::BadIcmp);
    let numbered = |add: u32| {
        let mut frame = seen.clone();
        let seq = u32::from_be_bytes(frame[38..42].try_into().unwrap()).wrapping_add(add);
        frame[38..42].copy_from_slice(&seq.to_be_bytes());
        frame
    };
    refused(&mut world, FRAGMENTATION_NEEDED.frame(&numbered(101), local), DropReason::BadIcmp);
    assert_eq!(
        world.deliver(0, FRAGMENTATION_NEEDED.frame(&numbered(100), local)).len(),
        1,
        "the next number is in flight"
    );
    // Not to its sender, of no session, cut short, a later fragment, of another protocol, with a wrong checksum.
    refused(&mut world, FRAGMENTATION_NEEDED.frame(&numbered(100), VIP), DropReason::BadIcmp);
    let change = |at: usize, to: u8| {
        let mut frame = numbered(100);
        frame[at] = to;
        frame
    };
    refused(&mut world, FRAGMENTATION_NEEDED.frame(&change(37, 1), local), DropReason::NoSession);
    refused(&mut world, Report { quoted: 27, ..FRAGMENTATION_NEEDED }.frame(&seen, local), DropReason::BadIcmp);
    refused(&mut world, FRAGMENTATION_NEEDED.frame(&change(21, 1), local), DropReason::BadIcmp);
    refused(&mut world, FRAGMENTATION_NEEDED.frame(&change(23, 47), local), DropReason::BadIcmp);
    refused(&mut world, FRAGMENTATION_NEEDED.frame(&change(14, 0x44), local), DropReason::BadIcmp);
    let mut corrupt = FRAGMENTATION_NEEDED.frame(&numbered(100), local);
    corrupt[41] ^= 1;
    refused(&mut world, corrupt, DropReason::BadIcmp);
    world.rest();
}

#[test]
fn errors_are_limited() {
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    let (_, seen, _) = world.one(0, c.client_says("P", &[1; 100]).frame());
    let report = FRAGMENTATION_NEEDED.frame(&seen, c.local.0);
    let passed: usize = (0..5000).map(|_| world.deliver(0, report.clone()).len()).sum();
    assert!(passed > 10 && passed < 1000, "{passed} of 5,000 within milliseconds");
    assert_eq!(world.dropped(DropReason::RateLimited) as usize, 5000 - passed);
}

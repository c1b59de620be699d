//! ICMP errors about packets of IPv6 and NAT64 sessions. The oracle is the packet as its sender sent it: that is what must be quoted to
//! him, in his family (RFC 7915).
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::net::IpAddr;

use shm_layout::counters::DropReason;
use shm_layout::published::mode;
use shm_layout::session::State;
use world::v6::*;
use world::*;

const ROUTER6: IpAddr = v6(1);
/// Server `n` of a service.
type ServerOf = fn(u8) -> IpAddr;

/// Checksum of an ICMPv6 message.
fn sum_v6(from: IpAddr, to: IpAddr, message: &[u8]) -> u16 {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { panic!("{from} {to}") };
    let len = (message.len() as u32).to_be_bytes();
    internet_checksum(&[&from.octets(), &to.octets(), &len[..], &[0, 0, 0, 58], message].concat())
}

/// An error of [`ROUTER6`] or [`ROUTER`] to `to` about the packet of `frame`, as far as `quoted`.
fn report(kind: (u8, u8), word: u32, frame: &[u8], quoted: usize, to: IpAddr) -> Vec<u8> {
    let quote = &frame[14..frame.len().min(14 + quoted)];
    let IpAddr::V6(own) = to else {
        let IpAddr::V4(own) = to else { unreachable!() };
        return icmp_error(kind, word, quote, own.to_bits());
    };
    let mut message = [&[kind.0, kind.1, 0, 0][..], &word.to_be_bytes(), quote].concat();
    let sum = sum_v6(ROUTER6, to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let IpAddr::V6(from) = ROUTER6 else { unreachable!() };
    let len = (message.len() as u16).to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &len, &[58, 60], &from.octets(), &own.octets()].concat();
    framed(station(ROUTER6), OUR_MAC.0, &[header, message].concat())
}

/// The error that came out: from, to, hop limit, type, code, word, what is quoted. Its checksums are right.
fn told(frame: &[u8]) -> (IpAddr, IpAddr, u8, (u8, u8), u32, Vec<u8>) {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let (from, to, ttl, message) = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv6(ip) => {
            let h = ip.header().to_header();
            assert_eq!(h.next_header.0, 58);
            let (from, to) = (h.source.into(), h.destination.into());
            let message = &frame[54..54 + usize::from(h.payload_length)];
            assert_eq!(sum_v6(from, to, message), 0, "checksum");
            (from, to, h.hop_limit, message)
        }
        etherparse::NetSlice::Ipv4(ip) => {
            let h = ip.header().to_header();
            assert_eq!((h.protocol.0, h.calc_header_checksum()), (1, h.header_checksum));
            let message = &frame[34..14 + usize::from(h.total_len)];
            assert_eq!(internet_checksum(message), 0, "checksum");
            (h.source.into(), h.destination.into(), h.time_to_live, message)
        }
        other => panic!("{other:?}"),
    };
    let word = u32::from_be_bytes(message[4..8].try_into().unwrap());
    (from, to, ttl, (message[0], message[1]), word, message[8..].to_vec())
}

/// A connection with 300 bytes on their way in each direction.
struct Open {
    world: World,
    /// What client and server sent last, and how it went on.
    client: (Seg, Vec<u8>),
    server: (Seg, Vec<u8>),
}

impl Open {
    fn new(mode: u8, server_of: ServerOf) -> Self {
        let mut world = World::dual(2, services(VIP6, mode, server_of));
        let (client, vip) = ((CLIENT6, 40_000), (VIP6, 80));
        let first = read(&world.through(0, Seg::tcp(client, vip, (7, None), "S").frame()));
        let shift = first.tcp.as_ref().unwrap().0.wrapping_sub(7);
        let (local, server) = (first.from, first.to);
        let reply = |seq, ack: u32, flags, payload: &[u8]| {
            Seg::tcp(server, local, (seq, Some(ack.wrapping_add(shift))), flags).with(&[], payload)
        };
        world.through(0, reply(5000, 8, "S", &[]).frame());
        world.through(0, Seg::tcp(client, vip, (8, Some(5001)), "").frame());
        let mut says = Seg::tcp(client, vip, (8, Some(5001)), "P").with(&[], &[5; 300]);
        says.class = 0x28;
        let seen = world.through(0, says.frame());
        let mut answers = reply(5001, 8, "P", &[6; 300]);
        answers.class = 0x28;
        let answered = world.through(0, answers.frame());
        Self { world, client: (says, seen), server: (answers, answered) }
    }

    /// `kind` and `word` reported about what the client (or server) sent come to it as `as_told`, with as much of its packet.
    #[track_caller]
    fn comes_back(&mut self, client: bool, kind: ((u8, u8), u32), as_told: ((u8, u8), u32), quoted: usize) {
        let (sent, seen) = if client { &self.client } else { &self.server };
        let on_its_way = read(seen);
        let out = self.world.through(0, report(kind.0, kind.1, seen, quoted, on_its_way.from.0));
        let (from, to, ttl, told_kind, word, quote) = told(&out);
        assert_eq!((from, to), (sent.to.0, sent.from.0), "from where it was sent, to who sent it");
        assert_eq!((ttl, (told_kind, word)), (59, as_told));
        let expected = Seg { ttl: sent.ttl - 1, ..sent.clone() }.packet((if from.is_ipv4() { 0 } else { 77 }, true));
        assert!(quote.len() >= 28 && quote.len() <= expected.len());
        assert_eq!(quote, expected[..quote.len()], "the packet as it was sent");
        assert_eq!(out[..6], station(sent.from.0), "by its own next hop");
    }
}

#[test]
fn of_ipv6_sessions() {
    for mode in [mode::FULLNAT, mode::NAT] {
        let mut open = Open::new(mode, server6);
        for client in [true, false] {
            for (kind, word) in [((2, 0), 1400), ((1, 0), 0), ((1, 4), 0), ((3, 0), 0), ((4, 1), 6)] {
                for quoted in [4000, 80, 48] {
                    open.comes_back(client, (kind, word), (kind, word), quoted);
                }
            }
        }
        let list = open.world.list();
        assert!(list.len() == 1 && list[0].1.state == State::Established, "nothing has changed: {list:?}");
        open.world.rest();
    }
}

#[test]
fn of_nat64_sessions() {
    let mut open = Open::new(mode::FULLNAT, |n| v4(server(n)));
    for quoted in [4000, 40, 28] {
        // A router of the servers' side reports to the client (RFC 7915 §4.2), the other way round (§5.2).
        open.comes_back(true, ((3, 4), 1400), ((2, 0), 1420), quoted);
        open.comes_back(true, ((3, 4), 1500), ((2, 0), 1500), quoted);
        open.comes_back(true, ((3, 3), 0), ((1, 4), 0), quoted);
        open.comes_back(true, ((3, 13), 0), ((1, 1), 0), quoted);
        open.comes_back(true, ((11, 0), 0), ((3, 0), 0), quoted);
        open.comes_back(false, ((2, 0), 1400), ((3, 4), 1380), quoted + 20);
        open.comes_back(false, ((1, 3), 0), ((3, 1), 0), quoted + 20);
        open.comes_back(false, ((4, 0), 7), ((12, 0), 8 << 24), quoted + 20);
    }
    let list = open.world.list();
    assert!(list.len() == 1 && list[0].1.state == State::Established, "nothing has changed: {list:?}");
    // What has no counterpart is told to nobody.
    let (_, seen) = &open.client;
    let unknown = report((3, 14), 0, seen, 4000, v4(LOCAL));
    assert!(open.world.deliver(0, unknown).is_empty());
    assert_eq!(open.world.dropped(DropReason::BadIcmp), 1);
    open.world.rest();
}

/// Forged, damaged, or about what nobody sent: told to nobody.
#[test]
fn forged_ones_reach_nobody() {
    for server_of in [server6 as ServerOf, |n| v4(server(n))] {
        let mut open = Open::new(mode::FULLNAT, server_of);
        let (sent, seen) = open.client.clone();
        let local = read(&seen).from.0;
        let kind = if local.is_ipv4() { (3, 4) } else { (2, 0) };
        // Of TCP numbers far from those on their way.
        let (mut far, at) = (seen.clone(), seen.len() - 300 - 20 + 4);
        far[at] ^= 0x40;
        assert!(open.world.deliver(0, report(kind, 1400, &far, 4000, local)).is_empty());
        assert_eq!(open.world.dropped(DropReason::BadIcmp), 1);
        // To another address than the quoted packet's sender.
        let elsewhere = if local.is_ipv4() { v4(VIP) } else { VIP6 };
        assert!(open.world.deliver(0, report(kind, 1400, &seen, 4000, elsewhere)).is_empty());
        // Damaged on its way.
        let mut damaged = report(kind, 1400, &seen, 4000, local);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert!(open.world.deliver(0, damaged).is_empty());
        assert_eq!(open.world.dropped(DropReason::BadIcmp), 3);
        // Of a session there is not.
        let mut other = seen.clone();
        other[at - 4] ^= 0x40;
        let other = report(kind, 1400, &other, 4000, local);
        assert!(open.world.deliver(0, other).is_empty());
        assert_eq!(open.world.dropped(DropReason::NoSession), 1);
        // By the other slot it comes to the session all the same.
        let out = open.world.deliver(1, report(kind, 1400, &seen, 4000, local));
        assert_eq!((out.len(), out[0].0), (1, 0), "{:?}", open.world.drops());
        assert_eq!(told(&out[0].1).1, sent.from.0);
        // A flood of them is not passed on.
        for _ in 0..3000 {
            open.world.deliver(0, report(kind, 1400, &seen, 4000, local));
        }
        assert!(open.world.dropped(DropReason::RateLimited) > 1000);
        open.world.rest();
    }
}

//! Whole conversations over IPv6 and NAT64, in every mode: each frame that comes out is the one an independent implementation makes
//! of what went in.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::net::IpAddr;

use datapath::session::Direction;
use shm_layout::counters::DropReason;
use shm_layout::neighbours::{from_std, to_std};
use shm_layout::published::mode;
use shm_layout::session::State;
use world::v6::*;
use world::*;

/// MSS 1460, SACK permitted, timestamps, window scale: a SYN of Linux.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7];
const MSS: std::ops::Range<usize> = 2..4;
const TIMESTAMPS: std::ops::Range<usize> = 6..16;

/// One end of a conversation: where it is, and what its packets become.
struct Talk {
    client: (IpAddr, u16),
    vip: (IpAddr, u16),
    local: (IpAddr, u16),
    server: (IpAddr, u16),
    shift: u32,
}

impl Talk {
    /// What we must make of a packet of a side.
    fn expected(&self, seg: &Seg, side: Direction) -> Vec<u8> {
        let (from, to) = match side {
            Direction::Client => (self.local, self.server),
            Direction::Server => (self.vip, self.client),
        };
        let mut out = Seg { from, to, ttl: seg.ttl - 1, ..seg.clone() };
        if seg.from.0.is_ipv4() != from.0.is_ipv4() {
            out.flow = 0;
        }
        if let Some((seq, ack, _, options)) = &mut out.tcp {
            match side {
                Direction::Client => *seq = seq.wrapping_add(self.shift),
                Direction::Server => {
                    *ack = ack.map(|ack| ack.wrapping_sub(self.shift));
                    if options.starts_with(&[1, 1, 5, 10]) {
                        for at in [4, 8] {
                            let edge = u32::from_be_bytes(options[at..at + 4].try_into().unwrap());
                            options[at..at + 4].copy_from_slice(&edge.wrapping_sub(self.shift).to_be_bytes());
                        }
                    }
                }
            }
        }
        out.sent(to.0)
    }

    fn pass(&self, world: &mut World, slot: usize, seg: &Seg, side: Direction) {
        let mut frame = seg.frame();
        frame.resize(frame.len().max(60) + 3, 0xee); // Padded.
        let mut got = world.through(slot, frame);
        unidentified(&mut got);
        let mut expected = self.expected(seg, side);
        unidentified(&mut expected);
        got.truncate(expected.len()); // What pads a frame may go on.
        assert_eq!(got, expected, "{side:?} {seg:?} {:?}", read(&got));
    }
}

/// A TCP connection from SYN to its last FIN, and a UDP flow, by a mode that translates.
fn conversation(mode: u8, server_of: fn(u8) -> IpAddr) {
    let mut world = World::dual(2, services(VIP6, mode, server_of));
    let (client, vip) = ((CLIENT6, 40_000), (VIP6, 80));
    let nat64 = server_of(0).is_ipv4();
    let mut syn = Seg::tcp(client, vip, (7, None), "S").with(&SYN_OPTIONS, &[]);
    (syn.class, syn.flow) = (0xb9, 0x12345);
    let first = read(&world.through(0, syn.frame()));
    let (seq, ..) = first.tcp.clone().unwrap();
    let talk = Talk { client, vip, local: first.from, server: first.to, shift: seq.wrapping_sub(7) };
    assert!((0..3).map(server_of).any(|server| talk.server == (server, 8080)));
    if mode == mode::NAT {
        assert_eq!((talk.local, talk.shift), (client, 0));
    } else {
        assert_eq!(talk.local.0, if nat64 { v4(LOCAL) } else { LOCAL6 });
        assert_ne!(talk.shift, 0, "shifted");
    }
    // The first once more, so that all of it is compared.
    let mut changed = syn.clone();
    let options = &mut changed.tcp.as_mut().unwrap().3;
    if mode == mode::FULLNAT {
        options[TIMESTAMPS].fill(1);
    }
    if nat64 {
        options[MSS].copy_from_slice(&1440_u16.to_be_bytes());
    }
    let mut got = world.through(0, syn.frame());
    let id = unidentified(&mut got);
    let mut expected = talk.expected(&changed, Direction::Client);
    unidentified(&mut expected);
    assert_eq!(got, expected, "{:?}", read(&got));
    assert_eq!(id.is_some(), nat64, "small packets may be cut up by IPv4");
    let find = |world: &World| {
        let list = world.list();
        assert_eq!(list.len(), 1, "{list:?}");
        list[0].1
    };
    assert_eq!(find(&world).state, State::SynSent);
    let mut answer = Seg::tcp(talk.server, talk.local, (5000, Some(8_u32.wrapping_add(talk.shift))), "S");
    answer = answer.with(&[2, 4, 5, 180], &[]);
    answer.class = 0x28;
    let mut told = answer.clone();
    if nat64 {
        told.tcp.as_mut().unwrap().3[MSS].copy_from_slice(&1440_u16.to_be_bytes());
    }
    let got = world.through(0, answer.frame());
    assert_eq!(got, talk.expected(&told, Direction::Server), "{:?}", read(&got));
    assert_eq!(find(&world).state, State::SynRecv);
    let says = |seq, ack, flags, payload: &[u8]| Seg::tcp(client, vip, (seq, Some(ack)), flags).with(&[], payload);
    let replies = |seq, ack: u32, flags, options: &[u8], payload: &[u8]| {
        Seg::tcp(talk.server, talk.local, (seq, Some(ack.wrapping_add(talk.shift))), flags).with(options, payload)
    };
    talk.pass(&mut world, 0, &says(8, 5001, "", &[]), Direction::Client);
    assert_eq!(find(&world).state, State::Established);
    let (odd, large) = (vec![7; 333], vec![9; 1400]);
    talk.pass(&mut world, 0, &says(8, 5001, "P", &odd), Direction::Client);
    talk.pass(&mut world, 0, &says(341, 5001, "P", &large), Direction::Client);
    let edges = [300_u32, 341].map(|edge| edge.wrapping_add(talk.shift).to_be_bytes()).concat();
    let sack = [&[1, 1, 5, 10][..], &edges].concat();
    talk.pass(&mut world, 0, &replies(5001, 8, "", &sack, &[]), Direction::Server);
    talk.pass(&mut world, 0, &replies(5001, 1741, "P", &[], &large), Direction::Server);
    talk.pass(&mut world, 0, &says(1741, 6401, "F", &[]), Direction::Client);
    talk.pass(&mut world, 0, &replies(6401, 1742, "F", &[], &[]), Direction::Server);
    talk.pass(&mut world, 0, &says(1742, 6402, "", &[]), Direction::Client);
    let session = find(&world);
    assert_eq!(session.state, State::TimeWait);
    let seen = [session.client_ip, session.vip, session.local_ip, session.real_ip].map(to_std);
    assert_eq!(seen, [client.0, vip.0, talk.local.0, talk.server.0], "as lbctl sees it");
    world.rest();

    // UDP, a datagram each way, by the other slot.
    let (client, vip) = ((CLIENT6, 5353), (VIP6, 53));
    let question = Seg::udp(client, vip, b"who?!");
    let first = read(&world.through(1, question.frame()));
    let talk = Talk { client, vip, local: first.from, server: first.to, shift: 0 };
    assert_eq!(first.payload, b"who?!");
    talk.pass(&mut world, 1, &question, Direction::Client);
    talk.pass(&mut world, 1, &Seg::udp(talk.server, talk.local, b"me"), Direction::Server);
    world.rest();
    world.pass(40_000);
    assert!(world.list().is_empty(), "both are over");
    world.rest();
}

#[test]
fn fullnat() {
    conversation(mode::FULLNAT, server6);
}

#[test]
fn nat() {
    conversation(mode::NAT, server6);
}

#[test]
fn nat64() {
    conversation(mode::FULLNAT, |n| v4(server(n)));
}

#[test]
fn dr() {
    let mut world = World::dual(2, services(VIP6, mode::DR, server6));
    let mut servers = Vec::new();
    for port in 40_000..40_006 {
        let segs = [(7, None, "S"), (8, Some(901), ""), (8, Some(901), "P"), (8, Some(901), "F")];
        let stations = segs.map(|(seq, ack, flags)| {
            let mut seg = Seg::tcp((CLIENT6, port), (VIP6, 80), (seq, ack), flags);
            (seg.class, seg.flow) = (0x28, 99);
            let got = world.through(0, seg.frame());
            seg.ttl -= 1;
            assert_eq!(got[14..], seg.packet((0, true)), "nothing but the hop limit");
            <[u8; 6]>::try_from(&got[..6]).unwrap()
        });
        assert_eq!(stations, [stations[0]; 4], "one server");
        servers.push(stations[0]);
    }
    servers.sort_unstable();
    assert_eq!(servers, (0..3).flat_map(|n| [station(server6(n)); 2]).collect::<Vec<_>>());
    assert!(world.list().iter().all(|(_, s)| s.state == State::FinWait && s.server_ip == from_std(VIP6)));
    let question = Seg::udp((CLIENT6, 5), (VIP6, 53), b"?");
    let got = world.through(1, question.frame());
    assert_eq!(got[14..], Seg { ttl: 63, ..question }.packet((0, true)));
    world.rest();
}

/// Outer header, and what is in it.
fn unwrapped(frame: &[u8]) -> (IpAddr, IpAddr, u8, u8, Vec<u8>) {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            let h = ip.header().to_header();
            assert_eq!(h.calc_header_checksum(), h.header_checksum);
            assert_eq!((h.dont_fragment, h.time_to_live, usize::from(h.total_len)), (true, 64, frame.len() - 14));
            let class = u8::from(h.dscp) << 2 | u8::from(h.ecn);
            (h.source.into(), h.destination.into(), h.protocol.0, class, frame[34..].to_vec())
        }
        etherparse::NetSlice::Ipv6(ip) => {
            let h = ip.header().to_header();
            assert_eq!((h.hop_limit, usize::from(h.payload_length)), (64, frame.len() - 54));
            (h.source.into(), h.destination.into(), h.next_header.0, h.traffic_class, frame[54..].to_vec())
        }
        other => panic!("{other:?}"),
    }
}

fn tunnel(client: IpAddr, vip: IpAddr, server_of: fn(u8) -> IpAddr) {
    let mut world = World::dual(2, services(vip, mode::TUNNEL, server_of));
    let within = if client.is_ipv4() { 4 } else { 41 };
    let local = if server_of(0).is_ipv4() { v4(LOCAL) } else { LOCAL6 };
    let room = if server_of(0).is_ipv4() { 1480 } else { 1460 };
    let headers = if client.is_ipv4() { 40 } else { 60 };
    let mut servers = Vec::new();
    for port in 40_000..40_006 {
        let mut reached = Vec::new();
        for (seq, ack, flags, payload) in
            [(7, None, "S", 0), (8, Some(901), "P", 999), (8, Some(901), "", room - headers)]
        {
            let mut seg = Seg::tcp((client, port), (vip, 80), (seq, ack), flags).with(&[], &vec![1; payload]);
            seg.class = 0xb9;
            let mut frame = seg.frame();
            frame.resize(frame.len() + 5, 0); // Padded.
            let (src, dst, proto, class, inner) = unwrapped(&world.through(0, frame));
            seg.ttl -= 1;
            assert_eq!((src, proto, class), (local, within, 0xb9));
            assert_eq!(inner, seg.packet((77, true)), "the client's own");
            reached.push(dst);
        }
        assert_eq!(reached, vec![reached[0]; 3]);
        servers.push(reached[0]);
        let large = Seg::tcp((client, port), (vip, 80), (8, Some(901)), "").with(&[], &vec![1; room - headers + 1]);
        let out = world.through(0, large.frame());
        let most = if client.is_ipv4() {
            assert_eq!((out[34], out[35]), (3, 4), "fragmentation needed");
            u32::from(u16::from_be_bytes([out[40], out[41]]))
        } else {
            assert_eq!((out[20], out[54], out[55]), (58, 2, 0), "packet too big");
            let sliced = etherparse::SlicedPacket::from_ethernet(&out).unwrap();
            let Some(etherparse::NetSlice::Ipv6(ip)) = sliced.net else { panic!() };
            let Some(etherparse::TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!() };
            assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
            assert_eq!(out[62..102], large.frame()[14..54], "about that packet");
            u32::from_be_bytes(out[58..62].try_into().unwrap())
        };
        assert_eq!(most as usize, room);
    }
    servers.sort_unstable();
    assert_eq!(servers, (0..3).flat_map(|n| [server_of(n); 2]).collect::<Vec<_>>());
    assert_eq!(world.dropped(DropReason::TooBig), 6);
    let question = Seg::udp((client, 5), (vip, 53), b"?");
    let (.., inner) = unwrapped(&world.through(1, question.frame()));
    assert_eq!(inner, Seg { ttl: 63, ..question }.packet((77, true)));
    let list = world.list();
    let (is, real) = (from_std(vip), |s: &datapath::session::Session| to_std(s.real_ip));
    assert!(list.iter().all(|(_, s)| s.server_ip == is && (0..3).any(|n| real(s) == server_of(n))), "{list:?}");
    world.rest();
    world.pass(120_000);
    assert!(world.list().is_empty());
    world.rest();
}

#[test]
fn tunnel_of_ipv6_in_ipv6() {
    tunnel(CLIENT6, VIP6, server6);
}

#[test]
fn tunnel_of_ipv6_in_ipv4() {
    tunnel(CLIENT6, VIP6, |n| v4(server(n)));
}

#[test]
fn tunnel_of_ipv4_in_ipv6() {
    tunnel(v4(CLIENT), v4(VIP), server6);
}

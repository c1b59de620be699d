//! IPv6 beyond the good conversation: what is refused and why, extension headers, steering, orders, next hops, NAT64's corners.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::net::{IpAddr, Ipv6Addr};

use shm_layout::counters::{DropReason, Flow};
use shm_layout::neighbours::from_std;
use shm_layout::published::{admin, mode};
use shm_layout::ring::RecordKind;
use shm_layout::session::{State, flag};
use world::v6::*;
use world::*;

fn fullnat(slots: u32) -> World {
    World::dual(slots, services(VIP6, mode::FULLNAT, server6))
}

fn nat64(slots: u32) -> World {
    World::dual(slots, services(VIP6, mode::FULLNAT, |n| v4(server(n))))
}

fn syn6(port: u16, seq: u32) -> Seg {
    Seg::tcp((CLIENT6, port), (VIP6, 80), (seq, None), "S")
}

/// Handshake; returns what the server saw of the client's SYN.
fn open(world: &mut World, slot: usize, port: u16) -> Seg {
    let seen = read(&world.through(slot, syn6(port, 7).frame()));
    let isn = seen.tcp.clone().unwrap().0;
    let answer = Seg::tcp(seen.to, seen.from, (5000, Some(isn.wrapping_add(1))), "S");
    world.through(slot, answer.frame());
    world.through(slot, Seg::tcp((CLIENT6, port), (VIP6, 80), (8, Some(5001)), "").frame());
    seen
}

/// Puts extension headers between a packet's IPv6 header and what follows.
fn extended(frame: &[u8], first: u8, headers: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[20] = first;
    let len = u16::from_be_bytes([frame[18], frame[19]]) + headers.len() as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame.splice(54..54, headers.iter().copied());
    frame
}

#[test]
fn extension_headers_are_walked_over_or_counted() {
    let mut world = fullnat(1);
    let question = Seg::udp((CLIENT6, 5), (VIP6, 53), b"?");
    let seen = read(&world.through(0, question.frame()));
    // Hop-by-hop, destination options, a used-up routing header, destination options again.
    let padded = |next: u8| vec![next, 0, 1, 4, 0, 0, 0, 0];
    let chain = [padded(60), padded(43), vec![60, 0, 0, 0, 0, 0, 0, 0], padded(17)].concat();
    let got = world.through(0, extended(&question.frame(), 0, &chain));
    let mut expected = Seg { from: seen.from, to: seen.to, ttl: 63, ..question.clone() }.sent(seen.to.0);
    expected = extended(&expected, 0, &chain);
    assert_eq!(got, expected, "they go on as they came");
    let cases: [(u8, Vec<u8>, DropReason); 8] = [
        (44, vec![17, 0, 0, 1, 0, 0, 0, 7], DropReason::IpFragment),
        (43, vec![17, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], DropReason::Ipv6Extension),
        (43, vec![17, 0, 4, 1, 0, 0, 0, 0], DropReason::Ipv6Extension),
        (60, vec![17, 200, 1, 4, 0, 0, 0, 0], DropReason::Ipv6Extension),
        (60, [padded(0), padded(17)].concat(), DropReason::Ipv6Extension),
        (60, [[60, 0, 1, 4, 0, 0, 0, 0].repeat(9), padded(17)].concat(), DropReason::Ipv6Extension),
        (60, [vec![60, 15, 1, 126], vec![0; 124], padded(17)].concat(), DropReason::Ipv6Extension),
        (0, padded(44), DropReason::IpFragment),
    ];
    for (first, headers, reason) in cases {
        let before = world.dropped(reason);
        assert!(world.deliver(0, extended(&question.frame(), first, &headers)).is_empty(), "{headers:?}");
        assert_eq!(world.dropped(reason), before + 1, "{headers:?}: {:?}", world.drops());
    }
    world.rest();
}

#[test]
fn what_is_no_session_is_refused_and_counted() {
    let mut world = fullnat(1);
    let udp = |from: IpAddr, to: IpAddr| Seg::udp((from, 5), (to, 53), b"?");
    let address = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
    let mut frame = udp(CLIENT6, VIP6).frame();
    frame[60..62].fill(0);
    assert!(world.deliver(0, frame).is_empty());
    assert_eq!(world.dropped(DropReason::NoUdpChecksum), 1);
    for from in ["ff02::1", "::1", "::", "::ffff:10.0.0.9", "fe80::1"] {
        let reason = if from.starts_with("::ffff") { DropReason::Ipv6 } else { DropReason::BadSource };
        let frame = udp(address(from), VIP6).frame();
        let before = world.dropped(reason);
        assert!(world.deliver(0, frame).is_empty());
        // Whoever answers for IPv6 otherwise may have a better word for the mapped one; it begins nothing in any case.
        assert!(world.dropped(reason) == before + 1 || reason == DropReason::Ipv6, "{from}: {:?}", world.drops());
        assert!(world.list().is_empty());
    }
    let mut refused = |seg: Seg, reason: DropReason| {
        let before = world.dropped(reason);
        assert!(world.deliver(0, seg.frame()).is_empty(), "{reason:?}");
        assert_eq!(world.dropped(reason), before + 1, "{:?}", world.drops());
    };
    for ours in [VIP6, LOCAL6, PORT6] {
        refused(udp(ours, VIP6), DropReason::BadSource);
    }
    refused(Seg { ttl: 1, ..udp(CLIENT6, VIP6) }, DropReason::TtlExpired);
    refused(Seg::udp((CLIENT6, 5), (VIP6, 54), b"?"), DropReason::NoService);
    refused(udp(CLIENT6, v6(0x999)), DropReason::NotForUs);
    // An IPv4 service is not reached by its address in IPv6's clothes.
    world.deliver(0, udp(CLIENT6, address("::ffff:10.0.0.100")).frame());
    assert!(world.list().is_empty());
    // TCP is told.
    let out = world.through(0, Seg::tcp((CLIENT6, 9), (VIP6, 81), (100, None), "S").frame());
    let reset = Seg::tcp((VIP6, 81), (CLIENT6, 9), (0, Some(101)), "R");
    let told = read(&out);
    assert_eq!((told.from, told.to, told.tcp.clone(), told.ttl), (reset.from, reset.to, reset.tcp, 64));
    let ip = etherparse::Ipv6Header::from_slice(&out[14..]).unwrap().0;
    let (tcp, _) = etherparse::TcpHeader::from_slice(&out[54..]).unwrap();
    assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(&ip, &[]).unwrap());
    world.rest();
}

#[test]
fn tables_without_room_for_ipv6_refuse_it() {
    let mut world = fullnat(1);
    for port in 0..1024 {
        world.through(0, Seg::udp((CLIENT6, 1000 + port), (VIP6, 53), b"?").frame());
    }
    assert!(world.deliver(0, Seg::udp((CLIENT6, 9999), (VIP6, 53), b"?").frame()).is_empty());
    assert_eq!(world.dropped(DropReason::TableFull), 1);
    world.rest();
}

#[test]
fn a_reply_comes_to_its_slot_from_any() {
    for world in [fullnat(3), nat64(3)] {
        let mut world = world;
        for port in 40_000..40_020 {
            let slot = usize::from(port) % 3;
            let seen = open(&mut world, slot, port);
            assert_eq!(usize::from(seen.from.1) % 3, slot, "a port of the slot's own");
            let isn = seen.tcp.clone().unwrap().0;
            let data = Seg::tcp(seen.to, seen.from, (5001, Some(isn.wrapping_add(1))), "P").with(&[], b"data");
            let got = read(&world.through((slot + 1) % 3, data.frame()));
            assert_eq!((got.from, got.to, got.payload), ((VIP6, 80), (CLIENT6, port), b"data".to_vec()));
            // And the client's, by a slot that has not its session.
            let more = Seg::tcp((CLIENT6, port), (VIP6, 80), (8, Some(5005)), "P").with(&[], b"more");
            assert_eq!(read(&world.through((slot + 2) % 3, more.frame())).payload, b"more");
        }
        assert_eq!(world.flow(Flow::ToRing), 40);
        world.rest();
    }
}

#[test]
fn an_end_by_order_is_told_to_both_sides_in_their_family() {
    for (world, is_nat64) in [(fullnat(1), false), (nat64(1), true)] {
        let mut world = world;
        let kept = open(&mut world, 0, 40_001);
        let seen = open(&mut world, 0, 40_000);
        let isn = seen.tcp.clone().unwrap().0;
        // By the client's address and port.
        let IpAddr::V6(client) = CLIENT6 else { panic!() };
        let frame = [client.octets(), [0; 16]].concat();
        assert!(world.shared.slots[0].from_control.push(RecordKind::Kill, [0, 40_000, 0, 0, 6], &frame));
        let told: Vec<Seg> = world.run().iter().map(|(_, frame)| read(frame)).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().all(|seg| seg.tcp.as_ref().unwrap().2 == "R"));
        let ends: Vec<_> = told.iter().map(|s| (s.from, s.to, s.tcp.as_ref().unwrap().0)).collect();
        assert_eq!(ends[0], ((VIP6, 80), (CLIENT6, 40_000), 5001));
        assert_eq!(ends[1], (seen.from, seen.to, isn.wrapping_add(1)));
        assert_eq!(seen.to.0.is_ipv4(), is_nat64);
        assert_eq!(world.list().len(), 1);
        // Another client's, another VIP's: nobody's.
        for frame in [[[7; 16], [0; 16]].concat(), [[0; 16], [7; 16]].concat()] {
            assert!(world.shared.slots[0].from_control.push(RecordKind::Kill, [0, 0, 0, 0, 0], &frame));
            world.run();
            assert_eq!(world.list().len(), 1);
        }
        // And by its server, disabled.
        world.plan.services[0].members.iter_mut().for_each(|m| m.admin = admin::DISABLED);
        world.put_in_force();
        let told: Vec<Seg> = world.run().iter().map(|(_, frame)| read(frame)).collect();
        assert_eq!((told.len(), told[1].to), (2, kept.to), "{told:?}");
        assert!(world.list().is_empty());
        world.rest();
    }
}

#[test]
fn a_session_outlives_its_owner_and_its_service() {
    for world in [fullnat(2), nat64(2)] {
        let mut world = world;
        let seen = open(&mut world, 0, 40_000);
        world.replace(0);
        world.publish();
        let data = |world: &mut World| {
            let more = Seg::tcp((CLIENT6, 40_000), (VIP6, 80), (8, Some(5001)), "P").with(&[], b"more");
            let got = read(&world.through(0, more.frame()));
            assert_eq!((got.from, got.to), (seen.from, seen.to));
        };
        data(&mut world);
        world.plan.services.clear();
        world.publish();
        data(&mut world); // An orphan goes on.
        assert_eq!(world.list()[0].1.state, State::Established);
        world.pass(100_000);
        assert!(world.list().is_empty());
        world.check_tables();
    }
}

#[test]
fn a_packet_waits_for_its_neighbour_and_control_is_asked_by_address() {
    let mut world = fullnat(1);
    open(&mut world, 0, 40_000);
    let (_, session) = world.list()[0];
    let (row, _) = world.shared.neighbours.find(session.real_ip, 0).unwrap();
    world.learner.forget(row);
    let more = Seg::tcp((CLIENT6, 40_000), (VIP6, 80), (8, Some(5001)), "P").with(&[], b"more");
    assert!(world.deliver(0, more.frame()).is_empty(), "it waits");
    let mut buffer = [0; shm_layout::limits::RING_FRAME_MAX];
    let mut asked = std::iter::from_fn(|| world.shared.slots[0].to_control.pop(&mut buffer).map(|r| (r, buffer)));
    let ((kind, args, len), frame) = asked.find(|((kind, ..), _)| *kind == RecordKind::Resolve).unwrap();
    let IpAddr::V6(real) = shm_layout::neighbours::to_std(session.real_ip) else { panic!() };
    assert_eq!((kind, args[..2].to_vec(), &frame[..len]), (RecordKind::Resolve, vec![0, 0], &real.octets()[..]));
    world.resolve_any(IpAddr::V6(real));
    let out = world.pass(20);
    assert_eq!((out.len(), read(&out[0].1).payload), (1, b"more".to_vec()));
    assert_eq!(out[0].1[..6], station(IpAddr::V6(real)));
    world.rest();
}

#[test]
fn nat_keeps_one_reply_key_per_client_port() {
    let mut services = services(VIP6, mode::NAT, server6);
    let second = v6(0x101);
    services[0].members.truncate(1);
    services.push(shm_layout::publish::ServicePlan { index: 2, id: 3, vip: from_std(second), ..services[0].clone() });
    let mut world = World::dual(2, services);
    open(&mut world, 0, 40_000);
    let other = Seg::tcp((CLIENT6, 40_000), (second, 80), (7, None), "S");
    for slot in [0, 1] {
        assert!(world.deliver(slot, other.frame()).is_empty());
    }
    assert_eq!(world.dropped(DropReason::NoPort), 2);
    // Timestamps stay: nobody else has this address.
    let options = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    let got = read(&world.through(0, syn6(40_001, 7).with(&options, &[]).frame()));
    assert_eq!(got.tcp.unwrap().3, options);
    let got = read(&world.through(0, syn6(40_001, 7).with(&options, &[]).frame()));
    assert_eq!(got.tcp.unwrap().3, options, "also of the SYN once more");
    world.rest();
}

#[test]
fn nat64_makes_a_checksum_where_there_was_none_and_says_what_does_not_fit() {
    let mut world = nat64(1);
    let question = Seg::udp((CLIENT6, 5), (VIP6, 53), b"who?!");
    let seen = read(&world.through(0, question.frame()));
    for payload in [&b"odd"[..], b"even", b"", &[0xff; 999]] {
        let mut answer = Seg::udp(seen.to, seen.from, payload).frame();
        answer[40..42].fill(0); // None.
        let got = world.through(0, answer);
        let expected = Seg { ttl: 63, ..Seg::udp((VIP6, 53), (CLIENT6, 5), payload) };
        assert_eq!(got, expected.sent(CLIENT6));
    }
    // Options do not go to IPv6; a source route does not pass.
    let with_options = |options: &[u8]| {
        let mut frame = Seg::udp(seen.to, seen.from, b"data").frame();
        frame[14] += options.len() as u8 / 4;
        frame.splice(34..34, options.iter().copied());
        let total = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        fix_ip_checksum(&mut frame);
        frame
    };
    let expected = Seg { ttl: 63, ..Seg::udp((VIP6, 53), (CLIENT6, 5), b"data") }.sent(CLIENT6);
    for options in [vec![1; 4], [vec![7, 23, 4], vec![0; 21]].concat(), vec![1; 40]] {
        assert_eq!(world.through(0, with_options(&options)), expected, "{options:?}");
    }
    assert!(world.deliver(0, with_options(&[131, 7, 4, 10, 0, 0, 1, 0])).is_empty());
    assert_eq!(world.dropped(DropReason::BadIpHeader), 1);
    // 1,480 bytes of IPv4 fill the client's link.
    let fits = Seg::udp(seen.to, seen.from, &[1; 1452]);
    assert_eq!(world.through(0, fits.frame()).len(), 1514);
    let large = Seg::udp(seen.to, seen.from, &[1; 1453]);
    let out = world.through(0, large.frame());
    assert_eq!((out[34], out[35], u16::from_be_bytes([out[40], out[41]])), (3, 4, 1480));
    assert_eq!((checked(&out).src, v4(checked(&out).dst)), (LOCAL, seen.to.0));
    assert_eq!(world.dropped(DropReason::TooBig), 1);
    world.rest();
}

/// No word of a NAT64 record leads an IPv4 packet astray: only its server's replies are its own.
#[test]
fn a_nat64_record_is_no_ipv4_session() {
    let mut world = nat64(1);
    open(&mut world, 0, 40_000);
    let row = &world.shared.slots[0].sessions[world.shared.slots[0].first_wide() as usize];
    use std::sync::atomic::Ordering::Relaxed;
    assert_eq!(row.flags.load(Relaxed) & flag::V6, flag::V6);
    let words = [&row.client_ip, &row.vip].map(|word| word.load(Relaxed));
    let forged = Tcp {
        from: (words[0], 40_000),
        to: (words[1], 80),
        seq: 8,
        ack: Some(5001),
        payload: b"forged".to_vec(),
        ..Tcp::default()
    };
    assert!(world.deliver(0, forged.frame()).is_empty());
    assert_eq!(world.dropped(DropReason::NotForUs), 1);
    world.rest();
}

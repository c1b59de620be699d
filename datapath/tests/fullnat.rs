//! FullNAT end to end in memory: handshake, data, close, reset, UDP, refusals.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use shm_layout::counters::{DropReason, Flow};
use shm_layout::published::protocol;
use shm_layout::session::State;
use world::*;

fn state(world: &World, slot: usize) -> Option<State> {
    let rows = &world.shared.slots[slot].sessions;
    let used = |row: &&shm_layout::session::SessionRow| {
        row.flags.load(std::sync::atomic::Ordering::Relaxed) & shm_layout::session::flag::INDEXED != 0
    };
    rows.iter().find(used).and_then(|row| State::of(row.state.load(std::sync::atomic::Ordering::Relaxed)))
}

#[test]
fn a_connection_from_syn_to_time_wait() {
    let mut world = World::usual(1);
    let mut c = Connection::open(&mut world, 0, 40_000);
    assert_eq!((c.local.0, c.server.1), (LOCAL, 8080));
    assert_eq!(state(&world, 0), Some(State::Established));
    assert_ne!(c.shift, 0);

    let (_, frame, seen) = world.one(0, c.client_says("P", b"GET /").frame());
    assert_eq!((seen.seq, seen.ack, seen.ttl), (c.client_seq.wrapping_add(c.shift), c.server_seq, 63));
    assert_eq!(&frame[usize::from(seen.payload)..], b"GET /");
    assert_eq!(frame[..6], mac_of(c.server.0));
    c.client_seq += 5;
    let (_, frame, seen) = world.one(0, c.server_says("P", b"200 OK").frame());
    assert_eq!((seen.seq, seen.ack), (c.server_seq, c.client_seq));
    assert_eq!((&frame[..6], &frame[6..12]), (&mac_of(CLIENT)[..], &OUR_MAC.0[..]));
    c.server_seq += 6;

    world.one(0, c.client_says("F", &[]).frame());
    assert_eq!(state(&world, 0), Some(State::FinWait));
    c.client_seq += 1;
    world.one(0, c.server_says("", &[]).frame());
    assert_eq!(state(&world, 0), Some(State::CloseWait));
    world.one(0, c.server_says("F", &[]).frame());
    assert_eq!(state(&world, 0), Some(State::LastAck));
    c.server_seq += 1;
    world.one(0, c.client_says("", &[]).frame());
    assert_eq!(state(&world, 0), Some(State::TimeWait));
    world.pass(2500);
    assert_eq!(state(&world, 0), Some(State::TimeWait));
    world.pass(1000);
    assert_eq!(state(&world, 0), None);
    assert_eq!(world.active(0) + world.active(1) + world.active(2), 0);
    world.check_tables();
    world.pass(20_000);
    world.check_tables();
}

#[test]
fn a_retransmitted_syn_keeps_its_numbers() {
    let mut world = World::usual(1);
    let (_, first, _) = world.one(0, syn(40_000, 77).frame());
    let (_, second, _) = world.one(0, syn(40_000, 77).frame());
    assert_eq!(first, second);
    assert_eq!(world.flow(Flow::Created), 1);
}

#[test]
fn syn_timestamps_are_erased_and_sack_blocks_shifted() {
    let mut world = World::usual(1);
    let mut options = vec![2, 4, 5, 0xb4, 4, 2, 8, 10];
    options.extend([0; 8]);
    options.extend([1, 1]);
    let (_, frame, _) = world.one(0, Tcp { options, ..syn(40_001, 9) }.frame());
    assert_eq!(&frame[54..74], &[2, 4, 5, 0xb4, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0][..20]);

    let c = Connection::open(&mut world, 0, 40_000);
    let mut sack = vec![1, 1, 5, 10];
    sack.extend((c.client_seq + 100).wrapping_add(c.shift).to_be_bytes());
    sack.extend((c.client_seq + 200).wrapping_add(c.shift).to_be_bytes());
    let (_, frame, _) = world.one(0, Tcp { options: sack, ..c.server_says("", &[]) }.frame());
    assert_eq!(frame[58..62], (c.client_seq + 100).to_be_bytes());
    assert_eq!(frame[62..66], (c.client_seq + 200).to_be_bytes());
}

#[test]
fn only_an_exact_reset_closes() {
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    for wrong in [1_u32, 1000, 1 << 30] {
        let bad = Tcp { seq: c.client_seq.wrapping_add(wrong), ack: None, ..c.client_says("R", &[]) };
        world.one(0, bad.frame());
        assert_eq!(state(&world, 0), Some(State::Established), "{wrong}");
    }
    world.one(0, Tcp { ack: None, ..c.client_says("R", &[]) }.frame());
    assert_eq!(state(&world, 0), Some(State::Close));
    world.pass(1500);
    assert_eq!(state(&world, 0), None);
}

#[test]
fn a_refused_syn_is_over_at_once() {
    let mut world = World::usual(1);
    let (_, _, seen) = world.one(0, syn(40_000, 5).frame());
    let refused = Tcp {
        from: (seen.dst, seen.dport),
        to: (seen.src, seen.sport),
        seq: 0,
        ack: Some(seen.seq.wrapping_add(1)),
        flags: "R",
        ..Tcp::default()
    };
    let (_, _, back) = world.one(0, refused.frame());
    assert_eq!((back.ack, back.dst), (6, CLIENT));
    assert_eq!(state(&world, 0), Some(State::Close));
    // A new SYN with the same ports begins anew at once.
    world.one(0, syn(40_000, 500).frame());
    assert_eq!((state(&world, 0), world.flow(Flow::Created)), (Some(State::SynSent), 2));
}

#[test]
fn datagrams_in_flight_both_ways() {
    let mut world = World::usual(1);
    let mut seen = Vec::new();
    for n in 0..5_u8 {
        let (_, _, packet) = world.one(0, udp((CLIENT, 5353), (VIP, 53), &[n]));
        seen.push((packet.src, packet.sport, packet.dst));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "one session, one server");
    let (local, port, server) = seen[0];
    for n in 0..5_u8 {
        let (_, frame, packet) = world.one(0, udp((server, 8080), (local, port), &[n]));
        assert_eq!((packet.src, packet.sport, packet.dst, packet.dport), (VIP, 53, CLIENT, 5353));
        assert_eq!(frame[usize::from(packet.payload)], n);
    }
    assert_eq!(world.flow(Flow::Created), 1);
    world.pass(31_000);
    assert_eq!(world.flow(Flow::Ended), 1);
    world.check_tables();
}

#[test]
fn two_packets_of_a_new_flow_in_one_burst_are_one_session() {
    let mut world = World::usual(1);
    for n in 0..32 {
        world.ios[0].input.push_back(udp((CLIENT, 5353), (VIP, 53), &[n]));
    }
    assert_eq!(world.run().len(), 32);
    assert_eq!(world.flow(Flow::Created), 1);
}

#[test]
fn strays_are_reset_but_never_those_of_another_slot() {
    let mut world = World::usual(4);
    let c = Connection::open(&mut world, 2, 40_000);
    let (slot, _, seen) = world.one(0, c.client_says("P", b"moved").frame());
    assert_eq!((slot, seen.dst), (2, c.server.0));
    let (slot, _, seen) = world.one(1, c.server_says("P", b"moved too").frame());
    assert_eq!((slot, seen.dst), (2, CLIENT));
    assert_eq!((world.flow(Flow::ToRing), world.flow(Flow::FromRing)), (2, 2));

    let stray = Tcp { from: (CLIENT, 50_000), seq: 9, ack: Some(44), flags: "P", ..Tcp::default() };
    let (_, frame, reset) = world.one(0, stray.frame());
    assert_eq!((reset.tcp_flags, reset.seq, reset.dst, reset.dport), (4, 44, CLIENT, 50_000));
    assert_eq!(frame[..6], mac_of(CLIENT));
    assert_eq!(world.dropped(DropReason::NoSession), 1);
    // No reset answers a reset.
    let stray = Tcp { from: (CLIENT, 50_001), seq: 9, flags: "R", ..Tcp::default() };
    assert!(world.deliver(0, stray.frame()).is_empty());
}

#[test]
fn what_cannot_be_served_is_refused_by_reason() {
    let mut world = World::usual(1);
    let to = |to: (u32, u16)| Tcp { to, ..syn(40_000, 1) }.frame();
    assert_eq!(world.deliver(0, to((VIP, 81))).len(), 1, "connection refused");
    assert!(world.deliver(0, to((ip(10, 0, 9, 9), 80))).is_empty());
    assert!(world.deliver(0, Tcp { ttl: 1, ..syn(40_000, 1) }.frame()).is_empty());
    assert!(world.deliver(0, Tcp { from: (VIP, 7), ..syn(1, 1) }.frame()).is_empty());
    assert!(world.deliver(0, Tcp { from: (ip(224, 0, 0, 1), 7), ..syn(1, 1) }.frame()).is_empty());
    let mut other_mac = syn(40_000, 1).frame();
    other_mac[5] = 9;
    assert!(world.deliver(0, other_mac).is_empty());
    let c = Connection::open(&mut world, 0, 41_000);
    assert_eq!(world.deliver(0, c.client_says("P", &[0; 1461]).frame()).len(), 1, "told what fits");
    let drops = world.drops();
    for (reason, count) in [
        ("no_service", 1),
        ("not_for_us", 1),
        ("ttl_expired", 1),
        ("bad_source", 2),
        ("not_our_mac", 1),
        ("too_big", 1),
    ] {
        assert!(drops.contains(&(reason, count)), "{reason}: {drops:?}");
    }
}

#[test]
fn ports_run_out_by_count_and_come_back() {
    let mut world = World::usual(2);
    world.plan.services[0].members.truncate(1);
    world.plan.locals[0].low = 2000;
    world.plan.locals[0].high = 2127;
    world.publish();
    for port in 0..128 {
        world.deliver(usize::from(port % 2 == 1), syn(30_000 + port, 1).frame());
    }
    assert_eq!(world.flow(Flow::Created), 128);
    assert!(world.deliver(0, syn(20_000, 1).frame()).is_empty());
    assert_eq!(world.dropped(DropReason::NoPort), 1);
    world.check_tables();
    world.pass(6000);
    assert_eq!(world.flow(Flow::Ended), 128);
    world.one(0, syn(20_000, 1).frame());
}

#[test]
fn a_full_table_refuses_new_sessions_and_keeps_old_ones() {
    let members = vec![member(0, server(0)), member(1, server(1))];
    let mut world = World::new(1, 64, vec![service(protocol::TCP, 80, members)]);
    let c = Connection::open(&mut world, 0, 39_999);
    for port in 0..100 {
        world.deliver(0, syn(40_000 + port, 1).frame());
    }
    let created = world.flow(Flow::Created);
    let refused = world.dropped(DropReason::TableFull) + world.dropped(DropReason::IndexFull);
    assert_eq!(created + refused, 101);
    assert!(created >= 60, "{created}");
    world.one(0, c.client_says("P", b"still here").frame());
    world.check_tables();
}

#[test]
fn arp_and_echo_are_answered_for_our_addresses_alone() {
    let mut world = World::usual(1);
    for (address, answers) in [(VIP, 1), (LOCAL, 1), (ip(10, 0, 0, 2), 1), (ip(10, 0, 0, 77), 0)] {
        let mut frame = [0; 64];
        let mac = packet::Mac(mac_of(CLIENT));
        let len = packet::build::arp_request(&mut frame, packet::Mac::BROADCAST, mac, CLIENT, address, 0).unwrap();
        let out = world.deliver(0, frame[..len].to_vec());
        assert_eq!(out.len(), answers, "{address:x}");
        if let Some((_, reply)) = out.first() {
            let reply = packet::arp::parse(&reply[14..]).unwrap();
            assert_eq!((reply.sender_mac, reply.sender_ip, reply.target_ip), (OUR_MAC, address, CLIENT));
        }
        let mut echo = Vec::new();
        let link = etherparse::PacketBuilder::ethernet2(mac_of(CLIENT), OUR_MAC.0);
        let net = link.ipv4(CLIENT.to_be_bytes(), address.to_be_bytes(), 64);
        net.icmpv4_echo_request(1, 2).write(&mut echo, b"ping").unwrap();
        assert_eq!(world.deliver(0, echo).len(), answers);
    }
}

#[test]
fn a_packet_waits_for_its_neighbour() {
    let mut world = World::usual(1);
    let stranger = ip(10, 0, 77, 7);
    let (_, _, seen) = world.one(0, udp((stranger, 5353), (VIP, 53), b"?"));
    let mut record = [0; shm_layout::limits::RING_FRAME_MAX];
    let asked = world.shared.slots[0].to_control.pop(&mut record);
    assert_eq!(asked, Some((shm_layout::ring::RecordKind::Resolve, [stranger, 0, 0, 0, 0], 0)));
    let reply = udp((seen.dst, 8080), (seen.src, seen.sport), b"!");
    for _ in 0..66 {
        assert!(world.deliver(0, reply.clone()).is_empty());
    }
    assert_eq!((world.flow(Flow::Held), world.dropped(DropReason::NoNeighbour)), (64, 2));
    world.resolve(stranger);
    let out = world.pass(60);
    assert_eq!(out.len(), 64);
    assert_eq!(out[0].1[..6], mac_of(stranger));
    assert_eq!(world.flow(Flow::Held), 0);
    world.one(0, reply);
}

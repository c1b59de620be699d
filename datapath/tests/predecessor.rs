//! The predecessor's bugs (B1–B23 of its study) that this part could have: each a case that must pass here.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use packet::Mac;
use shm_layout::counters::{DropReason, Flow};
use shm_layout::limits::{RECORDS_PER_BURST, RING_FRAME_MAX};
use shm_layout::neighbours::ip4;
use shm_layout::published::{protocol, scheduler, service_flag};
use shm_layout::ring::RecordKind;
use shm_layout::session::State;
use world::*;

/// A stray segment from port `port` of the client: belongs to no session.
fn stray(port: u16) -> Tcp {
    Tcp { from: (CLIENT, port), seq: 9, ack: Some(u32::from(port)), flags: "P", ..Tcp::default() }
}

#[test]
fn b2_unknown_protocols_are_neither_answered_nor_forwarded() {
    let mut world = World::usual(1);
    Connection::open(&mut world, 0, 40_000);
    for dst in [VIP, LOCAL, PORT] {
        for proto in (0..=255_u8).filter(|p| ![1, protocol::TCP, protocol::UDP].contains(p)) {
            let mut frame = Tcp { to: (dst, 80), ..syn(40_000, 1) }.frame();
            frame[23] = proto;
            fix_ip_checksum(&mut frame);
            assert!(world.deliver(0, frame).is_empty(), "{proto}");
        }
    }
    assert_eq!(world.dropped(DropReason::UnknownProtocol), 2 * 253);
    assert_eq!(world.dropped(DropReason::NoKernelInterface), 253, "for the machine itself");
    world.rest();
}

#[test]
fn b3_resets_go_only_to_who_spoke_to_us_and_not_without_end() {
    let mut world = World::usual(1);
    let mut other_mac = stray(1).frame();
    other_mac[5] = 7;
    let mut group = stray(2).frame();
    group[6] = 0xff;
    let mut ourselves = stray(3).frame();
    ourselves[6..12].copy_from_slice(&OUR_MAC.0);
    let from = |ip| Tcp { from: (ip, 9), ..stray(4) }.frame();
    let elsewhere = Tcp { to: (ip(10, 0, 3, 3), 80), ..stray(5) }.frame();
    let to_port = Tcp { to: (PORT, 80), ..stray(6) }.frame();
    let mut silent = vec![other_mac, group, ourselves, elsewhere, to_port];
    // Broadcast, multicast, loopback, nobody, LAND, and addresses of ours.
    silent.extend([u32::MAX, ip(224, 0, 0, 5), ip(127, 0, 0, 1), 0, VIP, LOCAL, PORT].map(from));
    for frame in silent {
        assert!(world.deliver(0, frame.clone()).is_empty(), "{frame:x?}");
    }
    for from in [u32::MAX, ip(224, 0, 0, 5), ip(127, 0, 0, 1), 0, VIP, LOCAL, PORT] {
        assert!(world.deliver(0, ping(from, VIP)).is_empty(), "echo to {from:x}");
    }
    let mut group = ping(CLIENT, VIP);
    group[6] = 0xff;
    assert!(world.deliver(0, group).is_empty());

    // The reset takes the stray's own ack as number, else 0 and an ack of all it carried: the peer believes it.
    let (_, frame, reset) = world.one(0, stray(4444).frame());
    assert_eq!((reset.tcp_flags, reset.seq, reset.src, reset.dport), (4, 4444, VIP, 4444));
    assert_eq!(frame[..6], mac_of(CLIENT));
    let fin = Tcp { ack: None, flags: "F", payload: vec![0; 10], ..stray(4445) };
    let (_, _, reset) = world.one(0, fin.frame());
    assert_eq!((reset.tcp_flags, reset.seq, reset.ack), (0x14, 0, 9 + 11));

    // 20,000 strays in a second: at most the rate and its burst are answered.
    let mut answers = 0;
    for n in 0..20_000_u32 {
        world.now += SECOND / 20_000 - 2000;
        answers += world.deliver(0, stray(n as u16).frame()).len();
    }
    assert!((900..=1150).contains(&answers), "{answers}");
    world.rest();
}

#[test]
fn b4_datagrams_need_not_wait_for_answers() {
    let mut world = World::usual(1);
    let mut servers = std::collections::BTreeSet::new();
    for socket in 0..50_u16 {
        let mut back = Vec::new();
        for n in 0..4 {
            let (_, _, seen) = world.one(0, udp((CLIENT, 2000 + socket), (VIP, 53), &[n]));
            back.push(((seen.dst, seen.dport), (seen.src, seen.sport)));
        }
        back.dedup();
        assert_eq!(back.len(), 1, "one socket, one server, one local port");
        servers.insert(back[0].0);
        for n in (0..4).rev() {
            let (_, frame, seen) = world.one(0, udp(back[0].0, back[0].1, &[n]));
            assert_eq!((seen.dst, seen.dport, frame[usize::from(seen.payload)]), (CLIENT, 2000 + socket, n));
        }
    }
    assert_eq!((servers.len(), world.flow(Flow::Created)), (3, 50));
    world.rest();
}

#[test]
fn b5_a_poll_looks_at_few_sessions_however_many_end() {
    let mut world = World::usual(1);
    for n in 0..3000 {
        world.one(0, udp((CLIENT, 1024 + n), (VIP, 53), b"x"));
    }
    world.now += 60 * SECOND;
    let mut polls = 0;
    while world.flow(Flow::Ended) < 3000 {
        let before = world.flow(Flow::Ended);
        world.now += 1000;
        world.runners[0].poll(&mut world.ios[0], world.now);
        let ended = world.flow(Flow::Ended) - before;
        assert!(ended <= 2 * RECORDS_PER_BURST as u64, "{ended} in one poll");
        polls += 1;
        assert!(polls < 1000);
    }
    world.rest();
}

#[test]
fn b8_ip_options_pass_and_all_checksums_stay_right() {
    /// Router alert, no operation, and a record route of the length asked for.
    fn with_options(frame: &[u8], words: usize) -> Vec<u8> {
        let mut options = vec![1_u8; words * 4];
        options[..4].copy_from_slice(&[0x94, 4, 0, 0]);
        let mut longer = [&frame[..34], &options, &frame[34..]].concat();
        longer[14] = 0x45 + words as u8;
        let total = (longer.len() - 14) as u16;
        longer[16..18].copy_from_slice(&total.to_be_bytes());
        fix_ip_checksum(&mut longer);
        longer
    }
    let mut world = World::usual(1);
    for words in 1..=10 {
        let port = 40_000 + words as u16;
        let (_, out, _) = world.one(0, with_options(&syn(port, 1).frame(), words));
        assert_eq!(out[34..38], [0x94, 4, 0, 0]);
        let mut c = Connection::open(&mut world, 0, 41_000 + words as u16);
        let (_, _, seen) = world.one(0, with_options(&c.client_says("P", b"odd").frame(), words));
        assert_eq!(seen.seq, c.client_seq.wrapping_add(c.shift));
        c.client_seq += 3;
        let (_, _, seen) = world.one(0, with_options(&c.server_says("P", b"even").frame(), words));
        assert_eq!(seen.ack, c.client_seq);
        world.one(0, with_options(&udp((CLIENT, port), (VIP, 53), b"odd"), words));
        world.one(0, with_options(&ping(CLIENT, VIP), words));
    }
    world.rest();
}

#[test]
fn b9_a_record_used_again_begins_anew() {
    let members = vec![member(0, server(0))];
    let mut world = World::new(1, 16, vec![service(protocol::TCP, 80, members)]);
    for round in 0..100_u16 {
        let c = Connection::open(&mut world, 0, 40_000);
        let mut last = c.clone();
        world.one(0, c.client_says("F", &[]).frame());
        last.client_seq += 1;
        world.one(0, last.server_says("F", &[]).frame());
        last.server_seq += 1;
        world.one(0, last.client_says("", &[]).frame());
        assert_eq!(world.state(40_000), Some(State::TimeWait));
        world.pass(6000);
        assert_eq!(world.state(40_000), None);
        // The next one is half open, without FINs, acks or ends of the last.
        let isn = 77 + u32::from(round);
        world.one(0, syn(40_000, isn).frame());
        let (_, record) = world.session(40_000).unwrap();
        assert_eq!((record.state, record.flags & 12, record.end), (State::SynSent, 0, [isn + 1, 0]));
        assert_eq!(record.ack, [0, isn + 1], "the least the server must acknowledge");
        world.pass(9000);
    }
    world.rest();
}

#[test]
fn b10_stray_syns_change_nothing_of_a_session() {
    let mut world = World::usual(1);
    let (_, first, _) = world.one(0, syn(40_000, 77).frame());
    for _ in 0..3 {
        assert_eq!(world.one(0, syn(40_000, 77).frame()).1, first, "a retransmitted SYN looks the same to the server");
    }
    let mut c = Connection::open(&mut world, 0, 41_000);
    world.pass(100);
    let before = world.session(41_000).unwrap();
    let mut rng = Rng(10);
    for _ in 0..1000 {
        let spoofed = Tcp { seq: rng.next() as u32, ..syn(41_000, 0) };
        let (_, _, seen) = world.one(0, spoofed.frame());
        assert_eq!(seen.seq, spoofed.seq.wrapping_add(c.shift), "forwarded: the server answers a challenge ACK");
        let stray_answer = Tcp { seq: rng.next() as u32, ack: Some(rng.next() as u32), ..c.server_says("S", &[]) };
        world.one(0, stray_answer.frame());
    }
    assert_eq!(world.session(41_000).unwrap(), before, "not even the time it was used last");
    world.one(0, c.client_says("P", b"goes on").frame());
    c.client_seq += 7;
    let (_, _, seen) = world.one(0, c.server_says("", &[]).frame());
    assert_eq!(seen.ack, c.client_seq);
    world.rest();
}

#[test]
fn b11_sack_blocks_name_the_senders_own_numbers() {
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    for blocks in 1..=4_u32 {
        let edges: Vec<u32> = (0..2 * blocks).map(|n| c.client_seq.wrapping_add(100 * n)).collect();
        // At every alignment: no operation before, between and behind.
        for pad in 0..=(36 - 8 * blocks as usize).min(6) {
            let mut options = vec![1; pad];
            options.extend([5, (2 + 8 * blocks) as u8]);
            edges.iter().for_each(|edge| options.extend(edge.wrapping_add(c.shift).to_be_bytes()));
            options.resize(options.len().next_multiple_of(4), 1);
            if options.len() > 40 {
                continue;
            }
            let (_, frame, _) = world.one(0, Tcp { options, ..c.server_says("", &[]) }.frame());
            let seen = frame[54 + pad + 2..].chunks(4).map(|e| u32::from_be_bytes(e.try_into().unwrap_or_default()));
            assert_eq!(seen.take(edges.len()).collect::<Vec<_>>(), edges, "{blocks} blocks after {pad}");
        }
    }
    // The client's blocks name the server's numbers, which are not shifted.
    let mut sack = vec![1, 1, 5, 10];
    sack.extend([c.server_seq.to_be_bytes(), (c.server_seq + 9).to_be_bytes()].concat());
    let (_, frame, _) = world.one(0, Tcp { options: sack.clone(), ..c.client_says("", &[]) }.frame());
    assert_eq!(frame[54..66], sack);
    world.rest();
}

#[test]
fn b15_a_slot_expires_its_sessions_whatever_the_others_do() {
    let mut world = World::usual(4);
    for slot in 0..4 {
        world.one(slot, udp((CLIENT, 1000 + slot as u16), (VIP, 53), b"x"));
    }
    world.now += 40 * SECOND;
    for _ in 0..300 {
        world.now += SECOND / 10;
        world.runners[2].poll(&mut world.ios[2], world.now);
    }
    let ended = |slot: usize| world.shared.slots[slot].counters.read().unwrap().flow(Flow::Ended);
    assert_eq!([ended(0), ended(1), ended(2), ended(3)], [0, 0, 1, 0]);
}

#[test]
fn b16_servers_without_weight_of_their_own_serve_under_wrr() {
    let mut world = World::usual(1);
    world.plan.services[0].scheduler = scheduler::WRR;
    world.publish();
    let mut servers = std::collections::BTreeMap::new();
    for n in 0..30 {
        *servers.entry(world.one(0, syn(20_000 + n, 1).frame()).2.dst).or_insert(0) += 1;
    }
    assert_eq!(servers.into_values().collect::<Vec<_>>(), [10, 10, 10]);
    // Weight 0 takes none; all of weight 0 is "no server", said so.
    for member in &mut world.plan.services[0].members {
        member.weight = 0;
    }
    world.publish();
    let (_, _, reset) = world.one(0, syn(9, 1).frame());
    assert_eq!((reset.tcp_flags, world.dropped(DropReason::NoServer)), (0x14, 1));
}

#[test]
fn b18_a_deleted_address_is_silent() {
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    for service in &mut world.plan.services {
        service.flags |= service_flag::REMOVED;
    }
    world.publish();
    let (_, _, reset) = world.one(0, syn(40_001, 1).frame());
    assert_eq!(reset.tcp_flags, 0x14, "no new session");
    world.one(0, c.client_says("P", b"drains").frame());
    assert_eq!(world.deliver(0, arp_request(VIP)).len(), 1, "its sessions still need the address");
    world.plan.services.clear();
    world.publish();
    for frame in [arp_request(VIP), ping(CLIENT, VIP), syn(40_002, 1).frame(), stray(40_003).frame()] {
        assert!(world.deliver(0, frame).is_empty());
    }
    world.one(0, c.client_says("P", b"an orphan").frame());
    world.one(0, c.server_says("P", b"an orphan").frame());
    world.rest();
}

#[test]
fn b19_counts_are_what_is_there_after_any_churn() {
    let mut world = World::usual(4);
    let mut rng = Rng(19);
    let mut open: Vec<Connection> = Vec::new();
    let mut opened = 0;
    for round in 0..4000_u32 {
        match rng.below(4) {
            0 | 1 => {
                let port = 1024 + (round % 60_000) as u16;
                open.push(Connection::open(&mut world, usize::from(port) % 4, port));
                opened += 1;
            }
            2 if !open.is_empty() => {
                let c = open.swap_remove(rng.below(open.len() as u64) as usize);
                let slot = rng.below(4) as usize;
                world.one(slot, Tcp { ack: None, ..c.client_says("R", &[]) }.frame());
            }
            _ => drop(world.pass(rng.below(200))),
        }
        if round % 500 == 0 {
            world.rest();
        }
    }
    world.rest();
    let total: u64 = world
        .shared
        .slots
        .iter()
        .flat_map(|s| s.servers.iter())
        .map(|c| c.total.load(std::sync::atomic::Ordering::Relaxed))
        .sum();
    assert_eq!(total, opened);
    world.pass(120_000);
    assert_eq!((0..64).map(|id| world.active(id)).sum::<u32>(), 0);
    world.rest();
}

#[test]
fn b20_answers_nobody_asked_for_change_no_neighbour() {
    let mut world = World::usual(1);
    let before = world.shared.neighbours.find(ip4(server(0)), 0);
    for n in 0..5000_u32 {
        let mut reply = arp_request(VIP);
        reply[21] = 2;
        reply[22..28].copy_from_slice(&[2, 6, 6, 6, 6, 6]);
        reply[28..32].copy_from_slice(&server((n % 3) as u8).to_be_bytes());
        assert!(world.deliver(0, reply).is_empty());
    }
    assert_eq!(world.shared.neighbours.find(ip4(server(0)), 0), before);
    assert_eq!(world.dropped(DropReason::HandledArp), 5000, "counted, also those beyond the ring to control");
    let mut record = [0; RING_FRAME_MAX];
    assert!(matches!(world.shared.slots[0].to_control.pop(&mut record), Some((RecordKind::Learn, _, _))));
    let (_, frame, _) = world.one(0, syn(40_000, 1).frame());
    assert_ne!(frame[..6], [2, 6, 6, 6, 6, 6]);
    // A request for an address of ours from a group's MAC is none.
    let mut group = arp_request(VIP);
    group[22] = 0xff;
    assert!(world.deliver(0, group).is_empty());
    world.rest();
}

#[test]
fn b21_ttl_goes_down_and_checksums_hide_no_corruption() {
    fn l4_right(frame: &[u8]) -> bool {
        let (src, dst) = (&frame[26..30], &frame[30..34]);
        let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let segment = &frame[34..14 + total];
        let mut pseudo = [src, dst, &[0, frame[23]], &(segment.len() as u16).to_be_bytes()].concat();
        pseudo.extend(segment);
        internet_checksum(&pseudo) == 0
    }
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    let (_, _, seen) = world.one(0, udp((CLIENT, 5000), (VIP, 53), b"question"));
    let answer = udp((seen.dst, seen.dport), (seen.src, seen.sport), b"an answer");
    let frames = [
        c.client_says("P", b"some data of odd length").frame(),
        c.server_says("P", b"other data").frame(),
        udp((CLIENT, 5000), (VIP, 53), b"question"),
        answer,
    ];
    for (n, good) in frames.iter().enumerate() {
        let out = world.deliver(0, good.clone()).remove(0).1;
        assert!(l4_right(&out) && out[22] == 63, "frame {n}");
        // One bit at a time, in the payload, the window, the flags' neighbours: wrong stays wrong.
        for at in (46..good.len()).filter(|at| *at != 47) {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                for (_, out) in world.deliver(0, bad) {
                    assert!(out[23] == 17 && out[40..42] == [0, 0] || !l4_right(&out), "frame {n} byte {at} bit {bit}");
                }
            }
        }
        let mut unlived = good.clone();
        unlived[22] = 1;
        fix_ip_checksum(&mut unlived);
        assert!(world.deliver(0, unlived).is_empty());
        for fragment in [[0x20, 0], [0, 1], [0x3f, 0xff]] {
            let mut part = good.clone();
            part[20..22].copy_from_slice(&fragment);
            fix_ip_checksum(&mut part);
            assert!(world.deliver(0, part).is_empty());
        }
    }
    assert_eq!((world.dropped(DropReason::TtlExpired), world.dropped(DropReason::IpFragment)), (4, 12));
    // UDP without checksum stays without one.
    let mut bare = frames[2].clone();
    bare[40..42].fill(0);
    assert_eq!(world.deliver(0, bare).remove(0).1[40..42], [0, 0]);
    world.rest();
}

#[test]
fn b23_replies_that_arrive_anywhere_reach_their_client() {
    let mut world = World::usual(4);
    for slot in 0..4 {
        let c = Connection::open(&mut world, slot, 40_000 + slot as u16);
        for arrival in 0..4 {
            let (out, _, seen) = world.one(arrival, c.server_says("P", b"astray").frame());
            assert_eq!((out, seen.dport, seen.tcp_flags & 4), (slot, c.client.1, 0));
        }
    }
    assert_eq!(world.flow(Flow::Originated), 3, "announcements of our three addresses, and no reset");
    world.rest();
    // The same where clients and servers are on ports of their own.
    let mut world = World::two_armed(2);
    let (slot, frame, seen) = world.one(1, syn(40_000, 5).frame());
    assert_eq!((slot >= 2, Mac(frame[6..12].try_into().unwrap()), seen.src), (true, INSIDE_MAC, INSIDE_LOCAL));
    for arrival in [2, 3] {
        let reply = Tcp {
            from: (seen.dst, seen.dport),
            to: (seen.src, seen.sport),
            ack: Some(seen.seq + 1),
            flags: "S",
            ..Tcp::default()
        };
        let mut frame = reply.frame();
        frame[..6].copy_from_slice(&INSIDE_MAC.0);
        let (slot, frame, back) = world.one(arrival, frame);
        assert_eq!((slot, back.dst, back.dport, back.src), (1, CLIENT, 40_000, VIP), "drops {:?}", world.drops());
        assert_eq!((&frame[..6], &frame[6..12]), (&mac_of(CLIENT)[..], &OUR_MAC.0[..]));
    }
    assert_eq!(world.state(40_000), Some(State::SynRecv));
    world.rest();
}

//! Mode tunnel: packets go to the server as they came, wrapped; the server replies past the appliance.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use etherparse::{NetSlice, SlicedPacket};
use shm_layout::publish::{MemberPlan, ServicePlan};
use shm_layout::published::{mode, protocol};
use shm_layout::session::State;
use world::*;

fn tunnel(slots: u32) -> World {
    let tunnel = |proto, port, first: u32| {
        let members = (0..3).map(|n| MemberPlan { port, ..member(first + n, server(n as u8)) }).collect();
        ServicePlan { mode: mode::TUNNEL, ..service(proto, port, members) }
    };
    World::new(slots, 4096, vec![tunnel(protocol::TCP, 80, 0), tunnel(protocol::UDP, 53, 3)])
}

/// Outer source, destination and type of service of a wrapped frame (read by an independent parser), and the inner packet.
fn unwrapped(frame: &[u8]) -> ([u32; 2], u8, Vec<u8>) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(net)) = sliced.net else { panic!("not IPv4") };
    let outer = net.header().to_header();
    assert_eq!(outer.calc_header_checksum(), outer.header_checksum);
    assert_eq!((outer.protocol.0, outer.dont_fragment, outer.time_to_live), (4, true, 64));
    assert_eq!(frame.len(), 14 + usize::from(outer.total_len), "no padding is carried");
    let addresses = [outer.source, outer.destination].map(u32::from_be_bytes);
    (addresses, u8::from(outer.dscp) << 2 | u8::from(outer.ecn), frame[34..].to_vec())
}

/// The IP packet of a frame with a TTL of one less.
fn one_hop_on(sent: &[u8]) -> Vec<u8> {
    let mut frame = sent.to_vec();
    frame[22] -= 1;
    fix_ip_checksum(&mut frame);
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    frame[14..14 + total].to_vec()
}

#[test]
fn the_packet_within_is_the_clients_own() {
    let mut world = tunnel(2);
    let (mut servers, mut sources) = (Vec::new(), Vec::new());
    for port in 40_000..40_012 {
        let mut first = Tcp { options: vec![2, 4, 5, 180, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1], ..syn(port, 7) };
        first.options.truncate(16);
        let mut frame = first.frame();
        frame[15] = 0xb9; // EF, ECT(1)
        fix_ip_checksum(&mut frame);
        frame.resize(frame.len().max(60) + 5, 0); // Padded.
        let mut out = world.deliver(0, frame.clone());
        assert_eq!(out.len(), 1, "{:?}", world.drops());
        let ([src, dst], tos, inner) = unwrapped(&out.remove(0).1);
        assert_eq!((tos, inner), (0xb9, one_hop_on(&frame)));
        // The same server and the same source for the rest of the connection.
        let data =
            Tcp { from: (CLIENT, port), seq: 8, ack: Some(901), payload: vec![1; 1000], ..Tcp::default() }.frame();
        let (addresses, _, inner) = unwrapped(&world.deliver(0, data.clone()).remove(0).1);
        assert_eq!((addresses, inner), ([src, dst], one_hop_on(&data)));
        assert_eq!(world.state(port), Some(State::Established));
        servers.push(dst);
        sources.push(src);
    }
    servers.sort_unstable();
    assert_eq!(servers, (0..3).flat_map(|n| [server(n); 4]).collect::<Vec<_>>());
    assert!(sources.iter().all(|src| *src == LOCAL), "{sources:x?}");
    let question = udp((CLIENT, 5000), (VIP, 53), b"?");
    let (addresses, _, inner) = unwrapped(&world.deliver(1, question.clone()).remove(0).1);
    assert_eq!((addresses[0], inner), (LOCAL, one_hop_on(&question)));
    world.rest();
}

#[test]
fn outer_sources_are_spread_over_the_local_addresses() {
    let mut world = tunnel(1);
    let one = world.plan.locals[0].clone();
    world.plan.locals = (0..4)
        .map(|n| shm_layout::publish::LocalPlan { ip: shm_layout::neighbours::ip4(LOCAL + n), ..one.clone() })
        .collect();
    world.publish();
    let mut counts = [0; 4];
    for port in 40_000..40_400 {
        let ([src, _], ..) = unwrapped(&world.deliver(0, syn(port, 7).frame()).remove(0).1);
        counts[(src - LOCAL) as usize] += 1;
    }
    assert!(counts.iter().all(|n| (60..140).contains(n)), "{counts:?}");
    // Without any the port's own address.
    world.plan.locals.clear();
    world.publish();
    let ([src, _], ..) = unwrapped(&world.deliver(0, syn(41_000, 7).frame()).remove(0).1);
    assert_eq!(src, PORT);
}

#[test]
fn an_error_about_the_servers_packet_reaches_it_wrapped() {
    let mut world = tunnel(1);
    let ([_, to], ..) = unwrapped(&world.deliver(0, syn(40_000, 7).frame()).remove(0).1);
    let told =
        Tcp { from: (VIP, 80), to: (CLIENT, 40_000), seq: 5, ack: Some(8), payload: vec![1; 90], ..Tcp::default() };
    let error = icmp_error((3, 4), 1280, &told.frame()[14..], VIP);
    let ([_, dst], _, inner) = unwrapped(&world.deliver(0, error.clone()).remove(0).1);
    assert_eq!((dst, inner), (to, one_hop_on(&error)));
    world.rest();
}

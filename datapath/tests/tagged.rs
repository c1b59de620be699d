//! Ports whose frames carry a VLAN tag: every frame that leaves has its own port's, whatever came in where.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use packet::Mac;
use packet::ethernet::{header, retagged};
use shm_layout::counters::DropReason;
use shm_layout::published::protocol;
use world::*;

/// The frame with the tag of `vlan`, priority 5; as it is for 0.
fn tagged(mut frame: Vec<u8>, vlan: u16) -> Vec<u8> {
    if vlan != 0 {
        frame.splice(12..12, [0x81, 0, 0xa0 | (vlan >> 8) as u8, vlan as u8]);
    }
    frame
}

/// The VLAN of a frame and the frame without the tag.
fn untagged(mut frame: Vec<u8>) -> (u16, Vec<u8>) {
    if frame[12..14] != [0x81, 0] {
        return (0, frame);
    }
    let vlan = u16::from_be_bytes([frame[14] & 0xf, frame[15]]);
    frame.drain(12..16);
    (vlan, frame)
}

#[test]
fn a_tagged_port_hears_and_speaks_its_own_vlan_only() {
    const VLAN: u16 = 100;
    let members = (0..3).map(|n| member(n, server(n as u8))).collect();
    let port = shm_layout::publish::PortPlan { vlan: VLAN.into(), ..port(2) };
    let mut world = World::with_ports(vec![port], 4096, vec![service(protocol::TCP, 80, members)]);
    for other in [0, 101] {
        assert!(world.deliver(0, tagged(syn(40_000, 7).frame(), other)).is_empty());
        assert!(world.deliver(0, tagged(ping(CLIENT, VIP), other)).is_empty());
        assert!(world.deliver(0, tagged(arp_request(VIP), other)).is_empty(), "no answer in VLAN {other}");
    }
    assert_eq!(world.dropped(DropReason::UnexpectedVlan), 6);
    let answers = [ping(CLIENT, VIP), arp_request(VIP), Tcp { to: (VIP, 81), ..syn(41_000, 7) }.frame()];
    for frame in answers {
        let mut out = world.deliver(0, tagged(frame, VLAN));
        assert_eq!(out.len(), 1, "{:?}", world.drops());
        assert_eq!(untagged(out.remove(0).1).0, VLAN);
    }
    let (vlan, frame) = untagged(world.one(1, tagged(syn(40_000, 7).frame(), VLAN)).1);
    let seen = checked(&frame);
    assert_eq!((vlan, frame[..6].to_vec()), (VLAN, mac_of(seen.dst).to_vec()));
    let answer =
        Tcp { from: (seen.dst, 8080), to: (seen.src, seen.sport), ack: Some(seen.seq + 1), flags: "S", ..syn(0, 9) };
    // To the wrong queue, so that it goes by a ring.
    let (vlan, frame) = untagged(world.one(0, tagged(answer.frame(), VLAN)).1);
    assert_eq!((vlan, checked(&frame).dst), (VLAN, CLIENT));
    world.rest();
}

#[test]
fn between_two_ports_each_frame_gets_the_tag_of_the_port_it_leaves_by() {
    for vlans in [[10, 20], [10, 0], [0, 20], [20, 20]] {
        let [outside, inside] = vlans;
        let mut world = World::two_armed_tagged(2, vlans);
        for slot in [0, 1] {
            let (by, frame, _) = world.one(slot, tagged(syn(40_000 + slot as u16, 7).frame(), outside));
            let (vlan, frame) = untagged(frame);
            let seen = checked(&frame);
            assert_eq!((vlan, by >= 2), (inside, true), "{vlans:?}");
            assert_eq!(frame[6..12], INSIDE_MAC.0);
            let mut answer = Tcp {
                from: (seen.dst, seen.dport),
                to: (seen.src, seen.sport),
                seq: 900,
                ack: Some(seen.seq.wrapping_add(1)),
                flags: "S",
                ..Tcp::default()
            }
            .frame();
            answer[..6].copy_from_slice(&INSIDE_MAC.0);
            let (by, frame, _) = world.one(2 + slot, tagged(answer, inside));
            let (vlan, frame) = untagged(frame);
            assert_eq!((vlan, by < 2, checked(&frame).dst), (outside, true, CLIENT), "{vlans:?}");
            assert_eq!(frame[6..12], OUR_MAC.0);
        }
        world.rest();
    }
}

#[test]
fn tags_are_put_on_taken_off_and_changed() {
    let frame = syn(1, 2).frame();
    let mut out = [0; 200];
    for from in [0, 7, 4094] {
        for to in [0, 7, 300] {
            let len = retagged(&tagged(frame.clone(), from), to, &mut out).unwrap();
            let priority = if from != 0 && to != 0 { 0xa0 } else { 0 };
            let mut expected = tagged(frame.clone(), to);
            if to != 0 {
                expected[14] = expected[14] & 0xf | priority;
            }
            assert_eq!(out[..len], expected, "{from} to {to}");
            assert_eq!(header(&out[..len]).unwrap().vlan, to);
        }
    }
    assert_eq!(retagged(&frame[..13], 7, &mut out), None);
    assert_eq!(retagged(&frame, 7, &mut out[..frame.len() + 3]), None);
    assert_eq!(
        retagged(&frame[..14], 7, &mut out).map(|len| Mac(out[..6].try_into().unwrap()) == OUR_MAC && len == 18),
        Some(true)
    );
}

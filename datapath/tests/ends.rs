//! New sessions that are refused, and old ones that are ended, also where clients and servers are on ports of their own.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::sync::atomic::Ordering::Relaxed;

use packet::Mac;
use shm_layout::counters::{DropReason, Flow};
use shm_layout::published::{admin, protocol};
use world::*;

fn refused(world: &World, index: usize) -> u64 {
    world.shared.slots.iter().map(|slot| slot.services[index].refused.load(Relaxed)).sum()
}

#[test]
fn a_service_counts_the_sessions_it_could_not_have() {
    let mut world = World::usual(2);
    world.plan.services[0].max_sessions = 1;
    world.publish();
    Connection::open(&mut world, 0, 40_000);
    for n in 0..5_u16 {
        let out = world.deliver(usize::from(n % 2), syn(41_000 + n, 7).frame());
        assert!(out.is_empty(), "{out:?}");
    }
    assert_eq!((refused(&world, 0), refused(&world, 1), world.dropped(DropReason::ServiceFull)), (5, 0, 5));
    // Nobody to send it to, in a service that never had a session: its row was still of nobody.
    world.plan.services[1].members.iter_mut().for_each(|m| m.admin = admin::DRAIN);
    world.publish();
    world.deliver(1, udp((CLIENT, 5000), (VIP, 53), b"?"));
    assert_eq!((refused(&world, 0), refused(&world, 1)), (5, 1));
    assert_eq!(world.flow(Flow::Refused), 6);
    // No such service, a source nobody has, a packet that had come too far: nobody's refusal.
    world.deliver(0, Tcp { to: (VIP, 81), ..syn(42_000, 7) }.frame());
    world.deliver(0, Tcp { from: (VIP, 42_001), ..syn(42_001, 7) }.frame());
    assert_eq!((refused(&world, 0), refused(&world, 1)), (5, 1));
    // Another service takes the row: its counts begin anew.
    world.plan.services[1].id = 9;
    world.publish();
    world.deliver(1, udp((CLIENT, 5001), (VIP, 53), b"?"));
    assert_eq!(refused(&world, 1), 1);
    world.rest();
}

#[test]
fn both_sides_are_told_when_a_server_is_disabled_wherever_they_are() {
    let mut world = World::two_armed(2);
    let isn = 5;
    let (_, _, to_server) = world.one(1, syn(40_000, isn).frame());
    let answer = Tcp {
        from: (to_server.dst, to_server.dport),
        to: (to_server.src, to_server.sport),
        seq: 900,
        ack: Some(to_server.seq.wrapping_add(1)),
        flags: "S",
        ..Tcp::default()
    };
    let mut frame = answer.frame();
    frame[..6].copy_from_slice(&INSIDE_MAC.0);
    world.one(2, frame);
    let ack = Tcp { from: (CLIENT, 40_000), to: (VIP, 80), seq: isn + 1, ack: Some(901), flags: "", ..Tcp::default() };
    world.one(1, ack.frame());
    world.plan.services[0].members.iter_mut().for_each(|m| m.admin = admin::DISABLED);
    // As `publish` does, which would drop what comes out.
    let number = world.publisher.generation() + 1;
    let (plan, slots) = (&world.plan, &world.shared.slots);
    let staged = world.publisher.stage(plan, number, slots, std::time::Duration::from_secs(1)).unwrap();
    world.publisher.commit(staged);
    let out = world.run();
    let resets: Vec<_> = out.iter().map(|(slot, frame)| (*slot, frame, checked(frame))).collect();
    assert!(resets.iter().all(|(_, _, v4)| v4.tcp_flags & 4 != 0 && v4.proto == protocol::TCP));
    let to = |address: u32| resets.iter().find(|(_, _, v4)| v4.dst == address);
    let (slot, frame, v4) = to(CLIENT).expect("the client is told");
    assert!(
        *slot < 2 && v4.seq == 901 && frame[..6] == mac_of(CLIENT) && Mac(frame[6..12].try_into().unwrap()) == OUR_MAC
    );
    let (slot, frame, v4) = to(to_server.dst).expect("the server is told");
    assert_eq!((*slot >= 2, v4.seq, v4.sport), (true, to_server.seq.wrapping_add(1), to_server.sport));
    assert_eq!((&frame[..6], &frame[6..12]), (&mac_of(to_server.dst)[..], &INSIDE_MAC.0[..]));
    assert_eq!(resets.len(), 2);
    assert!(world.session(40_000).is_none());
    world.rest();
}

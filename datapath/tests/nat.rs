//! Mode `nat`: the server sees the client, and answers by way of the appliance.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use shm_layout::counters::DropReason;
use shm_layout::publish::ServicePlan;
use shm_layout::published::{mode, protocol};
use shm_layout::session::State;
use world::*;

/// TCP and UDP services in mode nat, three servers each.
fn nat(slots: u32) -> World {
    let members = |first: u32| (0..3).map(|n| member(first + n, server(n as u8))).collect();
    let nat = |proto, port, first| ServicePlan { mode: mode::NAT, ..service(proto, port, members(first)) };
    World::new(slots, 4096, vec![nat(protocol::TCP, 80, 0), nat(protocol::UDP, 53, 3)])
}

/// Timestamps, as Linux writes them.
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

#[test]
fn only_the_destination_changes_and_replies_find_home_from_any_slot() {
    for reply_by in [0, 1] {
        let mut world = nat(2);
        let syn = Tcp { options: TIMESTAMPS.to_vec(), ..syn(40_000, 7) };
        let (_, frame, seen) = world.one(0, syn.frame());
        assert_eq!((seen.src, seen.sport, seen.dport, seen.seq), (CLIENT, 40_000, 8080, 7), "as the client sent it");
        assert_eq!(frame[54..66], TIMESTAMPS, "one client, one clock: nothing to erase");
        assert_eq!(frame[..6], mac_of(seen.dst));
        let answer = Tcp {
            from: (seen.dst, 8080),
            to: (CLIENT, 40_000),
            seq: 900,
            ack: Some(8),
            flags: "S",
            options: TIMESTAMPS.to_vec(),
            ..Tcp::default()
        };
        let (by, frame, back) = world.one(reply_by, answer.frame());
        assert_eq!((by, back.src, back.sport, back.seq, back.ack), (0, VIP, 80, 900, 8));
        assert_eq!(frame[..6], mac_of(CLIENT));
        // A SYN once more keeps its timestamps, too.
        let (_, frame, _) = world.one(0, syn.frame());
        assert_eq!(frame[54..66], TIMESTAMPS);
        world.one(0, Tcp { from: (CLIENT, 40_000), seq: 8, ack: Some(901), ..Tcp::default() }.frame());
        assert_eq!(world.state(40_000), Some(State::Established));
        let question = udp((CLIENT, 40_000), (VIP, 53), b"?");
        let (_, _, seen) = world.one(1, question);
        let (by, _, back) = world.one(reply_by, udp((seen.dst, seen.dport), (CLIENT, 40_000), b"!"));
        assert_eq!((by, back.src, back.sport, back.dst), (1, VIP, 53, CLIENT));
        world.rest();
    }
}

#[test]
fn what_is_no_reply_of_a_session_goes_nowhere() {
    let mut world = nat(2);
    world.one(0, syn(40_000, 7).frame());
    let stranger = Tcp { from: (server(9), 8080), to: (CLIENT, 40_000), flags: "S", ack: Some(8), ..Tcp::default() };
    let port = Tcp { from: (server(0), 8081), to: (CLIENT, 40_000), flags: "S", ack: Some(8), ..Tcp::default() };
    for slot in [0, 1] {
        assert!(world.deliver(slot, stranger.frame()).is_empty() && world.deliver(slot, port.frame()).is_empty());
    }
    assert_eq!(world.dropped(DropReason::NotForUs), 4);
    world.rest();
}

/// Two sessions of one client port with one server, by two VIPs, would have one reply key.
#[test]
fn one_client_port_has_one_session_with_a_server() {
    let mut world = nat(1);
    let twin = ServicePlan { index: 2, id: 3, port: 81, ..world.plan.services[0].clone() };
    world.plan.services[0].members.truncate(1);
    let only = world.plan.services[0].members.clone();
    world.plan.services.push(ServicePlan {
        members: only.into_iter().map(|m| shm_layout::publish::MemberPlan { id: 9, ..m }).collect(),
        ..twin
    });
    world.publish();
    world.one(0, syn(40_000, 7).frame());
    assert!(world.deliver(0, Tcp { to: (VIP, 81), ..syn(40_000, 7) }.frame()).is_empty());
    assert_eq!(world.dropped(DropReason::NoPort), 1);
    world.one(0, Tcp { to: (VIP, 81), ..syn(40_001, 7) }.frame());
    world.rest();
}

/// Nor by another slot.
#[test]
fn one_client_port_has_one_session_with_a_server_on_all_slots() {
    let mut world = nat(2);
    world.plan.services[0].members.truncate(1);
    let only = world.plan.services[0].members[0].clone();
    let members = vec![shm_layout::publish::MemberPlan { id: 9, ..only }];
    world.plan.services.push(ServicePlan { index: 2, id: 3, port: 81, members, ..world.plan.services[0].clone() });
    world.publish();
    world.one(0, syn(40_000, 7).frame());
    assert!(world.deliver(1, Tcp { to: (VIP, 81), ..syn(40_000, 7) }.frame()).is_empty());
    assert_eq!(world.dropped(DropReason::NoPort), 1);
    world.rest();
}

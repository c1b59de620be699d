//! Mode `dr`: only the link addresses change; the server has the VIP and replies past the appliance.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use shm_layout::counters::DropReason;
use shm_layout::neighbours::ip4;
use shm_layout::publish::{MemberPlan, ServicePlan};
use shm_layout::published::{mode, protocol};
use shm_layout::session::State;
use world::*;

/// TCP and UDP services in mode dr, three servers each.
fn dr(slots: u32) -> World {
    let dr = |proto, port, first: u32| {
        let members = (0..3).map(|n| MemberPlan { port, ..member(first + n, server(n as u8)) }).collect();
        ServicePlan { mode: mode::DR, ..service(proto, port, members) }
    };
    World::new(slots, 4096, vec![dr(protocol::TCP, 80, 0), dr(protocol::UDP, 53, 3)])
}

/// What the appliance sent is what it got, but for link addresses and a TTL of one less; returns the station it went to.
fn as_it_was(sent: &[u8], got: &[u8]) -> [u8; 6] {
    let mut expected = sent.to_vec();
    expected[..12].copy_from_slice(&got[..12]);
    assert_eq!(got[6..12], OUR_MAC.0);
    expected[22] -= 1;
    fix_ip_checksum(&mut expected);
    assert_eq!(got, expected);
    got[..6].try_into().unwrap()
}

fn ack(port: u16, flags: &'static str, seq: u32) -> Tcp {
    Tcp {
        from: (CLIENT, port),
        seq,
        ack: Some(901),
        flags,
        options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        ..Tcp::default()
    }
}

#[test]
fn the_clients_packets_reach_one_server_unchanged() {
    let mut world = dr(2);
    let mut stations = Vec::new();
    for port in 40_000..40_006 {
        let first = Tcp { options: ack(0, "", 0).options, ..syn(port, 7) }.frame();
        let station = as_it_was(&first, &world.one(0, first.clone()).1);
        assert_eq!(world.state(port), Some(State::SynSent));
        for (seq, flags, state) in [(8, "", State::Established), (8, "P", State::Established), (8, "F", State::FinWait)]
        {
            let frame = ack(port, flags, seq).frame();
            assert_eq!(
                as_it_was(&frame, &world.one(0, frame.clone()).1),
                station,
                "one server for the whole connection"
            );
            assert_eq!(world.state(port), Some(state));
        }
        stations.push(station);
    }
    stations.sort_unstable();
    let all: Vec<[u8; 6]> = (0..3).flat_map(|n| [mac_of(server(n)); 2]).collect();
    assert_eq!(stations, all, "round robin");
    let question = udp((CLIENT, 5000), (VIP, 53), b"?");
    let station = as_it_was(&question, &world.one(1, question.clone()).1);
    assert_eq!(as_it_was(&question, &world.one(1, question.clone()).1), station);
    world.rest();
}

#[test]
fn only_the_clients_own_numbers_end_a_connection() {
    let mut world = dr(1);
    world.one(0, syn(40_000, 7).frame());
    world.one(0, ack(40_000, "", 8).frame());
    world.one(0, ack(40_000, "R", 9).frame());
    assert_eq!(world.state(40_000), Some(State::Established), "a guessed reset is the server's to judge");
    world.one(0, ack(40_000, "R", 8).frame());
    assert_eq!(world.state(40_000), Some(State::Close));
    world.one(0, syn(40_000, 5).frame());
    assert_eq!(world.state(40_000), Some(State::SynSent), "its port may be used again at once");
    // Whoever does not see the connection guesses: neither its numbers nor what it acknowledged.
    world.one(0, syn(40_002, 7).frame());
    world.one(0, ack(40_002, "", 8).frame());
    for guess in 0..16_u32 {
        world.one(0, Tcp { ack: Some(901), ..ack(40_002, "", guess << 28) }.frame());
        world.one(0, ack(40_002, "R", guess << 28).frame());
        world.one(0, Tcp { ack: Some(guess << 28), ..ack(40_002, "", 8) }.frame());
    }
    assert_eq!(world.state(40_002), Some(State::Established));
    // One that was ended by a lucky guess goes on with its client.
    world.one(0, ack(40_002, "F", 8).frame());
    world.one(0, ack(40_002, "P", 20).frame());
    assert_eq!(world.state(40_002), Some(State::Established));
    // Below what was seen no connection begins anew.
    world.one(0, ack(40_002, "F", 20).frame());
    world.one(0, syn(40_002, 5).frame());
    assert_eq!(world.state(40_002), Some(State::FinWait));
    // A client that begins anew after its FIN gets a new session.
    world.one(0, syn(40_001, 7).frame());
    world.one(0, ack(40_001, "F", 8).frame());
    world.one(0, syn(40_001, 900_000).frame());
    assert_eq!(world.state(40_001), Some(State::SynSent));
    world.rest();
}

#[test]
fn an_error_about_the_servers_packet_reaches_the_server() {
    let mut world = dr(2);
    let (_, frame, _) = world.one(0, syn(40_000, 7).frame());
    // A router before the client: "fragmentation needed" about what the server sent, from the VIP.
    let told = Tcp {
        from: (VIP, 80),
        to: (CLIENT, 40_000),
        seq: 12_345,
        ack: Some(8),
        payload: vec![1; 200],
        ..Tcp::default()
    };
    let error = icmp_error((3, 4), 1280, &told.frame()[14..], VIP);
    for slot in [0, 1] {
        let (by, got, _) = world.one(slot, error.clone());
        assert_eq!((by, as_it_was(&error, &got)), (0, frame[..6].try_into().unwrap()));
    }
    world.rest();
}

/// The server's next hop was forgotten: it is looked up by the server's address, not by the VIP.
#[test]
fn a_next_hop_is_found_again_by_the_servers_address() {
    let mut world = dr(1);
    let (_, frame, _) = world.one(0, syn(40_000, 7).frame());
    let station: [u8; 6] = frame[..6].try_into().unwrap();
    let server = (0..3).map(server).find(|s| mac_of(*s) == station).unwrap();
    let (row, _) = world.shared.neighbours.find(ip4(server), 0).unwrap();
    world.learner.forget(row);
    let frame = ack(40_000, "", 8).frame();
    assert!(world.deliver(0, frame.clone()).is_empty(), "it waits");
    world.resolve(server);
    let out = world.pass(20);
    assert_eq!((out.len(), as_it_was(&frame, &out[0].1)), (1, station));
    assert_eq!(world.dropped(DropReason::NoRoute), 0);
    world.rest();
}

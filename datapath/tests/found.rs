//! What the simulator found: each case once more, small enough to be read.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::sync::atomic::Ordering::Relaxed;

use shm_layout::neighbours::ip4;
use shm_layout::ring::RecordKind;
use shm_layout::session::State;
use world::*;

/// A session outlives its neighbour's row. The resets that end it go where its ends are now, not to whoever has the row.
#[test]
fn resets_by_order_go_to_the_ends_and_not_to_old_rows() {
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    let (row, _) = world.shared.neighbours.find(ip4(CLIENT), 0).unwrap();
    world.learner.forget(row);
    let stranger = ip(10, 0, 9, 9);
    world.resolve(stranger);
    assert_eq!(world.shared.neighbours.find(ip4(stranger), 0).unwrap().0, row, "the stranger has the client's row");
    world.resolve(CLIENT);
    assert!(world.shared.slots[0].from_control.push(RecordKind::Kill, [CLIENT, 40_000, 0, 0, 0], &[]));
    let out = world.run();
    let mut to: Vec<_> = out.iter().map(|(_, frame)| (checked(frame).dst, frame[..6].to_vec())).collect();
    to.sort_unstable();
    let mut ends = vec![(CLIENT, mac_of(CLIENT).to_vec()), (c.server.0, mac_of(c.server.0).to_vec())];
    ends.sort_unstable();
    assert_eq!(to, ends);
    world.rest();
}

/// TCP Fast Open (RFC 7413): the server speaks before the client's ACK. Its SYN-ACK comes a second time, late: the session
/// still knows what the server said, so the client's ACK of it is one, and the connection does not die as half-open.
#[test]
fn a_late_copy_of_the_syn_ack_takes_nothing_back() {
    let mut world = World::usual(1);
    let (_, _, seen) = world.one(0, Tcp { payload: b"request".to_vec(), ..syn(40_000, 1000) }.frame());
    let (server, local) = ((seen.dst, seen.dport), (seen.src, seen.sport));
    let from_server = |seq: u32, flags, payload: &[u8]| {
        let payload = payload.to_vec();
        let ack = Some(seen.seq.wrapping_add(8));
        Tcp { from: server, to: local, seq, ack, flags, payload, ..Tcp::default() }.frame()
    };
    world.one(0, from_server(5000, "S", b""));
    world.one(0, from_server(5001, "P", b"answer"));
    world.one(0, from_server(5000, "S", b""));
    let ack = Tcp { from: (CLIENT, 40_000), seq: 1008, ack: Some(5007), ..Tcp::default() };
    world.one(0, ack.frame());
    assert_eq!(world.state(40_000), Some(State::Established));
    world.pass(30_000);
    assert_eq!(world.state(40_000), Some(State::Established), "not half-open, so not over after 10 s");
}

/// While a slot's table is made anew (or its owner died in it) nobody finds its sessions: what comes for them elsewhere is
/// not answered by a reset.
#[test]
fn no_reset_while_another_slots_table_is_made_anew() {
    let mut world = World::usual(2);
    let c = Connection::open(&mut world, 1, 40_000);
    let astray = c.client_says("P", b"astray").frame();
    let hidden: Vec<u16> =
        world.shared.slots[1].buckets.iter().flat_map(|b| b.tags.iter().map(|t| t.swap(0, Relaxed))).collect();
    world.shared.slots[1].table.rebuilding.store(1, Relaxed);
    assert!(world.deliver(0, astray.clone()).is_empty(), "neither a reset nor anything else");
    for (tag, was) in world.shared.slots[1].buckets.iter().flat_map(|b| b.tags.iter()).zip(hidden) {
        tag.store(was, Relaxed);
    }
    world.shared.slots[1].table.rebuilding.store(0, Relaxed);
    let (slot, _, seen) = world.one(0, astray);
    assert_eq!((slot, seen.dst), (1, c.server.0));
    let nobodys = Tcp { from: (CLIENT, 7), ack: Some(1), flags: "P", ..Tcp::default() };
    assert_eq!(world.deliver(0, nobodys.frame()).len(), 1, "nobody's is reset again");
}

//! What the simulator found: each case once more, small enough to be read.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use shm_layout::neighbours::ip4;
use shm_layout::ring::RecordKind;
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

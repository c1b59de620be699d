//! What a review found, each shown before it was mended.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::sync::atomic::Ordering::Relaxed;

use shm_layout::counters::{DropReason, Flow};
use shm_layout::ring::RecordKind;
use shm_layout::session::flag;
use world::*;

/// The server must not learn of timestamps from the SYN that came second because the first was lost behind us.
#[test]
fn a_retransmitted_syn_has_its_timestamps_erased_too() {
    let mut world = World::usual(1);
    let mut first = syn(1111, 5);
    first.options = vec![8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1];
    let (_, sent, _) = world.one(0, first.frame());
    let (_, again, _) = world.one(0, first.frame());
    assert_eq!(sent[54..], [1; 12]);
    assert_eq!(sent, again);
}

/// A record that the index names but that says it is not indexed is damage: taken out and counted, never followed again.
#[test]
fn a_record_that_denies_being_indexed_is_quarantined() {
    let mut world = World::usual(1);
    let connection = Connection::open(&mut world, 0, 2222);
    let other = Connection::open(&mut world, 0, 3333);
    let rows = &world.shared.slots[0].sessions;
    let row = rows.iter().find(|row| row.client_port.load(Relaxed) == 2222).unwrap();
    row.flags.store(row.flags.load(Relaxed) & !flag::INDEXED, Relaxed);
    assert!(world.deliver(0, connection.client_says("P", b"x").frame()).is_empty());
    assert_eq!(world.dropped(DropReason::BadRecord), 1);
    assert!(world.shared.slots[0].pulse.quarantined.load(Relaxed) > 0);
    // The session is gone in order, the others are untouched, and its client may begin again.
    assert_eq!(world.flow(Flow::Ended), 1);
    world.one(0, other.client_says("P", b"y").frame());
    world.one(0, syn(2222, 9).frame());
    world.check_tables();
}

/// A gateway that moves says so with a request for its own address (RFC 5227): control must hear it. The padding stays here.
#[test]
fn an_announcement_reaches_control() {
    let mut world = World::usual(1);
    let mut frame = vec![0; 1500];
    let moved = packet::Mac([2, 9, 9, 9, 9, 9]);
    let len = packet::build::garp(&mut frame, moved, ip(10, 0, 0, 1), 0).unwrap();
    assert!(world.deliver(0, frame).is_empty());
    let mut record = [0; shm_layout::limits::RING_FRAME_MAX];
    let (kind, _, heard) = world.shared.slots[0].to_control.pop(&mut record).unwrap();
    assert_eq!((kind, heard), (RecordKind::Learn, len));
    assert_eq!(world.dropped(DropReason::HandledArp), 1);
}

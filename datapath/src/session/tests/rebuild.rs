//! A table whose derived parts are damaged is made anew from its records.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::session::Direction;

fn filled(sessions: u32) -> SessionTable {
    let mut table = table(2 * u64::from(sessions));
    let records: Vec<u32> = (0..sessions).map(|i| table.create(&new(i, 1000)).unwrap()).collect();
    for record in records.iter().step_by(7) {
        assert!(table.close(*record));
    }
    table.check().unwrap();
    table
}

#[test]
fn every_session_is_found_again() {
    let mut table = filled(2000);
    let before = table.check().unwrap();
    let slot = table.slot().clone();
    let mut random = Random(5);
    for _ in 0..300 {
        let bucket = &slot.buckets[random.below(u32::try_from(slot.buckets.len()).unwrap()) as usize];
        bucket.tags[random.below(10) as usize].store(random.next() as u16, Relaxed);
        bucket.records[random.below(10) as usize].store(random.below(9000), Relaxed);
    }
    slot.wheel[3].store(17, Relaxed);
    slot.table.free.store(5, Relaxed);
    slot.servers[2].active.store(9, Relaxed);
    assert!(table.check().is_err());
    assert_eq!(table.rebuild(), before.active);
    let after = table.check().unwrap();
    assert_eq!((after.active, after.waiting, after.used), (before.active, 0, before.used));
    for i in (0..2000).filter(|i| i % 7 != 0) {
        let found = table.find(new(i, 0).client_key());
        assert!(matches!(found, Some((_, Direction::Client))), "session {i}");
    }
    // It works on: all ends, and the records are free again.
    table.expire(1000 + 4 * 60_000, usize::MAX, |_| 60_000, |_, _| ());
    for _ in 0..4 {
        table.expire(1000 + 8 * 60_000, usize::MAX, |_| 60_000, |_, _| ());
    }
    let end = table.check().unwrap();
    assert_eq!((end.active, end.free), (0, end.used));
}

#[test]
fn of_two_records_with_one_key_one_stays() {
    let mut table = filled(20);
    let slot = table.slot().clone();
    let (from, to) = (&slot.sessions[1], &slot.sessions[2]);
    to.client_ip.store(from.client_ip.load(Relaxed), Relaxed);
    to.client_port.store(from.client_port.load(Relaxed), Relaxed);
    to.flags.store(from.flags.load(Relaxed), Relaxed);
    let before = slot.table.active.load(Relaxed);
    assert!(table.check().is_err());
    assert_eq!(table.rebuild(), before - 1);
    table.check().unwrap();
}

#[test]
fn one_killed_in_it_is_followed_by_one_that_begins_again() {
    let mut stores = 1;
    loop {
        let mut table = filled(100);
        let before = table.check().unwrap().active;
        let slot = table.slot().clone();
        crate::session::failpoint::arm(stores);
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| table.rebuild())).is_err();
        crate::session::failpoint::disarm();
        let table = SessionTable::attach(slot, &secrets());
        assert_eq!(table.check().unwrap().active, before, "after store {stores}");
        if !died {
            break;
        }
        stores = stores * 5 / 4 + 1;
    }
    assert!(stores > 500, "it ended after {stores} stores: was it killed at all?");
}

//! Wide records: their own free list, kills, equal hashes of different addresses, rebuild, what others read.

use std::sync::atomic::Ordering::Relaxed;

use shm_layout::neighbours::{Ip, ip4};
use shm_layout::session::flag;

use super::super::{
    Address, CreateError, Direction, Key, LocalPool, LocalRange, SessionReader, SessionTable, Tuple, Wide,
};
use super::*;

const WIDE: u64 = 40;

pub(super) fn table_of(narrow: u64, wide: u64) -> SessionTable {
    let geometry = SlotGeometry { wide_sessions: wide, ..slot(narrow).geometry };
    SessionTable::attach(Slot::anonymous(geometry, false).unwrap(), &secrets())
}

const fn v6(last: u64) -> Ip {
    [0xfd00_0000_0000_0000, last]
}

/// IPv4 local address of [`new_wide`]'s NAT64 sessions.
fn nat64_local(i: u32) -> u32 {
    new(i, 0).local_ip ^ 0x100
}

/// The `i`-th of many different sessions: IPv6, every third NAT64, every seventh direct.
pub(super) fn new_wide(i: u32, now_ms: u64, table: &SessionTable) -> New {
    let narrow = new(i, now_ms);
    let client = v6(0x1_0000 + u64::from(i >> 12));
    let vip = v6(0x64);
    let wide = match i % 21 {
        n if n % 7 == 0 => Wide { client, vip, local: client, server: v6(u64::from(narrow.server_ip)), direct: true },
        n if n % 3 == 0 => {
            Wide { client, vip, local: ip4(nat64_local(i)), server: ip4(narrow.server_ip), direct: false }
        }
        _ => Wide { client, vip, local: v6(0x80), server: v6(u64::from(narrow.server_ip)), direct: false },
    };
    let [client_ip, vip, local_ip, server_ip] = wide.words(table.hash_key());
    let mut made = New { client_ip, vip, local_ip, server_ip, wide: Some(wide), ..narrow };
    if wide.direct {
        (made.local_port, made.server_port) = (made.client_port, made.vip_port);
    }
    made
}

/// What its client, what its server sends.
fn tuples(made: &New) -> [Tuple; 2] {
    let [client, server] = made.wide.unwrap().ends();
    [Tuple { key: made.client_key(), ends: client }, Tuple { key: made.server_key(), ends: server }]
}

#[test]
fn both_kinds_have_records_of_their_own() {
    let mut table = table_of(60, WIDE);
    let narrow: Vec<u32> = (0..60).map(|i| table.create(&new(i, 1000)).unwrap()).collect();
    assert_eq!(table.create(&new(60, 1000)), Err(CreateError::TableFull(60)));
    let wide: Vec<u32> = (0..40).map(|i| table.create(&new_wide(i, 1000, &table)).unwrap()).collect();
    let more = new_wide(40, 1000, &table);
    assert_eq!(table.create(&more), Err(CreateError::TableFull(40)));
    assert_eq!((narrow, wide.clone()), ((0..60).collect(), (60..100).collect()));
    let count = table.check().unwrap();
    assert_eq!((count.active, count.used, count.keys), (100, 100, 200));
    let reader = SessionReader::new(table.slot().clone(), *table.hash_key());
    for (i, record) in (0..40).zip(wide) {
        let made = new_wide(i, 0, &table);
        for (tuple, side) in tuples(&made).into_iter().zip([Direction::Client, Direction::Server]) {
            assert_eq!(table.find(tuple), Some((record, side)), "session {i}");
            let (found, seen, session) = reader.find(tuple).unwrap();
            assert_eq!((found, seen), (record, side));
            let line = made.wide.unwrap();
            assert_eq!((session.client_ip, session.vip, session.real_ip), (line.client, line.vip, line.server));
        }
        // Nothing is found by the words alone that were another family's.
        let as_v4 = Key::new(made.client_ip, made.client_port, made.vip, made.vip_port, made.protocol());
        assert_eq!(table.find(as_v4), None);
    }
    assert_eq!(reader.iter().count(), 100);
    // All end; each kind's records are free again, for its own kind.
    for _ in 0..4 {
        table.expire(1_000_000, usize::MAX, |_| 60_000, |_, _| ());
    }
    let count = table.check().unwrap();
    assert_eq!((count.active, count.free), (0, 100));
    assert!(table.create(&new_wide(5, 1_000_000, &table)).unwrap() >= 60);
    assert!(table.create(&new(5, 1_000_000)).unwrap() < 60);
    assert!(table_of(60, 0).create(&more) == Err(CreateError::TableFull(0)));
}

/// NAT64's reply is an IPv4 packet: found by an IPv4 key, and in nobody's way.
#[test]
fn a_nat64_reply_has_an_ipv4_key() {
    let mut table = table_of(60, WIDE);
    let made = new_wide(3, 0, &table);
    let record = table.create(&made).unwrap();
    let narrow = New { local_ip: nat64_local(3), ..new(3, 0) };
    let key = Key::new(narrow.server_ip, narrow.server_port, narrow.local_ip, narrow.local_port, narrow.protocol());
    assert_eq!(table.find(key), Some((record, Direction::Server)));
    assert_eq!(table.row(record).unwrap().flags.load(Relaxed) & (flag::V6 | flag::TUNNEL | flag::DIRECT), flag::NAT64);
    assert_eq!(table.create(&narrow), Err(CreateError::Exists), "one reply key, one session");
    // A local port in use by either kind is not drawn by the other.
    let pool =
        LocalPool::new(&[LocalRange { ip: narrow.local_ip, low: narrow.local_port, high: narrow.local_port }], 0, 1);
    let port = table.pick_port(&pool, narrow.server_ip, narrow.server_port, narrow.protocol());
    assert_eq!(port, None);
    assert!(table.close(record));
    assert!(table.pick_port(&pool, narrow.server_ip, narrow.server_port, narrow.protocol()).is_some());
}

#[test]
fn local_ports_of_ipv6_are_free_or_not_by_the_index_too() {
    let mut table = table_of(10, WIDE);
    let (server, local) = (v6(9), v6(0x80));
    let pool = LocalPool::new(&[LocalRange { ip: local, low: 2000, high: 2039 }], 0, 2);
    let mut used = std::collections::HashSet::new();
    for i in 0..20 {
        let picked = table.pick_port(&pool, server, 8080, 6).unwrap();
        assert!(picked.port.is_multiple_of(2) && used.insert(picked.port), "{picked:?}");
        let wide = Wide { client: v6(100 + i), vip: v6(1), local, server, direct: false };
        let [client_ip, vip, local_ip, server_ip] = wide.words(table.hash_key());
        let made = New { udp: false, local_port: picked.port, wide: Some(wide), ..new(0, 0) };
        table.create(&New { client_ip, vip, local_ip, server_ip, server_port: 8080, ..made }).unwrap();
        let tuple = <Ip as Address>::wanted((server, 8080), (local, picked.port), 6, table.hash_key());
        assert_eq!(table.hash(tuple), picked.hash);
    }
    assert_eq!(table.pick_port(&pool, server, 8080, 6), None, "all twenty of this slot");
    assert!(table.pick_port(&pool, v6(10), 8080, 6).is_some(), "a port serves as many servers as there are");
}

/// Two sessions whose addresses differ and have one hash: made by hand, for nobody finds such addresses.
#[test]
fn equal_hashes_of_different_addresses_are_two_sessions() {
    let mut table = table_of(10, WIDE);
    let first = new_wide(1, 0, &table);
    let other = Wide { client: v6(0xabcd), server: v6(0xef), ..first.wide.unwrap() };
    let second = New { wide: Some(other), ..first };
    assert_eq!((first.client_key(), first.server_key()), (second.client_key(), second.server_key()), "planted");
    let records = [&first, &second].map(|made| table.create(made).unwrap());
    assert_ne!(records[0], records[1]);
    for (made, record) in [(&first, records[0]), (&second, records[1])] {
        for (tuple, side) in tuples(made).into_iter().zip([Direction::Client, Direction::Server]) {
            assert_eq!(table.find(tuple), Some((record, side)));
        }
        assert_eq!(table.create(made), Err(CreateError::Exists));
    }
    let stranger = Tuple { key: first.client_key(), ends: [v6(1), v6(2)] };
    assert_eq!(table.find(stranger), None);
    // Each ends by itself, whichever comes first in the index.
    for (gone, there) in [(1, 0), (0, 1)] {
        let made = [&first, &second];
        assert!(table.close(records[gone]));
        assert_eq!(table.find(tuples(made[gone])[0]), None);
        assert_eq!(table.slot().pulse.quarantined.load(Relaxed), 0);
        if there == 0 {
            assert_eq!(table.find(tuples(made[0])[1]), Some((records[0], Direction::Server)));
        }
    }
    assert_eq!(table.active(), 0);
}

#[test]
fn a_rebuild_keeps_what_its_line_bears_out() {
    let mut table = table_of(60, WIDE);
    for i in 0..30 {
        table.create(&new(i, 1000)).unwrap();
        let made = new_wide(i, 1000, &table);
        table.create(&made).unwrap();
    }
    let slot = table.slot().clone();
    slot.buckets.iter().for_each(|bucket| bucket.tags.iter().for_each(|tag| tag.store(0, Relaxed)));
    slot.wide[0].free.store(3, Relaxed);
    assert!(table.check().is_err());
    assert_eq!(table.rebuild(), 60);
    table.check().unwrap();
    // A line that says something else than its row is damaged.
    slot.lines[4].client[1].store(7, Relaxed);
    let law = table.check().unwrap_err();
    assert!(law.contains("contradicts its address line"), "{law}");
    assert_eq!(table.rebuild(), 59);
    table.check().unwrap();
    let found = (0..30).filter(|i| table.find(tuples(&new_wide(*i, 0, &table))[0]).is_some()).count();
    assert_eq!(found, 29);
    // A narrow record never is of IPv6.
    let row = &slot.sessions[2];
    row.flags.store(row.flags.load(Relaxed) | flag::V6, Relaxed);
    assert_eq!(table.rebuild(), 58);
    table.check().unwrap();
}

#[test]
fn a_sweep_passes_over_records_never_used() {
    let mut table = table_of(300, WIDE);
    for i in 0..10 {
        table.create(&new(i, 1000)).unwrap();
        let made = new_wide(i, 1000, &table);
        table.create(&made).unwrap();
    }
    table.sweep_start();
    let mut seen = Vec::new();
    while table.sweeping() {
        let swept = table.sweep(3, |_, _| true, |record, _| seen.push(record));
        assert!(swept.visited <= 3);
    }
    assert_eq!(seen, (0..10).chain(300..310).collect::<Vec<_>>());
    table.check().unwrap();
}

//! Local ports: the slot's own, unforeseeable, down to the last free one.

use std::collections::HashSet;

use shm_layout::published::{owner_slot, protocol::TCP};

use super::super::{LocalPool, LocalRange, New};
use super::{new, table};

const RANGES: [LocalRange; 2] =
    [LocalRange { ip: 0x0a00_0001, low: 1_024, high: 1_223 }, LocalRange { ip: 0x0a00_0002, low: 5_001, high: 5_100 }];

#[test]
fn a_pool_holds_the_slots_ports_and_no_others() {
    for slots in [1, 2, 3, 7, 64] {
        let mut all = HashSet::new();
        for slot in 0..slots {
            let pool = LocalPool::new(&RANGES, slot, slots);
            let own: Vec<_> = (0..pool.len()).map(|i| pool.get(i).unwrap()).collect();
            assert!(own.iter().all(|(_, port)| owner_slot(*port, slots) == slot));
            assert!(own.iter().all(|local| all.insert(*local)));
            assert_eq!(pool.get(pool.len()), None);
        }
        assert_eq!(all.len(), 300, "{slots} slots");
        for range in RANGES {
            assert!((range.low..=range.high).all(|port| all.contains(&(range.ip, port))));
        }
    }
    let one = LocalPool::new(&[LocalRange { ip: 1, low: 10, high: 10 }], 0, 64);
    assert!(one.is_empty() && LocalPool::<u32>::new(&[], 0, 1).is_empty());
}

#[test]
fn every_port_is_found_and_then_none_for_each_server_alone() {
    let mut table = table(2_000);
    let pool = LocalPool::new(&RANGES, 1, 2);
    for server in 0..3_u32 {
        let mut used = HashSet::new();
        for i in 0..150 {
            let made = new(server * 1_000 + i, 5_000);
            let server_ip = 0x0b00_0000 + server;
            let local = table.pick_port(&pool, server_ip, 8080, TCP).expect("150 ports are fewer than 224 tries");
            assert!(used.insert((local.ip, local.port)) && owner_slot(local.port, 2) == 1);
            let made =
                New { server_ip, local_ip: local.ip, local_port: local.port, udp: false, server_port: 8080, ..made };
            assert_eq!(table.hash(made.server_key()), local.hash);
            table.create(&made).unwrap();
        }
        assert_eq!(table.pick_port(&pool, 0x0b00_0000 + server, 8080, TCP), None);
        // Another protocol or port of the same server is another key.
        assert!(table.pick_port(&pool, 0x0b00_0000 + server, 8081, TCP).is_some());
        assert!(table.pick_port(&pool, 0x0b00_0000 + server, 8080, 17).is_some());
        // A closed session's port is free at once.
        let record = table.find(new(server * 1_000 + 7, 0).client_key()).or_else(|| {
            let made = New { udp: false, ..new(server * 1_000 + 7, 0) };
            table.find(made.client_key())
        });
        assert!(table.close(record.unwrap().0));
        assert!(table.pick_port(&pool, 0x0b00_0000 + server, 8080, TCP).is_some());
    }
    table.check().unwrap();
}

#[test]
fn choice_is_even_and_depends_on_the_key() {
    let range = [LocalRange { ip: 1, low: 1_024, high: 65_535 }];
    let pool = LocalPool::new(&range, 0, 1);
    let mut own = table(10);
    let mut bins = [0_u32; 16];
    let ports: Vec<u16> = (0..16_000).map(|_| own.pick_port(&pool, 5, 80, TCP).unwrap().port).collect();
    for port in &ports {
        bins[usize::from((port - 1_024) / 4_032)] += 1;
    }
    assert!(bins.iter().all(|n| (850..1_150).contains(n)), "{bins:?}");
    let secrets = super::secrets();
    secrets.port_key[2].store(77, std::sync::atomic::Ordering::Relaxed);
    let mut other = super::super::SessionTable::attach(super::slot(10), &secrets);
    let same = ports.iter().filter(|port| other.pick_port(&pool, 5, 80, TCP).unwrap().port == **port).count();
    assert!(same < 10, "{same} of 16,000 alike under another key");
}

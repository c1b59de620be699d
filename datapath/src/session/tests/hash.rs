//! The index under chosen tuples, and beyond the load it is sized for.

use arch::HashKey;

use super::super::key::first_bucket;
use super::super::{Key, SessionTable};
use super::{Random, new, secrets, slot, table};

/// How a set of tuples fares in a table: the longest probe, that is the most keys whose lookup begins in one bucket; and
/// bucket lines read per lookup, mean.
#[derive(Clone, Copy, Debug)]
struct Fare {
    longest: u32,
    lines: f64,
    refused: u32,
}

/// `tuples` as client tuples of sessions in a table of their number, under `key`. Server sides are ordinary.
fn fare(tuples: &[(u32, u16)], key: HashKey) -> Fare {
    let mut table = SessionTable::attach(slot(tuples.len() as u64), &secrets());
    table.index.key = key;
    let mut demand = vec![0_u32; table.slot().buckets.len()];
    let mut refused = 0;
    for (i, (ip, port)) in (0_u32..).zip(tuples) {
        let made = super::super::New {
            client_ip: *ip,
            client_port: *port,
            server_ip: 0x0b00_0000 + i / 60_000,
            local_port: u16::try_from(1_024 + i % 60_000).unwrap(),
            udp: false,
            ..new(i, 0)
        };
        demand[first_bucket(table.hash(made.client_key()), table.index.count) as usize] += 1;
        refused += u32::from(table.create(&made).is_err());
    }
    let lines = |key: Key| {
        let hash = table.hash(key);
        let found = table.index.search(key, hash, |_, _| ());
        found.map_or(2, |found| if found.place.over == shm_layout::limits::NONE { 1 } else { 2 })
    };
    let read: u64 = tuples.iter().map(|(ip, port)| lines(Key::new(*ip, *port, 0x0a4d_0064, 80, 6))).sum();
    table.check().unwrap();
    Fare { longest: demand.into_iter().max().unwrap(), lines: read as f64 / tuples.len() as f64, refused }
}

fn key(seed: u64) -> HashKey {
    let mut random = Random(seed);
    HashKey::new(std::array::from_fn(|_| (random.next() >> 56) as u8))
}

/// Tuples whose hashes under `key` all begin in the same thousandth of the buckets.
fn colliding(key: HashKey, count: usize) -> Vec<(u32, u16)> {
    let tuples = (0_u32..).flat_map(|ip| (1_024..=u16::MAX).map(move |port| (0x6440_0000 + ip, port)));
    let near = tuples.filter(|(ip, port)| {
        let key_of = Key::new(*ip, *port, 0x0a4d_0064, 80, 6);
        arch::keyed_hash(key_of.a, key_of.b, &key) as u32 >> 22 == 0
    });
    near.take(count).collect()
}

#[test]
fn tuples_made_to_collide_under_one_key_do_nothing_under_another() {
    const COUNT: usize = 65_536;
    let (known, secret) = (key(1), key(2));
    let mut random = Random(3);
    let ordinary: Vec<(u32, u16)> =
        (0..COUNT).map(|_| (random.next() as u32, u16::try_from(random.below(64_512)).unwrap() + 1_024)).collect();
    let attack = colliding(known, COUNT);

    let plain = fare(&ordinary, secret);
    let attacked = fare(&attack, secret);
    // The mutation: a key that never changes is the key the attacker knew.
    let constant = fare(&attack, known);
    println!("ordinary {plain:?}\nattacked {attacked:?}\nconstant key {constant:?}");

    let holds = |fare: Fare| {
        f64::from(fare.longest) <= 1.5 * f64::from(plain.longest)
            && fare.lines <= 1.5 * plain.lines
            && fare.refused == 0
    };
    assert!(holds(attacked), "chosen tuples must not hurt under a key their maker does not know");
    assert!(!holds(constant), "a constant key must fail this test, else the test shows nothing");
    assert!(constant.longest > 100 * plain.longest);
}

#[test]
fn consecutive_addresses_and_ports_spread_evenly() {
    const COUNT: u32 = 60_000;
    let mut random = Random(5);
    let share = |tuples: Vec<(u32, u16)>| fare(&tuples, key(4));
    let ordinary = share((0..COUNT).map(|_| (random.next() as u32, random.below(65_536) as u16)).collect());
    let sets = [
        ("addresses", (0..COUNT).map(|i| (0x0a00_0000 + i, 40_000)).collect::<Vec<_>>()),
        ("ports", (0..COUNT).map(|i| (0x0a00_0001, u16::try_from(i).unwrap())).collect()),
        ("both", (0..COUNT).map(|i| (0x0a00_0000 + i / 200, u16::try_from(1_024 + i % 200).unwrap())).collect()),
        ("low bytes 0", (0..COUNT).map(|i| (i << 16, 1_024)).collect()),
    ];
    for (name, tuples) in sets {
        let fare = share(tuples);
        println!("{name}: {fare:?}, ordinary {ordinary:?}");
        assert!(f64::from(fare.longest) <= 1.5 * f64::from(ordinary.longest), "{name}: {fare:?}");
        assert!(fare.lines <= ordinary.lines + 0.01 && fare.refused == 0, "{name}: {fare:?} against {ordinary:?}");
    }
}

#[test]
fn displacement_fills_the_index_far_beyond_what_it_is_sized_for() {
    let mut table = table(20_000);
    table.index.count = 2_048;
    let mut i = 0;
    while table.create(&new(i, 0)).is_ok() {
        i += 1;
    }
    let load = f64::from(2 * i) / 20_480.0;
    let count = table.check().unwrap();
    println!("first refusal at load {load:.3}, {} of {} keys in their second bucket", count.second, count.keys);
    assert!(load >= 0.97);
    for record in 0..i {
        assert!(table.close(record));
    }
    assert_eq!(table.check().unwrap().keys, 0);
}

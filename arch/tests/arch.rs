//! Against plain loops; spread and avalanche of the hash.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "tests cut random words, and may panic")]

use std::hash::Hasher;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

use arch::{
    Bytes16, Bytes32, HashKey, Order, Orders, TAGS, Twelve, differ, keyed_hash, keyed_hash16, load8_of_two,
    load16_of_two, load32, load64, match_tags, match_tags_of_row, match_tags_shared, opaque, prefetch_at,
    prefetch_read, prefetch_write, siphash13, store_words,
};

/// Key bytes with no structure, fixed so that a failure repeats.
fn key(seed: u64) -> HashKey {
    let word = |i: u64| siphash13(seed, i, [1, 2]).to_le_bytes();
    HashKey::new(std::array::from_fn(|i| word(i as u64 / 8)[i % 8]))
}

fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut n = 0;
    move || {
        n += 1;
        siphash13(seed, n, [3, 4])
    }
}

#[test]
fn tags_match_as_in_a_plain_loop() {
    let mut next = random(1);
    for _ in 0..100_000 {
        let tags: [u16; TAGS] = std::array::from_fn(|_| (next() % 5) as u16 * 0x3fff);
        for tag in [0, 0x3fff, 0x7ffe, 0xbffd, 0xfffc, next() as u16] {
            let plain = (0..TAGS).filter(|&i| tags[i] == tag).fold(0, |mask, i| mask | 1 << i);
            assert_eq!(match_tags(&tags, tag), plain, "{tags:x?} {tag:x}");
            assert_eq!(match_tags_shared(&tags.map(AtomicU16::new), tag), plain, "{tags:x?} {tag:x}");
            // What follows the tags in a row may look like one.
            let row = Line(std::array::from_fn(|i| tags.get(i / 2).unwrap_or(&tag).to_le_bytes()[i % 2]));
            let twice = (0..TAGS).filter(|&i| tags[i] == tag).fold(0, |mask, i| mask | 3 << (2 * i));
            assert_eq!(match_tags_of_row(&row, tag), twice, "{tags:x?} {tag:x}");
        }
    }
}

/// A row: a line of its own.
#[repr(C, align(64))]
struct Line([u8; 64]);

#[test]
fn thirty_two_bytes_as_in_plain_loops() {
    let mut next = random(5);
    for _ in 0..100_000 {
        // Few values, so that words are the same now and then.
        let line = Line(std::array::from_fn(|i| if i % 4 == 0 { (next() % 2) as u8 } else { 7 }));
        let mut order = || Order(std::array::from_fn(|_| (next() % 16) as u8));
        let (orders, one) = (Orders([order(), order()]), Bytes16::of_row::<16, _>(&line));
        let parts = |bytes: Bytes16| (bytes.first64(), bytes.third32());
        for (which, at) in [(0, 0), (1, 12)] {
            let twelfth: [u8; 16] = line.0[at..at + 16].try_into().unwrap();
            assert_eq!(parts(Bytes16::of_row_twelfth(&line, which)), parts(Bytes16::of(&twelfth)));
            let [even, odd] = &orders.0;
            assert_eq!(parts(one.ordered_by(&Twelve::new(even, odd), which)), parts(one.ordered(&orders.0[which])));
            assert_eq!(load8_of_two::<30, _>(&line, which), line.0[30 + which].into());
            let two = [line.0[30 + 2 * which], line.0[31 + 2 * which]];
            assert_eq!(load16_of_two::<30, _>(&line, which), u16::from_le_bytes(two).into());
        }
        let words = |low: &[u8], high: &[u8]| -> [u64; 4] {
            let word =
                |of: &[u8]| (0..8).fold(0, |word, i| word | u64::from(of.get(i).copied().unwrap_or(0)) << (8 * i));
            [word(&low[..8]), word(&low[8..]), word(&high[..8]), word(&high[8..])]
        };
        let halves: [Vec<u8>; 2] =
            std::array::from_fn(|half| orders.0[half].0.map(|from| line.0[16 + usize::from(from)]).to_vec());
        let expected = words(&line.0[12..24], &line.0[..12]);
        let ordered = words(&halves[0], &halves[1]);
        let same = (0..4).filter(|&i| expected[i] == ordered[i]).fold(0, |mask, i| mask | 1 << i);
        let row = Bytes32::twelve_of_row::<12, 0, _>(&line);
        assert_eq!(row.same_words(Bytes32::twice(one).ordered(&orders)), same);
        let zeros = Order([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x80, 0x80, 0x80, 0x80]);
        let twelve =
            Bytes32::twice(Bytes16::of(line.0[12..28].first_chunk().unwrap())).ordered(&Orders([zeros, zeros]));
        assert_eq!(row.same_words(twelve) & 3, 3);
    }
}

#[test]
fn words_are_stored_where_both_have_some() {
    for (to, from) in [(64, 64), (7, 9), (9, 7), (3, 64), (4, 0)] {
        let words: Vec<AtomicU64> = (0..to).map(|_| AtomicU64::new(0)).collect();
        let values: Vec<u64> = (1..=from).collect();
        store_words(&words, &values);
        let expected = (1..=to).map(|n| if n <= from { n } else { 0 });
        assert!(words.iter().map(|word| word.load(Relaxed)).eq(expected), "{to} {from}");
    }
}

#[test]
fn sixteen_bytes_as_in_plain_loops() {
    let mut next = random(4);
    for _ in 0..100_000 {
        // Few values, so that words are the same now and then.
        let mut bytes = || -> [u8; 16] { std::array::from_fn(|i| if i % 4 == 0 { (next() % 3) as u8 } else { 7 }) };
        let (one, two) = (bytes(), bytes());
        let order = Order(std::array::from_fn(|_| match next() % 20 {
            from @ 0..16 => from as u8,
            _ => Order::ZERO,
        }));
        let halves = |of: &[u8; 16]| (u64::from_le_bytes(of[..8].try_into().unwrap()), of[8..12].try_into().unwrap());
        let same = |is: Bytes16, expected: &[u8; 16]| {
            let (first, third) = halves(expected);
            assert_eq!((is.first64(), is.third32()), (first, u32::from_le_bytes(third)), "{expected:x?}");
            assert_eq!(is.same_words(Bytes16::of(expected)), 15);
        };
        let ordered: [u8; 16] = std::array::from_fn(|i| one.get(usize::from(order.0[i])).copied().unwrap_or(0));
        same(Bytes16::of(&one).ordered(&order), &ordered);
        let equal = |word: &usize| one[4 * word..][..4] == two[4 * word..][..4];
        let plain = (0..4).filter(equal).fold(0, |mask, word| mask | 1 << word);
        assert_eq!(Bytes16::of(&one).same_words(Bytes16::of(&two)), plain, "{one:x?} {two:x?}");
        same(Bytes16::of(&one).or(Bytes16::of(&two), 0), &one);
        same(Bytes16::of(&one).or(Bytes16::of(&two), 1), &two);
        let (low, high) = (halves(&one).0, u64::from_le_bytes(one[8..].try_into().unwrap()));
        same(Bytes16::of_words(low, high), &one);
        assert_eq!(keyed_hash16(Bytes16::of(&one), &key(9)), keyed_hash(high, low, &key(9)));
        let line = Line(std::array::from_fn(|i| if i < 12 { 0xee } else { one.get(i - 12).copied().unwrap_or(0xdd) }));
        same(Bytes16::of_row::<12, _>(&line), &one);
    }
}

#[test]
fn prefetch_takes_any_index() {
    let rows = [1_u64; 8];
    for index in [0, 7, 8, usize::MAX] {
        prefetch_at(&rows, index);
    }
    prefetch_at::<u64>(&[], 0);
    prefetch_read("text");
    prefetch_write(&rows);
}

#[test]
fn this_machine_passes_the_check() {
    assert_eq!(arch::cpu_check(), Ok(()));
    #[cfg(target_arch = "x86_64")]
    assert!(arch::tsc() <= arch::tsc());
}

#[test]
fn siphash_is_the_standard_library_s() {
    let mut next = random(2);
    for _ in 0..1000 {
        let (a, b) = (next(), next());
        let mut std = std::collections::hash_map::DefaultHasher::new(); // SipHash-1-3 with the key 0
        std.write_u64(a);
        std.write_u64(b);
        assert_eq!(siphash13(a, b, [0, 0]), std.finish());
    }
}

#[test]
fn keys_differ_and_are_not_shown() {
    let (one, two) = (HashKey::random().unwrap(), HashKey::random().unwrap());
    assert_ne!(one, two);
    assert_ne!(keyed_hash(1, 2, &one), keyed_hash(1, 2, &two));
    assert_eq!(format!("{one:?}"), "HashKey(not shown)");
}

/// Every input bit flips every output bit in half of the cases.
#[test]
fn avalanche() {
    const ROUNDS: u32 = 2000;
    let key = key(5);
    let mut next = random(3);
    let mut flips = vec![[0_u32; 64]; 128];
    for _ in 0..ROUNDS {
        let (a, b) = (next(), next());
        let hash = keyed_hash(a, b, &key);
        for (bit, counts) in flips.iter_mut().enumerate() {
            let (x, y) = if bit < 64 { (1 << bit, 0) } else { (0, 1 << (bit - 64)) };
            let changed = hash ^ keyed_hash(a ^ x, b ^ y, &key);
            for (i, count) in counts.iter_mut().enumerate() {
                *count += (changed >> i & 1) as u32;
            }
        }
    }
    // 8192 binomial counts around 1000 with a standard deviation of 22: six deviations.
    for (bit, counts) in flips.iter().enumerate() {
        for (i, &count) in counts.iter().enumerate() {
            assert!(count.abs_diff(ROUNDS / 2) < 135, "input bit {bit}, output bit {i}: {count} of {ROUNDS}");
        }
    }
}

/// Tuples as they come in life: consecutive addresses, consecutive ports, both. Chi-square of the bucket that the index
/// takes (multiplication by the low word) and of the tag (high 16 bits).
#[test]
fn consecutive_tuples_spread_evenly() {
    const BUCKETS: usize = 4096;
    const KEYS: u64 = 400_000;
    type Tuple = fn(u64) -> (u64, u64);
    let tuples: [(&str, Tuple); 4] = [
        ("addresses", |i| ((0x0a00_0000 + i) << 32 | 1024 << 16 | 80, 0x0a4d_0064 << 8 | 6)),
        ("ports", |i| ((0x0a00_0000 + i / 60_000) << 32 | (1024 + i % 60_000) << 16 | 80, 0x0a4d_0064 << 8 | 6)),
        ("both", |i| ((0x0a00_0000 + (i >> 12) * 7919) << 32 | (1024 + (i & 4095)) << 16 | 80, 0x0a4d_0064 << 8 | 6)),
        ("local ports", |i| {
            (0x0b00_0001 << 32 | 8080 << 16 | (1024 + i % 60_000), (0x0a4d_0080 + i / 60_000) << 8 | 6)
        }),
    ];
    for seed in 0..8 {
        let key = key(seed);
        for (name, tuple) in tuples {
            let (mut buckets, mut tags) = (vec![0_u32; BUCKETS], vec![0_u32; BUCKETS]);
            for i in 0..KEYS {
                let (a, b) = tuple(i);
                let hash = keyed_hash(a, b, &key);
                buckets[(u64::from(hash as u32) * BUCKETS as u64 >> 32) as usize] += 1;
                tags[(hash >> 52) as usize] += 1;
            }
            for (what, counts) in [("bucket", buckets), ("tag", tags)] {
                let mean = KEYS as f64 / BUCKETS as f64;
                let chi: f64 = counts.iter().map(|&c| (f64::from(c) - mean).powi(2) / mean).sum();
                // 4095 degrees of freedom: deviation 90; six of them either way, for too even is no chance either.
                assert!((chi - 4095.0).abs() < 545.0, "{name}, {what}, key {seed}: chi-square {chi:.0}");
                assert!(*counts.iter().max().unwrap() < 170, "{name}, {what}, key {seed}: fullest of mean 98");
            }
        }
    }
}

#[test]
fn loads_are_the_bytes() {
    let bytes: [u8; 24] = std::array::from_fn(|i| 200_u8.wrapping_add(i as u8).wrapping_mul(11));
    assert_eq!(load64::<0, _>(&bytes), u64::from_le_bytes(bytes[..8].try_into().unwrap()));
    assert_eq!(load64::<13, _>(&bytes), u64::from_le_bytes(bytes[13..21].try_into().unwrap()));
    assert_eq!(load64::<16, _>(&bytes), u64::from_le_bytes(bytes[16..].try_into().unwrap()));
    assert_eq!(load32::<20, _>(&bytes), u32::from_le_bytes(bytes[20..].try_into().unwrap()));
    // What was stored just before is seen.
    let words = [AtomicU16::new(1), AtomicU16::new(2)];
    words[1].store(0x1234, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(load32::<0, _>(&words), 0x1234_0001);
}

#[test]
fn bits_outside_the_mask_do_not_differ() {
    let others: [u8; 32] = std::array::from_fn(|i| i as u8 * 7);
    for bit in 0..256 {
        let mut bytes = others;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut mask = [0; 32];
        mask[bit / 8] = 1 << (bit % 8);
        assert!(differ(&bytes, &others, &mask) && !differ(&others, &others, &mask));
        let inverse = mask.map(|byte| !byte);
        assert!(!differ(&bytes, &others, &inverse) && !differ(&bytes, &others, &[0; 32]));
    }
}

#[test]
fn opaque_values_are_the_same() {
    assert_eq!([0, 1, u64::MAX, 1 << 63].map(opaque), [0, 1, u64::MAX, 1 << 63]);
}

//! Against plain loops; spread and avalanche of the hash.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "tests cut random words, and may panic")]

use std::hash::Hasher;
use std::sync::atomic::AtomicU16;

use arch::{
    Bytes16, HashKey, Order, TAGS, differ, keyed_hash, keyed_hash16, load32, load64, match_tags, match_tags_shared,
    opaque, prefetch_at, prefetch_read, prefetch_write, siphash13,
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
        }
    }
}

#[test]
fn sixteen_bytes_as_in_plain_loops() {
    /// A line whose 12th byte is where a row's second tuple begins.
    #[repr(C, align(64))]
    struct Line([u8; 64]);
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

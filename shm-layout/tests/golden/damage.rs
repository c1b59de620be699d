//! No damaged header and no damaged published byte is believed.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use shm_layout::choice::Choices;
use shm_layout::neighbours::Neighbours;
use shm_layout::persistence::Persistence;
use shm_layout::published::{Published, load_name};
use shm_layout::secrets;
use shm_layout::slot::Slot;

use super::*;

fn opens(tables: &Path, name: &str) -> Result<(), shm_layout::SegmentError> {
    match name {
        "published" => Published::open(tables, true).map(drop),
        "neighbours" => Neighbours::open(tables, true).map(drop),
        "slot-1" => Slot::open(tables, 1, true).map(drop),
        "choices" => Choices::open(tables, true).map(drop),
        "persistence" => Persistence::open(tables, true).map(drop),
        _ => secrets::open(tables).map(drop),
    }
}

#[test]
fn every_flipped_bit_of_a_header_is_refused() {
    let version = layout_text(LAYOUT_VERSION);
    for name in ["published", "neighbours", "slot-1", "secrets", "choices", "persistence"] {
        let folder = Tables::new();
        let bytes = of_this_boot(golden(&version, name));
        let file = std::fs::OpenOptions::new().write(true).open(folder.put(name, &bytes)).unwrap();
        opens(folder.path(), name).unwrap();
        // All of the page for one kind; the words in use for the others.
        let end = if name == "neighbours" { 4096 } else { 192 };
        for bit in 0..end * 8 {
            let (at, mask) = (bit / 8, 1 << (bit % 8));
            file.write_all_at(&[bytes[at] ^ mask], at as u64).unwrap();
            assert!(opens(folder.path(), name).is_err(), "{name}: bit {} of byte {at} flipped", bit % 8);
            file.write_all_at(&[bytes[at]], at as u64).unwrap();
        }
        opens(folder.path(), name).unwrap();
    }
}

#[test]
fn every_other_length_is_refused() {
    let version = layout_text(LAYOUT_VERSION);
    for name in ["published", "neighbours", "slot-1", "secrets", "choices", "persistence"] {
        let folder = Tables::new();
        let bytes = of_this_boot(golden(&version, name));
        let whole = bytes.len() as u64;
        let file = std::fs::OpenOptions::new().write(true).open(folder.put(name, &bytes)).unwrap();
        let lengths = [0, 1, 7, 64, 176, 191, 192, 4095, 4096, 4097, whole / 2, whole - 4096, whole - 1];
        for length in lengths.into_iter().chain([whole + 1, whole + 4096, whole + (2 << 20)]) {
            file.set_len(length).unwrap();
            let error = opens(folder.path(), name).expect_err("another length").to_string();
            assert!(error.contains(folder.path().to_str().unwrap()), "names the file: {error}");
            file.set_len(whole).unwrap();
            file.write_all_at(&bytes, 0).unwrap(); // What was cut off is there again.
        }
        opens(folder.path(), name).unwrap();
    }
}

#[test]
fn a_header_of_another_kind_or_of_noise_is_refused() {
    let version = layout_text(LAYOUT_VERSION);
    let folder = Tables::new();
    folder.put("secrets", &of_this_boot(golden(&version, "neighbours")));
    let error = opens(folder.path(), "secrets").unwrap_err().to_string();
    assert!(error.contains("kind"), "{error}");
    let mut state = 7_u64;
    for round in 0..200 {
        let noise: Vec<u8> = (0..8192)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        folder.put("published", &noise);
        assert!(opens(folder.path(), "published").is_err(), "round {round}");
    }
}

/// The words of a mapping that the generation in force names: their flips must be noticed.
#[test]
fn every_flipped_bit_of_published_data_is_refused() {
    let version = layout_text(LAYOUT_VERSION);
    let folder = Tables::new();
    folder.put("published", &of_this_boot(golden(&version, "published")));
    let tables = Published::open(folder.path(), true).unwrap();
    let generation = tables.current().unwrap();
    let directory = tables.directory(generation);
    let map = tables.root.mapping();
    let base = map.rows::<AtomicU64>(0, 1).unwrap().as_ptr() as usize;
    let mut tried = 0;
    let mut flip_all = |what: &str, start: usize, bytes: usize| {
        for word in map.rows::<AtomicU64>((start - base) as u64, bytes as u64 / 8).unwrap().iter() {
            let before = word.load(Relaxed);
            for bit in 0..64 {
                word.store(before ^ 1 << bit, Relaxed);
                assert!(tables.verify(generation).is_err(), "{what}: bit {bit} of {before:#x} flipped");
                tried += 1;
            }
            word.store(before, Relaxed);
        }
    };
    fn span<T>(rows: &[T]) -> (usize, usize) {
        (rows.as_ptr() as usize, size_of_val(rows))
    }
    let (start, bytes) = span(std::slice::from_ref(&*directory.head));
    flip_all("directory head", start, bytes);
    for (what, rows) in [
        ("services", &directory.services),
        ("vips", &directory.vips),
        ("vip addresses", &directory.vip_addresses),
        ("servers", &directory.servers),
    ] {
        let (start, bytes) = span(rows);
        flip_all(what, start, bytes);
    }
    // Of the large arrays the places in use; an empty place that gets a number is damage like any other.
    let used: Vec<usize> =
        (0..directory.local_addresses.len()).filter(|i| directory.local_addresses[*i].load(Relaxed) != 0).collect();
    for place in used.into_iter().chain([0, directory.local_addresses.len() - 2]) {
        let (start, bytes) = span(&directory.local_addresses[place & !1..][..2]);
        flip_all("local address places", start, bytes);
    }
    let (start, bytes) = span(&directory.locals[..directory.head.locals.load(Relaxed) as usize]);
    flip_all("local addresses", start, bytes);
    for index in 0..3 {
        let service = tables.service(generation, index).unwrap();
        assert!(load_name(&service.name).starts_with("service-"));
        let (start, bytes) = span(std::slice::from_ref(service));
        flip_all("service", start, bytes);
        let (start, bytes) = span(tables.members(service));
        flip_all("members", start, bytes);
    }
    // The generation's own number and place.
    let root = tables.root.current.load(Relaxed);
    for bit in 0..64 {
        tables.root.current.store(root ^ 1 << bit, Relaxed);
        let believed = tables.current().is_some_and(|generation| tables.verify(generation).is_ok());
        assert!(!believed, "bit {bit} of the root flipped");
    }
    tables.root.current.store(root, Relaxed);
    tables.verify(generation).unwrap();
    println!("{tried} bits flipped");
    assert!(tried > 8_000);
}

/// Arenas are named by services alone: rows beyond any, sequences longer than the arena.
#[test]
fn ranges_that_leave_the_tables_are_empty() {
    let version = layout_text(LAYOUT_VERSION);
    let folder = Tables::new();
    folder.put("published", &of_this_boot(golden(&version, "published")));
    let tables = Published::open(folder.path(), true).unwrap();
    let generation = tables.current().unwrap();
    let service = tables.service(generation, 1).unwrap();
    for wild in [u32::MAX, u32::MAX - 1, 1 << 31, 70_000] {
        service.first_member.store(wild, Relaxed);
        service.first_step.store(wild << 2 | wild, Relaxed);
        assert!(tables.members(service).is_empty() && tables.verify(generation).is_err());
        let _ = tables.steps(service);
        tables.directory(generation).services[2].store(wild - 1, Relaxed);
        assert!(tables.service(generation, 2).is_none() && tables.verify(generation).is_err());
    }
}

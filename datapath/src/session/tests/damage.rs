//! Damaged words: quarantined, counted, never a panic, and the rest goes on.

use std::sync::atomic::{AtomicU64, Ordering};

use shm_layout::session::SessionRow;
use shm_layout::slot::Slot;

use super::super::{Key, SessionReader, SessionTable};
use super::{Random, new, secrets, table};

#[test]
fn a_record_number_outside_the_table_is_taken_out() {
    let mut table = table(100);
    let record = table.create(&new(1, 0)).unwrap();
    let key = new(1, 0).client_key();
    for bucket in table.slot().buckets.iter() {
        for (tag, to) in bucket.tags.iter().zip(&bucket.records) {
            if tag.load(Ordering::Relaxed) != 0 {
                to.store(4_000_000_000, Ordering::Relaxed);
            }
        }
    }
    let hash = table.hash(key);
    assert_eq!(table.candidate(hash).map(|r| table.resolve(r, key, hash)), Some(None));
    assert_eq!(table.slot().pulse.quarantined.load(Ordering::Relaxed), 1);
    assert_eq!(table.find(key), None);
    table.prefetch_session(4_000_000_000);
    assert_eq!(table.verify(4_000_000_000, key), None);
    // The record itself still ends, its counters too.
    assert!(table.close(record));
    assert_eq!(table.active(), 0);
}

#[test]
fn any_words_at_all_do_no_worse_than_lose_sessions() {
    let mut random = Random(7);
    for round in 0..300 {
        let mut table = table(60);
        for i in 0..50 {
            table.create(&new(i, 1_000)).unwrap();
        }
        let wild = |random: &mut Random| match random.below(3) {
            0 => random.below(70),
            1 => u32::MAX,
            _ => random.next() as u32,
        };
        for _ in 0..40 {
            let slot = table.slot();
            let row: &SessionRow = &slot.sessions[random.below(60) as usize];
            let bucket = &slot.buckets[random.below(u32::try_from(slot.buckets.len()).unwrap()) as usize];
            let value = wild(&mut random);
            match random.below(9) {
                0 => row.link.store(value, Ordering::Relaxed),
                1 => row.state.store(value as u8, Ordering::Relaxed),
                2 => row.flags.store(value as u8, Ordering::Relaxed),
                3 => row.server_id.store(value, Ordering::Relaxed),
                4 => bucket.records[random.below(10) as usize].store(value, Ordering::Relaxed),
                5 => bucket.tags[random.below(10) as usize].store(value as u16, Ordering::Relaxed),
                6 => bucket.overflow.store(value, Ordering::Relaxed),
                7 => slot.wheel[random.below(128) as usize].store(value, Ordering::Relaxed),
                _ => slot.table.free.store(value, Ordering::Relaxed),
            }
        }
        let mut now = 2_000;
        for step in 0..400 {
            let id = random.below(100);
            let _ = table.create(&new(id, now));
            if let Some((record, _)) = table.find(new(random.below(100), 0).server_key()) {
                table.close(record);
            }
            now += u64::from(random.below(600));
            table.expire(now, 64, |_| 5_000, |_, _| ());
            if step == 200 {
                table.sweep_start();
            }
            table.sweep(3, |_, _| true, |_, _| ());
        }
        let reader = SessionReader::new(table.slot().clone(), *table.hash_key());
        assert!(reader.iter().count() <= 60);
        let _ = (table.check(), reader.find(Key::new(1, 2, 3, 4, 6)), round);
    }
}

/// The words of a slot's live session tables: records, index, wheel, table head, counts, intent line.
fn live_words(slot: &Slot) -> Vec<&AtomicU64> {
    fn words<'a, T>(all: &'a [AtomicU64], rows: &[T]) -> &'a [AtomicU64] {
        let first = (rows.as_ptr() as usize - all.as_ptr() as usize) / 8;
        &all[first..first + size_of_val(rows) / 8]
    }
    let map = slot.sessions.mapping();
    // The mapping lives as long as the slot: a view of all of it may be leaked into the test.
    let all: &'static [AtomicU64] = Box::leak(Box::new(map.rows::<AtomicU64>(0, map.bytes() / 8).unwrap()));
    let parts = [
        words(all, &slot.sessions),
        words(all, &slot.lines),
        words(all, &slot.wide),
        words(all, &slot.buckets),
        words(all, &slot.wheel),
        words(all, &slot.servers),
        words(all, &slot.services),
        words(all, std::slice::from_ref(&*slot.table)),
        words(all, std::slice::from_ref(&*slot.intent)),
    ];
    parts.into_iter().flatten().collect()
}

/// 100,000 bits flipped in all, under way and at take-overs: work goes on, and what is made anew obeys every law.
#[test]
fn flipped_bits_end_in_quarantine_and_a_rebuild_heals() {
    const SEED: u64 = 20_261_125;
    const SESSIONS: u64 = 400;
    let mut random = Random(SEED);
    let (mut flips, mut kept, mut quarantined) = (0, 0, 0);
    for round in 0..200 {
        let mut table = super::wide::table_of(SESSIONS, SESSIONS / 4);
        for i in 0..300 {
            table.create(&new(i, 1_000)).unwrap();
            let made = super::wide::new_wide(i, 1_000, &table);
            let _ = table.create(&made);
        }
        let slot = table.slot().clone();
        let words = live_words(&slot);
        let mut now = 2_000;
        for _ in 0..10 {
            for _ in 0..50 {
                let word = words[random.below(u32::try_from(words.len()).unwrap()) as usize];
                word.store(word.load(Ordering::Relaxed) ^ 1 << random.below(64), Ordering::Relaxed);
                flips += 1;
            }
            for _ in 0..60 {
                let _ = table.create(&new(random.below(600), now));
                let key = new(random.below(600), 0).client_key();
                let hash = table.hash(key);
                if let Some((record, direction)) = table.candidate(hash).and_then(|r| table.resolve(r, key, hash)) {
                    assert!((record as usize) < slot.sessions.len(), "seed {SEED}, round {round}");
                    assert_eq!(table.verify(record, key), Some(direction));
                    table.touch(record, now);
                    if random.below(3) == 0 && !table.end_damaged(record) {
                        table.close(record);
                    }
                }
                now += u64::from(random.below(400));
                table.expire(now, 64, |_| 5_000, |_, _| ());
                table.sweep(8, |_, _| true, |_, _| ());
            }
            if random.below(4) == 0 {
                table.sweep_start();
            }
            let reader = SessionReader::new(slot.clone(), *table.hash_key());
            assert!(reader.iter().count() <= slot.sessions.len());
            // Its owner dies here: the successor finds whatever the intent line says by now.
            table = SessionTable::attach(slot.clone(), &secrets());
        }
        quarantined += slot.pulse.quarantined.load(Ordering::Relaxed);
        kept += table.rebuild();
        let count = table.check().unwrap_or_else(|law| panic!("seed {SEED}, round {round}: {law}"));
        // And it serves again.
        let more = (1000..1100).filter(|i| table.create(&new(*i, now)).is_ok()).count();
        assert!(more > 0 || count.active + count.waiting > 300, "seed {SEED}, round {round}: no room");
        table.check().unwrap_or_else(|law| panic!("seed {SEED}, round {round}, after new sessions: {law}"));
    }
    println!("{flips} bits flipped, {quarantined} things quarantined, {kept} sessions kept by 200 rebuilds");
    assert_eq!(flips, 100_000);
    assert!(quarantined > 1_000 && kept > 1_000);
}

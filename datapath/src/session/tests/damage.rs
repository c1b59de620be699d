//! Damaged words: quarantined, counted, never a panic, and the rest goes on.

use std::sync::atomic::Ordering;

use shm_layout::session::SessionRow;

use super::super::{Key, SessionReader};
use super::{Random, new, table};

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
            table.sweep(3, |_| true, |_, _| ());
        }
        let reader = SessionReader::new(table.slot().clone(), *table.hash_key());
        assert!(reader.iter().count() <= 60);
        let _ = (table.check(), reader.find(Key::new(1, 2, 3, 4, 6)), round);
    }
}

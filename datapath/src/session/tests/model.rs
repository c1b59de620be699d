//! Random operations against a plain map.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::{CreateError, Direction, SessionTable};
use super::{new, table};

#[derive(Clone, Copy, Debug)]
enum Step {
    Create(u32),
    Close(u32),
    Touch(u32),
    Pass(u32, usize),
    Sweep(u32, usize),
}

const SESSIONS: u32 = 48;
const IDS: u32 = 96;
const TIMEOUT: u32 = 5_000;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..IDS).prop_map(Step::Create),
        3 => (0..IDS).prop_map(Step::Close),
        3 => (0..IDS).prop_map(Step::Touch),
        4 => (0_u32..4_000, 0_usize..40).prop_map(|(ms, budget)| Step::Pass(ms, budget)),
        1 => (0..IDS, 1_usize..20).prop_map(|(id, budget)| Step::Sweep(id, budget)),
    ]
}

/// A session as the model keeps it.
struct Kept {
    record: u32,
    last_seen: u64,
}

fn agree(table: &SessionTable, model: &HashMap<u32, Kept>) {
    for id in 0..IDS {
        let made = new(id, 0);
        let record = model.get(&id).map(|kept| kept.record);
        assert_eq!(table.find(made.client_key()), record.map(|r| (r, Direction::Client)), "client of {id}");
        assert_eq!(table.find(made.server_key()), record.map(|r| (r, Direction::Server)), "server of {id}");
    }
    assert_eq!(table.active() as usize, model.len());
    table.check().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn table_does_what_a_map_does(
        start in prop_oneof![Just(0_u64), Just(u64::from(u32::MAX) - 10_000), 0_u64..1 << 40],
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut table = table(u64::from(SESSIONS));
        let mut model: HashMap<u32, Kept> = HashMap::new();
        let mut now = start;
        for step in steps {
            match step {
                Step::Create(id) => match table.create(&new(id, now)) {
                    Ok(record) => {
                        let kept = Kept { record, last_seen: now };
                        prop_assert!(model.insert(id, kept).is_none(), "made twice");
                    }
                    Err(CreateError::Exists) => prop_assert!(model.contains_key(&id)),
                    Err(CreateError::TableFull(all)) => {
                        prop_assert_eq!(all, SESSIONS);
                        prop_assert_eq!(table.check().unwrap().waiting as usize + model.len(), SESSIONS as usize);
                    }
                    Err(CreateError::IndexFull) => prop_assert!(false, "a tenth of the index is free"),
                },
                Step::Close(id) => {
                    let found = table.find(new(id, 0).client_key());
                    prop_assert_eq!(found.is_some_and(|(record, _)| table.close(record)), model.remove(&id).is_some());
                }
                Step::Touch(id) => {
                    if let Some(kept) = model.get_mut(&id) {
                        table.touch(kept.record, now);
                        kept.last_seen = now;
                    }
                }
                Step::Pass(ms, budget) => {
                    now += u64::from(ms);
                    let mut gone = Vec::new();
                    let ended = table.expire(now, budget, |_| TIMEOUT, |record, _| gone.push(record));
                    prop_assert_eq!(ended, gone.len());
                    prop_assert!(ended <= budget);
                    let before = model.len();
                    model.retain(|_, kept| {
                        let gone = gone.contains(&kept.record);
                        assert!(!gone || now - kept.last_seen >= u64::from(TIMEOUT), "expired early");
                        !gone
                    });
                    prop_assert_eq!(before - model.len(), ended);
                }
                Step::Sweep(id, budget) => {
                    let server = new(id, 0).server_id;
                    if !table.sweeping() {
                        table.sweep_start();
                    }
                    let of = |_: u32, row: &shm_layout::session::SessionRow| row.server_id.load(std::sync::atomic::Ordering::Relaxed) == server;
                    let mut gone = Vec::new();
                    let swept = table.sweep(budget, of, |record, _| gone.push(record));
                    prop_assert!(swept.visited <= budget);
                    prop_assert_eq!(swept.closed, gone.len());
                    model.retain(|_, kept| !gone.contains(&kept.record));
                }
            }
            agree(&table, &model);
        }
        // All of it comes to an end.
        now += u64::from(TIMEOUT) + 1_000;
        for _ in 0..200 {
            table.expire(now, 8, |_| TIMEOUT, |_, _| ());
            now += 125;
        }
        let count = table.check().unwrap();
        prop_assert_eq!((count.active, count.waiting, count.free), (0, 0, count.used));
    }
}

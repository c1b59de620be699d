//! A kill after every single store of every operation, and again after every store of the recovery.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::super::{SessionTable, failpoint};
use super::wide::new_wide;
use super::{new, secrets, slot, table};

/// Runs `operation` on fresh tables made by `prepare`, killed after its n-th store for every n, then recovered by a new
/// owner; that recovery killed after its m-th store for every m too, and done again. `state` says what the tables hold:
/// it must be that of before or that of after. Returns stores of the operation and kills tried.
fn kill_everywhere(
    prepare: impl Fn() -> SessionTable,
    operation: impl Fn(&mut SessionTable),
    state: impl Fn(&SessionTable) -> Vec<u64>,
) -> (u64, u64) {
    let mut table = prepare();
    let before = state(&table);
    operation(&mut table);
    let after = state(&table);
    table.check().unwrap();
    let secrets = secrets();
    let mut kills = 0;
    for stores in 1.. {
        let mut again = 0;
        loop {
            let mut table = prepare();
            failpoint::arm(stores);
            let killed = catch_unwind(AssertUnwindSafe(|| operation(&mut table))).is_err();
            if failpoint::disarm() || !killed {
                assert_eq!(state(&table), after);
                return (stores - 1, kills);
            }
            kills += 1;
            if again > 0 {
                failpoint::arm(again);
                let recovery = catch_unwind(AssertUnwindSafe(|| table.recover()));
                failpoint::disarm();
                if recovery.is_ok() {
                    break; // Recovery has fewer stores than this: all of them were tried.
                }
            }
            // The successor maps the same tables; nothing of the dead owner's own memory is left.
            let table = SessionTable::attach(table.slot().clone(), &secrets);
            table.check().unwrap_or_else(|error| panic!("killed after store {stores}, then {again}: {error}"));
            let now = state(&table);
            assert!(now == before || now == after, "killed after store {stores}, then {again}: {now:?}");
            assert_eq!(table.slot().pulse.quarantined.load(Ordering::Relaxed), 0);
            again += 1;
        }
    }
    unreachable!("an operation has finitely many stores")
}

/// Counts and the set of sessions, by their ISN shift.
fn state(table: &SessionTable) -> Vec<u64> {
    let count = table.check().unwrap();
    let slot = table.slot();
    let low = |word: &AtomicU32| u64::from(word.load(Ordering::Relaxed));
    let wide = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let mut state = vec![u64::from(count.active), u64::from(count.waiting), count.keys];
    state.extend([wide(&slot.table.created), wide(&slot.table.ended)]);
    state.extend(slot.servers.iter().flat_map(|row| [low(&row.active), wide(&row.total), low(&row.tag)]));
    state.extend(slot.services.iter().flat_map(|row| [low(&row.active), wide(&row.total), low(&row.id)]));
    let mut sessions: Vec<u64> = (0..u32::try_from(slot.sessions.len()).unwrap())
        .filter_map(|record| table.row(record))
        .filter(|row| row.state.load(Ordering::Relaxed) != 0)
        .map(|row| u64::from(row.flags.load(Ordering::Relaxed)) << 32 | low(&row.isn_shift))
        .collect();
    sessions.sort_unstable();
    state.extend(sessions);
    state
}

/// Sessions without their order in lists: a record may have moved on before the kill.
fn without_waiting(table: &SessionTable) -> Vec<u64> {
    let mut state = state(table);
    state.truncate(3);
    state
}

fn some_sessions(count: u32) -> SessionTable {
    let mut table = table(64);
    for i in 0..count {
        table.create(&new(i, 1_000)).unwrap();
    }
    table
}

/// As many of both kinds.
fn some_of_both(count: u32) -> SessionTable {
    let mut table = super::wide::table_of(64, 64);
    for i in 0..count {
        table.create(&new(i, 1_000)).unwrap();
        let made = new_wide(i, 1_000, &table);
        table.create(&made).unwrap();
    }
    table
}

#[test]
fn wide_records() {
    let create = |t: &mut SessionTable| {
        let made = new_wide(40, 11_000, t);
        _ = t.create(&made);
    };
    let (stores, kills) = kill_everywhere(|| some_of_both(20), create, state);
    println!("create: {stores} stores, {kills} kills");
    let used = || {
        let mut table = some_of_both(20);
        [3, 64, 67, 70].iter().for_each(|record| assert!(table.close(*record)));
        table.expire(10_000, 200, |_| 60_000, |_, _| ());
        assert_eq!(table.check().unwrap().free, 4);
        table
    };
    kill_everywhere(used, create, state);
    kill_everywhere(|| some_of_both(10), |t| assert!(t.close(70)), state);
    let freed = |t: &mut SessionTable| {
        t.expire(100_000, 100, |_| 60_000, |_, _| ());
    };
    let laws = |t: &SessionTable| {
        t.check().unwrap();
        vec![]
    };
    kill_everywhere(|| some_of_both(2), freed, laws);
}

#[test]
fn create() {
    let (stores, kills) = kill_everywhere(|| some_sessions(20), |t| _ = t.create(&new(40, 2_000)), state);
    println!("create: {stores} stores, {kills} kills");
    assert!(stores > 40);
}

#[test]
fn create_in_a_used_record() {
    let prepare = || {
        let mut table = some_sessions(20);
        for record in [3, 7, 11] {
            assert!(table.close(record));
        }
        table.expire(10_000, 100, |_| 60_000, |_, _| ());
        assert_eq!(table.check().unwrap().free, 3);
        table
    };
    kill_everywhere(prepare, |t| _ = t.create(&new(40, 11_000)), state);
}

#[test]
fn first_create_of_all_claims_the_count_rows() {
    // The rows' tags are set before the change itself: compare what does not depend on them.
    kill_everywhere(|| table(64), |t| _ = t.create(&new(40, 2_000)), without_waiting);
}

#[test]
fn close() {
    let (stores, kills) = kill_everywhere(|| some_sessions(20), |t| assert!(t.close(5)), state);
    println!("close: {stores} stores, {kills} kills");
}

#[test]
fn relink() {
    let (stores, kills) = kill_everywhere(
        || some_sessions(20),
        |t| {
            t.expire(4_000, 100, |_| 60_000, |_, _| ());
        },
        state,
    );
    println!("20 × relink: {stores} stores, {kills} kills");
    assert!(stores > 20 * 17);
}

#[test]
fn expire_and_free() {
    // Kills between two sessions leave one gone and one there: the laws must hold, the set may be any in between.
    let laws = |t: &SessionTable| {
        let count = t.check().unwrap();
        assert_eq!(u64::from(count.active) * 2, count.keys);
        vec![]
    };
    let (stores, kills) = kill_everywhere(
        || some_sessions(3),
        |t| {
            t.expire(100_000, 100, |_| 60_000, |_, _| ());
        },
        laws,
    );
    println!("3 × expire: {stores} stores, {kills} kills");
}

#[test]
fn free_of_closed() {
    let prepare = || {
        let mut table = some_sessions(3);
        assert!(table.close(0) && table.close(1) && table.close(2));
        table
    };
    let laws = |t: &SessionTable| vec![u64::from(t.check().unwrap().active)];
    let operation = |t: &mut SessionTable| {
        t.expire(5_000, 100, |_| 60_000, |_, _| ());
    };
    kill_everywhere(prepare, operation, laws);
}

/// An index so full that the next session makes a key move; `deep`: one that had to make room for another first.
/// Returns a maker of it and the number of the session.
fn crowded(deep: bool) -> (impl Fn() -> SessionTable, u32) {
    let fill = |until: u32| {
        let mut table = table(1_200);
        table.index.count = 200;
        for i in 0..until {
            let _ = table.create(&new(i, 1_000));
        }
        table
    };
    let mut table = fill(0);
    let mut before = layout(&table);
    for i in 0..1_200 {
        let made = table.create(&new(i, 1_000)).is_ok();
        let after = layout(&table);
        // A place whose key went elsewhere; deep: it is another old key that has it now.
        let moved = |(old, new): (&u64, &u64)| *old != 0 && old != new && (!deep || before.contains(new));
        if made && before.iter().zip(&after).any(moved) {
            return (move || fill(i), i);
        }
        before = after;
    }
    unreachable!("2,000 places fill up")
}

/// What lies at every place of the index.
fn layout(table: &SessionTable) -> Vec<u64> {
    let r = Ordering::Relaxed;
    let places = table.slot().buckets.iter().flat_map(|bucket| {
        let entry = |i: usize| match bucket.tags[i].load(r) {
            0 => 0,
            tag => u64::from(tag) << 32 | u64::from(bucket.records[i].load(r)),
        };
        (0..10).map(entry)
    });
    places.collect()
}

/// Killed between moves the session is not made, but keys may have moved: compared are sessions and counts. (No fresh
/// [`SessionTable::attach`]: it would use all buckets of the tables.)
#[test]
fn displacement() {
    for (deep, moves) in [(false, 1), (true, 2)] {
        let (prepare, next) = crowded(deep);
        let count = prepare().index.count;
        let mut stores_of = 0;
        for stores in 1.. {
            let mut table = prepare();
            let before = state(&table);
            failpoint::arm(stores);
            let killed = catch_unwind(AssertUnwindSafe(|| table.create(&new(next, 1_000)).is_ok())).is_err();
            if failpoint::disarm() || !killed {
                stores_of = stores - 1;
                break;
            }
            for again in 1..60 {
                failpoint::arm(again);
                let _ = catch_unwind(AssertUnwindSafe(|| table.recover()));
                failpoint::disarm();
            }
            table.recover();
            assert_eq!(table.index.count, count);
            table.check().unwrap_or_else(|error| panic!("deep {deep}, killed after store {stores}: {error}"));
            let now = state(&table);
            assert!(now == before || now[0] == before[0] + 1, "deep {deep}, killed after store {stores}");
        }
        println!("create with displacement (deep {deep}): {stores_of} stores");
        assert!(stores_of >= 50 + moves * 20);
    }
}

#[test]
fn a_damaged_intent_is_dropped_and_counted() {
    for op in [1, 2, 3, 4, 5, 99] {
        let table = some_sessions(5);
        let intent = &table.slot().intent;
        intent.record.store(1_000_000, Ordering::Relaxed);
        intent.op.store(op, Ordering::Relaxed);
        let table = SessionTable::attach(table.slot().clone(), &secrets());
        assert_eq!(table.slot().pulse.quarantined.load(Ordering::Relaxed), 1, "op {op}");
        assert_eq!(table.check().unwrap().active, 5);
    }
}

#[test]
fn a_random_life_with_kills_all_along() {
    let mut random = super::Random(42);
    let mut table = SessionTable::attach(slot(64), &secrets());
    let (mut now, mut kills) = (1_000_u64, 0);
    for _ in 0..4_000 {
        failpoint::arm(1 + u64::from(random.below(120)));
        let id = random.below(100);
        let what = random.below(4);
        now += u64::from(random.below(700));
        let killed = catch_unwind(AssertUnwindSafe(|| match what {
            0 | 1 => _ = table.create(&new(id, now)),
            2 => _ = table.find(new(id, 0).server_key()).map(|(record, _)| table.close(record)),
            _ => _ = table.expire(now, 16, |_| 9_000, |_, _| ()),
        }));
        failpoint::disarm();
        if killed.is_err() {
            kills += 1;
            table = SessionTable::attach(table.slot().clone(), &secrets());
        }
        table.check().unwrap();
    }
    println!("{kills} kills, {} sessions at the end", table.active());
    assert!(kills > 500);
}

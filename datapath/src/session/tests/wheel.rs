//! Time: expiry within a tick, pauses, wrap-around, budgets.

use std::sync::atomic::Ordering;

use super::{Random, new, table};

const TICK: u64 = 125;

/// Runs the wheel every `step` ms until `until`; returns when each record's session expired.
fn run(table: &mut super::super::SessionTable, now: &mut u64, until: u64, step: u64, timeout: u32) -> Vec<(u32, u64)> {
    let mut gone = Vec::new();
    while *now < until {
        *now += step;
        table.expire(*now, usize::MAX, |_| timeout, |record, _| gone.push((record, *now)));
    }
    gone
}

#[test]
fn expires_within_a_tick_of_its_time() {
    for (start, timeout) in [(0, 90_000_u32), (4_294_900_000, 90_000), (1 << 35, 30), (77_777, 1_500), (5, 15_900)] {
        let mut table = table(1_000);
        let (mut now, mut random) = (start, Random(9));
        run(&mut table, &mut now, start + 2_000, 10, timeout); // A wheel that has never turned catches up first.
        let mut due = std::collections::HashMap::new();
        for i in 0..500 {
            let record = table.create(&super::super::New { timeout_ms: timeout, ..new(i, now) }).unwrap();
            due.insert(record, now + u64::from(timeout));
        }
        // Packets for a while, on some of them.
        for _ in 0..(timeout / 20) {
            now += 10;
            let gone = run(&mut table, &mut now.clone(), now, 1, timeout);
            assert!(gone.is_empty());
            let record = random.below(500);
            table.touch(record, now);
            due.insert(record, now + u64::from(timeout));
        }
        let gone = run(&mut table, &mut now, start + 2_500 + 2 * u64::from(timeout), 1, timeout);
        assert_eq!(gone.len(), 500, "start {start}, timeout {timeout}");
        for (record, at) in gone {
            let due = due[&record];
            assert!(at >= due && at <= due + TICK, "start {start}: due {due}, expired {at}");
        }
        let count = table.check().unwrap();
        assert_eq!((count.active, count.waiting), (0, 0));
    }
}

#[test]
fn a_closed_sessions_record_is_free_within_two_seconds_when_new() {
    let mut table = table(100);
    let mut now = 1_000_000;
    table.expire(now, usize::MAX, |_| 1, |_, _| ());
    let record = table.create(&new(1, now)).unwrap();
    assert!(table.close(record) && !table.close(record));
    assert_eq!(table.find(new(1, 0).server_key()), None);
    assert_eq!(table.check().unwrap().waiting, 1);
    let gone = run(&mut table, &mut now, 1_000_000 + 2_000 + TICK, 5, 60_000);
    assert_eq!((gone.len(), table.check().unwrap().free), (0, 1));
}

#[test]
fn long_pauses_lose_nothing_and_are_caught_up_in_bounded_steps() {
    for pause in [1_000, 15_900, 16_100, 40_000, 600_000, u64::from(u32::MAX / 3)] {
        let mut table = table(3_000);
        let start = 10_000_000;
        table.expire(start, usize::MAX, |_| 1, |_, _| ());
        // Half of them time out during the pause, half are far from it; records stand all over the wheel.
        for i in 0..2_000 {
            let mut now = start + u64::from(i) * 8;
            table.create(&new(i, now)).unwrap();
            run(&mut table, &mut now, start + u64::from(i) * 8 + 8, 8, u32::MAX / 2);
        }
        let now = start + 16_000 + pause;
        let timeout = |row: &shm_layout::session::SessionRow| {
            if row.isn_shift.load(Ordering::Relaxed) & 2 == 0 { 1_000 } else { u32::MAX / 2 }
        };
        let (mut expired, mut calls) = (0, 0);
        loop {
            let mut seen = 0;
            let before = table.slot().table.tick.load(Ordering::Relaxed);
            expired += table.expire(now, 64, timeout, |_, _| seen += 1);
            assert!(seen <= 64);
            calls += 1;
            if before == table.slot().table.tick.load(Ordering::Relaxed) && seen == 0 && calls > 2_000 / 64 {
                break;
            }
            assert!(calls < 200, "caught up by now");
        }
        // All that was due at `now` is gone after a lap at most; the rest is there.
        let mut later = now;
        while later < now + 16_000 {
            later += TICK;
            expired += table.expire(later, 64, timeout, |_, _| ());
        }
        assert_eq!(expired, 1_000, "pause {pause}");
        assert_eq!(table.check().unwrap().active, 1_000);
    }
}

#[test]
fn a_due_session_is_gone_right_after_a_long_pause() {
    let mut table = table(3_000);
    let start = 10_000_000;
    table.expire(start, usize::MAX, |_| 1, |_, _| ());
    for i in 0..2_000 {
        table.create(&new(i, start + u64::from(i) * 8)).unwrap();
    }
    let now = start + 16_000 + 300_000;
    let expired: usize = (0..80).map(|_| table.expire(now, 64, |_| 60_000, |_, _| ())).sum();
    assert_eq!(expired, 2_000);
}

#[test]
fn a_starved_wheel_serves_all_buckets_in_turn() {
    let mut table = table(3_000);
    let mut now = 10_000_000;
    for i in 0..2_000 {
        table.create(&new(i, now)).unwrap();
    }
    // One record per second: far too few, yet each gets its turn.
    for _ in 0..2_000 + 200 {
        now += 1_000;
        table.expire(now, 1, |_| 10_000, |_, _| ());
    }
    assert_eq!(table.check().unwrap().active, 0);
}

#[test]
fn the_clock_may_stand_a_moment_back() {
    let mut table = table(10);
    table.expire(1_000_000, 10, |_| 1_000, |_, _| ());
    table.create(&new(1, 1_000_000)).unwrap();
    assert_eq!(table.expire(999_500, 10, |_| 1_000, |_, _| ()), 0);
    assert_eq!(table.expire(1_003_000, 10, |_| 1_000, |_, _| ()), 1);
}

#[test]
fn sweeps_go_on_where_they_stopped_also_after_a_kill() {
    let mut table = table(1_000);
    for i in 0..800 {
        table.create(&new(i, 1_000)).unwrap();
    }
    table.sweep_start();
    let third = |_: u32, row: &shm_layout::session::SessionRow| row.server_id.load(Ordering::Relaxed) == 3;
    let mut seen = 0;
    for call in 1.. {
        let swept = table.sweep(64, third, |_, _| seen += 1);
        assert!(swept.visited <= 64);
        if swept.done {
            assert_eq!(call, 800_usize.div_ceil(64));
            break;
        }
        table = super::super::SessionTable::attach(table.slot().clone(), &super::secrets());
        assert!(table.sweeping());
    }
    assert_eq!((seen, table.active()), (50, 750));
    assert!(!table.sweeping() && table.sweep(64, third, |_, _| ()).done);
    table.check().unwrap();
}

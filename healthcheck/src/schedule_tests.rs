use proptest::prelude::*;
use shm_layout::board::failure;

use super::*;
use crate::state::Limits;

const TIMEOUT: Verdict = Verdict::Bad(Reason { kind: failure::TIMEOUT, detail: 0 });

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn target(id: u32, tag: u32) -> Target {
    Target {
        id,
        tag,
        service: "web".into(),
        address: "127.0.0.1:80".parse().unwrap(),
        check: Check::Tcp,
        interval: ms(2000),
        fast: ms(2000),
        timeout: ms(1000),
        limits: Limits { rise: 2, fall: 3 },
    }
}

fn unknown(_: &Target) -> Probed {
    Probed::Unknown
}

/// Plays a server that answers within 5 ms until `death` and is silent from then on; the time it is found down.
fn time_of_down(target: Target, seed: u64, death: Duration) -> Duration {
    let zero = Instant::now();
    let timeout = target.timeout;
    let mut schedule = Schedule::new(seed);
    schedule.replace(vec![target], unknown, zero);
    let mut running: Vec<(Instant, Ticket, Verdict)> = Vec::new();
    loop {
        running.sort_by_key(|r| r.0);
        let due = schedule.next_due().unwrap();
        if running.first().is_some_and(|r| r.0 <= due) {
            let (now, ticket, verdict) = running.remove(0);
            let change = schedule.finish(ticket, verdict, now).and_then(|e| e.change);
            if change == Some(Probed::Down) {
                return now - zero;
            }
            assert!(now - zero < death + ms(10_000_000), "never found");
        } else if let Some(start) = schedule.start(due) {
            let (end, verdict) =
                if due - zero < death { (due + ms(5), Verdict::Good) } else { (due + timeout, TIMEOUT) };
            running.push((end, start.ticket, verdict));
        }
    }
}

proptest! {
    /// DESIGN §9: a dead server takes no new sessions after interval × fall + timeout.
    #[test]
    fn a_dead_server_is_found_in_the_promised_time(
        seed: u64, death in 5_000u64..60_000, interval in 50u64..5000, fast in 10u64..5000, timeout in 20u64..8000,
        fall in 1u16..6,
    ) {
        // More probes at a time than are allowed would take longer: configurations do not come near.
        prop_assume!(timeout < interval * 8 && timeout < fast.min(interval) * 8);
        let mut dying = target(1, 1);
        (dying.interval, dying.fast, dying.timeout) = (ms(interval), ms(fast.min(interval)), ms(timeout));
        dying.limits.fall = fall;
        let found = time_of_down(dying, seed, ms(death));
        prop_assert!(found <= ms(death + interval * u64::from(fall) + timeout), "found after {found:?}");
    }
}

#[test]
fn a_fast_interval_finds_it_faster() {
    let mut dying = target(1, 1);
    dying.fast = ms(100);
    dying.timeout = ms(50);
    for seed in 0..50 {
        assert!(time_of_down(dying.clone(), seed, ms(20_000)) <= ms(20_000 + 2000 + 2 * 100 + 50), "seed {seed}");
    }
}

#[test]
fn probes_keep_their_interval_with_a_little_jitter() {
    let zero = Instant::now();
    let mut schedule = Schedule::new(7);
    schedule.replace(vec![target(1, 1)], unknown, zero);
    let mut times = Vec::new();
    for _ in 0..1000 {
        let now = schedule.next_due().unwrap();
        let start = schedule.start(now).unwrap();
        schedule.finish(start.ticket, Verdict::Good, now + ms(1)).unwrap();
        times.push(now - zero);
    }
    assert_eq!(times[0], Duration::ZERO, "a single new server is probed at once");
    assert!(times[1] <= ms(2000));
    let gaps: Vec<_> = times[1..].windows(2).map(|t| t[1] - t[0]).collect();
    assert!(gaps.iter().all(|g| (ms(1800)..=ms(2000)).contains(g)));
    assert!(gaps.iter().any(|g| *g < ms(1850)) && gaps.iter().any(|g| *g > ms(1950)), "there is jitter");
}

#[test]
fn thousands_of_new_servers_are_spread_over_an_interval() {
    let zero = Instant::now();
    let mut schedule = Schedule::new(3);
    schedule.replace((0..10_000).map(|id| target(id, 1)).collect(), unknown, zero);
    let mut per_100_ms = [0_u32; 80];
    while let Some(due) = schedule.next_due().filter(|due| *due < zero + ms(8000)) {
        let start = schedule.start(due).unwrap();
        schedule.finish(start.ticket, Verdict::Good, due).unwrap();
        per_100_ms[usize::try_from((due - zero).as_millis() / 100).unwrap()] += 1;
    }
    assert!(per_100_ms[..20].iter().sum::<u32>() >= 10_000, "every one within its interval");
    // Fair share: 10,000 in 2 s at 95 % of the interval = 526 in 100 ms.
    assert!(per_100_ms[20..].iter().all(|n| (250..1100).contains(n)), "{per_100_ms:?}");
}

#[test]
fn after_standing_still_every_server_is_probed_once_and_spread_again() {
    let zero = Instant::now();
    let mut schedule = Schedule::new(3);
    schedule.replace((0..100).map(|id| target(id, 1)).collect(), unknown, zero);
    let late = zero + ms(60_000);
    let starts: Vec<_> = std::iter::from_fn(|| schedule.start(late)).collect();
    assert_eq!(starts.len(), 100);
    let next: Vec<_> = std::iter::from_fn(|| schedule.start(late + ms(1000))).collect();
    assert!((20..80).contains(&next.len()), "{} of 100 in the first half of the interval", next.len());
}

#[test]
fn a_late_result_for_a_replaced_server_is_nobodys() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1);
    schedule.replace(vec![target(5, 1)], unknown, now);
    let late = schedule.start(now).unwrap();
    schedule.replace(vec![target(5, 2)], unknown, now);
    let fresh = schedule.start(now).unwrap();
    assert!(schedule.finish(late.ticket, Verdict::Good, now).is_none());
    assert!(!schedule.current(&late.target) && schedule.current(&fresh.target));
    let effect = schedule.finish(fresh.ticket, Verdict::Good, now).unwrap();
    assert_eq!((effect.target.tag, effect.change), (2, Some(Probed::Up)));
    // The same when the server is gone and comes back as it was.
    let late = schedule.start(now + ms(2000)).unwrap();
    schedule.replace(vec![], unknown, now);
    assert!(schedule.finish(late.ticket, Verdict::Good, now).is_none());
    schedule.replace(vec![target(5, 2)], unknown, now);
    assert!(schedule.finish(late.ticket, Verdict::Good, now).is_none());
}

#[test]
fn equal_targets_go_on_and_changed_ones_begin_as_the_board_says() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1);
    let silent = |schedule: &mut Schedule, now| {
        let start = schedule.start(now).unwrap();
        schedule.finish(start.ticket, TIMEOUT, now).unwrap().change
    };
    schedule.replace(vec![target(1, 1)], |_| Probed::Up, now);
    assert_eq!(silent(&mut schedule, now), None);
    assert_eq!(silent(&mut schedule, now + ms(2000)), None);
    schedule.replace(vec![target(1, 1)], |_| panic!("not asked again"), now);
    assert_eq!(silent(&mut schedule, now + ms(4000)), Some(Probed::Down));
    // Another fall: the state stays, the count begins anew.
    let mut changed = target(1, 1);
    changed.limits.rise = 1;
    schedule.replace(vec![changed], |_| Probed::Down, now + ms(4000));
    assert_eq!(schedule.census(), Census { down: 1, ..Census::default() });
    let start = schedule.start(now + ms(4000)).unwrap();
    assert_eq!(schedule.finish(start.ticket, Verdict::Good, now).unwrap().change, Some(Probed::Up));
}

#[test]
fn an_older_probe_does_not_contradict_a_later_one() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1);
    let mut slow = target(1, 1);
    (slow.interval, slow.fast, slow.timeout, slow.limits.fall) = (ms(100), ms(100), ms(500), 1);
    schedule.replace(vec![slow], |_| Probed::Up, now);
    let first = schedule.start(now).unwrap();
    let second = schedule.start(now + ms(100)).unwrap();
    assert_eq!(schedule.finish(second.ticket, Verdict::Good, now + ms(101)).unwrap().change, None);
    assert!(schedule.finish(first.ticket, TIMEOUT, now + ms(500)).is_none(), "it lived after that");
}

#[test]
fn probes_of_one_server_do_not_pile_up() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1);
    let mut odd = target(1, 1);
    (odd.interval, odd.fast, odd.timeout) = (ms(0), ms(0), ms(60_000));
    schedule.replace(vec![odd], unknown, now);
    let starts = (0..10_000).filter(|i| schedule.start(now + ms(*i)).is_some()).count();
    assert_eq!(starts, usize::try_from(OVERLAP_MAX).unwrap());
    assert!(schedule.heap.len() < 100, "no leftovers either");
}

#[test]
fn our_own_faults_change_nothing() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1);
    schedule.replace(vec![target(1, 1)], |_| Probed::Up, now);
    for i in 0..20 {
        let start = schedule.start(now + ms(2000 * i)).unwrap();
        let reason = Reason { kind: failure::SOCKET, detail: 24 };
        let effect = schedule.finish(start.ticket, Verdict::Void(reason), now + ms(2000 * i)).unwrap();
        assert_eq!((effect.change, effect.failure), (None, Some(reason)));
    }
}

#[test]
fn unchecked_servers_are_not_probed() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1);
    let mut none = target(1, 1);
    none.check = Check::None;
    schedule.replace(vec![none], unknown, now);
    assert_eq!((schedule.next_due(), schedule.census()), (None, Census::default()));
}

//! The simulator: datapath and tables under a virtual clock, random faults from a seed, a model that predicts what it can.
//!
//! `LB_SIM_SEED=7` runs one life; `LB_SIM_SEEDS=1000` as many from `LB_SIM_FIRST` (1) on, however long it takes; else as
//! many as fit `LB_SIM_SECONDS` (45). `LB_SIM_EVENTS` (100,000) is the length of a life. A failure prints the command
//! that repeats it.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod control;
mod life;
mod model;
mod rest;
mod slots;
mod traffic;
#[path = "../world/mod.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use datapath::session::failpoint;
use life::{Life, Tally};
use shm_layout::failpoint::Bug;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// One life; what it did, or the law it broke.
fn live(seed: u64, events: u64) -> Result<Tally, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut life = Life::new(seed);
        life.run(events as u32).map(|()| life.tally())
    }));
    failpoint::disarm();
    outcome.unwrap_or_else(|panic| Err(format!("panic: {}", slots::text_of(&*panic))))
}

fn again(seed: u64, events: u64) -> String {
    format!(
        "LB_SIM_SEED={seed} LB_SIM_EVENTS={events} cargo test -p datapath --features failpoints --test sim -- seeds --nocapture"
    )
}

#[test]
fn seeds() {
    let events = number("LB_SIM_EVENTS").unwrap_or(100_000);
    let first = number("LB_SIM_SEED").or(number("LB_SIM_FIRST")).unwrap_or(1);
    let count = if number("LB_SIM_SEED").is_some() { Some(1) } else { number("LB_SIM_SEEDS") };
    let limit = Duration::from_secs(number("LB_SIM_SECONDS").unwrap_or(45));
    let (start, next) = (Instant::now(), AtomicU64::new(first));
    let lives = || {
        let mut done: Vec<Tally> = Vec::new();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if count.map_or_else(|| start.elapsed() > limit, |count| seed >= first + count) {
                return done;
            }
            match live(seed, events) {
                Ok(tally) => done.push(tally),
                Err(law) => panic!("seed {seed}: {law}\nrepeat: {}", again(seed, events)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(lives)).collect();
        all.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    report(&tallies, start.elapsed());
}

fn report(tallies: &[Tally], time: Duration) {
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let add = |of: fn(&Tally) -> &Vec<(&'static str, u64)>| {
        let mut all = std::collections::BTreeMap::<&str, u64>::new();
        for (name, n) in tallies.iter().flat_map(of) {
            *all.entry(name).or_default() += n;
        }
        all
    };
    println!(
        "{} seeds, {} events in {time:.1?}: {} flows, {} frames delivered, {} proven alive; {} deaths, {} more in recovery, \
         {} hand-overs; {} generations, {} waited",
        tallies.len(),
        sum(|t| t.events),
        sum(|t| t.opened),
        sum(|t| t.delivered),
        sum(|t| t.proven),
        sum(|t| t.deaths),
        sum(|t| t.again),
        sum(|t| t.handed_over),
        sum(|t| t.generations),
        sum(|t| t.held_generations),
    );
    println!("deaths by operation: {:?}", add(|t| &t.by_op));
    println!("drops: {:?}", add(|t| &t.drops));
}

/// Mistakes put in on purpose: each breaks a law within a few lives, or the simulator is blind.
#[test]
fn planted_bugs_are_caught() {
    for bug in Bug::ALL {
        failpoint::plant(Some(bug));
        let caught = (1..=LIVES).find_map(|seed| live(seed, EVENTS).err().map(|law| (seed, law)));
        failpoint::plant(None);
        let Some((seed, law)) = caught else { panic!("{bug:?} lived through {LIVES} seeds of {EVENTS} events") };
        let law: String = law.chars().take(160).collect();
        println!("{bug:?}: caught by seed {seed}: {law}");
    }
}

/// Lives a planted bug may see at most, and their length.
const LIVES: u64 = 30;
const EVENTS: u64 = 20_000;

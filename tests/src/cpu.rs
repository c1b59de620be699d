//! Who waited for a CPU: a worker that was runnable and not run is the machine's fault, one that
//! slept or ran and did not forward is its own (DESIGN §8: starved is not hung).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::clock::now_us;

/// Time between two samples.
const SAMPLE: Duration = Duration::from_millis(10);
/// Around a loss: long enough to fill the tap's queue of 1,000 packets at some thousands a second.
const BEFORE_US: u64 = 250_000;
/// Likewise, after it.
const AFTER_US: u64 = 50_000;
/// Share of that window which a starved thread spent waiting for a CPU, at least.
const SHARE: u64 = 3;

/// Time a process's threads ran and time they were runnable and did not, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sched {
    /// On a CPU.
    pub ran_us: u64,
    /// Waiting for one.
    pub waited_us: u64,
}

impl Sched {
    /// Of the main thread of a process (proc(5): `/proc/PID/schedstat`).
    #[must_use]
    pub fn of_main(pid: u32) -> Self {
        read(&format!("/proc/{pid}/schedstat"))
    }
}

fn read(path: &str) -> Sched {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut fields = text.split_ascii_whitespace().map_while(|f| f.parse::<u64>().ok());
    let (ran, waited) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
    Sched { ran_us: ran / 1000, waited_us: waited / 1000 }
}

/// Time in which somebody on this machine waited for a CPU, microseconds since its start
/// (`/proc/pressure/cpu`); 0 where the kernel keeps none.
#[must_use]
pub fn pressure_us() -> u64 {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = text.lines().find(|l| l.starts_with("some")).and_then(|l| l.rsplit_once("total="));
    some.and_then(|(_, total)| total.trim().parse().ok()).unwrap_or(0)
}

#[derive(Default)]
struct State {
    pids: Vec<u32>,
    /// By thread: the total seen last, and (when, how much more).
    threads: BTreeMap<String, (u64, Vec<(u64, u64)>)>,
}

/// Watches how long the threads of some processes wait for a CPU, until it is dropped.
#[derive(Clone, Default)]
pub struct Starvation(Arc<Mutex<State>>);

impl Starvation {
    /// Watches `pids`.
    #[must_use]
    pub fn watch(pids: Vec<u32>) -> Self {
        let watch = Self(Arc::new(Mutex::new(State { pids, ..State::default() })));
        let weak = Arc::downgrade(&watch.0);
        spawn(move || {
            while let Some(state) = weak.upgrade() {
                lock(&state).sample(now_us());
                drop(state);
                sleep(SAMPLE);
            }
        });
        watch
    }

    /// Watches one more process.
    pub fn add(&self, pid: u32) {
        lock(&self.0).pids.push(pid);
    }

    /// Longest time that one of the threads waited within the window, microseconds.
    #[must_use]
    pub fn within(&self, from_us: u64, to_us: u64) -> u64 {
        lock(&self.0).within(from_us, to_us)
    }

    /// Does starvation explain that a packet sent at `at_us` found the queue full?
    #[must_use]
    pub fn explains(&self, at_us: u64) -> bool {
        let waited = self.within(at_us.saturating_sub(BEFORE_US), at_us + AFTER_US);
        waited * SHARE >= BEFORE_US + AFTER_US
    }
}

impl State {
    fn sample(&mut self, now: u64) {
        for pid in &self.pids {
            for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let path = task.path().display().to_string();
                let total = read(&format!("{path}/schedstat")).waited_us;
                let (last, waits) = self.threads.entry(path).or_insert_with(|| (total, Vec::new()));
                if total > *last {
                    waits.push((now, total - *last));
                    *last = total;
                }
            }
        }
    }

    fn within(&self, from_us: u64, to_us: u64) -> u64 {
        let sum = |waits: &Vec<(u64, u64)>| -> u64 {
            let inside = waits.iter().filter(|(at, _)| (from_us..=to_us).contains(at));
            // The sampler was starved as well: a wait may have begun before the window.
            inside.map(|(at, waited)| (*waited).min(at - from_us)).sum()
        };
        self.threads.values().map(|(_, waits)| sum(waits)).max().unwrap_or(0)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_near_the_loss_explains_it() {
        let waits = vec![(1_000_000, 40_000), (1_100_000, 80_000), (5_000_000, 2_000)];
        let state = State { pids: vec![], threads: BTreeMap::from([("t".into(), (0, waits))]) };
        let watch = Starvation(Arc::new(Mutex::new(state)));
        assert_eq!(watch.within(900_000, 1_100_000), 120_000);
        assert!(watch.explains(1_120_000));
        assert!(!watch.explains(1_400_000) && !watch.explains(5_000_000) && !watch.explains(700_000));
    }

    #[test]
    fn this_process_has_run() {
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_millis(30) {
            std::hint::spin_loop();
        }
        let own = read("/proc/thread-self/schedstat");
        assert!(own.ran_us + own.waited_us > 10_000, "{own:?}");
    }
}

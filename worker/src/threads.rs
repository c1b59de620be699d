//! One pinned thread per CPU of the zone, each serving its slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use config::Poll;
use datapath::{Shared, SlotRunner};
use dpdk::Port;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use shm_layout::clock;
use shm_layout::slot::Slot;

use crate::error::WorkerError;
use crate::io::DpdkIo;
use crate::slots::{self, Taken};

/// Empty turns before a thread first sleeps.
const SPINS: u32 = 32;
/// First sleeps.
const NAP: Duration = Duration::from_micros(20);
/// Longest sleep: heartbeats, rings and the other side's round trip bear it.
const NAP_MAX: Duration = Duration::from_micros(200);
/// Empty turns (of one nap each) after which naps grow.
const NAPS: u32 = 100;

/// What main and a thread share.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Turns made: the watchdog's proof of life.
    pub turns: AtomicU64,
    /// Its slots are released.
    pub done: AtomicBool,
}

/// A serving thread, seen from main.
#[derive(Debug)]
pub struct Server {
    /// Its proof of life.
    pub pulse: Arc<Pulse>,
    /// Its CPU.
    pub cpu: u16,
}

/// A slot at work.
struct Work {
    slot: Slot,
    runner: SlotRunner,
    io: DpdkIo,
    taken_ns: u64,
}

/// Starts a thread for the slots `taken`, all of one CPU. It ends when `stop` is set, its slots released.
pub fn start(
    shared: &Arc<Shared>,
    ports: &Arc<Vec<Port>>,
    taken: Vec<Taken>,
    poll: Poll,
    stop: &Arc<AtomicBool>,
) -> Result<Server, WorkerError> {
    let cpu = taken.first().map_or(0, |t| t.cpu);
    let pulse = Arc::new(Pulse::default());
    let (shared, ports, stop, own) = (Arc::clone(shared), Arc::clone(ports), Arc::clone(stop), Arc::clone(&pulse));
    let body = move || {
        prepare(cpu, poll);
        match open(&shared, &ports, taken) {
            Ok(mut work) => run(&mut work, poll, &stop, &own),
            // The process ends by its watchdog in main: it sees no turn.
            Err(error) => log::error!("CPU {cpu}: {error}"),
        }
        own.done.store(true, Ordering::Release);
    };
    let name = format!("slots-cpu{cpu}");
    std::thread::Builder::new().name(name).spawn(body).map_err(WorkerError::system("start a thread"))?;
    Ok(Server { pulse, cpu })
}

fn prepare(cpu: u16, poll: Poll) {
    let mut set = CpuSet::new();
    let pinned = set.set(cpu.into()).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        log::error!("cannot pin a thread to CPU {cpu}: {error}; it serves from wherever it is put");
    }
    // The kernel's slack of 50 µs would double the naps.
    if poll == Poll::Adaptive
        && let Err(error) = nix::sys::prctl::set_timerslack(1)
    {
        log::warn!("timer slack: {error}; naps are longer than asked for");
    }
}

fn open(shared: &Arc<Shared>, ports: &[Port], taken: Vec<Taken>) -> Result<Vec<Work>, WorkerError> {
    let tid = u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0);
    taken
        .into_iter()
        .map(|t| {
            t.slot.owner.tid.store(tid, Ordering::Relaxed); // Relaxed: for people.
            let inconsistent = |what| WorkerError::Inconsistent { slot: t.number, what };
            let port = ports.get(t.port).ok_or_else(|| inconsistent("its port is not open"))?;
            let now = clock::now_ns();
            let runner = SlotRunner::new(Arc::clone(shared), t.number, now)
                .ok_or_else(|| inconsistent("its tables are not complete"))?;
            let io = DpdkIo::open(t.slot.clone(), t.pool, port, t.queue)?;
            Ok(Work { slot: t.slot, runner, io, taken_ns: now })
        })
        .collect()
}

/// The loop: every slot's burst, then a nap if none had work.
fn run(work: &mut [Work], poll: Poll, stop: &AtomicBool, pulse: &Pulse) {
    for one in work.iter() {
        // Relaxed, here and below: each word is a clock or a count, true by itself, with one writer.
        for word in [&one.slot.pulse.busy_ns, &one.slot.pulse.total_ns] {
            word.store(0, Ordering::Relaxed);
        }
    }
    let mut empty = 0;
    let mut turns = 0;
    let mut now = clock::now_ns();
    while !stop.load(Ordering::Relaxed) {
        let mut packets = 0;
        for one in work.iter_mut() {
            let handled = one.runner.poll(&mut one.io, now);
            let after = clock::now_ns();
            tell(one, handled, now, after);
            packets += handled;
            now = after;
        }
        turns += 1;
        pulse.turns.store(turns, Ordering::Relaxed);
        empty = if packets > 0 { 0 } else { u32::saturating_add(empty, 1) };
        if poll == Poll::Adaptive && empty > SPINS {
            std::thread::sleep(nap(empty));
            now = clock::now_ns();
        }
    }
    for one in work.iter_mut() {
        one.runner.release(&mut one.io);
        slots::release(&one.slot);
    }
}

/// How long to sleep after so many empty turns.
fn nap(empty: u32) -> Duration {
    let grown = (empty - SPINS) / NAPS;
    (NAP * (1 + grown)).min(NAP_MAX)
}

/// Heartbeat and load, once per turn. An empty turn costs four stores to a line of the slot's own.
fn tell(one: &Work, handled: usize, before: u64, after: u64) {
    let pulse = &one.slot.pulse;
    let add = |word: &AtomicU64, n: u64| word.store(word.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    pulse.heartbeat_ms.store(after / 1_000_000, Ordering::Relaxed);
    pulse.total_ns.store(after - one.taken_ns, Ordering::Relaxed);
    add(&pulse.polls, 1);
    if handled > 0 {
        add(&pulse.busy_polls, 1);
        add(&pulse.busy_ns, after - before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_grow_and_stay_bounded() {
        assert_eq!(nap(SPINS + 1), NAP);
        assert_eq!(nap(SPINS + NAPS), NAP * 2);
        assert_eq!(nap(u32::MAX), NAP_MAX);
    }
}

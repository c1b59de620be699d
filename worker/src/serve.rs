//! The worker's life: attach, take slots, start threads, look after them, let go.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use config::{Node, OnPrimaryDeath};
use links::messages::{ToWorker, WorkerSays};
use links::service;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::attach::{self, Attached};
use crate::error::WorkerError;
use crate::slots::{self, Taken, Taker};
use crate::threads::{self, Server};

/// Time between two looks at the threads.
const TICK: Duration = Duration::from_millis(100);
/// Time a thread has for its last burst.
const END_LIMIT: Duration = Duration::from_secs(2);

/// What main waits for.
enum Event {
    Order(ToWorker),
    HolderDied,
    Signal(i32),
}

/// Serves `zone` until told to stop.
pub fn run(node: &Node, run_dir: &Path, zone: u8) -> Result<(), WorkerError> {
    let (tell, events) = mpsc::channel();
    let signals = tell.clone();
    let mut watch =
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(WorkerError::system("watch signals"))?;
    let forward = move || watch.forever().all(|signal| signals.send(Event::Signal(signal)).is_ok());
    spawn("signals", forward)?;

    let Attached { shared, admit, link, orders, holder, ports } =
        attach::attach(node, run_dir, zone, &asked_to_stop(&events))?;
    let wanted = attach::slots_of(&shared, zone)?;
    let start = links::pidfd::start_time(std::process::id()).unwrap_or(0);
    let taken = slots::take(&shared, &wanted, &admit.ports, Taker { zone, lane: admit.lane, start })?;
    link.send(WorkerSays::Attached)?;
    let numbers: Vec<u32> = taken.iter().map(|t| t.number).collect();

    let (ordered, died) = (tell.clone(), tell);
    spawn("orders", move || orders.into_iter().all(|order| ordered.send(Event::Order(order)).is_ok()))?;
    let dead = move |_| drop(died.send(Event::HolderDied));
    holder.watch(dead).map_err(WorkerError::system("watch lb-primary"))?;

    let stop = Arc::new(AtomicBool::new(false));
    let (shared, ports) = (Arc::new(shared), Arc::new(ports));
    let mut by_cpu: BTreeMap<u16, Vec<Taken>> = BTreeMap::new();
    for one in taken {
        by_cpu.entry(one.cpu).or_default().push(one);
    }
    let start = |taken| threads::start(&shared, &ports, taken, node.poll, &stop);
    let servers = by_cpu.into_values().map(start).collect::<Result<Vec<_>, _>>()?;
    await_first_turns(&servers)?;

    let cpus: Vec<u16> = servers.iter().map(|s| s.cpu).collect();
    log::info!("zone {zone} serves slots {numbers:?} on CPUs {cpus:?}");
    service::ready(&format!("zone {zone}: {} slots served", numbers.len()));
    link.send(WorkerSays::Serving { slots: numbers })?;
    let result = look_after(node, &servers, &events);

    service::stopping();
    stop.store(true, Ordering::Relaxed); // Relaxed: looked at in every turn.
    let end = Instant::now() + END_LIMIT;
    // Acquire: whoever sees "done" sees the slots released.
    while servers.iter().any(|s| !s.pulse.done.load(Ordering::Acquire)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    if link.send(WorkerSays::Stopped).is_ok() {
        std::thread::sleep(Duration::from_millis(2)); // The writer thread's turn; our death says the same.
    }
    result
}

fn spawn<T>(name: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Result<(), WorkerError> {
    let work = move || drop(work());
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop).map_err(WorkerError::system("start a thread"))
}

/// Whether a signal has come before there is anything to stop. It is taken from the events: who asks leaves.
fn asked_to_stop(events: &mpsc::Receiver<Event>) -> impl Fn() -> bool {
    move || matches!(events.try_recv(), Ok(Event::Signal(_)))
}

/// Ready means: every thread has been through its slots once.
fn await_first_turns(servers: &[Server]) -> Result<(), WorkerError> {
    let turned = |s: &Server| s.pulse.turns.load(Ordering::Relaxed) > 0;
    let ended = |s: &Server| s.pulse.done.load(Ordering::Acquire);
    while !servers.iter().all(turned) {
        if servers.iter().any(ended) {
            let source = std::io::Error::other("a thread ended; see the line above");
            return Err(WorkerError::System { what: "serve", source });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Until an order or a signal. The watchdog is fed only while every thread makes turns.
fn look_after(node: &Node, servers: &[Server], events: &mpsc::Receiver<Event>) -> Result<(), WorkerError> {
    let mut watchdog = service::watchdog();
    let turns = || servers.iter().map(|s| s.pulse.turns.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let mut seen = turns();
    loop {
        match events.recv_timeout(TICK) {
            Ok(Event::Signal(signal)) => {
                log::info!("signal {signal}: stopping");
                return Ok(());
            }
            Ok(Event::Order(ToWorker::Stop)) => {
                log::info!("lb-primary stops: stopping");
                return Ok(());
            }
            Ok(Event::Order(ToWorker::Drain | ToWorker::Admit(_))) => {}
            Ok(Event::HolderDied) => match node.on_primary_death {
                OnPrimaryDeath::Restart => {
                    log::error!("lb-primary has died: leaving, to attach to its successor");
                    return Err(WorkerError::HolderGone);
                }
                OnPrimaryDeath::Hold => log::error!("lb-primary has died: serving on without it"),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let now = turns();
        let all_moved = now.iter().zip(&seen).all(|(now, before)| now != before);
        if all_moved {
            if let Some(watchdog) = &mut watchdog {
                watchdog.beat();
            }
            seen = now;
        }
    }
}

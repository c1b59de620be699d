//! The worker's life: attach, take slots, start threads, look after them, let go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use config::Node;
use links::messages::{ToWorker, WorkerSays};
use links::{pidfd, service};
use shm_layout::owner::Process;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::attach::{self, Attached};
use crate::error::WorkerError;
use crate::keeper::Keeper;
use crate::slots::{Place, Slots};
use crate::threads::{self, Common, Order, Server};

/// Time for the owners to let go and for the first turns.
const BEGIN_LIMIT: Duration = Duration::from_secs(15);
/// Time a thread has for its last burst.
const END_LIMIT: Duration = Duration::from_secs(2);

/// What main waits for.
pub enum Event {
    /// From the holder.
    Order(ToWorker),
    /// The kernel says that the holder died.
    HolderDied,
    /// The kernel says that this process, our successor, died.
    HeirDied,
    /// SIGTERM or SIGINT.
    Signal(i32),
}

/// Why a worker leaves, without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By a signal.
    Asked,
    /// lb-primary stops, and wants us again when it is back.
    Ordered,
    /// A successor has the slots and does well.
    Relieved,
}

/// Serves `zone` until told to stop or relieved.
pub fn run(node: &Node, run_dir: &Path, zone: u8, take_over: bool) -> Result<Ended, WorkerError> {
    let (tell, events) = mpsc::channel();
    let signals = tell.clone();
    let mut watch =
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(WorkerError::system("watch signals"))?;
    let forward = move || watch.forever().all(|signal| signals.send(Event::Signal(signal)).is_ok());
    spawn("signals", forward)?;

    let Attached { shared, admit, link, orders, holder, ports } =
        attach::attach(node, run_dir, zone, take_over, &asked_to_stop(&events))?;
    let slots = Slots::find(&shared, &admit.ports, zone, admit.lane)?;
    let wanted = wanted(&slots, take_over)?;
    link.send(WorkerSays::Attached)?;

    let (ordered, died) = (tell.clone(), tell.clone());
    spawn("orders", move || orders.into_iter().all(|order| ordered.send(Event::Order(order)).is_ok()))?;
    let dead = move |_| drop(died.send(Event::HolderDied));
    holder.watch(dead).map_err(WorkerError::system("watch lb-primary"))?;

    let (shared, poll) = (Arc::new(shared), node.poll);
    let common = Arc::new(Common { shared, ports, slots, poll, stop: AtomicBool::new(false) });
    let mut cpus: Vec<u16> = common.slots.home().map(|p| p.cpu).collect();
    cpus.sort_unstable();
    cpus.dedup();
    let servers = cpus.iter().map(|cpu| threads::start(&common, *cpu)).collect::<Result<Vec<_>, _>>()?;
    let numbers: Vec<u32> = wanted.places().map(|p| p.number).collect();
    let result = begin(&common, &servers, &wanted).and_then(|()| {
        log::info!("zone {zone} serves slots {numbers:?} on CPUs {cpus:?}");
        crate::privileges::confine();
        service::ready(&format!("zone {zone}: {} slots served", numbers.len()));
        if let Err(error) = link.send(WorkerSays::Serving { slots: numbers.clone() }) {
            log::warn!("{error}"); // Its death is told by the kernel.
        }
        let places = wanted.places().cloned().collect();
        Keeper::new(node, &common, &servers, places, wanted.elder, tell, &link).keep(&events)
    });

    service::stopping();
    common.stop.store(true, Ordering::Relaxed); // Relaxed: looked at in every turn.
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

/// The slots a new worker is to serve.
struct Wanted {
    /// Nobody's, or a dead process's.
    free: Vec<Place>,
    /// To be asked for.
    of_others: Vec<Place>,
    /// The worker we relieve.
    elder: Option<Process>,
}

impl Wanted {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.free.iter().chain(&self.of_others)
    }
}

/// All slots of our zone: those that other zones' workers have adopted meanwhile are asked for; those of a living worker
/// of our own zone only with `take_over`, and then all that it has.
fn wanted(slots: &Slots, take_over: bool) -> Result<Wanted, WorkerError> {
    let mut wanted = Wanted { free: Vec::new(), of_others: Vec::new(), elder: None };
    let zone = u32::from(slots.zone);
    for place in slots.home() {
        let owner = place.slot.owner.owner();
        if !pidfd::lives(owner) {
            wanted.free.push(place.clone());
            continue;
        }
        let theirs = place.slot.owner.zone.load(Ordering::Relaxed); // Relaxed: signed long ago.
        if theirs == zone && !take_over {
            return Err(WorkerError::Owned { slot: place.number, pid: owner.pid(), zone });
        }
        if theirs == zone {
            wanted.elder = Some(owner);
        }
        wanted.of_others.push(place.clone());
    }
    if wanted.places().next().is_none() {
        return Err(WorkerError::NoSlot { zone: slots.zone });
    }
    if let Some(elder) = wanted.elder {
        let adopted = |p: &&Place| p.zone != zone && p.slot.owner.owner() == elder;
        wanted.of_others.extend(slots.places.iter().filter(adopted).cloned());
    }
    Ok(wanted)
}

/// Takes what is free, asks for the rest; done when every thread has been through all its slots once.
fn begin(common: &Common, servers: &[Server], wanted: &Wanted) -> Result<(), WorkerError> {
    for place in &wanted.free {
        let zone = u32::from(common.slots.zone);
        let taken = common.slots.take(place).ok_or_else(|| {
            let pid = place.slot.owner.owner().pid();
            WorkerError::Owned { slot: place.number, pid, zone }
        })?;
        server_for(servers, place).order(Order::Serve(Box::new(taken)));
    }
    for server in servers {
        let its = |p: &&Place| std::ptr::eq(server_for(servers, p), server);
        let places: Vec<Place> = wanted.of_others.iter().filter(its).cloned().collect();
        if !places.is_empty() {
            server.order(Order::Succeed(places));
        }
    }
    let all = wanted.places().count();
    let end = Instant::now() + BEGIN_LIMIT;
    let serving = |s: &Server| s.pulse.serving.load(Ordering::Acquire) as usize;
    while servers.iter().map(serving).sum::<usize>() < all {
        let failed = |s: &Server| s.pulse.failed.load(Ordering::Acquire) || s.pulse.done.load(Ordering::Acquire);
        if servers.iter().any(failed) || Instant::now() > end {
            let source = std::io::Error::other("a slot cannot be had or served in time");
            return Err(WorkerError::System { what: "serve", source });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Some(elder) = wanted.elder {
        // It stands by: `worker list` shows it.
        wanted.places().for_each(|p| p.slot.owner.heir.store(elder.word(), Ordering::Relaxed));
    }
    Ok(())
}

/// The thread on the slot's CPU, else the one with the fewest slots.
pub fn server_for<'a>(servers: &'a [Server], place: &Place) -> &'a Server {
    let fewest = || servers.iter().min_by_key(|s| s.pulse.serving.load(Ordering::Relaxed));
    servers.iter().find(|s| s.cpu == place.cpu).or_else(fewest).expect("a zone has a thread")
}

fn spawn<T>(name: &'static str, work: impl FnOnce() -> T + Send + 'static) -> Result<(), WorkerError> {
    let work = move || drop(work());
    std::thread::Builder::new().name(name.into()).spawn(work).map(drop).map_err(WorkerError::system("start a thread"))
}

/// Whether a signal has come before there is anything to stop. It is taken from the events: who asks leaves.
fn asked_to_stop(events: &mpsc::Receiver<Event>) -> impl Fn() -> bool {
    move || matches!(events.try_recv(), Ok(Event::Signal(_)))
}

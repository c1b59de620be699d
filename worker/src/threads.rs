//! One pinned thread per CPU of the zone, each serving its slots. Slots come and go while it serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use config::Poll;
use datapath::{Shared, SlotRunner};
use dpdk::Port;
use links::messages::kernel_device;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use shm_layout::clock;
use shm_layout::owner::{Process, hand};
use shm_layout::published::port_flag;

use crate::error::WorkerError;
use crate::futex;
use crate::io::DpdkIo;
use crate::slots::{self, Place, Slots, Taken};

/// Empty turns before a thread first sleeps.
const SPINS: u32 = 32;
/// First sleeps.
const NAP: Duration = Duration::from_micros(20);
/// Longest sleep: heartbeats, rings and the other side's round trip bear it.
const NAP_MAX: Duration = Duration::from_micros(200);
/// Empty turns (of one nap each) after which naps grow.
const NAPS: u32 = 100;
/// How long a thread without slots waits for an order before it shows that it lives.
const IDLE: Duration = Duration::from_millis(20);
/// Time between two looks whether the owner that is waited for still lives.
const LOOK: Duration = Duration::from_millis(20);
/// Time an owner has to end its burst and let go. A starved one may need long; a hung one is killed by the holder.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(10);

/// What main tells a thread.
pub enum Order {
    /// Serve this slot, which is ours.
    Serve(Box<Taken>),
    /// Ask the owners of these slots for them and serve each when it is let go.
    Succeed(Vec<Place>),
}

/// What main and a thread share.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Turns made: the watchdog's proof of life.
    pub turns: AtomicU64,
    /// Slots served, and through one turn at least.
    pub serving: AtomicU32,
    /// A slot could not be had or opened; see the log.
    pub failed: AtomicBool,
    /// Its slots are released, the thread has ended.
    pub done: AtomicBool,
    /// There are orders: spares the turn a look into the channel.
    mail: AtomicBool,
}

/// A thread, seen from main.
#[derive(Debug)]
pub struct Server {
    /// Its proof of life.
    pub pulse: Arc<Pulse>,
    /// Its CPU.
    pub cpu: u16,
    orders: Sender<Order>,
}

impl Server {
    /// Gives an order. One to a thread that has ended is lost; its end is seen by [`Pulse::done`].
    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order);
        self.pulse.mail.store(true, Ordering::Release); // Pairs with the Acquire in `Thread::run`: the order is there.
    }
}

/// What all threads use.
pub struct Common {
    /// The tables.
    pub shared: Arc<Shared>,
    /// The ports, by our number.
    pub ports: Vec<Port>,
    /// All slots.
    pub slots: Slots,
    /// How to wait.
    pub poll: Poll,
    /// Everything is to be released.
    pub stop: AtomicBool,
}

/// A slot at work.
struct Work {
    place: Place,
    runner: SlotRunner,
    io: DpdkIo,
    taken_ns: u64,
    #[cfg(feature = "reflect")]
    reflector: crate::reflect::Reflector,
}

impl Work {
    /// One turn of the slot; returns the packets it handled.
    #[inline(always)]
    #[cfg_attr(feature = "reflect", allow(unused_variables, reason = "a reflector has no clock"))]
    fn turn(&mut self, now_ns: u64) -> usize {
        #[cfg(feature = "reflect")]
        let handled = self.reflector.poll(&mut self.io, &self.place.slot);
        #[cfg(not(feature = "reflect"))]
        let handled = self.runner.poll(&mut self.io, now_ns);
        handled
    }
}

/// Starts a thread without slots on `cpu`. It ends when `stop` is set, its slots released.
pub fn start(common: &Arc<Common>, cpu: u16) -> Result<Server, WorkerError> {
    let pulse = Arc::new(Pulse::default());
    let (orders, inbox) = mpsc::channel();
    let (common, own) = (Arc::clone(common), Arc::clone(&pulse));
    let body = move || {
        prepare(cpu, common.poll);
        let mut thread = Thread {
            cpu,
            common: &common,
            pulse: &own,
            inbox,
            work: Vec::new(),
            asked: Vec::new(),
            since: Instant::now(),
            looked: Instant::now(),
        };
        thread.run();
        own.done.store(true, Ordering::Release);
    };
    let name = format!("slots-cpu{cpu}");
    std::thread::Builder::new().name(name).spawn(body).map_err(WorkerError::system("start a thread"))?;
    Ok(Server { pulse, cpu, orders })
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

struct Thread<'a> {
    cpu: u16,
    common: &'a Common,
    pulse: &'a Pulse,
    inbox: Receiver<Order>,
    work: Vec<Work>,
    /// Slots we have asked for.
    asked: Vec<Place>,
    /// Since when.
    since: Instant,
    /// When we last asked whether their owners live.
    looked: Instant,
}

impl Thread<'_> {
    /// The loop: every slot's burst, then a nap if none had work.
    fn run(&mut self) {
        let mut empty = 0;
        let mut turns = 0;
        let mut now = clock::now_ns();
        #[cfg(feature = "failpoints")]
        let began = Instant::now();
        while !self.common.stop.load(Ordering::Relaxed) {
            // Relaxed, here and below: each word is a clock or a count, true by itself, with one writer.
            if self.pulse.mail.load(Ordering::Acquire) {
                self.take_orders();
            }
            if !self.asked.is_empty() {
                self.look_at_asked();
            }
            if self.work.is_empty() {
                self.idle();
                now = clock::now_ns();
            }
            #[cfg(feature = "failpoints")]
            crate::faults::turn(began);
            let mut packets = 0;
            let mut wanted = false;
            for one in &mut self.work {
                let handled = one.turn(now);
                let after = clock::now_ns();
                tell(one, handled, now, after);
                packets += handled;
                now = after;
                wanted |= one.place.slot.owner.asked();
            }
            if wanted {
                self.give();
            }
            turns += 1;
            self.pulse.turns.store(turns, Ordering::Relaxed);
            self.pulse.serving.store(u32::try_from(self.work.len()).unwrap_or(u32::MAX), Ordering::Release);
            empty = if packets > 0 { 0 } else { u32::saturating_add(empty, 1) };
            if self.common.poll == Poll::Adaptive && empty > SPINS && !self.work.is_empty() {
                std::thread::sleep(nap(empty));
                now = clock::now_ns();
            }
        }
        self.asked.iter().for_each(|place| place.slot.owner.ask_no_more());
        for one in &mut self.work {
            one.runner.release(&mut one.io);
            slots::release(&one.place.slot);
        }
    }

    fn take_orders(&mut self) {
        self.pulse.mail.store(false, Ordering::Relaxed); // Before the orders: one that comes meanwhile sets it again.
        while let Ok(order) = self.inbox.try_recv() {
            self.follow(order);
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Serve(taken) => self.serve(*taken),
            Order::Succeed(places) => {
                (self.since, self.looked) = (Instant::now(), Instant::now());
                places.iter().for_each(|place| place.slot.owner.ask(self.common.slots.me));
                self.asked.extend(places);
            }
        }
    }

    /// Takes what has been let go. Looked at in every turn; only the time decides when death is asked for.
    fn look_at_asked(&mut self) {
        let late = self.since.elapsed();
        let look = self.looked.elapsed() >= LOOK;
        if look {
            self.looked = Instant::now();
        }
        let me = self.common.slots.me;
        let mut asked = std::mem::take(&mut self.asked);
        asked.retain(|place| {
            if place.slot.owner.owner() == me {
                return false; // Main took it from its dead owner meanwhile.
            }
            let free = place.slot.owner.owner() == Process::NOBODY;
            if !free && !look {
                return true;
            }
            // It lives and keeps it, as long as it may; or it has died, and may be what it left is settled.
            match self.common.slots.take(place) {
                Some(taken) => {
                    self.serve(taken);
                    false
                }
                None if late < HAND_OVER_LIMIT => {
                    // Somebody else may have taken it from its dead owner meanwhile: then it is that one to be asked.
                    if !place.slot.owner.asked() {
                        place.slot.owner.ask(me);
                    }
                    true
                }
                None => {
                    log::error!("slot {}: its owner does not let go", place.number);
                    place.slot.owner.ask_no_more();
                    self.pulse.failed.store(true, Ordering::Release);
                    false
                }
            }
        });
        self.asked.extend(asked);
    }

    /// Waits without a slot: for the one that was asked for, else for an order.
    fn idle(&mut self) {
        match self.asked.first() {
            // The owner's release wakes us; its death does not.
            Some(place) => futex::wait(&place.slot.owner.hand, hand::OFFERED, LOOK),
            None => {
                if let Ok(order) = self.inbox.recv_timeout(IDLE) {
                    self.follow(order);
                }
            }
        }
    }

    fn serve(&mut self, taken: Taken) {
        let number = taken.place.number;
        match self.open(taken) {
            Ok(work) => self.work.push(work),
            Err(error) => {
                // Ours and unserved: the process ends over it, and the slot is taken from the dead.
                log::error!("slot {number}: {error}");
                self.pulse.failed.store(true, Ordering::Release);
            }
        }
    }

    fn open(&self, taken: Taken) -> Result<Work, WorkerError> {
        let Taken { place, pool } = taken;
        let inconsistent = |what| WorkerError::Inconsistent { slot: place.number, what };
        let port = self.common.ports.get(place.port).ok_or_else(|| inconsistent("its port is not open"))?;
        let now = clock::now_ns();
        let runner = SlotRunner::resume(Arc::clone(&self.common.shared), place.number, now)
            .ok_or_else(|| inconsistent("its tables are not complete"))?;
        let mut io = DpdkIo::open(place.slot.clone(), pool, port, place.queue)?;
        let row = self.common.shared.published.ports.get(place.port);
        if place.queue == 0 && row.is_some_and(|row| row.flags.load(Ordering::Relaxed) & port_flag::KERNEL != 0) {
            let number = u32::try_from(place.port).unwrap_or(u32::MAX);
            io = io.with_kernel(&Port::open(&kernel_device(number))?)?;
        }
        let (owner, pulse) = (&place.slot.owner, &place.slot.pulse);
        owner.cpu.store(self.cpu.into(), Ordering::Relaxed); // Not its home's, if it was adopted.
        owner.tid.store(u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0), Ordering::Relaxed);
        pulse.busy_ns.store(0, Ordering::Relaxed);
        pulse.total_ns.store(0, Ordering::Relaxed);
        pulse.heartbeat_ms.store(now / 1_000_000, Ordering::Relaxed);
        Ok(Work {
            place,
            runner,
            io,
            taken_ns: now,
            #[cfg(feature = "reflect")]
            reflector: crate::reflect::Reflector::default(),
        })
    }

    /// Gives the slots that are asked for to their heirs: what is held passes with them.
    #[cold]
    fn give(&mut self) {
        self.work.retain_mut(|one| {
            if !one.place.slot.owner.asked() {
                return true;
            }
            one.runner.hand_over(&mut one.io);
            slots::release(&one.place.slot);
            false
        });
    }
}

/// How long to sleep after so many empty turns.
fn nap(empty: u32) -> Duration {
    let grown = (empty - SPINS) / NAPS;
    (NAP * (1 + grown)).min(NAP_MAX)
}

/// Heartbeat and load, once per turn. An empty turn costs four stores to a line of the slot's own.
fn tell(one: &Work, handled: usize, before: u64, after: u64) {
    let pulse = &one.place.slot.pulse;
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

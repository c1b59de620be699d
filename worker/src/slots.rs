//! Taking and giving slots: the ownership word, and what a dead owner left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use datapath::Shared;
use datapath::session::SessionTable;
use dpdk::{Ledger, Pool};
use links::messages::{AdmitPort, pool_name};
use links::pidfd;
use shm_layout::clock;
use shm_layout::counters::{DropReason, Flow};
use shm_layout::failpoint::{self, Op};
use shm_layout::owner::Process;
use shm_layout::slot::{LedgerRow, Slot};

use crate::error::WorkerError;

/// Three deaths of a slot's owners within this time, ms: its tables are checked whole before they are served again.
const DEATHS_WITHIN_MS: u64 = 10_000;

/// Where a slot lies, with all that is needed to serve it. Nothing is owned yet.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its number.
    pub number: u32,
    /// Its tables.
    pub slot: Slot,
    /// Our number of its port.
    pub port: usize,
    /// Its queue pair there.
    pub queue: u16,
    /// Zone it is at home in.
    pub zone: u32,
    /// CPU of its thread there.
    pub cpu: u16,
    /// Its port's driver tears a descriptor ring when it dies: the holder restarts the queue pair first.
    pub restarts: bool,
}

/// A slot this process owns, with what a thread needs to serve it.
pub struct Taken {
    /// Where it lies.
    pub place: Place,
    /// Its buffers.
    pub pool: Pool,
}

/// All slots, and who takes them.
pub struct Slots {
    /// By number.
    pub places: Vec<Place>,
    /// This process.
    pub me: Process,
    /// Our zone.
    pub zone: u8,
    /// Our lane.
    pub lane: u8,
    /// Looked up once, while we attach: afterwards no lock of EAL is touched, so that none is left taken by our death.
    pools: Mutex<Vec<Pool>>,
    /// Dead processes whose torn queue pairs are whole again: those dead before we were admitted, and those lb-primary tells.
    buried: Mutex<Vec<Process>>,
    /// lb-primary is dead: nobody restarts queue pairs.
    pub alone: AtomicBool,
    shared: Shared,
}

impl Slots {
    /// Finds every slot of the tables among the `ports` we have attached to.
    ///
    /// # Errors
    /// The published tables and lb-primary disagree.
    pub fn find(shared: &Shared, ports: &[AdmitPort], zone: u8, lane: u8) -> Result<Self, WorkerError> {
        // Relaxed, here and below: written before the first generation, which the holder waited for before it admitted us.
        let used = |number: &u32| {
            let row = shared.published.slots.get(*number as usize);
            row.is_some_and(|row| row.used.load(Ordering::Relaxed) != 0)
        };
        let places = (0..shared.slot_count()).filter(used).map(|number| {
            let inconsistent = |what| WorkerError::Inconsistent { slot: number, what };
            let (port, queue) = queue_of(number, ports).ok_or_else(|| inconsistent("no port has its queue"))?;
            let row = &shared.published.slots[number as usize];
            let published = (row.port.load(Ordering::Relaxed), row.queue.load(Ordering::Relaxed));
            if published != (ports[port].index, u32::from(queue)) {
                return Err(inconsistent("the published tables and lb-primary disagree about its queue"));
            }
            Ok(Place {
                number,
                slot: shared.slots[number as usize].clone(),
                port,
                queue,
                zone: row.zone.load(Ordering::Relaxed),
                cpu: u16::try_from(row.cpu.load(Ordering::Relaxed)).unwrap_or(u16::MAX),
                restarts: ports[port].restarts,
            })
        });
        let places = places.collect::<Result<Vec<_>, WorkerError>>()?;
        let pools = places.iter().map(|p| Pool::lookup(&pool_name(p.number))).collect::<Result<Vec<_>, _>>()?;
        let owners = places.iter().map(|p: &Place| p.slot.owner.owner());
        let buried = owners.filter(|owner| !pidfd::lives(*owner)).collect();
        Ok(Self {
            places,
            me: Process::this(),
            zone,
            lane,
            pools: Mutex::new(pools),
            buried: Mutex::new(buried),
            alone: AtomicBool::new(false),
            shared: shared.clone(),
        })
    }

    /// Those at home in our zone.
    pub fn home(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|p| p.zone == u32::from(self.zone))
    }

    /// lb-primary has made whole what this dead process tore.
    pub fn bury(&self, pid: u32) {
        let owners = self.places.iter().map(|p| p.slot.owner.owner()).filter(|owner| owner.pid() == pid);
        self.buried.lock().unwrap_or_else(PoisonError::into_inner).extend(owners);
    }

    /// Does this place still wait for lb-primary to make its queue pair whole?
    fn torn(&self, place: &Place, dead: Process) -> bool {
        let buried = || self.buried.lock().unwrap_or_else(PoisonError::into_inner).contains(&dead);
        // Relaxed: a fact that never changes back.
        place.restarts && dead != Process::NOBODY && !self.alone.load(Ordering::Relaxed) && !buried()
    }

    /// Takes a slot that is nobody's, or whose owner is dead; what a dead one left is settled first. `None`: it lives, or
    /// somebody was quicker.
    pub fn take(&self, place: &Place) -> Option<Taken> {
        let row = &place.slot.owner;
        let before = row.owner();
        if before == self.me || (before != Process::NOBODY && pidfd::lives(before)) || self.torn(place, before) {
            return None;
        }
        let at = self.places.iter().position(|p| p.number == place.number)?;
        let _op = failpoint::enter(Op::Own);
        if !row.claim(before, self.me) {
            return None;
        }
        row.sign(self.zone, self.lane, place.cpu, env!("CARGO_PKG_VERSION"));
        let pool = self.pools.lock().unwrap_or_else(PoisonError::into_inner)[at].again();
        if before != Process::NOBODY {
            self.settle(place, &pool, before);
        }
        Some(Taken { place: place.clone(), pool })
    }

    /// Settles what a dead owner left: gives its buffers back, counts its packets as lost. Everything is repeatable: who
    /// dies in here is settled in turn. (The half-made change of the session table is finished by the table itself.)
    fn settle(&self, place: &Place, pool: &Pool, dead: Process) {
        let _op = failpoint::enter(Op::Recover);
        let slot = &place.slot;
        let row = &*slot.ledger;
        keep_heads(slot, pool, dead);
        let held: Vec<u64> = words(row).map(|w| w.load(Ordering::Relaxed)).filter(|a| *a != 0).collect();
        failpoint::store();
        let report = pool.recover(&held);
        failpoint::store();
        for word in words(row).filter(|w| w.load(Ordering::Relaxed) != 0) {
            word.store(0, Ordering::Release); // Release: not before the buffers are in the pool.
            failpoint::store();
        }
        slot.waits.iter().for_each(|w| w.until_ms.store(0, Ordering::Relaxed)); // Relaxed: read after the claim.
        failpoint::store();
        if let Some(mut counts) = slot.counters.read() {
            counts.drop_many(DropReason::LostInCrash, counts.flow(Flow::Held));
            counts.set_held(0);
            slot.counters.flip(&counts);
        }
        log::warn!(
            "slot {}: its last owner, process {}, died; {} buffers given back, {} with the driver or lost",
            place.number,
            dead.pid(),
            report.given_back + report.already_in_ring,
            report.missing
        );
        if report.duplicates > 0 {
            log::error!(
                "slot {}: {} buffers are in its pool twice; hint: restart the appliance",
                place.number,
                report.duplicates
            );
        }
        if slot.owner.note_death(clock::now_ms(), DEATHS_WITHIN_MS) {
            self.check_whole(place);
        }
    }

    /// The tables of a slot that keeps killing its owners.
    fn check_whole(&self, place: &Place) {
        let number = place.number;
        log::error!("slot {number}: three owners died within {DEATHS_WITHIN_MS} ms; its tables are checked whole");
        let mut table = SessionTable::attach(place.slot.clone(), &self.shared.secrets);
        match table.check() {
            Ok(count) => log::info!("slot {number}: {} sessions, all in order", count.active),
            Err(law) => {
                let kept = table.rebuild();
                log::error!("slot {number}: {law}; index and wheel are made anew, {kept} sessions kept");
            }
        }
    }
}

/// Port (place in the list) and queue of a slot.
fn queue_of(slot: u32, ports: &[AdmitPort]) -> Option<(usize, u16)> {
    ports.iter().enumerate().find_map(|(at, port)| {
        let queue = u16::try_from(slot.checked_sub(port.first_slot)?).ok()?;
        (queue < port.queues).then_some((at, queue))
    })
}

fn words(row: &LedgerRow) -> impl Iterator<Item = &std::sync::atomic::AtomicU64> {
    row.rx.iter().chain(&row.tx).chain(&row.wait)
}

/// One of the packets it had in hand may be what killed it: their heads are kept for `worker list`.
fn keep_heads(slot: &Slot, pool: &Pool, dead: Process) {
    let (rx, tx) = (Ledger::new(&slot.ledger.rx, pool), Ledger::new(&slot.ledger.tx, pool));
    // Checked: what killed it may have torn the buffer's own header.
    let packets = (0..rx.capacity()).filter_map(|i| rx.checked_data(i));
    let packets = packets.chain((0..tx.capacity()).filter_map(|i| tx.checked_data(i)));
    slot.autopsy.write(dead, clock::now_ms(), packets);
}

/// Lets go of a slot and wakes the heir that sleeps on it. From here on somebody else may write it.
pub fn release(slot: &Slot) {
    slot.owner.release();
    crate::futex::wake(&slot.owner.hand);
}

//! Taking and giving slots: the ownership word, and what a dead owner left.

use std::sync::atomic::Ordering;

use datapath::Shared;
use dpdk::Pool;
use links::messages::{AdmitPort, pool_name};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::limits::LAYOUT_VERSION;
use shm_layout::slot::{Slot, hand};

use crate::error::WorkerError;

/// A slot this process owns, with what a thread needs to serve it.
pub struct Taken {
    /// Its number.
    pub number: u32,
    /// Its tables.
    pub slot: Slot,
    /// Its buffers.
    pub pool: Pool,
    /// Our number of its port.
    pub port: usize,
    /// Its queue pair there.
    pub queue: u16,
    /// CPU of its thread.
    pub cpu: u16,
}

/// Who takes.
#[derive(Clone, Copy, Debug)]
pub struct Taker {
    /// Our zone.
    pub zone: u8,
    /// Our lane.
    pub lane: u8,
    /// Start time of this process.
    pub start: u64,
}

/// Takes `wanted` (slot, CPU) if the owner of every one of them has let go or is dead; else takes none.
pub fn take(
    shared: &Shared,
    wanted: &[(u32, u16)],
    ports: &[AdmitPort],
    taker: Taker,
) -> Result<Vec<Taken>, WorkerError> {
    let mut all = Vec::new();
    for &(number, cpu) in wanted {
        let slot = shared.slots[usize::try_from(number).unwrap_or(usize::MAX)].clone();
        if let Some((pid, zone)) = living_owner(&slot) {
            return Err(WorkerError::Owned { slot: number, pid, zone });
        }
        let inconsistent = |what| WorkerError::Inconsistent { slot: number, what };
        let (port, queue) = place(number, ports).ok_or_else(|| inconsistent("no port has its queue"))?;
        let row = &shared.published.slots[usize::try_from(number).unwrap_or(usize::MAX)];
        // Relaxed: written before the first generation.
        let published = (row.port.load(Ordering::Relaxed), row.queue.load(Ordering::Relaxed));
        if published != (ports[port].index, u32::from(queue)) {
            return Err(inconsistent("the published tables and lb-primary disagree about its queue"));
        }
        all.push(Taken { number, slot, pool: Pool::lookup(&pool_name(number))?, port, queue, cpu });
    }
    for taken in &all {
        own(taken, taker);
    }
    Ok(all)
}

/// Port (place in the list) and queue of a slot.
fn place(slot: u32, ports: &[AdmitPort]) -> Option<(usize, u16)> {
    ports.iter().enumerate().find_map(|(at, port)| {
        let queue = u16::try_from(slot.checked_sub(port.first_slot)?).ok()?;
        (queue < port.queues).then_some((at, queue))
    })
}

/// The owner, if it lives and has not let go.
fn living_owner(slot: &Slot) -> Option<(u32, u32)> {
    let row = &slot.owner;
    let word = row.owner.load(Ordering::Acquire); // Pairs with the Release in `own`.
    let pid = u32::try_from(word >> 32).unwrap_or(0);
    // Acquire pairs with the Release in `release`: all that the last owner wrote is there.
    let held = pid != 0 && row.hand.load(Ordering::Acquire) != hand::RELEASED;
    let alive = held && links::pidfd::alive(pid, row.owner_start.load(Ordering::Relaxed));
    alive.then(|| (pid, row.zone.load(Ordering::Relaxed)))
}

/// Makes this process the owner. One process attaches at a time, so nobody else takes it meanwhile.
fn own(taken: &Taken, taker: Taker) {
    let (slot, row) = (&taken.slot, &taken.slot.owner);
    let before = row.owner.load(Ordering::Acquire);
    let died = before != 0 && row.hand.load(Ordering::Acquire) != hand::RELEASED;
    // Relaxed: published by the Release of the word itself.
    row.owner_start.store(taker.start, Ordering::Relaxed);
    row.zone.store(taker.zone.into(), Ordering::Relaxed);
    row.lane.store(taker.lane.into(), Ordering::Relaxed);
    row.cpu.store(taken.cpu.into(), Ordering::Relaxed);
    row.layout.store(LAYOUT_VERSION, Ordering::Relaxed);
    let mut version = [0; 16];
    for (to, from) in version.iter_mut().zip(env!("CARGO_PKG_VERSION").bytes().take(15)) {
        *to = from;
    }
    for (word, bytes) in row.version.iter().zip(version.as_chunks::<8>().0) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    let incarnation = (before & u64::from(u32::MAX)).wrapping_add(1) & u64::from(u32::MAX);
    row.owner.store(u64::from(std::process::id()) << 32 | incarnation, Ordering::Release);
    row.hand.store(hand::OWNED, Ordering::Release);
    recover(slot, taken, died);
}

/// Gives back the buffers a dead owner held and counts its packets as lost. Everything is repeatable: who dies in here is
/// recovered in turn. (The half-made change of the session table is finished by the session table itself.)
fn recover(slot: &Slot, taken: &Taken, died: bool) {
    let ledger = &slot.ledger;
    let words = || ledger.rx.iter().chain(&ledger.tx).chain(&ledger.wait);
    let held: Vec<u64> = words().map(|w| w.load(Ordering::Relaxed)).filter(|a| *a != 0).collect();
    if !died && held.is_empty() {
        return;
    }
    let report = taken.pool.recover(&held);
    for word in words() {
        word.store(0, Ordering::Release); // Release: not before the buffers are in the pool.
    }
    if let Some(mut counts) = slot.counters.read() {
        let lost = counts.flow(Flow::Held);
        counts.drop_many(DropReason::LostInCrash, lost);
        counts.set_held(0);
        slot.counters.flip(&counts);
    }
    log::warn!(
        "slot {}: its last owner died; {} buffers given back, {} with the driver or lost",
        taken.number,
        report.given_back + report.already_in_ring,
        report.missing
    );
}

/// Lets go: the next owner may take it from this store on.
pub fn release(slot: &Slot) {
    slot.owner.hand.store(hand::RELEASED, Ordering::Release); // Pairs with the Acquire in `living_owner`.
}

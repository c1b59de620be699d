//! The slots and their owners: polled, killed at any store, taken by a successor, handed over in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use datapath::SlotRunner;
use datapath::io_memory::MemoryIo;
use datapath::session::failpoint;
use shm_layout::counters::{Counts, Flow};
use shm_layout::failpoint::Op;
use shm_layout::owner::Process;

use crate::world::{Rng, World};

/// Stores after which an armed owner dies at the latest.
const MOST_STORES: u64 = 120;

/// The owners' lives.
#[derive(Debug)]
pub struct Owners {
    alive: Vec<bool>,
    me: Process,
    /// Deaths at work, in recovery, by operation; hand-overs in order.
    pub deaths: u64,
    pub again: u64,
    pub by_op: Vec<(&'static str, u64)>,
    pub handed_over: u64,
}

impl Owners {
    pub fn new(world: &World) -> Self {
        let mut owners = Self {
            alive: vec![false; world.shared.slots.len()],
            me: Process::this(),
            deaths: 0,
            again: 0,
            by_op: Vec::new(),
            handed_over: 0,
        };
        for slot in 0..owners.alive.len() {
            owners.own(world, slot);
        }
        owners
    }

    pub fn is_alive(&self, slot: usize) -> bool {
        self.alive[slot]
    }

    pub fn living(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.alive.len()).filter(|slot| self.alive[*slot])
    }

    /// As a worker does: so that a slot that lags holds generations back, and a dead one does not.
    fn own(&mut self, world: &World, slot: usize) {
        let claimed = world.shared.slots[slot].owner.claim(Process::NOBODY, self.me);
        assert!(claimed, "slot {slot} is somebody's");
        self.alive[slot] = true;
    }

    fn died(&mut self, world: &mut World, slot: usize) {
        self.alive[slot] = false;
        world.shared.slots[slot].owner.release();
        world.ios[slot].owner_died();
        let op = failpoint::struck().map_or("?", shm_layout::failpoint::Op::name);
        match self.by_op.iter_mut().find(|(name, _)| *name == op) {
            Some((_, count)) => *count += 1,
            None => self.by_op.push((op, 1)),
        }
    }

    /// One turn of a living slot; `armed`: perhaps its last.
    pub fn poll(&mut self, world: &mut World, slot: usize, armed: Option<&mut Rng>) -> Result<usize, String> {
        if let Some(rng) = armed {
            let spared = if rng.one_in(8) { None } else { Some(Op::Flip) };
            failpoint::arm_but(1 + rng.below(MOST_STORES), spared);
        }
        let (runner, io, now) = (&mut world.runners[slot], &mut world.ios[slot], world.now);
        // What did not strike stays armed: it strikes in a later burst, perhaps another slot's.
        let outcome = catch_unwind(AssertUnwindSafe(|| runner.poll(io, now)));
        match outcome {
            Ok(work) => {
                self.after_burst(world, slot)?;
                Ok(work)
            }
            Err(panic) => {
                struck(panic)?;
                self.deaths += 1;
                self.died(world, slot);
                Ok(0)
            }
        }
    }

    /// Between bursts: the law, no frame forgotten, what is held is what is counted as held.
    fn after_burst(&self, world: &World, slot: usize) -> Result<(), String> {
        let counts = world.shared.slots[slot].counters.read().ok_or("counters change all the time")?;
        balanced(&counts, slot)?;
        let [rx, tx, wait] = world.ios[slot].places();
        if rx != 0 || counts.flow(Flow::Held) != (tx + wait) as u64 {
            let held = counts.flow(Flow::Held);
            return Err(format!("slot {slot}: {rx} frames forgotten, {tx} to send and {wait} waiting, {held} counted"));
        }
        Ok(())
    }

    /// A successor takes a dead one's slot; it may die while it finishes what the dead one began.
    pub fn take_over(&mut self, world: &mut World, slot: usize, rng: &mut Rng) -> Result<(), String> {
        self.begin(world, slot, rng, false)
    }

    /// `held`: what the last owner held passes on.
    fn begin(&mut self, world: &mut World, slot: usize, rng: &mut Rng, mut held: bool) -> Result<(), String> {
        loop {
            let armed = if rng.one_in(3) { 1 + rng.below(40) } else { 0 };
            failpoint::arm(armed);
            let number = u32::try_from(slot).unwrap();
            let (shared, now) = (&world.shared, world.now);
            let begin = if held { SlotRunner::resume } else { SlotRunner::new };
            let outcome = catch_unwind(AssertUnwindSafe(|| begin(Arc::clone(shared), number, now)));
            failpoint::disarm();
            match outcome {
                Ok(runner) => {
                    world.runners[slot] = runner.ok_or("the tables of a slot are not complete")?;
                    self.own(world, slot);
                    return balanced(world.runners[slot].counts(), slot);
                }
                Err(panic) => {
                    struck(panic)?;
                    self.again += 1;
                    world.ios[slot].owner_died();
                    held = false;
                }
            }
        }
    }

    /// The owner lets go in order, to an heir or to nobody, and another thread goes on.
    pub fn hand_over(&mut self, world: &mut World, slot: usize, rng: &mut Rng) -> Result<(), String> {
        let heir = !rng.one_in(4);
        let armed = if rng.one_in(4) { 1 + rng.below(80) } else { 0 };
        let let_go = move |runner: &mut SlotRunner, io: &mut MemoryIo| {
            if heir { runner.hand_over(io) } else { runner.release(io) }
        };
        if !self.alive_after(world, slot, armed, let_go)? {
            return Ok(());
        }
        self.after_burst(world, slot)?;
        world.shared.slots[slot].owner.release();
        self.alive[slot] = false;
        self.handed_over += 1;
        self.begin(world, slot, rng, heir)
    }

    /// The table is made anew from its records, as after three deaths: nothing that lives is lost by it. It is no burst: what
    /// a dead owner held may still be counted as held, if its successor has had none.
    pub fn rebuild(&mut self, world: &mut World, slot: usize, rng: &mut Rng) -> Result<(), String> {
        let armed = if rng.one_in(2) { 1 + rng.below(3000) } else { 0 };
        let rebuild = |runner: &mut SlotRunner, _: &mut MemoryIo| _ = runner.sessions_mut().rebuild();
        self.alive_after(world, slot, armed, rebuild).map(drop)
    }

    /// Does something between two bursts that may be the owner's end. `true`: it lives.
    fn alive_after(
        &mut self,
        world: &mut World,
        slot: usize,
        armed: u64,
        act: impl Fn(&mut SlotRunner, &mut MemoryIo),
    ) -> Result<bool, String> {
        failpoint::arm(armed);
        let (runner, io) = (&mut world.runners[slot], &mut world.ios[slot]);
        let outcome = catch_unwind(AssertUnwindSafe(|| act(runner, io)));
        failpoint::disarm();
        match outcome {
            Ok(()) => Ok(true),
            Err(panic) => {
                struck(panic)?;
                self.deaths += 1;
                self.died(world, slot);
                Ok(false)
            }
        }
    }
}

/// The conservation law.
fn balanced(counts: &Counts, slot: usize) -> Result<(), String> {
    let (came, went) = counts.balance();
    if came == went { Ok(()) } else { Err(format!("slot {slot}: {came} packets came, {went} went")) }
}

/// A failpoint's panic is a death; any other is a failure.
fn struck(panic: Box<dyn std::any::Any + Send>) -> Result<(), String> {
    if panic.downcast_ref::<&str>() == Some(&"failpoint") {
        return Ok(());
    }
    Err(format!("the owner panicked: {}", text_of(&*panic)))
}

/// What a panic said.
pub fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_else(|| "?".into())
}

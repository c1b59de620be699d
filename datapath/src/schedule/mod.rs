//! Choosing a real server. Each slot decides alone, at the cost of an array read; what it needs is cached per service and
//! made anew only when the service, or the health of any server, changed.
//!
//! | scheduler | file | what slots know of each other |
//! |---|---|---|
//! | `rr`, `wrr` | here | nothing: each goes round from a place of its own |
//! | `lc`, `wlc` | `least.rs`, `warm.rs` | sessions, as of the last few picks |
//! | `source-ip`, `source-ip-port`, `maglev` | `hash.rs` | nothing: all read one table |
//! | persistence | `persistence.rs` | whom each has sent where |

mod eligible;
mod hash;
mod least;
mod persistence;
mod warm;

pub use eligible::{Health, pool_panic_until};
pub use hash::Client;

use std::sync::atomic::Ordering::Relaxed; // Published rows do not change; counts are statistics of other slots.

use shm_layout::board::LastKnown;
use shm_layout::limits::NONE;
use shm_layout::published::{Generation, MemberRow, ServiceRow, scheduler, service_flag};

use crate::shared::Shared;
use persistence::Memory;
use warm::Newcomers;

/// What a slot remembers of a service. Shape: one line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Cache {
    /// Service row version it was made from.
    row: u32,
    checksum: u32,
    /// Generation in which that was last found true.
    generation: u64,
    /// Board epoch it was made at.
    epoch: u64,
    /// Made anew at this time at the latest (end of a panic), ms.
    until_ms: u64,
    /// Places in use of the eligible list.
    len: u32,
    /// Places in use of the eligible steps.
    steps: u32,
    /// Next place.
    cursor: u32,
    /// Least-connection: servers that have just come, and the weights of all eligible ones together.
    newcomers: u32,
    weights: u32,
    /// Least-connection: the member whose counts in other slots were read last, and when.
    refreshed: u32,
    refreshed_ms: u64,
}

const EMPTY: Cache = Cache {
    row: NONE,
    checksum: 0,
    generation: 0,
    epoch: u64::MAX,
    until_ms: 0,
    len: 0,
    steps: 0,
    cursor: 0,
    newcomers: 0,
    weights: 0,
    refreshed: 0,
    refreshed_ms: 0,
};

/// The schedulers of one slot. All memory is taken when it is made.
#[derive(Debug)]
pub struct Schedulers {
    slot: usize,
    caches: Vec<Cache>,
    /// Eligible member places, at the service's own range of the member arena.
    by_member: Vec<u32>,
    /// Eligible steps, at the service's own range of the step arena (wrr, wlc).
    by_step: Vec<u32>,
    /// Which members of the arena are eligible (choices by hash).
    takes: Vec<bool>,
    /// Sessions other slots have at each member of the arena (lc).
    elsewhere: Vec<u32>,
    /// Health as this slot saw it last.
    known: LastKnown,
    newcomers: Newcomers,
    memory: Memory,
    random: u64,
}

/// Why nothing could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unschedulable {
    /// All servers are down, draining or of weight 0.
    NoServer,
    /// The service's published rows do not carry their checksum.
    Damaged,
}

impl Schedulers {
    /// Schedulers of slot `slot`; `seed` spreads the slots' starting points.
    #[must_use]
    pub fn new(shared: &Shared, slot: u32, seed: u64) -> Self {
        Self {
            slot: slot as usize,
            caches: vec![EMPTY; shared.published.directories.first().map_or(0, |d| d.services.len())],
            by_member: vec![0; shared.published.members.len()],
            by_step: vec![0; shared.published.steps.len()],
            takes: vec![false; shared.published.members.len()],
            elsewhere: vec![0; shared.published.members.len()],
            known: LastKnown::new(shared.board.cells.len()),
            newcomers: Newcomers::new(shared.board.cells.len()),
            memory: Memory::new(shared, slot),
            random: seed | 1,
        }
    }

    /// Chooses a server of the service for a new session.
    ///
    /// # Errors
    /// See [`Unschedulable`].
    pub fn pick<'a>(
        &mut self,
        shared: &'a Shared,
        generation: Generation,
        index: u32,
        service: &'a ServiceRow,
        client: &Client,
        now_ms: u64,
    ) -> Result<&'a MemberRow, Unschedulable> {
        self.refresh(shared, generation, index, service, now_ms)?;
        let members = shared.published.members(service);
        let Some(cache) = self.caches.get_mut(index as usize).filter(|c| c.len > 0) else {
            return Err(Unschedulable::NoServer);
        };
        let place = match service.scheduler.load(Relaxed) {
            _ if service.flags.load(Relaxed) & service_flag::PERSISTENT != 0 => {
                self.kept(shared, generation, index, service, client, now_ms)
            }
            scheduler::LC | scheduler::WLC => self.least(shared, service, members, index, now_ms),
            scheduler::WRR if cache.steps > 0 => {
                let at = service.first_step.load(Relaxed) + next(&mut cache.cursor, cache.steps);
                self.by_step.get(at as usize).copied()
            }
            scheduler::SOURCE_IP | scheduler::SOURCE_IP_PORT | scheduler::MAGLEV => {
                self.by_hash(shared, index, service, client.hash(service))
            }
            _ => {
                let at = service.first_member.load(Relaxed) + next(&mut cache.cursor, cache.len);
                self.by_member.get(at as usize).copied()
            }
        };
        place.and_then(|place| members.get(place as usize)).ok_or(Unschedulable::Damaged)
    }

    /// Asks for what is remembered of a service.
    pub(crate) fn foresee(&self, index: u32) {
        arch::prefetch_at(&self.caches, index as usize);
    }

    /// Where the place of a member that will be chosen soon stands: after `run` others, and asked for. A guess; `usize::MAX`
    /// where it is not the next one in turn that is chosen.
    pub(crate) fn foresee_place(&self, index: u32, service: &ServiceRow, run: u32) -> usize {
        let by_turn = matches!(service.scheduler.load(Relaxed), scheduler::RR | scheduler::WRR);
        if !by_turn || service.flags.load(Relaxed) & service_flag::PERSISTENT != 0 {
            return usize::MAX;
        }
        let Some(cache) = self.caches.get(index as usize).filter(|cache| cache.len > 0) else { return usize::MAX };
        let ahead = cache.cursor.wrapping_add(run);
        let at = if ahead < cache.len { ahead } else { ahead % cache.len };
        let (list, first) = self.list(service);
        let at = first as usize + at as usize;
        arch::prefetch_at(list, at);
        at
    }

    /// That member, as a place in the arena.
    pub(crate) fn foresee_member(&self, service: &ServiceRow, at: usize) -> usize {
        let place = self.list(service).0.get(at).copied();
        place.map_or(usize::MAX, |place| service.first_member.load(Relaxed) as usize + place as usize)
    }

    /// Eligible places of a service, and where its own begin.
    fn list(&self, service: &ServiceRow) -> (&[u32], u32) {
        let weighted = service.scheduler.load(Relaxed) == scheduler::WRR && service.steps.load(Relaxed) > 0;
        if weighted {
            (&self.by_step, service.first_step.load(Relaxed))
        } else {
            (&self.by_member, service.first_member.load(Relaxed))
        }
    }

    fn random(&mut self) -> u32 {
        // xorshift64*: spreads starting points and samples; nothing here must be unpredictable.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u32::try_from(self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap_or(0)
    }
}

/// Advances a round-robin cursor.
fn next(cursor: &mut u32, len: u32) -> u32 {
    let at = if *cursor < len { *cursor } else { 0 };
    *cursor = at + 1;
    at
}

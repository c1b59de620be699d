//! Least connections over many slots, without a shared counter: own sessions exactly, those of the other slots as of the
//! last few picks. Weighted: the server that would have the fewest sessions for its weight with one more.

use std::sync::atomic::Ordering::Relaxed; // Counts of other slots: statistics, any recent value will do.

use shm_layout::published::{MemberRow, ServiceRow, scheduler};
use shm_layout::slot::Slot;

use super::Schedulers;
use crate::shared::Shared;

/// Members whose counts in the other slots are read again at each pick, in turn: a small pool is always fresh, a large one
/// costs no more.
const REFRESHED: u32 = 2;
/// After a pause of this many ms, more are read at once.
const PAUSE_MS: u64 = 5;
/// How many after a pause.
const REFRESHED_AFTER_PAUSE: u32 = 64;
/// The servers of a pool up to this are all compared.
const COMPARED: u32 = 8;
/// Servers of a larger pool that are compared: a random sample ("the power of d choices", Mitzenmacher 2001), each a line
/// that is rarely in the nearest cache. Weighted, the sample is drawn by weight.
const SAMPLED: u32 = 4;

/// A server that was compared.
#[derive(Clone, Copy)]
struct Compared {
    place: u32,
    id: u32,
    /// Sessions it would have.
    load: u64,
    weight: u64,
}

impl Compared {
    /// Has it fewer sessions for its weight?
    fn less(&self, other: &Self) -> bool {
        self.load * other.weight < other.load * self.weight
    }
}

impl Schedulers {
    /// The eligible server with the fewest sessions (for its weight).
    pub(super) fn least(
        &mut self,
        shared: &Shared,
        service: &ServiceRow,
        members: &[MemberRow],
        index: u32,
        now_ms: u64,
    ) -> Option<u32> {
        let first = service.first_member.load(Relaxed) as usize;
        let weighted = service.scheduler.load(Relaxed) == scheduler::WLC;
        self.refresh_elsewhere(shared, first, members, index, now_ms)?;
        let cache = self.caches.get_mut(index as usize)?;
        let (len, steps, cursor) = (cache.len, cache.steps, cache.cursor);
        cache.cursor = if cursor + 1 < len { cursor + 1 } else { 0 };
        let warming = cache.newcomers > 0;
        if warming {
            self.newcomers.turn(index, cache.weights, now_ms);
        }
        let own = &shared.slots.get(self.slot)?.servers;
        let mut best: Option<Compared> = None;
        let mut held: Option<Compared> = None;
        let mut compared = [None; COMPARED as usize];
        for (turn, seen) in (0..if len <= COMPARED { len } else { SAMPLED }).zip(&mut compared) {
            let place = if len <= COMPARED {
                // A moving start breaks ties evenly.
                *self.by_member.get(first + (cursor.wrapping_add(turn) % len) as usize)?
            } else if weighted && steps > 0 {
                let at = service.first_step.load(Relaxed) + scaled(self.random(), steps);
                *self.by_step.get(at as usize)?
            } else {
                let at = scaled(self.random(), len);
                *self.by_member.get(first + at as usize)?
            };
            let member = members.get(place as usize)?;
            let id = member.id.load(Relaxed);
            let here = own.get(id as usize).map_or(0, |c| c.active.load(Relaxed));
            let load = u64::from(here) + u64::from(*self.elsewhere.get(first + place as usize)?);
            let weight = if weighted { u64::from(member.weight.load(Relaxed)) } else { 1 };
            let candidate = Compared { place, id, load: load + 1, weight };
            let better = if warming && self.newcomers.held_back(index, id) { &mut held } else { &mut best };
            if better.is_none_or(|least| candidate.less(&least)) {
                *better = Some(candidate);
            }
            if warming {
                *seen = Some(candidate);
            }
        }
        let chosen = best.or(held)?;
        if warming {
            let mine = |id: u32| compared.iter().flatten().find(|c| c.id == id);
            let caught_up = |id: u32| mine(id).is_some_and(|newcomer| !newcomer.less(&chosen));
            self.caches.get_mut(index as usize)?.newcomers = self.newcomers.chose(index, chosen.id, now_ms, caught_up);
        }
        Some(chosen.place)
    }

    /// Reads the other slots' counts of the next few members again.
    fn refresh_elsewhere(
        &mut self,
        shared: &Shared,
        first: usize,
        members: &[MemberRow],
        index: u32,
        now_ms: u64,
    ) -> Option<()> {
        let cache = self.caches.get_mut(index as usize)?;
        let len = cache.len;
        let paused = now_ms.wrapping_sub(cache.refreshed_ms) > PAUSE_MS;
        cache.refreshed_ms = now_ms;
        let refresh = if paused { REFRESHED_AFTER_PAUSE } else { REFRESHED };
        for _ in 0..refresh.min(len) {
            let next = cache.refreshed + 1;
            cache.refreshed = if next < len { next } else { 0 };
            let place = *self.by_member.get(first + cache.refreshed as usize)?;
            let id = members.get(place as usize)?.id.load(Relaxed) as usize;
            let others = shared.slots.iter().enumerate().filter(|(slot, _)| *slot != self.slot);
            let count = |slot: &Slot| slot.servers.get(id).map_or(0, |c| c.active.load(Relaxed));
            *self.elsewhere.get_mut(first + place as usize)? =
                others.map(|(_, slot)| count(slot)).fold(0, u32::saturating_add);
        }
        Some(())
    }
}

/// A random number, scaled to `0..n`: without a division.
fn scaled(random: u32, n: u32) -> u32 {
    u32::try_from(u64::from(random) * u64::from(n) >> 32).unwrap_or(0)
}

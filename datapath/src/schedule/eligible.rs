//! Which servers may take new sessions: enabled, weight above 0, not down, or kept by the panic rule.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use shm_layout::board::{Board, LastKnown, Probed, panic_until};
use shm_layout::limits::NONE;
use shm_layout::published::{Generation, MemberRow, ServiceRow, admin, scheduler, service_flag};

use super::{Schedulers, Unschedulable};
use crate::shared::Shared;

/// May the operator's and the configuration's word send new sessions there?
fn wanted(member: &MemberRow) -> bool {
    member.admin.load(Relaxed) == admin::ENABLED && member.weight.load(Relaxed) > 0
}

/// What health is read from: the board, and what was known before something scribbled on it.
#[derive(Clone, Copy, Debug)]
pub struct Health<'a> {
    /// The board.
    pub board: &'a Board,
    /// The reader's memory.
    pub known: &'a LastKnown,
}

/// Time of the change to "down", ms; `None` while up or unknown.
fn down_since(health: Health<'_>, member: &MemberRow) -> Option<u64> {
    let tag = member.tag.load(Relaxed);
    let cell = health.known.read(health.board, member.id.load(Relaxed), tag);
    (cell.state(tag) == Probed::Down).then(|| cell.changed_ms())
}

/// Until when the pool of a service keeps the servers that are down, ms; `None`: no panic. One rule for slots and lbctl.
#[must_use]
pub fn pool_panic_until(health: Health<'_>, service: &ServiceRow, members: &[MemberRow], now_ms: u64) -> Option<u64> {
    if service.flags.load(Relaxed) & service_flag::PANIC == 0 {
        return None;
    }
    let pool = members.iter().filter(|m| wanted(m));
    let down = pool.clone().filter_map(|m| down_since(health, m));
    panic_until(pool.count(), u64::from(service.check_interval_ms.load(Relaxed)), now_ms, down)
}

impl Schedulers {
    /// Makes the cache of a service true again, if something moved.
    pub(super) fn refresh(
        &mut self,
        shared: &Shared,
        generation: Generation,
        index: u32,
        service: &ServiceRow,
        now_ms: u64,
    ) -> Result<(), Unschedulable> {
        // Acquire pairs with the health-checker's Release: the results it announces are there.
        let epoch = shared.board.head.epoch.load(Acquire);
        let slot = self.slot;
        let Some(cache) = self.caches.get_mut(index as usize) else { return Err(Unschedulable::Damaged) };
        if cache.generation == generation.number && cache.epoch == epoch && now_ms < cache.until_ms {
            return Ok(());
        }
        let row = shared.published.directory(generation).services.get(index as usize).map_or(NONE, |r| r.load(Relaxed));
        let checksum = service.checksum.load(Relaxed);
        if cache.generation != generation.number {
            if shared.published.service_sum(service) != checksum {
                return Err(Unschedulable::Damaged);
            }
            let unchanged = cache.row == row && cache.checksum == checksum && cache.epoch == epoch;
            cache.generation = generation.number;
            if unchanged && now_ms < cache.until_ms {
                return Ok(());
            }
        }
        let members = shared.published.members(service);
        for member in members {
            self.known.look(&shared.board, member.id.load(Relaxed), member.tag.load(Relaxed));
        }
        let health = Health { board: &shared.board, known: &self.known };
        let panic = pool_panic_until(health, service, members, now_ms);
        let eligible = |m: &MemberRow| wanted(m) && (panic.is_some() || down_since(health, m).is_none());
        let fresh = cache.row == NONE;
        cache.row = row;
        cache.checksum = checksum;
        cache.epoch = epoch;
        cache.until_ms = panic.unwrap_or(u64::MAX);
        cache.refreshed_ms = 0; // Least-connection reads the other slots' counts at its next pick.
        let first = service.first_member.load(Relaxed);
        fill(&mut self.takes, first, members.len(), members.iter().map(eligible));
        let takes = self.takes.get(first as usize..).unwrap_or(&[]);
        let takes = |place: u32| takes.get(place as usize) == Some(&true);
        let steps = shared.published.steps(service);
        let places = steps.iter().map(|s| s.load(Relaxed)).filter(|place| takes(*place));
        cache.steps = fill(&mut self.by_step, service.first_step.load(Relaxed), steps.len(), places);
        let placed = (0_u32..).zip(members).map(|(place, member)| (member, place, takes(place)));
        let places = placed.clone().filter(|(.., takes)| *takes).map(|(_, place, _)| place);
        cache.len = fill(&mut self.by_member, first, members.len(), places);
        let least = service.scheduler.load(Relaxed);
        if matches!(least, scheduler::LC | scheduler::WLC) {
            let weight = |m: &MemberRow| if least == scheduler::WLC { u32::from(m.weight.load(Relaxed)) } else { 1 };
            let weighed = placed.map(|(member, _, takes)| (member, takes, weight(member)));
            let weights = weighed.clone().map(|(_, takes, weight)| if takes { weight } else { 0 });
            cache.weights = weights.fold(0, u32::saturating_add);
            cache.newcomers = self.newcomers.look(index, weighed, fresh, now_ms);
        }
        let len = if cache.steps > 0 { cache.steps } else { cache.len };
        if fresh && len > 0 {
            // Slots begin at different places, or all would send their first session to the same server.
            cache.cursor = u32::try_from(slot).unwrap_or(0) % len;
        }
        Ok(())
    }
}

/// Writes `places` into the service's own range of a mirror array; returns how many.
fn fill<T>(mirror: &mut [T], first: u32, room: usize, places: impl Iterator<Item = T>) -> u32 {
    let first = first as usize;
    let Some(range) = mirror.get_mut(first..first.saturating_add(room)) else { return 0 };
    let mut len = 0;
    for (to, place) in range.iter_mut().zip(places) {
        *to = place;
        len += 1;
    }
    len
}

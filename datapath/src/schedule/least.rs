//! Least connections over many slots, without a shared counter: own sessions exactly, those of the other slots as of the
//! last few picks.

use std::sync::atomic::Ordering::Relaxed; // Counts of other slots: statistics, any recent value will do.

use shm_layout::published::{MemberRow, ServiceRow};
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
/// Servers compared per pick: all of a small pool, a random sample of a large one ("the power of d choices",
/// Mitzenmacher 2001): the cost stays that of round-robin.
const COMPARED: u32 = 8;

impl Schedulers {
    /// The eligible server with the fewest sessions.
    pub(super) fn least(
        &mut self,
        shared: &Shared,
        service: &ServiceRow,
        members: &[MemberRow],
        index: u32,
        now_ms: u64,
    ) -> Option<u32> {
        let first = service.first_member.load(Relaxed) as usize;
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
        let cursor = cache.cursor;
        cache.cursor = if cursor + 1 < len { cursor + 1 } else { 0 };
        let own = &shared.slots.get(self.slot)?.servers;
        let mut best: Option<(u32, u32)> = None;
        for step in 0..len.min(COMPARED) {
            // A moving start breaks ties evenly.
            let at = if len <= COMPARED { cursor.wrapping_add(step) % len } else { scaled(self.random(), len) };
            let place = *self.by_member.get(first + at as usize)?;
            let member = members.get(place as usize)?;
            let here = own.get(member.id.load(Relaxed) as usize).map_or(0, |c| c.active.load(Relaxed));
            let load = here.saturating_add(*self.elsewhere.get(first + place as usize)?);
            if best.is_none_or(|(least, _)| load < least) {
                best = Some((load, place));
            }
        }
        best.map(|(_, place)| place)
    }
}

/// A random number, scaled to `0..n`: without a division.
fn scaled(random: u32, n: u32) -> u32 {
    u32::try_from(u64::from(random) * u64::from(n) >> 32).unwrap_or(0)
}

//! Slow start under least-connection: a server that has just come has the fewest sessions, and would get every new one.
//!
//! Its share grows from a fifth of what is fair to twice that in [`RAMP_MS`], by credit: each pick of its service adds a
//! part of a session, each session it gets takes one. It is a newcomer no longer once another one has as few sessions, at
//! the latest after [`LONGEST_MS`] and [`PICKS`].

use std::sync::atomic::Ordering::Relaxed; // Published rows do not change.

use shm_layout::published::MemberRow;

/// Time from the smallest share to the largest, ms.
const RAMP_MS: u64 = 10_000;
/// Shares, in 256ths of the fair one.
const SMALLEST: u64 = 51;
const LARGEST: u64 = 512;
/// After so long, ms, and so many picks, it is taken as it is: its sessions are short, it has few because it is fast.
const LONGEST_MS: u64 = 60_000;
const PICKS: u32 = 1000;
/// Credit of one session, and the most that is saved up.
const SESSION: u64 = 1 << 32;
const SAVED: u64 = 2 * SESSION;
/// Newcomers at a time, over all services; more start without ramp.
const MOST: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Newcomer {
    service: u32,
    id: u32,
    weight: u32,
    since_ms: u64,
    picks: u32,
    credit: u64,
}

/// The newcomers a slot knows.
#[derive(Debug)]
pub(super) struct Newcomers {
    list: Vec<Newcomer>,
    /// By server id: tag of the use in which it was eligible when last looked at; 0: it was not.
    met: Vec<u32>,
}

impl Newcomers {
    pub(super) fn new(servers: usize) -> Self {
        Self { list: Vec::with_capacity(MOST), met: vec![0; servers] }
    }

    /// Looks at the members of a service (with whether they are eligible, and their weight); returns how many are newcomers.
    /// `fresh`: nothing is known of the service yet, so nobody is new. Where more than half are, there are no old ones to be
    /// spared for.
    pub(super) fn look<'a>(
        &mut self,
        service: u32,
        members: impl Iterator<Item = (&'a MemberRow, bool, u32)> + Clone,
        fresh: bool,
        now_ms: u64,
    ) -> u32 {
        let eligible = |id: u32| members.clone().any(|(m, takes, _)| takes && m.id.load(Relaxed) == id);
        self.list.retain(|n| n.service != service || eligible(n.id));
        let mut count = 0;
        for (member, takes, weight) in members.clone() {
            let (id, tag) = (member.id.load(Relaxed), member.tag.load(Relaxed));
            let Some(met) = self.met.get_mut(id as usize) else { continue };
            let new = takes && *met != tag && !fresh;
            *met = if takes { tag } else { 0 };
            count += u32::from(takes);
            if let Some(newcomer) = self.list.iter_mut().find(|n| n.service == service && n.id == id) {
                newcomer.weight = weight;
            } else if new && self.list.len() < MOST {
                self.list.push(Newcomer { service, id, weight, since_ms: now_ms, picks: 0, credit: 0 });
            }
        }
        let newcomers = self.count(service);
        if newcomers * 2 > count {
            self.list.retain(|n| n.service != service);
            return 0;
        }
        newcomers
    }

    fn count(&self, service: u32) -> u32 {
        u32::try_from(self.list.iter().filter(|n| n.service == service).count()).unwrap_or(0)
    }

    /// A pick of the service begins: `weights` is the sum over its eligible servers.
    pub(super) fn turn(&mut self, service: u32, weights: u32, now_ms: u64) {
        for newcomer in self.list.iter_mut().filter(|n| n.service == service) {
            let age = now_ms.saturating_sub(newcomer.since_ms).min(RAMP_MS);
            let share = SMALLEST + (LARGEST - SMALLEST) * age / RAMP_MS;
            let fair = SESSION * u64::from(newcomer.weight) / u64::from(weights.max(1));
            newcomer.credit = (newcomer.credit + fair * share / 256).min(SAVED);
            newcomer.picks = newcomer.picks.saturating_add(1);
        }
    }

    /// May the server not have the next session?
    pub(super) fn held_back(&self, service: u32, id: u32) -> bool {
        self.list.iter().any(|n| n.service == service && n.id == id && n.credit < SESSION)
    }

    /// A pick of the service ends: `chosen` has the session; newcomers for which `caught_up` says so are none any more.
    /// Returns how many are left.
    pub(super) fn chose(&mut self, service: u32, chosen: u32, now_ms: u64, caught_up: impl Fn(u32) -> bool) -> u32 {
        self.list.retain_mut(|n| {
            if n.service != service {
                return true;
            }
            if n.id == chosen {
                n.credit = n.credit.saturating_sub(SESSION);
                return true;
            }
            let long = now_ms.saturating_sub(n.since_ms) >= LONGEST_MS && n.picks >= PICKS;
            let caught_up = n.credit >= SESSION && caught_up(n.id);
            !long && !caught_up
        });
        self.count(service)
    }
}

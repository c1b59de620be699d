//! Next hops: who is asked when, what is believed, which rows are taken back. Pure: time and frames come and go as
//! arguments; `rings` moves them.
//!
//! Asked are the configured (gateways and servers on connected networks, always kept fresh) and whom workers need.
//! Kept are the configured and whom sessions use: a worker asks only for whom it does not know, so what is in use is found
//! by passes over the sessions ([`Neighbourhood::in_use`]). Others are given up when nobody has wanted them for longer than
//! any session may be idle.
//! Believed are answers to questions, from the address asked, to us. Whatever else a configured neighbour says about its
//! MAC makes us ask: the answer counts (RFC 5227's caution, and what keeps a forged announcement from being believed).

mod wire;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use packet::Mac;
use shm_layout::learn::{LearnError, Learner};
use shm_layout::neighbours::{Hop, Ip, from_std, neighbour_state as state, to_std};

pub use self::wire::PortNet;
use self::wire::{question, said};
use super::register::{Difference, Register, ServiceEntry};

/// How long an answer counts, ms.
pub const REACHABLE_MS: u64 = 30_000;
/// The same of a gateway that is one of several: the others take over for one that is gone, within this and its questions.
pub const GATEWAY_REACHABLE_MS: u64 = 3_000;
/// Waits after each question of somebody unknown, ms; after the last it has failed.
const FIRST_WAITS: [u64; 5] = [50, 200, 1000, 1000, 1000];
/// Questions to somebody known before it has failed; one a second.
const PROBES: u32 = 4;
/// Pause before a configured neighbour that failed is asked again, ms.
const RETRY_MS: u64 = 2000;
/// Questions to the unknown under way at once; further ones wait for a worker to ask again.
const OUTSTANDING: usize = 256;
/// When no worker could send it, a question is tried again after this, ms.
const NO_SENDER_MS: u64 = 100;
/// Time between two complaints that the table is full.
const COMPLAIN_MS: u64 = 10_000;

/// A question to be sent on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Port.
    pub port: u8,
    /// The frame.
    pub frame: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    ip: Ip,
    port: u8,
    pinned: bool,
    tries: u32,
    next_ms: u64,
    /// A worker asked for it, a session was seen to use it, or it came into the configuration.
    wanted_ms: u64,
    /// A question is out: the next answer is believed.
    asked: bool,
}

/// All neighbours.
#[derive(Debug)]
pub struct Neighbourhood {
    learner: Learner,
    ports: Vec<PortNet>,
    entries: HashMap<u16, Entry>,
    due: BTreeSet<(u64, u16)>,
    keep_ms: u64,
    /// That the table is full is not said again before this, ms.
    complain_ms: u64,
    /// When the last whole pass over the sessions began; `u64::MAX`: nobody looks, what workers ask for is all that is known.
    pass_ms: u64,
}

impl Neighbourhood {
    /// Takes over the table; rows of an earlier control stay and are confirmed again in their time. `keep_ms`: rows
    /// nobody asks for are kept at least so long (the longest session timeout).
    #[must_use]
    pub fn new(learner: Learner, ports: Vec<PortNet>, keep_ms: u64, now_ms: u64) -> Self {
        let (entries, due) = (HashMap::new(), BTreeSet::new());
        let mut this = Self { learner, ports, entries, due, keep_ms, complain_ms: 0, pass_ms: u64::MAX };
        let table = this.learner.table().clone();
        for (number, row) in (0_u16..).zip(table.rows.iter()).skip(1) {
            let r = std::sync::atomic::Ordering::Relaxed;
            if row.state.load(r) == state::FREE {
                continue;
            }
            let port = Hop(row.hop.load(r)).port();
            let ip = [row.ip[0].load(r), row.ip[1].load(r)];
            let confirmed = row.confirmed_ms.load(r);
            let next_ms = if confirmed == 0 { now_ms } else { confirmed + REACHABLE_MS };
            let entry = Entry { ip, port, pinned: false, tries: 0, next_ms, wanted_ms: now_ms, asked: false };
            this.due.insert((next_ms, number));
            this.entries.insert(number, entry);
        }
        this
    }

    /// The sessions are looked through for who is in use; nobody is given up before the first pass is done.
    pub fn sessions_are_looked_through(&mut self) {
        self.pass_ms = 0;
    }

    /// A session uses the row `number`, given out under `tag`.
    pub fn in_use(&mut self, number: u16, tag: u8, now_ms: u64) {
        if number != 0
            && let Some(entry) = self.entries.get_mut(&number)
            && entry.wanted_ms != now_ms
            && self.learner.table().hop(number).tag() == tag
        {
            entry.wanted_ms = now_ms;
        }
    }

    /// A pass over all sessions that began at `began_ms` is done: who was not in use then is not.
    pub fn pass_done(&mut self, began_ms: u64) {
        self.pass_ms = began_ms;
    }

    /// Has nobody wanted it for longer than any session lives, and does no session use it?
    fn unwanted(&self, entry: &Entry, now_ms: u64) -> bool {
        !entry.pinned && entry.wanted_ms + self.keep_ms < now_ms && entry.wanted_ms < self.pass_ms
    }

    /// Are answers awaited? (Then the rings are looked at more often.)
    #[must_use]
    pub fn waiting(&self) -> bool {
        self.entries.values().any(|e| e.asked)
    }

    /// The configured neighbours: `(address, port)`. Others lose the privilege, not their rows.
    pub fn pin(&mut self, wanted: &HashSet<(Ip, u8)>, keep_ms: u64, now_ms: u64) {
        self.keep_ms = keep_ms;
        for entry in self.entries.values_mut() {
            if entry.pinned && !wanted.contains(&(entry.ip, entry.port)) {
                (entry.pinned, entry.wanted_ms) = (false, now_ms);
            }
        }
        for (ip, port) in wanted {
            if let Some(number) = self.want(*ip, *port, now_ms)
                && let Some(entry) = self.entries.get_mut(&number)
            {
                entry.pinned = true;
            }
        }
    }

    /// A worker needs `ip` behind `port`.
    pub fn requested(&mut self, ip: Ip, port: u8, now_ms: u64) {
        let on_link = self.ports.get(usize::from(port)).is_some_and(|p| p.on_link(ip));
        let known = self.learner.table().find(ip, port).is_some();
        if on_link && (known || self.unknown() < OUTSTANDING) {
            self.want(ip, port, now_ms);
        }
    }

    fn unknown(&self) -> usize {
        self.entries.values().filter(|e| e.asked && !e.pinned).count()
    }

    fn want(&mut self, ip: Ip, port: u8, now_ms: u64) -> Option<u16> {
        let number = match self.row(ip, port, now_ms) {
            Ok(number) => number,
            Err(error) => {
                // Strangers can cause it as often as they like.
                if now_ms >= self.complain_ms {
                    self.complain_ms = now_ms + COMPLAIN_MS;
                    log::warn!("neighbour {} on port {port}: {error}", to_std(ip));
                }
                return None;
            }
        };
        let resolved = self.learner.table().hop(number).resolved();
        match self.entries.get_mut(&number) {
            Some(entry) => {
                entry.wanted_ms = now_ms;
                // It failed, and is asked for again: at once, if the last question is a second old.
                if !resolved && !entry.asked && !entry.pinned && entry.next_ms > now_ms + 1000 {
                    entry.tries = 0;
                    self.schedule(number, now_ms);
                }
            }
            None => {
                let entry =
                    Entry { ip, port, pinned: false, tries: 0, next_ms: now_ms, wanted_ms: now_ms, asked: false };
                self.entries.insert(number, entry);
                self.due.insert((now_ms, number));
            }
        }
        Some(number)
    }

    /// A row, if need be that of the neighbour nobody asked for longest.
    fn row(&mut self, ip: Ip, port: u8, now_ms: u64) -> Result<u16, LearnError> {
        match self.learner.row(ip, port) {
            Ok(number) => Ok(number),
            Err(error) => {
                // Who fills the table with addresses that nobody has must not keep others out (RFC 6583).
                let silent =
                    |number: u16, e: &Entry| !e.pinned && !e.asked && !self.learner.table().hop(number).resolved();
                // Where its bucket of the index is full, one of that bucket must go.
                let bucket = self.learner.table().bucket(ip, port);
                let there = |number: u16| bucket.rows.iter().any(|row| row.load(Relaxed) == u32::from(number));
                let in_the_way = |number: u16| matches!(error, LearnError::Full { .. }) || there(number);
                let gives_way = |(number, e): &(&u16, &Entry)| {
                    in_the_way(**number) && (self.unwanted(e, now_ms) || silent(**number, e))
                };
                let entries = self.entries.iter().filter(gives_way);
                let oldest = entries.min_by_key(|(_, e)| e.wanted_ms).map(|(number, _)| *number);
                self.forget(oldest.ok_or(error)?);
                self.learner.row(ip, port)
            }
        }
    }

    fn forget(&mut self, number: u16) {
        if let Some(entry) = self.entries.remove(&number) {
            self.due.remove(&(entry.next_ms, number));
            self.learner.forget(number);
        }
    }

    fn schedule(&mut self, number: u16, at_ms: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            self.due.remove(&(entry.next_ms, number));
            entry.next_ms = at_ms;
            self.due.insert((at_ms, number));
        }
    }

    /// What is due: questions go to `send`, which says whether a worker took them. At most a burst of 64 per call.
    pub fn step(&mut self, now_ms: u64, mut send: impl FnMut(&Question) -> bool) {
        for _ in 0..64 {
            let Some((at, number)) = self.due.first().copied().filter(|(at, _)| *at <= now_ms) else { return };
            debug_assert!(at <= now_ms);
            let next = self.due_now(number, now_ms, &mut send);
            match next {
                Some(next) => self.schedule(number, next),
                None => self.forget(number),
            }
        }
    }

    /// Handles one neighbour whose time has come; when to look at it again, `None`: never.
    fn due_now(&mut self, number: u16, now_ms: u64, send: &mut impl FnMut(&Question) -> bool) -> Option<u64> {
        let known = self.learner.table().hop(number);
        let unwanted = self.entries.get(&number).is_some_and(|entry| self.unwanted(entry, now_ms));
        let entry = self.entries.get_mut(&number)?;
        let waits = if known.resolved() { PROBES as usize } else { FIRST_WAITS.len() };
        if entry.tries as usize >= waits {
            // No answer to the last question.
            (entry.tries, entry.asked) = (0, false);
            self.learner.fail(number);
            if entry.pinned {
                return Some(now_ms + RETRY_MS);
            }
            return (!unwanted).then_some(now_ms + self.keep_ms);
        }
        let unicast = (known.resolved() && entry.tries == 0).then(|| Mac(known.mac()));
        let question = self.ports.get(usize::from(entry.port)).and_then(|p| question(p, entry.ip, unicast))?;
        let question = Question { port: entry.port, frame: question };
        if unwanted && entry.tries == 0 {
            return None;
        }
        if !send(&question) {
            return Some(now_ms + NO_SENDER_MS);
        }
        let wait = if known.resolved() { 1000 } else { FIRST_WAITS[entry.tries as usize] };
        entry.tries += 1;
        entry.asked = true;
        self.learner.asked(number, if known.resolved() { state::PROBING } else { state::INCOMPLETE }, now_ms);
        Some(now_ms + wait)
    }

    /// A frame a worker took for control: an answer or announcement that came in by `port`.
    pub fn heard(&mut self, port: u8, frame: &[u8], now_ms: u64) {
        let Some(net) = self.ports.get(usize::from(port)) else { return };
        let Some(said) = said(net, frame) else { return };
        let Some((number, hop)) = self.learner.table().find(said.ip, port) else { return };
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let known = hop.resolved().then(|| Mac(hop.mac()));
        let Some(mac) = said.mac.or(known) else { return };
        if entry.asked && said.to_us && (said.replaces || known.is_none_or(|known| known == mac)) {
            (entry.asked, entry.tries) = (false, 0);
            self.learner.confirm(number, mac.0, now_ms);
            let several = net.gateways.len() > 1 && net.gateways.contains(&entry.ip);
            let reachable = if several { GATEWAY_REACHABLE_MS } else { REACHABLE_MS };
            // Spread, so that neighbours learned together are not asked again together.
            let spread = u64::from(number) * 37 % (reachable / 10);
            self.schedule(number, now_ms + reachable - spread);
        } else if entry.pinned && !entry.asked && known != Some(mac) {
            // A configured neighbour seems to have moved, or come back: ask everybody, now.
            entry.tries = u32::from(hop.resolved());
            self.schedule(number, now_ms);
        }
    }
}

/// Neighbours a configuration names: gateways, and servers on connected networks; the rest is behind gateways.
#[must_use]
pub fn configured(config: &config::Config, register: &Register) -> HashSet<(Ip, u8)> {
    let number = |port: usize| u8::try_from(port).ok();
    let mut wanted = HashSet::new();
    for (i, port) in config.ports.iter().enumerate() {
        wanted.extend(port.gateways.iter().filter_map(|g| Some((from_std(*g), number(i)?))));
    }
    let servers = register.present().flat_map(|s| s.present()).map(|s| s.rs.address.ip());
    wanted.extend(servers.filter_map(|ip| Some((from_std(ip), number(config.connected(ip)?)?))));
    wanted
}

/// Is there anything in the difference that [`configured`] or [`longest_timeout`] depends on? (Not in weights and admin
/// states.)
#[must_use]
pub fn concerned(difference: &Difference<'_>) -> bool {
    difference
        .in_part(|s| (s.index, s.service.timeouts.clone(), s.present().map(|s| s.rs.address.ip()).collect::<Vec<_>>()))
}

/// The longest time a session may be idle, ms: nothing that it needs is taken back earlier.
#[must_use]
pub fn longest_timeout(register: &Register) -> u64 {
    let of = |s: &Arc<ServiceEntry>| {
        let t = &s.service.timeouts;
        [t.syn_sent, t.syn_recv, t.established, t.fin_wait, t.close_wait, t.last_ack, t.time_wait, t.close, t.udp]
            .map(config::Millis::get)
            .into_iter()
            .max()
            .unwrap_or(0)
    };
    u64::from(register.present().map(of).max().unwrap_or(0)).max(60_000)
}

#[cfg(test)]
mod tests;

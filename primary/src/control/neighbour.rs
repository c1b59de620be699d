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

use packet::Mac;
use shm_layout::learn::Learner;
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
    /// When the last whole pass over the sessions began; `u64::MAX`: nobody looks, what workers ask for is all that is known.
    pass_ms: u64,
}

impl Neighbourhood {
    /// Takes over the table; rows of an earlier control stay and are confirmed again in their time. `keep_ms`: rows
    /// nobody asks for are kept at least so long (the longest session timeout).
    #[must_use]
    pub fn new(learner: Learner, ports: Vec<PortNet>, keep_ms: u64, now_ms: u64) -> Self {
        let mut this =
            Self { learner, ports, entries: HashMap::new(), due: BTreeSet::new(), keep_ms, pass_ms: u64::MAX };
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
                log::warn!("neighbour {} on port {port}: {error}", to_std(ip));
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
    fn row(&mut self, ip: Ip, port: u8, now_ms: u64) -> Result<u16, shm_layout::learn::LearnError> {
        match self.learner.row(ip, port) {
            Ok(number) => Ok(number),
            Err(error) => {
                let entries = self.entries.iter().filter(|(_, e)| self.unwanted(e, now_ms));
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
mod tests {
    use super::*;
    use packet::arp::{Arp, Operation};
    use packet::build::Link;
    use shm_layout::neighbours::{Neighbours, as_v4, ip4};
    use std::sync::atomic::Ordering;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const GATEWAY: Ip = ip4(0x0a00_0001);
    const CLIENT: Ip = ip4(0x0a00_0032);

    fn neighbourhood(table: &Neighbours, now: u64) -> Neighbourhood {
        let port = PortNet { mac: MAC, vlan: 0, addresses: vec![(ip4(0x0a00_0002), 120)], gateways: vec![GATEWAY] };
        Neighbourhood::new(Learner::attach(table.clone()), vec![port], 60_000, now)
    }

    fn answer(operation: Operation, ip: Ip, mac: Mac, to: Mac) -> Vec<u8> {
        let message =
            Arp { operation, sender_mac: mac, sender_ip: as_v4(ip).unwrap(), target_mac: to, target_ip: 0x0a00_0002 };
        let mut frame = [0; 64];
        let len = packet::build::arp(&mut frame, Link { dst: to, src: mac, vlan: 0 }, &message).unwrap();
        frame[..len].to_vec()
    }

    /// Runs until `end`, ms by ms; the times of the questions and whether they were broadcast.
    fn questions(n: &mut Neighbourhood, from: u64, end: u64) -> Vec<(u64, bool)> {
        let mut asked = Vec::new();
        for now in from..end {
            n.step(now, |q| {
                asked.push((now - from, q.frame[..6] == [0xff; 6]));
                true
            });
        }
        asked
    }

    #[test]
    fn an_unknown_one_is_asked_quickly_then_fails_and_is_asked_again_on_request() {
        let table = Neighbours::anonymous(64).unwrap();
        let mut n = neighbourhood(&table, 0);
        n.requested(CLIENT, 0, 1000);
        assert!(questions(&mut n, 1000, 1001).len() == 1 && n.waiting());
        let times: Vec<u64> = questions(&mut n, 1001, 6000).iter().map(|q| q.0 + 1).collect();
        assert_eq!(times, [50, 250, 1250, 2250]);
        let (row, hop) = table.find(CLIENT, 0).unwrap();
        assert!(!hop.resolved() && !n.waiting());
        assert_eq!(table.rows[usize::from(row)].state.load(Ordering::Relaxed), state::FAILED);
        n.requested(CLIENT, 0, 7000);
        assert_eq!(questions(&mut n, 7000, 7010).len(), 1);
        n.heard(0, &answer(Operation::Reply, CLIENT, PEER, MAC), 7020);
        assert_eq!(table.hop(row).mac(), PEER.0);
        n.requested(ip4(0x0b00_0001), 0, 7030);
        n.requested(ip4(0x0a00_0002), 0, 7030);
        assert_eq!(table.head.used.load(Ordering::Relaxed), 1, "neither strangers' networks nor our own address");
    }

    #[test]
    fn only_answers_to_questions_are_believed() {
        let table = Neighbours::anonymous(64).unwrap();
        let mut n = neighbourhood(&table, 0);
        n.heard(0, &answer(Operation::Reply, CLIENT, PEER, MAC), 5);
        assert!(table.find(CLIENT, 0).is_none(), "never asked");
        n.pin(&HashSet::from([(GATEWAY, 0)]), 60_000, 10);
        questions(&mut n, 10, 11);
        n.heard(0, &answer(Operation::Reply, GATEWAY, PEER, PEER), 12);
        n.heard(0, &answer(Operation::Request, GATEWAY, PEER, MAC), 12);
        n.heard(1, &answer(Operation::Reply, GATEWAY, PEER, MAC), 12);
        n.heard(0, &[0; 20], 12);
        let (row, hop) = table.find(GATEWAY, 0).unwrap();
        assert!(!hop.resolved(), "not to us, no answer, another port, nonsense");
        n.heard(0, &answer(Operation::Reply, GATEWAY, PEER, MAC), 13);
        assert!(table.hop(row).resolved());
        // An announcement of another MAC: not believed, but the question goes to everybody at once.
        let thief = Mac([2, 6, 6, 6, 6, 6]);
        n.heard(0, &answer(Operation::Request, GATEWAY, thief, Mac::ZERO), 20);
        assert_eq!(table.hop(row).mac(), PEER.0);
        assert_eq!(questions(&mut n, 20, 22), [(0, true)]);
        n.heard(0, &answer(Operation::Reply, GATEWAY, thief, MAC), 23);
        assert_eq!(table.hop(row).mac(), thief.0, "the answer counts");
    }

    #[test]
    fn the_known_are_asked_again_before_they_expire_and_kept_meanwhile() {
        let table = Neighbours::anonymous(64).unwrap();
        let mut n = neighbourhood(&table, 0);
        n.pin(&HashSet::from([(GATEWAY, 0)]), 60_000, 0);
        questions(&mut n, 0, 1);
        n.heard(0, &answer(Operation::Reply, GATEWAY, PEER, MAC), 1);
        let asked = questions(&mut n, 2, 31_000);
        assert_eq!((asked.len(), asked[0].1), (2, false), "first the one who had it, then everybody");
        let (row, hop) = table.find(GATEWAY, 0).unwrap();
        assert!(hop.resolved(), "still used while it is being asked");
        // Control restarts: the row is kept.
        let mut n = neighbourhood(&table, 31_000);
        n.pin(&HashSet::from([(GATEWAY, 0)]), 60_000, 31_000);
        assert!(table.hop(row).resolved());
        questions(&mut n, 31_000, 36_000);
        assert!(!table.hop(row).resolved(), "four questions without an answer");
        assert!(!questions(&mut n, 36_000, 40_000).is_empty(), "a configured one is asked again and again");
        n.heard(0, &answer(Operation::Reply, GATEWAY, PEER, MAC), 40_001);
        assert!(table.hop(row).resolved());
    }

    #[test]
    fn without_a_worker_questions_wait_and_old_rows_go_when_room_is_needed() {
        let table = Neighbours::anonymous(8).unwrap();
        let mut n = neighbourhood(&table, 0);
        n.requested(CLIENT, 0, 0);
        for now in 0..5000 {
            n.step(now, |_| false);
        }
        assert_eq!(questions(&mut n, 5000, 5101).len(), 2, "not counted as tries");
        let mut made = 0;
        while table.head.used.load(Ordering::Relaxed) < 4 {
            n.requested([0, CLIENT[1] + 1 + made], 0, 5200);
            made += 1;
        }
        // Nobody asks for them for longer than a session lives: rows come free by themselves.
        questions(&mut n, 5200, 200_000);
        assert_eq!(table.head.used.load(Ordering::Relaxed), 0);
    }

    /// An hour of sessions with one client: it is asked in time, never unresolved, and keeps its row. One that no session
    /// uses any more goes, also one that would answer.
    #[test]
    fn who_is_in_use_is_asked_again_and_kept_for_as_long_as_it_is() {
        let table = Neighbours::anonymous(64).unwrap();
        let mut n = neighbourhood(&table, 0);
        n.sessions_are_looked_through();
        let other = [0, CLIENT[1] + 1];
        n.requested(CLIENT, 0, 1);
        n.requested(other, 0, 1);
        let (mut asked, mut row, mut other_gone) = (0_u32, None, None);
        for now in 1..3_600_000_u64 {
            let mut questions = Vec::new();
            if now % 15 == 1 {
                n.step(now, |q| {
                    questions.push(ip4(packet::arp::parse(&q.frame[14..]).unwrap().target_ip));
                    true
                });
            }
            for ip in questions {
                asked += u32::from(ip == CLIENT);
                n.heard(0, &answer(Operation::Reply, ip, PEER, MAC), now);
            }
            if now % 5000 == 0 {
                // Control looks through the sessions: one, of CLIENT, idle or not.
                let (number, hop) = table.find(CLIENT, 0).unwrap_or_else(|| panic!("forgotten after {now} ms"));
                assert!(hop.resolved(), "unresolved after {now} ms");
                assert_eq!(*row.get_or_insert((number, hop.tag())), (number, hop.tag()), "another row after {now} ms");
                n.in_use(number, hop.tag(), now);
                n.in_use(number + 1, hop.tag() + 9, now); // A session of a recycled row.
                n.pass_done(now);
            }
            if other_gone.is_none() && table.find(other, 0).is_none() && now > 10 {
                other_gone = Some(now);
            }
        }
        assert!((120..=150).contains(&asked), "asked {asked} times in an hour");
        assert!(other_gone.is_some_and(|at| (60_000..120_000).contains(&at)), "not in use: {other_gone:?}");
        // Its last session ends.
        for now in 3_600_000..3_760_000 {
            if now % 15 == 1 {
                n.step(now, |_| true);
            }
            if now % 5000 == 0 {
                n.pass_done(now);
            }
        }
        assert_eq!(table.head.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn nobody_is_given_up_before_a_pass_has_looked_for_who_uses_it() {
        let table = Neighbours::anonymous(8).unwrap();
        let mut n = neighbourhood(&table, 0);
        n.sessions_are_looked_through();
        n.requested(CLIENT, 0, 1000);
        questions(&mut n, 1000, 1001);
        n.heard(0, &answer(Operation::Reply, CLIENT, PEER, MAC), 1001);
        // Long after: the pass that is under way has not come to its session yet.
        n.pass_done(900);
        questions(&mut n, 1002, 200_000);
        assert!(table.find(CLIENT, 0).is_some());
        n.pass_done(150_000);
        questions(&mut n, 200_000, 400_000);
        assert!(table.find(CLIENT, 0).is_none());
    }

    mod v6 {
        use super::*;
        use packet::ipv6::from_bytes;
        use packet::nd::{self, Nd};
        use packet::{Parsed, classify};

        const US: Ip = [0x2001_0db8 << 32, 2];
        const GATEWAY: Ip = [0xfe80 << 48, 1];
        const SERVER: Ip = [0x2001_0db8 << 32, 0x21];

        fn neighbourhood(table: &Neighbours) -> Neighbourhood {
            let addresses = vec![(ip4(0x0a00_0002), 120), (US, 64)];
            let port = PortNet { mac: MAC, vlan: 0, addresses, gateways: vec![GATEWAY] };
            Neighbourhood::new(Learner::attach(table.clone()), vec![port], 60_000, 0)
        }

        /// From whom to whom a question goes, its target and the station it is sent to.
        fn ask(n: &mut Neighbourhood, now: u64) -> (Ip, Ip, Ip, Mac) {
            let mut asked = Vec::new();
            n.step(now, |q| {
                asked.push(q.frame.clone());
                true
            });
            let [frame] = &asked[..] else { panic!("{asked:?}") };
            let Ok(Parsed::V6(p)) = classify(frame) else { panic!("no IPv6") };
            let message = nd::parse(p.src, p.dst, p.head.ttl, p.head.segment(frame)).unwrap();
            let Nd::Solicitation { target, source } = message else { panic!("{message:?}") };
            assert_eq!(source, Some(MAC));
            (p.src, p.dst, target, packet::ethernet::dst(frame).unwrap())
        }

        fn answer(ip: Ip, mac: Mac, to: Ip) -> Vec<u8> {
            let mut frame = [0; 128];
            let len = nd::answer(&mut frame, MAC, to, mac, ip, 0).unwrap();
            frame[..len].to_vec()
        }

        /// The frame with other flags in its advertisement.
        fn with_flags(mut frame: Vec<u8>, flags: u8) -> Vec<u8> {
            frame[58] = flags;
            frame[56..58].fill(0);
            let at = |at: usize| from_bytes(frame[at..at + 16].try_into().unwrap());
            let sum = packet::icmpv6::checksum(at(22), at(38), &frame[54..]);
            frame[56..58].copy_from_slice(&sum.to_be_bytes());
            frame
        }

        #[test]
        fn is_asked_for_by_solicitations_and_believed_when_it_answers() {
            let table = Neighbours::anonymous(64).unwrap();
            let mut n = neighbourhood(&table);
            n.requested(SERVER, 0, 1);
            n.requested([0xff02 << 48, 1], 0, 1);
            n.requested([0x2001_0db9 << 32, 1], 0, 1);
            n.requested(US, 0, 1);
            assert_eq!(table.head.used.load(Ordering::Relaxed), 1, "no groups, no strangers' networks, not ourselves");
            let group = nd::solicited_node(SERVER);
            assert_eq!(ask(&mut n, 1), (US, group, SERVER, nd::multicast_mac(group)));
            let (row, _) = table.find(SERVER, 0).unwrap();
            let mut announced = [0; 128];
            let len = nd::announce(&mut announced, PEER, SERVER, 0).unwrap();
            n.heard(0, &announced[..len], 2);
            let mut forwarded = answer(SERVER, PEER, US);
            forwarded[21] = 254;
            n.heard(0, &forwarded, 2);
            let mut elsewhere = answer(SERVER, PEER, US);
            elsewhere[..6].copy_from_slice(&PEER.0);
            n.heard(0, &elsewhere, 2);
            assert!(!table.hop(row).resolved(), "to all, from behind a router, to another station");
            n.heard(0, &answer(SERVER, PEER, US), 3);
            assert_eq!(table.hop(row).mac(), PEER.0);
            // Known: first the one who had it is asked. Another one that may not replace it does not.
            assert_eq!(ask(&mut n, 30_003), (US, SERVER, SERVER, PEER));
            let thief = Mac([2, 6, 6, 6, 6, 6]);
            n.heard(0, &with_flags(answer(SERVER, thief, US), 0x40), 30_004);
            assert!(n.waiting() && table.hop(row).mac() == PEER.0);
            n.heard(0, &answer(SERVER, thief, US), 30_005);
            assert!(!n.waiting() && table.hop(row).mac() == thief.0, "one with the override flag does");
        }

        #[test]
        fn a_link_local_gateway_is_asked_from_a_link_local_address() {
            let table = Neighbours::anonymous(64).unwrap();
            let mut n = neighbourhood(&table);
            n.pin(&HashSet::from([(GATEWAY, 0)]), 60_000, 0);
            let (src, _, target, _) = ask(&mut n, 0);
            assert_eq!((src, target), (nd::link_local(MAC), GATEWAY));
            n.heard(0, &answer(GATEWAY, PEER, src), 1);
            let (row, hop) = table.find(GATEWAY, 0).unwrap();
            assert!(hop.resolved());
            // It announces another MAC: everybody is asked at once.
            let mut frame = [0; 128];
            let len = nd::announce(&mut frame, Mac([2, 6, 6, 6, 6, 6]), GATEWAY, 0).unwrap();
            n.heard(0, &frame[..len], 100);
            assert_eq!(table.hop(row).mac(), PEER.0);
            assert_eq!(ask(&mut n, 100).1, nd::solicited_node(GATEWAY));
        }

        #[test]
        fn rows_of_both_families_are_taken_over() {
            let table = Neighbours::anonymous(64).unwrap();
            let mut n = neighbourhood(&table);
            n.requested(SERVER, 0, 1);
            n.requested(CLIENT, 0, 1);
            let mut n = neighbourhood(&table);
            assert_eq!(questions(&mut n, 0, 1).len(), 2);
        }
    }
}

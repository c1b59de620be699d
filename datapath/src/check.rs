//! The invariants of the whole appliance, counted anew: one checker for the simulator, the end-to-end tests and lbctl.
//!
//! - every table by itself ([`SessionReader::check`]): lists, keys, counts equal to a recount, no change in progress;
//! - a live session has one slot and one server: no key, of a client or of a reply, is in two places over all slots;
//! - its local port, if it has one, is of its slot's part, so that every slot can tell where a reply belongs;
//! - its server's row, if there is one, has the address the session has (an id is not given again while it is counted);
//! - the conservation law of every slot, and what its counters say of sessions begun and ended;
//! - no buffer is in two places of the ledgers.
//!
//! Reads only. The tables must be at rest: [`moves`] tells whether they were.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed; // At rest; on tables that move, `moves` refuses what was read.

use arch::HashKey;
use shm_layout::counters::Flow;
use shm_layout::published::{Generation, Published, owner_slot};
use shm_layout::secrets::{self, SecretsRow};
use shm_layout::slot::Slot;

use crate::session::{Key, Recount, Session, SessionReader};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Laws broken, one line each; empty: all hold.
    pub violations: Vec<String>,
    /// Every table counted anew (those whose laws hold).
    pub tables: Vec<(u32, Recount)>,
    /// Live sessions whose server's id has no row: they go on by their own addresses.
    pub orphans: u64,
    /// Copied into rings, less taken out, less what lies in them. 0 unless an owner died: what it did in its last burst
    /// is counted in nothing.
    pub ring_slack: i64,
    /// Sessions begun, less ended, less those in the tables, by the slots' counters. 0 unless an owner died, as above.
    pub session_slack: i64,
}

/// Checks all slots of an appliance. `published`: none before the first generation.
#[must_use]
pub fn appliance(slots: &[Slot], secrets: &SecretsRow, published: Option<&Published>) -> Found {
    let key = HashKey::new(secrets::bytes(&secrets.hash_key));
    let mut found = Found::default();
    let mut places: HashMap<Key, (u32, u32)> = HashMap::new();
    let mut buffers: HashMap<u64, String> = HashMap::new();
    let directory = published.and_then(|published| published.current().map(|generation| (published, generation)));
    let count = u32::try_from(slots.len()).unwrap_or(0);
    for (number, slot) in (0_u32..).zip(slots) {
        let reader = SessionReader::new(slot.clone(), key);
        match reader.check() {
            Ok(recount) => found.tables.push((number, recount)),
            Err(law) => found.violations.push(format!("slot {number}: {law}")),
        }
        for (record, session) in reader.iter() {
            found.session(number, record, &session, count, directory);
            for key in session.keys() {
                if let Some((other, twin)) = places.insert(key, (number, record)) {
                    let text = session_text(&session);
                    found
                        .say(number, format!("{text}: record {record} and record {twin} of slot {other} have one key"));
                }
            }
        }
        found.counters(number, slot);
        found.buffers(number, slot, &mut buffers);
    }
    found
}

impl Found {
    fn say(&mut self, slot: u32, law: impl std::fmt::Display) {
        self.violations.push(format!("slot {slot}: {law}"));
    }

    fn session(
        &mut self,
        slot: u32,
        record: u32,
        session: &Session,
        slots: u32,
        directory: Option<(&Published, Generation)>,
    ) {
        let owner = owner_slot(session.local_port, slots);
        // A client's own port (mode nat) is of no part.
        if owner != slot && session.local_ip != session.client_ip {
            self.say(slot, format!("local port of record {record} ({}) is of slot {owner}", session_text(session)));
        }
        let Some((published, generation)) = directory else { return };
        let Some(row) = published.server(generation, session.server_id) else {
            self.orphans += 1;
            return;
        };
        let has = ([row.ip[0].load(Relaxed), row.ip[1].load(Relaxed)], row.port.load(Relaxed));
        if has != (session.real_ip, session.server_port) {
            let (text, id) = (session_text(session), session.server_id);
            self.say(slot, format!("record {record} ({text}) is counted at server {id}, which is another"));
        }
    }

    fn counters(&mut self, number: u32, slot: &Slot) {
        let Some(counts) = slot.counters.read() else {
            return self.say(number, "its counters change all the time");
        };
        let (came, went) = counts.balance();
        if came != went {
            self.say(number, format!("{came} packets came, {went} went"));
        }
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let lying: u64 = slot.inbound.iter().map(shm_layout::ring::Ring::len).sum();
        self.ring_slack += signed(counts.flow(Flow::ToRing)) - signed(counts.flow(Flow::FromRing)) - signed(lying);
        self.session_slack += signed(counts.flow(Flow::Created))
            - signed(counts.flow(Flow::Ended))
            - i64::from(slot.table.active.load(Relaxed));
    }

    fn buffers(&mut self, number: u32, slot: &Slot, seen: &mut HashMap<u64, String>) {
        let ledger = &slot.ledger;
        for (name, row) in [("rx", &ledger.rx[..]), ("tx", &ledger.tx[..]), ("wait", &ledger.wait[..])] {
            for (at, word) in row.iter().enumerate() {
                let buffer = word.load(Relaxed);
                let here = format!("{name}[{at}] of slot {number}");
                if buffer != 0
                    && let Some(other) = seen.insert(buffer, here)
                {
                    self.say(number, format!("buffer {buffer:#x} is in {name}[{at}] and in {other}"));
                }
            }
        }
    }
}

/// Words that change whenever a table or a ledger does: alike before and after a check, it saw them at rest.
#[must_use]
pub fn moves(slots: &[Slot]) -> Vec<u64> {
    let of = |slot: &Slot| {
        let table = &slot.table;
        let counts = slot.counters.read().unwrap_or_default();
        let narrow = [&table.free, &table.fresh, &table.active, &table.records, &table.tick, &table.sweep];
        let wide = [&table.random, &table.created, &table.ended];
        let mut words = vec![u64::from(slot.intent.op.load(Relaxed))];
        words.extend(narrow.map(|word| u64::from(word.load(Relaxed))));
        words.extend(wide.map(|word| word.load(Relaxed)));
        words.extend([Flow::Rx, Flow::Tx, Flow::FromRing, Flow::ToRing, Flow::Originated].map(|f| counts.flow(f)));
        words
    };
    slots.iter().flat_map(of).collect()
}

fn session_text(session: &Session) -> String {
    let ip = shm_layout::neighbours::to_std;
    format!(
        "{}:{} to {}:{} by {}:{} at {}:{}",
        ip(session.client_ip),
        session.client_port,
        ip(session.vip),
        session.vip_port,
        ip(session.local_ip),
        session.local_port,
        ip(session.real_ip),
        session.server_port
    )
}

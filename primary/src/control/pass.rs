//! A pass over all sessions in pieces: there may be tens of millions, and nobody waits for all of them at once.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use arch::HashKey;
use datapath::session::SessionReader;
use shm_layout::neighbours::to_std;
use shm_layout::slot::Slot;

/// Records looked at in one piece: a few milliseconds.
const PIECE: usize = 100_000;
/// An answer made from a pass that began so long ago is given again, ms: many who ask make one pass.
const FRESH_MS: u64 = 1000;

/// Where a pass is.
#[derive(Debug, Default)]
pub struct Pass {
    slot: usize,
    record: u32,
}

impl Pass {
    /// Shows the next `records` places to `see`, as number among `slots` and record; `true`: those were the last.
    pub fn go_on(&mut self, slots: &[Slot], mut records: usize, mut see: impl FnMut(usize, u32)) -> bool {
        while let Some(slot) = slots.get(self.slot) {
            for record in used(slot, self.record) {
                if records == 0 {
                    self.record = record;
                    return false;
                }
                see(self.slot, record);
                records -= 1;
            }
            (self.slot, self.record) = (self.slot + 1, 0);
        }
        true
    }
}

/// Records of a slot that were ever used, of both kinds, from `first` on.
pub fn used(slot: &Slot, first: u32) -> impl Iterator<Item = u32> {
    slot.used().into_iter().flat_map(move |range| range.start.max(first)..range.end)
}

/// Sessions by local address and server.
pub type ByLocal = HashMap<IpAddr, HashMap<SocketAddr, u64>>;

#[derive(Debug)]
struct Known {
    began_ms: u64,
    done_ms: u64,
    found: Rc<ByLocal>,
}

/// Which local addresses sessions use, found by a pass when somebody wants to know.
#[derive(Debug, Default)]
pub struct LocalsUse {
    under_way: Option<(u64, Pass, ByLocal)>,
    known: Option<Known>,
}

impl LocalsUse {
    /// As found by a pass that began at `since_ms` or later; `None`: it is under way now, ask again.
    pub fn since(&mut self, since_ms: u64, now_ms: u64) -> Option<Rc<ByLocal>> {
        if let Some(known) = self.known.as_ref().filter(|known| known.began_ms >= since_ms) {
            return Some(Rc::clone(&known.found));
        }
        if self.under_way.as_ref().is_none_or(|(began, ..)| *began < since_ms) {
            self.under_way = Some((now_ms, Pass::default(), ByLocal::new()));
        }
        None
    }

    /// For people: by a pass that was done within the last second.
    pub fn recent(&mut self, now_ms: u64) -> Option<Rc<ByLocal>> {
        if let Some(known) = self.known.as_ref().filter(|known| known.done_ms + FRESH_MS >= now_ms) {
            return Some(Rc::clone(&known.found));
        }
        // Whoever finds a pass under way takes what it finds.
        let began = self.under_way.as_ref().map_or(now_ms, |(began, ..)| *began);
        self.since(began, now_ms)
    }

    /// Is there a next piece?
    #[must_use]
    pub fn busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Does the next piece.
    pub fn go_on(&mut self, slots: &[Slot], now_ms: u64) {
        let Some((began_ms, mut pass, mut found)) = self.under_way.take() else { return };
        let reader = |slot: &Slot| SessionReader::new(slot.clone(), HashKey::new([0; 32]));
        let readers: Vec<SessionReader> = slots.iter().map(reader).collect();
        let done = pass.go_on(slots, PIECE, |at, record| {
            if let Some(s) = readers.get(at).and_then(|reader| reader.get(record)) {
                let server = SocketAddr::new(to_std(s.real_ip), s.server_port);
                *found.entry(to_std(s.local_ip)).or_default().entry(server).or_default() += 1;
            }
        });
        if done {
            self.known = Some(Known { began_ms, done_ms: now_ms, found: Rc::new(found) });
        } else {
            self.under_way = Some((began_ms, pass, found));
        }
    }
}

/// The local addresses in it.
#[must_use]
pub fn addresses(found: &ByLocal) -> HashSet<IpAddr> {
    found.keys().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_layout::session::{State, flag};
    use shm_layout::slot::SlotGeometry;
    use std::sync::atomic::Ordering::Relaxed;

    fn slots(sessions: u32) -> Vec<Slot> {
        let geometry = SlotGeometry {
            slot: 0,
            slots: 2,
            sessions: 300_000,
            wide_sessions: 0,
            servers: 4,
            services: 4,
            extensions: 0,
        };
        let slot = |slot| Slot::anonymous(SlotGeometry { slot, ..geometry }, false).unwrap();
        let slots: Vec<Slot> = (0..2).map(slot).collect();
        for slot in &slots {
            slot.table.fresh.store(sessions, Relaxed);
            for row in slot.sessions.iter().take(sessions as usize) {
                row.local_ip.store(0x0a00_0080, Relaxed);
                row.server_ip.store(0x0a00_0015, Relaxed);
                row.server_port.store(80, Relaxed);
                row.flags.store(flag::INDEXED, Relaxed);
                row.state.store(State::Established as u8, Relaxed);
            }
        }
        slots
    }

    #[test]
    fn a_pass_comes_in_pieces_and_finds_every_session_once() {
        let slots = slots(130_000);
        let mut all = LocalsUse::default();
        assert!(all.recent(5000).is_none() && all.busy());
        let mut pieces = 0;
        while all.busy() {
            all.go_on(&slots, 5000 + 700 * pieces);
            pieces += 1;
        }
        assert_eq!(pieces, 3, "260,000 records");
        // It began two seconds ago, but it is done now: who waited has an answer, and who asks within a second too.
        let found = all.recent(7100).unwrap();
        assert_eq!(found[&IpAddr::from([10, 0, 0, 128])].values().sum::<u64>(), 260_000);
        assert!(!all.busy() && all.recent(7401).is_none() && all.busy());
        // Who needs a later one does not get an earlier one.
        assert!(all.since(7401, 7500).is_none() && all.since(7402, 7500).is_none());
        (0..3).for_each(|_| all.go_on(&slots, 7600));
        assert!(all.since(7500, 7600).is_some() && addresses(&all.recent(7600).unwrap()).len() == 1);
    }
}

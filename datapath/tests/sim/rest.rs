//! Rests: everything stands still and is counted anew, and those who must live are heard.

use std::sync::atomic::Ordering::Relaxed;

use datapath::check;
use datapath::session::{Key, SessionReader, failpoint};
use shm_layout::neighbours::ip4;
use shm_layout::session::State;

use crate::life::Life;
use crate::model::Kind;
use crate::world::VIP;

/// A lap of the wheel and some: the latest visit to a record.
const LAP_MS: u64 = 16_500;

impl Life {
    /// Everybody lives, everything arrives, nothing moves: counts are what they are recounted to be, and every flow that
    /// must live does.
    pub fn rest(&mut self) -> Result<(), String> {
        self.calm = true;
        failpoint::disarm();
        for slot in 0..self.shape.slots as usize {
            if !self.owners.is_alive(slot) {
                self.owners.take_over(&mut self.world, slot, &mut self.rng)?;
            }
            (self.world.ios[slot].accept, self.world.ios[slot].buffers) = (None, None);
        }
        for address in self.stations.clone() {
            self.world.resolve(address);
        }
        while let Some((_, slot, frame)) = self.late.pop_front() {
            self.world.ios[slot].input.push_back(frame);
        }
        self.settle()?;
        self.recount()?;
        self.all_live()?;
        self.prove()?;
        self.calm = false;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), String> {
        let mut quiet = 0;
        // The wheel, the sweeps and those who wait have time to come round; a tick is 125 ms.
        let turns = 4 + 2 * self.shape.sessions / 64;
        for _ in 0..20_000 {
            let mut moved = 0;
            for slot in 0..self.shape.slots as usize {
                moved += self.poll(slot)?;
            }
            self.world.now += if quiet < 3 { 60_000_000 } else { 0 };
            quiet = if moved == 0 { quiet + 1 } else { 0 };
            if quiet > turns {
                return Ok(());
            }
        }
        Err("the appliance does not come to rest".into())
    }

    fn recount(&mut self) -> Result<(), String> {
        let shared = &self.world.shared;
        let found = check::appliance(&shared.slots, &shared.secrets, Some(&shared.published));
        if !found.violations.is_empty() {
            return Err(found.violations.join("; "));
        }
        let slack = (found.ring_slack, found.session_slack);
        if self.owners.deaths == self.deaths_at_rest && slack != self.slack {
            return Err(format!(
                "counters are off by (rings, sessions) {slack:?}, were by {:?}, and nobody died",
                self.slack
            ));
        }
        (self.slack, self.deaths_at_rest) = (slack, self.owners.deaths);
        // Nothing outlives its time by more than a tick, or a stride of the wheel where the time became shorter.
        let generation = shared.published.current();
        for (number, slot) in shared.slots.iter().enumerate() {
            for (record, session) in SessionReader::new(slot.clone(), shared.hash_key()).iter() {
                let member = generation.and_then(|g| shared.published.server(g, session.server_id));
                let service = member.and_then(|m| shared.published.service(generation?, m.service.load(Relaxed)));
                let Some(service) = service else { continue };
                let timeout = service.timeouts[session.state as usize].load(Relaxed);
                let idle = session.idle_ms(self.now_ms());
                let late = if self.now_ms() < self.rebuilt_ms + LAP_MS { 2 * LAP_MS } else { LAP_MS };
                if u64::from(idle) > u64::from(timeout) + late {
                    let state = session.state.name();
                    return Err(format!(
                        "slot {number}, record {record}: {state} and unused for {idle} ms of {timeout}"
                    ));
                }
            }
            let quarantined = slot.pulse.quarantined.load(Relaxed);
            if quarantined != 0 {
                return Err(format!("slot {number}: {quarantined} records quarantined"));
            }
        }
        Ok(())
    }

    /// Every flow that must live is in exactly one table, as its ends know it.
    fn all_live(&self) -> Result<(), String> {
        let shared = &self.world.shared;
        let readers: Vec<SessionReader> =
            shared.slots.iter().map(|slot| SessionReader::new(slot.clone(), shared.hash_key())).collect();
        for flow in self.model.flows.values().filter(|flow| flow.must_live(self.now_ms())) {
            let Some(path) = flow.path else { continue };
            let key = Key::new(flow.client.0, flow.client.1, VIP, flow.port(), flow.protocol());
            let found: Vec<_> = readers.iter().filter_map(|reader| reader.find(key)).collect();
            let right = found.len() == 1
                && (found[0].2.server_ip, found[0].2.server_port) == (ip4(path.server.0), path.server.1)
                && (found[0].2.local_ip, found[0].2.local_port) == (ip4(path.local.0), path.local.1)
                && matches!(found[0].2.state, State::Established | State::Udp);
            if !right {
                return Err(format!("a living flow has the sessions {found:?}: {flow:?}"));
            }
        }
        Ok(())
    }

    /// Some of the living say something: it arrives, both ways.
    fn prove(&mut self) -> Result<(), String> {
        let mut ids: Vec<u32> = Vec::new();
        for _ in 0..20.min(self.model.order.len()) {
            let id = *self.rng.pick(&self.model.order);
            if self.model.flows[&id].must_live(self.now_ms()) && !ids.contains(&id) {
                ids.push(id);
            }
        }
        for up in [true, false] {
            let before = self.deliveries;
            for id in &ids {
                if up { self.client_sends(*id, Kind::Data) } else { self.server_sends(*id, Kind::Data) }
            }
            let mut quiet = 0;
            while quiet < 3 {
                let mut moved = 0;
                for slot in 0..self.shape.slots as usize {
                    moved += self.poll(slot)?;
                }
                self.world.now += 1000;
                quiet = if moved == 0 { quiet + 1 } else { 0 };
            }
            if self.deliveries - before < ids.len() as u64 {
                let arrived = self.deliveries - before;
                return Err(format!(
                    "of {} living flows only {arrived} were heard (up: {up}); drops {:?}",
                    ids.len(),
                    self.world.drops()
                ));
            }
            self.proven += ids.len() as u64;
        }
        Ok(())
    }
}

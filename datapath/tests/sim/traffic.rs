//! Frames: what clients and servers send, how it gets lost on its way, and whether what comes out reaches whom it was
//! meant for.

use packet::{Parsed, classify};
use shm_layout::published::owner_slot;

use crate::life::{GATEWAY, Life};
use crate::model::{Answer, End, Kind, NOTE, Note};
use crate::world::{LOCAL, Rng, Tcp, VIP, checked, ip, mac_of, server, udp};

/// Frames that a queue of the port holds.
const QUEUE: usize = 512;
/// What strangers try.
const FLAGS: [&str; 4] = ["R", "S", "F", "P"];

/// MAC of whoever a packet to this address goes to, or comes from.
fn station(address: u32) -> [u8; 6] {
    mac_of(if address >> 16 == LOCAL >> 16 { address } else { GATEWAY })
}

impl Life {
    /// A frame leaves the appliance: does it reach whom it was meant for?
    pub fn delivered(&mut self, frame: &[u8]) -> Result<(), String> {
        if frame.get(12..14) != Some(&[8, 0]) {
            return Ok(()); // ARP.
        }
        let p = if self.rng.one_in(16) {
            checked(frame)
        } else {
            match classify(frame) {
                Ok(Parsed::L4(packet)) => packet,
                other => return Err(format!("the appliance sent {other:?}")),
            }
        };
        let station = station(p.dst);
        if frame[..6] != station {
            return Err(format!(
                "a frame for {:08x} went to station {:02x?}, not {station:02x?}: {p:?}",
                p.dst,
                &frame[..6]
            ));
        }
        self.deliveries += 1;
        let note = Note::read(&frame[usize::from(p.payload)..]);
        if let Some(note) = note.filter(|note| self.traced.contains(&note.flow)) {
            println!(
                "step {} at {}: delivered to {:08x}:{} from {:08x}:{} {note:?}",
                self.step,
                self.now_ms(),
                p.dst,
                p.dport,
                p.src,
                p.sport
            );
        }
        let answer = self.model.delivered(&p, note, self.step, self.now_ms())?;
        self.heed_orders(note.map_or(0, |note| note.flow));
        match answer {
            Answer::ServerAnswers(_, Kind::Data) if self.calm || self.rng.one_in(2) => {}
            Answer::ServerAnswers(id, kind) => {
                if kind == Kind::Fin {
                    self.end(id);
                }
                self.server_sends(id, kind);
            }
            Answer::ClientAnswers(id, kind) if !self.calm && (kind == Kind::Fin || self.rng.one_in(2)) => {
                self.client_sends(id, kind);
            }
            _ => {}
        }
        Ok(())
    }

    /// What is not answered is sent again.
    pub fn again(&mut self, id: u32) {
        let Some(flow) = self.model.flows.get(&id) else { return };
        match (flow.udp, flow.heard) {
            (false, None) => self.client_sends(id, Kind::Syn),
            _ => self.client_sends(id, Kind::Data),
        }
    }

    fn note(&self, id: u32, kind: Kind, up: bool, seq: u32, ack: u32, session: u32) -> Note {
        Note { kind, up, flow: id, step: self.step, ms: self.now_ms() as u32, seq, ack, session }
    }

    pub fn client_sends(&mut self, id: u32, kind: Kind) {
        let Some(flow) = self.model.flows.get(&id).cloned() else { return };
        let (from, to) = (flow.client, (VIP, flow.port()));
        if flow.udp {
            if matches!(kind, Kind::Data | Kind::Syn) {
                let note = self.note(id, Kind::Data, true, 0, 0, flow.session);
                self.send(self.home(from, to.1), udp(from, to, &note.bytes()));
            }
            return;
        }
        if kind != Kind::Syn && flow.heard.is_none() {
            return;
        }
        let mut segment = Tcp { from, to, seq: flow.next[0], ack: Some(flow.got[1]), ..Tcp::default() };
        match kind {
            Kind::Syn => (segment.flags, segment.ack, segment.seq) = ("S", None, flow.isn[0]),
            Kind::Data => segment.flags = "P",
            Kind::Fin => segment.flags = "F",
            Kind::Rst => segment.flags = "R",
            Kind::SynAck => return,
            Kind::Attack => {
                // Who does not see the flow must guess.
                segment.seq = self.rng.next() as u32;
                segment.flags = *self.rng.pick(&FLAGS);
                segment.ack = (segment.flags != "S").then(|| self.rng.next() as u32);
                if !flow.must_live(self.now_ms()) {
                    return;
                }
            }
        }
        if kind == Kind::Data && self.rng.one_in(4) {
            segment.seq = segment.seq.wrapping_sub(NOTE as u32); // Once more what was sent last, in new words.
        } else if matches!(kind, Kind::Data | Kind::Fin)
            && let Some(flow) = self.model.flows.get_mut(&id)
        {
            flow.next[0] = flow.next[0].wrapping_add(NOTE as u32 + u32::from(kind == Kind::Fin));
        }
        let note = self.note(id, kind, true, segment.seq, flow.got[1], flow.session);
        segment.payload = note.bytes().to_vec();
        let home = self.home(from, to.1);
        let astray = segment.flags != "S" && self.rng.one_in(6);
        let slot = if astray { self.rng.below(self.shape.slots.into()) as usize } else { home };
        self.send(slot, segment.frame());
    }

    pub fn server_sends(&mut self, id: u32, kind: Kind) {
        let Some(flow) = self.model.flows.get(&id).cloned() else { return };
        let Some(path) = flow.path else { return };
        let own = owner_slot(path.local.1, self.shape.slots) as usize;
        let slot = if self.rng.one_in(3) { self.rng.below(self.shape.slots.into()) as usize } else { own };
        if flow.udp {
            let note = self.note(id, Kind::Data, false, 0, 0, flow.session);
            return self.send(slot, udp(path.server, path.local, &note.bytes()));
        }
        if (kind == Kind::SynAck) == flow.heard.is_some() {
            return; // Speaks when there is a connection, opens one when there is none.
        }
        let mut segment = Tcp { from: path.server, to: path.local, seq: flow.next[1], ..Tcp::default() };
        match kind {
            Kind::SynAck => (segment.flags, segment.seq) = ("S", flow.isn[1]),
            Kind::Fin => segment.flags = "F",
            Kind::Rst => segment.flags = "R",
            _ => segment.flags = "P",
        }
        segment.ack = Some(flow.got[0].wrapping_add(path.shift));
        let note = self.note(id, kind, false, segment.seq, flow.got[0], flow.session);
        if let (Kind::Data | Kind::Fin, Some(flow)) = (kind, self.model.flows.get_mut(&id)) {
            flow.next[1] = flow.next[1].wrapping_add(NOTE as u32 + u32::from(kind == Kind::Fin));
        }
        segment.payload = note.bytes().to_vec();
        self.send(slot, segment.frame());
    }

    /// One client sends more to the wrong slot than the ring to the right one holds, whose owner sleeps or is dead.
    pub fn flood(&mut self) -> Result<(), String> {
        let lives = |id: &&u32| self.model.flows.get(id).is_some_and(|f| !f.udp && f.must_live(self.now_ms()));
        let Some(id) = self.model.order.iter().find(lives).copied() else { return Ok(()) };
        let flow = &self.model.flows[&id];
        let (from, to) = (flow.client, (VIP, flow.port()));
        let (home, wrong) = (self.home(from, to.1), self.rng.below(self.shape.slots.into()) as usize);
        if home == wrong {
            return Ok(());
        }
        let (seq, ack) = (flow.next[0].wrapping_sub(NOTE as u32), flow.got[1]);
        for _ in 0..1600 {
            let note = self.note(id, Kind::Data, true, seq, ack, 0);
            let payload = note.bytes().to_vec();
            let segment = Tcp { from, to, seq, ack: Some(ack), flags: "P", payload, ..Tcp::default() };
            self.send(wrong, segment.frame());
            if self.world.ios[wrong].input.len() >= QUEUE / 8 && self.owners.is_alive(wrong) {
                self.poll(wrong)?;
            }
        }
        Ok(())
    }

    /// Where the port's hash puts what a client sends.
    fn home(&self, client: End, port: u16) -> usize {
        let mix = u64::from(client.0) << 32 | u64::from(client.1) << 16 | u64::from(port);
        (Rng(mix).next() % u64::from(self.shape.slots)) as usize
    }

    /// To a slot's queue, now or later; or lost, or twice.
    pub fn send(&mut self, slot: usize, mut frame: Vec<u8>) {
        let source = u32::from_be_bytes(frame[26..30].try_into().unwrap());
        frame[6..12].copy_from_slice(&station(source));
        if !self.calm && self.rng.one_in(self.shape.noise) {
            match self.rng.below(3) {
                0 => return,
                1 => self.late.push_back((self.step + self.rng.below(60) as u32, slot, frame.clone())),
                _ => return self.late.push_back((self.step + self.rng.below(60) as u32, slot, frame)),
            }
        }
        let queue = &mut self.world.ios[slot].input;
        if queue.len() < QUEUE {
            queue.push_back(frame);
        }
    }

    /// What was late arrives.
    pub fn arrive(&mut self) {
        for _ in 0..self.late.len() {
            let Some((due, slot, frame)) = self.late.pop_front() else { return };
            if due > self.step {
                self.late.push_back((due, slot, frame));
            } else if self.world.ios[slot].input.len() < QUEUE {
                self.world.ios[slot].input.push_back(frame);
            }
        }
    }

    /// Frames that belong to nobody, though they may look like somebody's.
    pub fn noise(&mut self) {
        let slot = self.rng.below(self.shape.slots.into()) as usize;
        let note = self.note(0, Kind::Attack, false, 0, 0, 0).bytes();
        let port = self.rng.next() as u16;
        let from = (server(self.rng.below(4) as u8), 8080);
        let flags = *self.rng.pick(&FLAGS);
        let frame = match self.rng.below(4) {
            0 => (0..self.rng.below(90)).map(|_| self.rng.next() as u8).collect(),
            1 => Tcp { from: (ip(10, 0, 1, 9), port), ack: Some(1), flags: "P", ..Tcp::default() }.frame(),
            2 => Tcp {
                from,
                to: (LOCAL, port),
                seq: self.rng.next() as u32,
                ack: Some(self.rng.next() as u32),
                flags,
                payload: note.to_vec(),
                ..Tcp::default()
            }
            .frame(),
            _ => udp(from, (LOCAL, port), &note),
        };
        if self.world.ios[slot].input.len() < QUEUE {
            self.world.ios[slot].input.push_back(frame);
        }
    }
}

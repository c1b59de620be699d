//! What the world outside knows: who talks to whom, and what must be true of it. Plain maps, no knowledge of the tables.
//!
//! Every frame carries a [`Note`] of its sender, so that whoever gets it can tell whether it was meant for him. A flow
//! *must live* when both its ends have heard of each other, nobody ended it, and it was used lately: then it keeps its
//! server and its local address whatever happens, and nobody may reset it.

use std::collections::HashMap;

use packet::V4;
use shm_layout::published::protocol;

use crate::world::VIP;

/// Address and port.
pub type End = (u32, u16);
/// Milliseconds a flow lives unused: the service's timeouts, less what a packet may have waited inside.
const TCP_LIVES: u64 = 90_000 - 3_000;
const UDP_LIVES: u64 = 30_000 - 3_000;
/// Events a frame may take from end to end: two rests, each of which empties everything.
const MOST_STEPS: u32 = 2_500;

/// What a frame is to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Syn = 1,
    SynAck = 2,
    Data = 3,
    Fin = 4,
    Rst = 5,
    /// Sent by somebody else in the sender's name: must change nothing.
    Attack = 6,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Syn, Self::SynAck, Self::Data, Self::Fin, Self::Rst, Self::Attack];
}

/// The payload of every frame: numbers as the sender counts them.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    pub kind: Kind,
    /// From the client, else from the server.
    pub up: bool,
    pub flow: u32,
    pub step: u32,
    pub ms: u32,
    pub seq: u32,
    /// Server's: what the client sent, in the client's numbers.
    pub ack: u32,
    /// Which of the flow's sessions the server speaks of.
    pub session: u32,
}

pub const NOTE: usize = 32;
const MAGIC: u32 = 0x5349_4d21;

impl Note {
    pub fn bytes(&self) -> [u8; NOTE] {
        let words = [
            MAGIC,
            u32::from(self.kind as u8) | u32::from(self.up) << 8,
            self.flow,
            self.step,
            self.ms,
            self.seq,
            self.ack,
            self.session,
        ];
        let mut bytes = [0; NOTE];
        for (to, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.to_be_bytes();
        }
        bytes
    }

    pub fn read(bytes: &[u8]) -> Option<Self> {
        let words = bytes.get(..NOTE)?.as_chunks::<4>().0;
        let word = |i: usize| u32::from_be_bytes(words[i]);
        let kind = Kind::ALL.into_iter().find(|k| *k as u32 == word(1) & 0xff)?;
        (word(0) == MAGIC).then(|| Self {
            kind,
            up: word(1) >> 8 & 1 != 0,
            flow: word(2),
            step: word(3),
            ms: word(4),
            seq: word(5),
            ack: word(6),
            session: word(7),
        })
    }
}

/// How the appliance leads a flow, as its server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub server: End,
    pub local: End,
    pub shift: u32,
}

/// A client's connection or datagram flow.
#[derive(Clone, Debug)]
pub struct Flow {
    pub id: u32,
    pub udp: bool,
    pub client: End,
    /// First sequence numbers of client and server, the next ones, and what each has received of the other.
    pub isn: [u32; 2],
    pub next: [u32; 2],
    pub got: [u32; 2],
    pub path: Option<Path>,
    /// When the packet was sent that was the first on this path, ms; number of paths so far.
    pub path_ms: u64,
    pub path_step: u32,
    pub session: u32,
    /// The session whose SYN-ACK the client has.
    pub heard: Option<u32>,
    /// Both ends have heard of each other on this path.
    pub bound: bool,
    /// Somebody ended it, or may have.
    pub loose: bool,
    /// Last packet known to have passed the appliance was sent then, ms.
    pub seen: u64,
}

impl Flow {
    pub const fn port(&self) -> u16 {
        if self.udp { 53 } else { 80 }
    }

    pub const fn protocol(&self) -> u8 {
        if self.udp { protocol::UDP } else { protocol::TCP }
    }

    /// Is this its place now? (It may have had others.)
    fn is_at(&self, server: End, local: End) -> bool {
        self.path.is_some_and(|path| (path.server, path.local) == (server, local))
    }

    pub fn must_live(&self, now_ms: u64) -> bool {
        let lives = if self.udp { UDP_LIVES } else { TCP_LIVES };
        self.bound && !self.loose && now_ms < self.seen + lives
    }
}

/// What the receiver of a frame does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Nothing,
    ServerAnswers(u32, Kind),
    ClientAnswers(u32, Kind),
}

/// All flows.
#[derive(Debug, Default)]
pub struct Model {
    pub flows: HashMap<u32, Flow>,
    /// Ids in the order of their making: picks are the same in every run.
    pub order: Vec<u32>,
    by_path: HashMap<(End, End, u8), u32>,
    by_client: HashMap<(End, u16), u32>,
    next: u32,
}

impl Model {
    pub fn open(&mut self, client: End, udp: bool, isn: u32, server_isn: u32) -> u32 {
        self.next += 1;
        let id = self.next;
        let flow = Flow {
            id,
            udp,
            client,
            isn: [isn, server_isn],
            next: [isn, server_isn].map(|n| n.wrapping_add(1)),
            got: [isn, server_isn].map(|n| n.wrapping_add(1)),
            path: None,
            path_ms: 0,
            path_step: 0,
            session: 0,
            heard: None,
            bound: false,
            loose: false,
            seen: 0,
        };
        self.by_client.insert((client, flow.port()), id);
        self.flows.insert(id, flow);
        self.order.push(id);
        id
    }

    pub fn is_used(&self, client: End, port: u16) -> bool {
        self.by_client.contains_key(&(client, port))
    }

    /// Forgets flows that are over.
    pub fn forget(&mut self, gone: impl Fn(&Flow) -> bool) {
        self.order.retain(|id| !self.flows.get(id).is_none_or(&gone));
        let kept: std::collections::HashSet<u32> = self.order.iter().copied().collect();
        self.flows.retain(|id, _| kept.contains(id));
        self.by_path.retain(|_, id| kept.contains(id));
        self.by_client.retain(|_, id| kept.contains(id));
    }

    /// Flows a matching order may have ended.
    pub fn loosen(&mut self, which: impl Fn(&Flow) -> bool) {
        for flow in self.flows.values_mut().filter(|flow| which(flow)) {
            flow.loose = true;
        }
    }

    /// Judges a frame that the appliance gave to a station; tells what its receiver does.
    ///
    /// # Errors
    /// What must not be.
    pub fn delivered(&mut self, p: &V4, note: Option<Note>, step: u32, now_ms: u64) -> Result<Answer, String> {
        let Some(note) = note else { return self.unsigned(p, now_ms) };
        if step.wrapping_sub(note.step) > MOST_STEPS {
            return Err(format!("a frame of step {} came out of the past: {note:?}", note.step));
        }
        if note.up { self.at_server(p, &note, now_ms) } else { self.at_client(p, &note, now_ms) }
    }

    /// The appliance's own: resets, which no living flow may see.
    fn unsigned(&mut self, p: &V4, now_ms: u64) -> Result<Answer, String> {
        if p.tcp_flags & packet::tcp::RST == 0 {
            return Err(format!("a packet nobody sent: {p:?}"));
        }
        let (to, from) = ((p.dst, p.dport), (p.src, p.sport));
        let of_server = self.by_path.get(&(to, from, p.proto));
        let of_client = self.by_client.get(&(to, p.sport)).filter(|_| p.src == VIP);
        for (id, is_client) in of_server.map(|id| (id, false)).into_iter().chain(of_client.map(|id| (id, true))) {
            let Some(flow) = self.flows.get_mut(id).filter(|f| is_client || f.is_at(to, from)) else { continue };
            if flow.must_live(now_ms) {
                return Err(format!("a living flow was reset, at {to:?} from {from:?}: {flow:?}"));
            }
            flow.loose = true;
        }
        Ok(Answer::Nothing)
    }

    fn at_server(&mut self, p: &V4, note: &Note, now_ms: u64) -> Result<Answer, String> {
        let shift = if p.proto == protocol::UDP { 0 } else { p.seq.wrapping_sub(note.seq) };
        let here = Path { server: (p.dst, p.dport), local: (p.src, p.sport), shift };
        let place = (here.server, here.local, p.proto);
        if let Some(other) = self.by_path.get(&place).filter(|other| **other != note.flow)
            && let Some(flow) = self.flows.get(other)
            && flow.is_at(here.server, here.local)
            && flow.must_live(now_ms)
            && note.step > flow.path_step
        {
            return Err(format!("{note:?} came into another's living session: {flow:?}"));
        }
        let Some(flow) = self.flows.get_mut(&note.flow) else { return Ok(Answer::Nothing) };
        let same = flow.path == Some(here);
        if !same && flow.path.is_some() && note.step <= flow.path_step {
            return Ok(Answer::Nothing); // It waited inside while its session ended (or a copy of it did): of no session now.
        }
        if !same && flow.must_live(now_ms) {
            return Err(format!("a living flow went elsewhere, to {here:?}: {note:?} of {flow:?}"));
        }
        let kind = note.kind;
        let begins = kind == Kind::Syn || flow.udp && kind == Kind::Data;
        if !same && begins {
            flow.path = Some(here);
            flow.path_ms = note.ms.into();
            flow.path_step = note.step;
            flow.session += 1;
            flow.bound = false;
            flow.loose |= flow.heard.is_some(); // What its ends know is of a session that is over.
            flow.heard = None;
            self.by_path.insert(place, note.flow);
        } else if !same {
            flow.loose = true; // Its session ended for a reason that `must_live` knows; what comes now is noise.
            return Ok(Answer::Nothing);
        }
        match kind {
            Kind::Syn => return Ok(Answer::ServerAnswers(note.flow, Kind::SynAck)),
            Kind::Data => {
                flow.bound |= flow.udp || flow.heard == Some(flow.session);
                let end = note.seq.wrapping_add(NOTE as u32);
                if end.wrapping_sub(flow.got[0]).cast_signed() > 0 {
                    flow.got[0] = end;
                }
                flow.seen = flow.seen.max(note.ms.into());
            }
            Kind::Fin => return Ok(Answer::ServerAnswers(note.flow, Kind::Fin)),
            Kind::Rst | Kind::SynAck | Kind::Attack => return Ok(Answer::Nothing),
        }
        Ok(Answer::ServerAnswers(note.flow, Kind::Data))
    }

    fn at_client(&mut self, p: &V4, note: &Note, now_ms: u64) -> Result<Answer, String> {
        let Some(flow) = self.flows.get_mut(&note.flow) else { return Ok(Answer::Nothing) };
        let (to, from) = ((p.dst, p.dport), (p.src, p.sport));
        let ours = to == flow.client && from == (VIP, flow.port());
        let numbers = flow.udp || (p.seq, p.ack) == (note.seq, note.ack);
        if note.session != flow.session {
            return Ok(Answer::Nothing); // Of a session that is over; who has its local port now gets it, as anywhere.
        }
        let right = ours && numbers;
        if !right && flow.must_live(now_ms) {
            return Err(format!("{note:?} came to {to:?} from {from:?} as {}/{}: {flow:?}", p.seq, p.ack));
        }
        if !right {
            return Ok(Answer::Nothing);
        }
        match note.kind {
            Kind::SynAck => {
                flow.heard = Some(note.session);
            }
            Kind::Data => {
                let end = note.seq.wrapping_add(NOTE as u32);
                if end.wrapping_sub(flow.got[1]).cast_signed() > 0 {
                    flow.got[1] = end;
                }
                flow.seen = flow.seen.max(note.ms.into());
            }
            Kind::Fin => return Ok(Answer::ClientAnswers(note.flow, Kind::Fin)),
            Kind::Rst | Kind::Syn | Kind::Attack => return Ok(Answer::Nothing),
        }
        Ok(Answer::ClientAnswers(note.flow, Kind::Data))
    }
}

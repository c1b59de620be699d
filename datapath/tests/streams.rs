//! End to end against a model: clients and servers with a small TCP of their own, 4 slots, every packet on a random one,
//! loss, duplication, reordering. Every stream arrives whole, nothing of the appliance's own making is seen, no session
//! stays behind.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::collections::BTreeMap;

use packet::V4;
use packet::tcp::{ACK, FIN, RST, SYN};
use shm_layout::counters::Flow;
use world::*;

/// Bytes a segment carries, bytes in flight, time to retransmission in ms.
const SEGMENT: usize = 700;
const WINDOW: usize = 8 * SEGMENT;
const PATIENCE: u64 = 120;

type Place = (u32, u16);

/// One end of a connection. Positions count from the SYN: 0 is the SYN, then the bytes, then the FIN.
#[derive(Debug)]
struct Peer {
    me: Place,
    other: Place,
    isn: u32,
    /// The other's first number; `None` until it has spoken.
    other_isn: Option<u32>,
    out: Vec<u8>,
    /// Positions acknowledged, and sent so far.
    acked: usize,
    sent: usize,
    /// What has come in order; what has come ahead of it.
    received: Vec<u8>,
    ahead: BTreeMap<usize, Vec<u8>>,
    /// Position of the other's FIN, once known; taken in once all before is there.
    fin_at: Option<usize>,
    retry_at: u64,
    syn_sent: bool,
}

impl Peer {
    fn new(me: Place, other: Place, isn: u32, out: Vec<u8>) -> Self {
        let (received, ahead) = (Vec::new(), BTreeMap::new());
        let (acked, sent, retry_at, syn_sent) = (0, 0, 0, false);
        Self { me, other, isn, other_isn: None, out, acked, sent, received, ahead, fin_at: None, retry_at, syn_sent }
    }

    /// Positions there are: SYN, bytes, FIN.
    fn len(&self) -> usize {
        self.out.len() + 2
    }

    fn finished(&self) -> bool {
        self.acked == self.len() && self.fin_at.is_some_and(|at| self.received.len() + 1 == at)
    }

    /// The next number expected of the other.
    fn expected(&self) -> Option<u32> {
        let fin = usize::from(self.fin_at.is_some_and(|at| self.received.len() + 1 == at));
        self.other_isn.map(|isn| isn.wrapping_add((1 + self.received.len() + fin) as u32))
    }

    fn segment(&self, at: usize, flags: &'static str, payload: &[u8]) -> Vec<u8> {
        let ack = self.expected();
        let seq = self.isn.wrapping_add(at as u32);
        Tcp { from: self.me, to: self.other, seq, ack, flags, payload: payload.to_vec(), ..Tcp::default() }.frame()
    }

    /// All that may be sent from position `from` on.
    fn send_from(&mut self, from: usize, now: u64) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut at = from;
        self.retry_at = now + PATIENCE;
        if at == 0 {
            frames.push(self.segment(0, "S", &[]));
            self.syn_sent = true;
            self.sent = self.sent.max(1);
            return frames; // Nothing more until it is answered.
        }
        while at < self.len() && at < self.acked + WINDOW {
            let bytes = &self.out[at - 1..(at - 1 + SEGMENT).min(self.out.len())];
            let last = at - 1 + bytes.len() == self.out.len();
            frames.push(self.segment(at, if last { "F" } else { "P" }, bytes));
            at += bytes.len() + usize::from(last);
        }
        self.sent = self.sent.max(at);
        frames
    }

    fn tick(&mut self, now: u64) -> Vec<Vec<u8>> {
        if self.acked < self.len() && now >= self.retry_at { self.send_from(self.acked, now) } else { Vec::new() }
    }

    fn hear(&mut self, packet: &V4, payload: &[u8], now: u64) -> Vec<Vec<u8>> {
        assert_eq!(packet.tcp_flags & RST, 0, "reset: {packet:?} towards {self:?}");
        if packet.tcp_flags & SYN != 0 {
            let isn = *self.other_isn.get_or_insert(packet.seq);
            assert_eq!(isn, packet.seq, "a retransmitted SYN has another number");
        }
        let Some(isn) = self.other_isn else { return Vec::new() };
        let mut frames = Vec::new();
        if packet.tcp_flags & ACK != 0 {
            let acked = packet.ack.wrapping_sub(self.isn) as usize;
            assert!(acked <= self.sent, "acknowledges what was never sent: {packet:?}, sent {}", self.sent);
            if acked > self.acked {
                self.acked = acked;
                frames = self.send_from(self.sent.max(acked), now);
            }
        }
        let at = packet.seq.wrapping_sub(isn) as usize + usize::from(packet.tcp_flags & SYN != 0);
        assert!(at < 10_000_000, "a number out of place: {packet:?}");
        if packet.tcp_flags & FIN != 0 {
            self.fin_at = Some(at + payload.len());
        }
        if !payload.is_empty() {
            self.ahead.insert(at, payload.to_vec());
        }
        while let Some((at, bytes)) = self.ahead.pop_first() {
            let next = self.received.len() + 1;
            if at > next {
                self.ahead.insert(at, bytes);
                break;
            }
            self.received.extend(bytes.get(next - at..).unwrap_or_default());
        }
        if packet.tcp_flags & (SYN | FIN) != 0 || !payload.is_empty() {
            let at = if self.syn_sent { self.sent.max(1) } else { 0 };
            if at > 0 {
                frames.push(self.segment(at, "", &[]));
            } else {
                frames.extend(self.send_from(0, now)); // A server's first word is its SYN-ACK.
            }
        }
        frames
    }
}

struct Net {
    rng: Rng,
    /// Frames under way, by time of arrival: slot and frame.
    under_way: BTreeMap<u64, Vec<(usize, Vec<u8>)>>,
    lossy: bool,
}

impl Net {
    /// Towards the appliance: any slot, but the SYN of a client is where its flow hashes to (the tap and every NIC see to
    /// that); a SYN on another slot would be another session.
    fn send(&mut self, now: u64, frame: Vec<u8>) {
        let first = frame[47] & (SYN | ACK) == SYN;
        let home = usize::from(frame[35]) % 4;
        let copies = if !self.lossy {
            1
        } else if self.rng.one_in(8) {
            0
        } else if self.rng.one_in(8) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let slot = if first { home } else { self.rng.below(4) as usize };
            let delay = 1 + if self.lossy { self.rng.below(30) } else { 0 };
            self.under_way.entry(now + delay).or_default().push((slot, frame.clone()));
        }
    }
}

fn bytes(rng: &mut Rng, most: u64) -> Vec<u8> {
    let len = rng.below(most);
    (0..len).map(|_| rng.next() as u8).collect()
}

fn simulate(seed: u64, lossy: bool, connections: u16) {
    println!("seed {seed}, lossy {lossy}");
    let mut world = World::usual(4);
    let mut net = Net { rng: Rng(seed), under_way: BTreeMap::new(), lossy };
    let mut clients: BTreeMap<Place, Peer> = BTreeMap::new();
    let mut servers: BTreeMap<(Place, Place), Peer> = BTreeMap::new();
    let start = world.now;
    let mut now = 0;
    let mut opened = 0;
    while opened < connections || clients.values().any(|c| !c.finished()) || servers.values().any(|s| !s.finished()) {
        now += 1;
        assert!(now < 600_000, "seed {seed}: {} of {connections} opened, does not end", opened);
        world.now = start + now * 1_000_000;
        if opened < connections && net.rng.one_in(3) {
            let me = (CLIENT, 10_000 + opened);
            let isn = *net.rng.pick(&[0, u32::MAX, u32::MAX - 5000, 12345, 1 << 31]);
            let out = bytes(&mut net.rng, 30_000);
            let mut peer = Peer::new(me, (VIP, 80), isn, out);
            peer.send_from(0, now).into_iter().for_each(|f| net.send(now, f));
            clients.insert(me, peer);
            opened += 1;
        }
        for (slot, frame) in net.under_way.remove(&now).unwrap_or_default() {
            world.ios[slot].input.push_back(frame);
        }
        for (_, frame) in world.run() {
            if frame[12..14] == [8, 6] {
                continue;
            }
            // The wire behind the appliance loses and repeats too.
            let copies = if lossy && net.rng.one_in(20) { 0 } else { 1 + usize::from(lossy && net.rng.one_in(20)) };
            for _ in 0..copies {
                let packet = checked(&frame);
                let payload = &frame[usize::from(packet.payload)..packet.end()];
                let said = if packet.dst == CLIENT {
                    clients.get_mut(&(packet.dst, packet.dport)).unwrap().hear(&packet, payload, now)
                } else {
                    let key = ((packet.dst, packet.dport), (packet.src, packet.sport));
                    let known = servers.contains_key(&key);
                    if !known {
                        assert_eq!(packet.tcp_flags & (SYN | ACK), SYN, "a server hears of a session by its SYN");
                        let isn = *net.rng.pick(&[1, u32::MAX - 100, 777_777, 1 << 31]);
                        let out = bytes(&mut net.rng, 30_000);
                        servers.insert(key, Peer::new(key.0, key.1, isn, out));
                    }
                    servers.get_mut(&key).unwrap().hear(&packet, payload, now)
                };
                said.into_iter().for_each(|f| net.send(now, f));
            }
        }
        for peer in clients.values_mut().chain(servers.values_mut().filter(|s| s.syn_sent)) {
            peer.tick(now).into_iter().for_each(|f| net.send(now, f));
        }
    }
    // Each stream at its other end, whole. The session says who spoke to whom: by what they said, each exactly once.
    assert_eq!((clients.len(), servers.len()), (usize::from(connections), usize::from(connections)));
    let mut heard: Vec<(&[u8], &[u8])> = servers.values().map(|s| (&s.received[..], &s.out[..])).collect();
    let mut told: Vec<(&[u8], &[u8])> = clients.values().map(|c| (&c.out[..], &c.received[..])).collect();
    heard.sort_unstable();
    told.sort_unstable();
    assert!(heard == told, "seed {seed}: a stream is not what was sent");
    assert_eq!(world.flow(Flow::Created), u64::from(connections));
    assert_eq!(world.flow(Flow::Originated), 3, "the announcements: no reset was ever sent");
    assert!(world.flow(Flow::ToRing) > 100, "redirects are used");
    world.rest();
    // The last retransmissions arrive, then all sessions are over by their own closing.
    for (_, frames) in std::mem::take(&mut net.under_way) {
        frames.into_iter().for_each(|(slot, frame)| world.ios[slot].input.push_back(frame));
    }
    world.run();
    world.pass(5000);
    let left: u32 = world.runners.iter().map(|r| r.sessions().active()).sum();
    assert_eq!(left, 0, "seed {seed}: sessions that nobody closed: {:?}", world.drops());
    world.pass(30_000);
    let used: u32 = world.runners.iter().map(|r| r.sessions().check().unwrap().waiting).sum();
    assert_eq!(used, 0, "records that the wheel has not let go of");
    world.rest();
}

#[test]
fn streams_arrive_whole_over_a_good_net() {
    simulate(1, false, 300);
}

#[test]
fn streams_arrive_whole_over_a_bad_net() {
    for seed in 2..6 {
        simulate(seed, true, 100);
    }
}

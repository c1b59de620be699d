//! What an established FullNAT packet costs in the datapath alone, with all work done: header checks, both keys, TCP
//! state, end and ack tracking, ISN shift, checksums, TTL, next hop, slot and server counters. Half of the packets are
//! replies; buffers are spread over at least 8 MiB, so that headers are not in L1.
//!
//! `cargo run --release -p datapath --example packet [SESSIONS…]`
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a benchmark: it may fail where it stands")]

use std::sync::Arc;
use std::time::Duration;

use datapath::io::{Flushed, Io};
use datapath::session::New;
use datapath::{Shared, SlotRunner};
use packet::tcp::ACK;
use shm_layout::board::Board;
use shm_layout::counters::Flow;
use shm_layout::learn::Learner;
use shm_layout::limits::RX_BURST;
use shm_layout::neighbours::{Neighbours, ip4};
use shm_layout::publish::{LocalPlan, MemberPlan, Plan, PortPlan, Publisher, ServicePlan, SlotPlan, write_node};
use shm_layout::published::{Published, PublishedGeometry, protocol};
use shm_layout::session::State;
use shm_layout::slot::{Slot, SlotGeometry};

const BUFFERS: usize = 4096;
const BUFFER: usize = 2048;
const HEADROOM: usize = 128;
const FRAME: usize = 118;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Buffers in a row, taken round and round.
struct BenchIo {
    memory: Vec<u8>,
    next: usize,
    burst: usize,
    queued: usize,
}

impl BenchIo {
    fn at(&self, place: usize) -> usize {
        (self.burst + place) % BUFFERS * BUFFER + HEADROOM
    }
}

impl Io for BenchIo {
    fn receive(&mut self) -> usize {
        if self.next == BUFFERS {
            return 0;
        }
        self.burst = self.next;
        self.next += RX_BURST;
        RX_BURST
    }
    #[inline(always)]
    fn frame(&mut self, place: usize) -> Option<&mut [u8]> {
        let at = self.at(place);
        self.memory.get_mut(at..at + FRAME)
    }
    #[inline(always)]
    fn prefetch(&self, place: usize) {
        arch::prefetch_at(&self.memory, self.at(place));
    }
    fn send(&mut self, _place: usize) -> bool {
        self.queued += 1;
        true
    }
    fn flush(&mut self) -> Flushed {
        let sent = std::mem::take(&mut self.queued);
        Flushed { sent, bytes: (sent * FRAME) as u64, ..Flushed::default() }
    }
    fn queued(&self) -> usize {
        self.queued
    }
    fn discard(&mut self, place: usize) {
        panic!("the benchmark drops nothing, place {place}");
    }
    fn inject(&mut self, _: usize, _: &[u8]) -> bool {
        false
    }
    fn resize(&mut self, _: usize, _: usize) -> bool {
        false
    }
    fn park(&mut self, _: usize, _: usize) {}
    fn parked(&mut self, _: usize) -> Option<&mut [u8]> {
        None
    }
    fn unpark(&mut self, _: usize) -> bool {
        false
    }
    fn discard_parked(&mut self, _: usize) {}
    fn originate(&mut self, _: &[u8]) -> bool {
        false
    }
}

struct Bench {
    runner: SlotRunner,
    io: BenchIo,
    tuples: Vec<New>,
    random: u64,
    now: u64,
}

fn tuple(n: u64, servers: u64) -> New {
    let server = n % servers;
    New {
        client_ip: 0x0a40_0000 + (n >> 12) as u32,
        client_port: 1024 + (n & 4095) as u16,
        vip: 0x0a00_0064,
        vip_port: 80,
        local_ip: 0x0a00_0080 + (n / servers / 60_000) as u32,
        local_port: 1024 + (n / servers % 60_000) as u16,
        server_ip: 0x0a80_0000 + server as u32,
        server_port: 8080,
        udp: false,
        state: State::Established,
        client_hop: 1,
        client_hop_tag: 0,
        server_hop: 2,
        server_hop_tag: 0,
        server_id: server as u32,
        server_tag: 1,
        service: 0,
        service_id: 1,
        isn_shift: 0x1234_5678,
        end: [1000, 2000],
        ack: [2000, 1000],
        now_ms: 1_000_000,
        timeout_ms: 3_600_000,
    }
}

impl Bench {
    fn new(sessions: u64, servers: u64) -> Self {
        let published = Published::anonymous(PublishedGeometry { services: 8, servers: servers.max(64) }).unwrap();
        let neighbours = Neighbours::anonymous(64).unwrap();
        let geometry = SlotGeometry {
            slot: 0,
            slots: 1,
            sessions: sessions + 1024,
            servers: servers.max(64),
            services: 8,
            extensions: 0,
        };
        let slot = Slot::anonymous(geometry, true).or_else(|_| Slot::anonymous(geometry, false)).unwrap();
        let port = PortPlan {
            device: 0,
            first_slot: 0,
            slots: 1,
            mtu: 1500,
            vlan: 0,
            flags: 0,
            steering: 0,
            mac: MAC,
            addresses: vec![(ip4(0x0a00_0002), 96 + 8)],
            gateways: vec![],
            name: "net0".into(),
        };
        write_node(&published, &[port], &[SlotPlan { port: 0, queue: 0, zone: 0, cpu: 0 }]);
        let mut learner = Learner::attach(neighbours.clone());
        let hops: Vec<u16> = [0x0a40_0001, 0x0a80_0001].into_iter().map(|a| learner.row(ip4(a), 0).unwrap()).collect();
        let tags: Vec<u8> = hops
            .iter()
            .map(|row| {
                learner.confirm(*row, [2, 0, 0, 0, 9, *row as u8], 0);
                neighbours.hop(*row).tag()
            })
            .collect();
        let member = MemberPlan { id: 0, tag: 1, ip: ip4(0x0a80_0000), port: 8080, weight: 1, admin: 0 };
        let service = ServicePlan {
            index: 0,
            id: 1,
            vip: ip4(0x0a00_0064),
            port: 80,
            protocol: protocol::TCP,
            mode: 0,
            scheduler: 0,
            flags: 0,
            max_sessions: 0,
            check_interval_ms: 0,
            timeouts: [3_600_000; 10],
            name: "web".into(),
            members: vec![member],
        };
        let local = LocalPlan { ip: ip4(0x0a00_0080), port: 0, low: 1024, high: 65_535, flags: 0 };
        let mut publisher = Publisher::attach(published.clone());
        let plan = Plan { services: vec![service], locals: vec![local] };
        let staged = publisher.stage(&plan, 1, &[], Duration::from_secs(1)).unwrap();
        publisher.commit(staged);
        let shared = Shared {
            published,
            neighbours,
            board: Board::anonymous(servers.max(64), 8).unwrap(),
            secrets: shm_layout::secrets::anonymous().unwrap(),
            slots: vec![slot.clone()],
        };
        let now = 1_000_000_000_000;
        let mut runner = SlotRunner::new(Arc::new(shared), 0, now).unwrap();
        let mut tuples = Vec::with_capacity(sessions as usize);
        for n in 0..sessions {
            let new = New {
                client_hop: hops[0],
                client_hop_tag: tags[0],
                server_hop: hops[1],
                server_hop_tag: tags[1],
                ..tuple(n, servers)
            };
            runner.sessions_mut().create(&new).unwrap();
            tuples.push(new);
        }
        let io = BenchIo { memory: vec![0; BUFFERS * BUFFER], next: 0, burst: 0, queued: 0 };
        Self { runner, io, tuples, random: 0x9E37_79B9_7F4A_7C15, now }
    }

    /// Fills all buffers with segments of random sessions, half of them replies.
    fn fill(&mut self) {
        for buffer in 0..BUFFERS {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let new = &self.tuples[(self.random % self.tuples.len() as u64) as usize];
            let reply = self.random >> 60 & 1 == 1;
            let (src, dst, sport, dport, seq, ack) = if reply {
                let ack = new.end[0].wrapping_add(new.isn_shift);
                (new.server_ip, new.local_ip, new.server_port, new.local_port, new.end[1], ack)
            } else {
                (new.client_ip, new.vip, new.client_port, new.vip_port, new.end[0], new.end[1])
            };
            let at = buffer * BUFFER + HEADROOM;
            let frame = &mut self.io.memory[at..at + FRAME];
            let link = packet::build::Link { dst: packet::Mac(MAC), src: packet::Mac([2, 0, 0, 0, 0, 9]), vlan: 0 };
            let segment = packet::build::Segment { src, dst, sport, dport, seq, ack, flags: ACK, window: 1000 };
            packet::build::tcp(frame, link, &segment).unwrap();
            // 64 bytes of payload: total length, header checksum.
            frame[16..18].copy_from_slice(&104_u16.to_be_bytes());
            frame[24..26].copy_from_slice(&[0, 0]);
            let sum = packet::checksum::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        self.io.next = 0;
    }

    /// Nanoseconds per packet of one round over all buffers.
    fn round(&mut self) -> f64 {
        self.fill();
        let before = self.runner.counts().flow(Flow::Tx);
        let start = std::time::Instant::now();
        for _ in 0..BUFFERS / RX_BURST {
            self.now += 1000;
            self.runner.poll(&mut self.io, self.now);
        }
        let spent = start.elapsed();
        assert_eq!(self.runner.counts().flow(Flow::Tx) - before, BUFFERS as u64, "every packet is forwarded");
        spent.as_nanos() as f64 / BUFFERS as f64
    }
}

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(300)
}

fn main() {
    let asked: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![16, 1000, 65_536, 1_000_000] } else { asked };
    for sessions in sizes {
        let servers = if sessions >= 1_000_000 { 1000 } else { 30 };
        let mut bench = Bench::new(sessions, servers);
        let mut rounds: Vec<f64> = (0..rounds()).map(|_| bench.round()).collect();
        rounds.sort_by(f64::total_cmp);
        println!(
            "{sessions:>9} sessions: {:.1} ns per packet (median; best {:.1}, worst {:.1})",
            rounds[rounds.len() / 2],
            rounds[0],
            rounds[rounds.len() - 1]
        );
    }
}

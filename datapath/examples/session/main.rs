//! What a whole TCP connection costs in the datapath: SYN (service, scheduler, local port, record), SYN-ACK, ACK, a request
//! and its answer of 64 bytes each, FIN both ways with their acknowledgements, early release, expiry of the record.
//!
//! 4,096 connections at a time take each step together, from clients and to servers behind one gateway. Every packet must
//! be forwarded, every session must have begun and ended, and nothing may be left in the table.
//!
//! `cargo xtask bench session [--json] [--rounds N] [--count] [SCHEDULER[/SERVICES[/SERVERS]]…]`, `SERVERS` of each service;
//! `rr/1/1000` if nothing is named. `bench schedule` and `bench services` are this with cases of their own.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a benchmark: it may fail where it stands")]

#[path = "../packet/port.rs"]
mod port;
#[path = "../packet/spread.rs"]
mod spread;
mod world;

use std::sync::atomic::Ordering::Relaxed;

use datapath::SlotRunner;
use packet::tcp::{ACK, FIN, PSH, SYN};
use packet::{Mac, Parsed, build, checksum, classify};
use shm_layout::counters::Flow;
use shm_layout::limits::RX_BURST;
use shm_layout::published::scheduler;

use port::{BUFFERS, Port};
use spread::{Spread, thread_ns};
use world::{Case, GATEWAY_MAC, MAC, START_NS, vip};

/// A connection's packets: the client's or the server's, flags, bytes of payload.
const STEPS: [(bool, u8, usize); 9] = [
    (false, SYN, 0),
    (true, SYN | ACK, 0),
    (false, ACK, 0),
    (false, ACK | PSH, 64),
    (true, ACK | PSH, 64),
    (false, FIN | ACK, 0),
    (true, ACK, 0),
    (true, FIN | ACK, 0),
    (false, ACK, 0),
];
/// How long the wheel may hold a record, ms, and one of its steps.
const EXPIRY_MS: u64 = 20_000;
const TICK_MS: u64 = 125;

/// What both ends of a connection know.
#[derive(Clone, Copy, Default)]
struct Ends {
    client: (u32, u16),
    vip: u32,
    server: (u32, u16),
    local: (u32, u16),
    /// Next numbers, client and server.
    seq: [u32; 2],
    shift: u32,
}

struct Bench {
    case: Case,
    runner: SlotRunner,
    port: Port,
    now: u64,
    next: u32,
    ends: Vec<Ends>,
}

impl Bench {
    fn new(case: Case) -> Self {
        let ends = vec![Ends::default(); BUFFERS];
        Self { case, runner: world::make(case), port: Port::new(), now: START_NS, next: 0, ends }
    }

    /// Nanoseconds per connection of a round of 4,096: beginning (the SYN), the other packets, expiry.
    fn round(&mut self) -> [f64; 3] {
        for ends in &mut self.ends {
            self.next += 1;
            let client = (0x6440_0000 + (self.next >> 12), 1024 + (self.next & 4095) as u16);
            // Services in an order that no cache foresees.
            let service = self.next.wrapping_mul(0x9E37_79B9) % self.case.services;
            *ends = Ends { client, vip: vip(service), seq: [self.next, 77_000], ..Ends::default() };
        }
        let begin = self.step(STEPS[0]);
        let rest = STEPS[1..].iter().map(|step| self.step(*step)).sum();
        assert_eq!(self.runner.sessions().active(), BUFFERS as u32);
        [begin, rest, self.expire()]
    }

    fn step(&mut self, (server, flags, payload): (bool, u8, usize)) -> f64 {
        for (buffer, ends) in self.ends.iter_mut().enumerate() {
            self.port.put(buffer, &ends.frame(server, flags, payload));
            let used = payload as u32 + u32::from(flags & (SYN | FIN) != 0);
            let next = &mut ends.seq[usize::from(server)];
            *next = next.wrapping_add(used);
        }
        self.port.rewind();
        self.now += 1_000_000;
        let spent = measured(&mut self.runner, &mut self.port, self.now, BUFFERS / RX_BURST);
        assert_eq!((self.port.sent, self.port.dropped), (BUFFERS as u64, 0), "every packet is forwarded");
        if flags == SYN {
            for (buffer, ends) in self.ends.iter_mut().enumerate() {
                let Ok(Parsed::L4(seen)) = classify(self.port.frame_of(buffer)) else { panic!("a SYN came out") };
                (ends.local, ends.server) = ((seen.src, seen.sport), (seen.dst, seen.dport));
                ends.shift = seen.seq.wrapping_sub(ends.seq[0].wrapping_sub(1));
            }
        }
        spent
    }

    /// Lets time pass until every record is free. The polls that find nothing to do belong to it: two a tick.
    fn expire(&mut self) -> f64 {
        let ended = self.runner.counts().flow(Flow::Ended);
        let mut spent = 0.0;
        for _ in 0..EXPIRY_MS / TICK_MS {
            self.now += TICK_MS * 1_000_000;
            let mut before = u32::MAX;
            while self.records() != before {
                before = self.records();
                spent += measured(&mut self.runner, &mut self.port, self.now, 2);
            }
        }
        let ended = self.runner.counts().flow(Flow::Ended) - ended;
        assert_eq!((ended, self.records()), (BUFFERS as u64, 0), "all have ended, none is left");
        spent
    }

    fn records(&self) -> u32 {
        self.runner.sessions().slot().table.records.load(Relaxed)
    }
}

impl Ends {
    /// The next packet of a side.
    fn frame(&self, server: bool, flags: u8, payload: usize) -> Vec<u8> {
        let (from, to) = if server { (self.server, self.local) } else { (self.client, (self.vip, 80)) };
        let (seq, mut ack) = (self.seq[usize::from(server)], self.seq[usize::from(!server)]);
        if server {
            ack = ack.wrapping_add(self.shift);
        }
        let ack = if flags & ACK == 0 { 0 } else { ack };
        let ((src, sport), (dst, dport)) = (from, to);
        let mut frame = vec![0; 54 + payload];
        let link = build::Link { dst: Mac(MAC), src: Mac(GATEWAY_MAC), vlan: 0 };
        let segment = build::Segment { src, dst, sport, dport, seq, ack, flags, window: 1000 };
        build::tcp(&mut frame, link, &segment).unwrap();
        // build makes segments without payload.
        frame[16..18].copy_from_slice(&(40 + payload as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame[50..52].fill(0);
        let sum = checksum::segment_v4(src, dst, 6, &frame[34..]);
        frame[50..52].copy_from_slice(&sum.to_be_bytes());
        frame
    }
}

/// The work, and nothing else: a name of its own for the count of instructions. Nanoseconds per buffer.
#[inline(never)]
fn measured(runner: &mut SlotRunner, port: &mut Port, now: u64, polls: usize) -> f64 {
    let start = thread_ns();
    for _ in 0..polls {
        runner.poll(port, now);
    }
    (thread_ns() - start) as f64 / BUFFERS as f64
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| words.iter().position(|w| w == name).map(|at| words.remove(at)).is_some();
    let (json, count) = (flag("--json"), flag("--count"));
    let rounds = words.iter().position(|w| w == "--rounds").map_or(40, |at| {
        let rounds = words[at + 1].parse().expect("--rounds takes a number");
        words.drain(at..at + 2);
        rounds
    });
    if words.is_empty() {
        words.push("rr/1/1000".into());
    }
    let mut benches: Vec<Bench> = words.iter().map(|word| Bench::new(case(word))).collect();
    if count {
        for bench in &mut benches {
            for _ in 0..rounds {
                bench.round();
            }
            println!("{}", rounds * BUFFERS);
        }
        return;
    }
    let mut tallies: Vec<Tally> = words.iter().map(|_| Tally::default()).collect();
    let busy = spread::Busy::begin();
    for round in 0..=rounds {
        // In turn: what slows the machine down for a while slows all of them.
        for (bench, tally) in benches.iter_mut().zip(&mut tallies) {
            let parts = bench.round();
            if round > 0 {
                tally.parts.iter_mut().zip(parts).for_each(|(spread, ns)| spread.add(ns));
                tally.whole.add(parts.iter().sum());
            }
        }
    }
    let share = busy.share();
    // Round-robin with as many services and servers.
    let shape = |word: &str| word.split_once('/').map_or("", |(_, rest)| rest).to_owned();
    let yardstick = |word: &str| {
        let same = words.iter().position(|w| w.starts_with("rr") && shape(w) == shape(word))?;
        Some(tallies[same].whole.at(50))
    };
    for (word, Tally { whole, parts: [begin, rest, expiry] }) in words.iter().zip(&tallies) {
        let of_rr = yardstick(word).map(|rr| rr / whole.at(50));
        if json {
            println!(
                r#"{{"bench":"session","case":"{word}","ns":{},"begin_ns":{},"packets_ns":{},"expiry_ns":{},"of_rr":{},"cpu_share":{share:.3},"rounds":{rounds}}}"#,
                whole.json(),
                begin.json(),
                rest.json(),
                expiry.json(),
                of_rr.map_or("null".into(), |ratio| format!("{ratio:.3}")),
            );
        } else {
            println!(
                "{word}: {whole} ns per connection, {:.2} (best {:.2}) million a second{}; SYN {:.0}, {} more packets {:.0}, expiry {:.0}; CPU share {:.0} %",
                1000.0 / whole.at(50),
                1000.0 / whole.at(0),
                of_rr.map_or(String::new(), |ratio| format!(", {ratio:.3} of rr")),
                begin.at(50),
                STEPS.len() - 1,
                rest.at(50),
                expiry.at(50),
                share * 100.0
            );
        }
    }
}

/// What a case took, per connection: beginning, the other packets, expiry; all together.
#[derive(Default)]
struct Tally {
    parts: [Spread; 3],
    whole: Spread,
}

/// `SCHEDULER[/SERVICES[/SERVERS]]`
fn case(word: &str) -> Case {
    let mut parts = word.split('/');
    let scheduler = match parts.next() {
        Some("rr") => scheduler::RR,
        Some("wrr") => scheduler::WRR,
        Some("lc") => scheduler::LC,
        Some("wlc") => scheduler::WLC,
        Some("source-ip") => scheduler::SOURCE_IP,
        Some("source-ip-port") => scheduler::SOURCE_IP_PORT,
        Some("maglev") => scheduler::MAGLEV,
        Some("persistence") => scheduler::RR,
        other => {
            panic!("no scheduler {other:?}; there are rr wrr lc wlc source-ip source-ip-port maglev, and persistence")
        }
    };
    let persistent = word.starts_with("persistence");
    let mut number = |usual: u32| parts.next().map_or(usual, |n| n.parse().expect("SCHEDULER[/SERVICES[/SERVERS]]"));
    let (services, servers) = (number(1), number(1000));
    Case { services, servers, scheduler, persistent }
}

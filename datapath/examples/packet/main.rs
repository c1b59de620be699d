//! What an established FullNAT packet costs in the datapath alone, with all work done: header checks, both keys, TCP
//! state, end and ack tracking, ISN shift, checksums, TTL, next hop, slot and server counters.
//!
//! Half of the packets are replies; half of the TCP packets carry 64 bytes, the others acknowledge only. There are no TCP
//! options, as on segments of a session whose SYN lost its timestamps. Sessions come in random order. Every eighth
//! round is checked whole: frames against frames made anew, records and counters against a model of all rounds; before the
//! first figure each kind of damage is shown to be found.
//!
//! `cargo xtask bench packet [--json] [--rounds N] [SESSIONS[/SERVERS][u]…]`: `u` for UDP. A round is 4,096 packets.
//! `--count`: one figure, the packets measured, for a count of instructions (see docs/performance.md).
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a benchmark: it may fail where it stands")]

mod port;
mod spread;
mod traffic;
mod world;
mod yardstick;

use std::sync::atomic::Ordering::Relaxed;

use datapath::SlotRunner;
use shm_layout::counters::Flow;
use shm_layout::limits::RX_BURST;
use shm_layout::slot::Slot;

use port::{BUFFERS, Port};
use spread::{Spread, thread_ns};
use traffic::Traffic;
use world::{Case, START_NS};

/// What is measured when nothing is asked for.
const USUAL: [&str; 7] = ["16/4", "1000", "1000u", "65536", "1000000", "10000000", "10000000/100000"];

/// Of how many rounds one is checked whole.
const CHECKED: usize = 8;

struct Bench {
    slot: Slot,
    runner: SlotRunner,
    port: Port,
    traffic: Traffic,
    now: u64,
}

impl Bench {
    fn new(case: Case) -> Self {
        let (slot, runner) = world::make(case);
        let mut bench = Self { slot, runner, port: Port::new(), traffic: Traffic::new(case), now: START_NS };
        bench.round();
        bench.finds_damage();
        bench
    }

    /// Nanoseconds per packet of one round over all buffers, checked.
    fn round(&mut self) -> f64 {
        let spent = self.unchecked();
        self.check().unwrap();
        spent
    }

    /// The same, its frames and records not looked at; their model goes on. Counters and conservation are.
    fn unchecked(&mut self) -> f64 {
        self.traffic.fill(&mut self.port);
        self.now += 1_000_000;
        let flows = [Flow::Rx, Flow::Tx, Flow::RxBytes, Flow::TxBytes];
        let before = flows.map(|flow| self.runner.counts().flow(flow));
        let spent = measured(&mut self.runner, &mut self.port, self.now);
        let counts = self.slot.counters.read().unwrap();
        let (packets, bytes) = (BUFFERS as u64, self.traffic.bytes);
        for ((flow, before), expected) in flows.into_iter().zip(before).zip([packets, packets, bytes, bytes]) {
            assert_eq!(counts.flow(flow) - before, expected, "{flow:?}");
        }
        assert_eq!(counts.balance().0, counts.balance().1, "conservation");
        assert_eq!((self.port.sent, self.port.dropped), (BUFFERS as u64, 0), "every packet is forwarded");
        spent
    }

    fn check(&self) -> Result<(), String> {
        self.traffic.check(&self.port, &self.slot, self.now / 1_000_000)
    }

    /// Damages each thing a packet's work consists of, one at a time: the check must find it.
    fn finds_damage(&mut self) {
        // Both addresses of the link, TTL, checksum, addresses, ports, numbers, checksum; payload or padding.
        for at in [0, 6, 22, 24, 26, 30, 34, 36, 38, 42, 50, 59] {
            self.port.buffer(77)[at] ^= 1;
            assert!(self.check().is_err(), "damage at byte {at} of a frame is not found");
            self.port.buffer(77)[at] ^= 1;
        }
        let row = &self.slot.sessions[self.traffic.session_of(77)];
        let counts = &self.slot.servers[row.server_id.load(Relaxed) as usize];
        let tracked: &[_] =
            if self.traffic.udp() { &[] } else { &[&row.end[0], &row.end[1], &row.ack[0], &row.ack[1]] };
        for word in tracked.iter().chain(&[&row.last_seen]) {
            word.store(word.load(Relaxed) ^ 1, Relaxed);
            assert!(self.check().is_err(), "a damaged record is not found");
            word.store(word.load(Relaxed) ^ 1, Relaxed);
        }
        for word in [&counts.packets_in, &counts.packets_out, &counts.bytes_in, &counts.bytes_out] {
            word.store(word.load(Relaxed) ^ 1, Relaxed);
            assert!(self.check().is_err(), "a damaged count is not found");
            word.store(word.load(Relaxed) ^ 1, Relaxed);
        }
        self.check().unwrap();
    }
}

/// The work, and nothing else: a name of its own for the count of instructions.
#[inline(never)]
fn measured(runner: &mut SlotRunner, port: &mut Port, now: u64) -> f64 {
    let start = thread_ns();
    for _ in 0..BUFFERS / RX_BURST {
        runner.poll(port, now);
    }
    (thread_ns() - start) as f64 / BUFFERS as f64
}

/// xorshift64.
fn xorshift(mut x: u64) -> u64 {
    x ^= x << 13;
    x ^= x >> 7;
    x ^ x << 17
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| words.iter().position(|w| w == name).map(|at| words.remove(at)).is_some();
    let (json, count) = (flag("--json"), flag("--count"));
    let rounds = words.iter().position(|w| w == "--rounds").map_or(200, |at| {
        let rounds = words[at + 1].parse().expect("--rounds takes a number");
        words.drain(at..at + 2);
        rounds
    });
    let asked: Vec<&str> = if words.is_empty() { USUAL.to_vec() } else { words.iter().map(String::as_str).collect() };
    for case in asked.into_iter().map(case) {
        let mut bench = Bench::new(case);
        if count {
            (0..rounds).for_each(|_| {
                bench.round();
            });
            println!("{}", (rounds + 1) * BUFFERS);
            continue;
        }
        let mut packet = Spread::default();
        let (mut reflect, mut cycle) = (Spread::default(), Spread::default());
        let busy = spread::Busy::begin();
        for round in 0..=rounds {
            cycle.add(yardstick::cycle_ns());
            // Checking makes every frame anew and leaves other caches than a slot does that only polls. So every eighth
            // round is checked (with it the records and counts of those before), and the one after it is not measured.
            match round % CHECKED {
                0 => drop(bench.unchecked()),
                last if last == CHECKED - 1 => packet.add(bench.round()),
                _ => packet.add(bench.unchecked()),
            }
            reflect.add(yardstick::reflect(&mut bench.port));
        }
        bench.round();
        let share = busy.share();
        let cycles = packet.at(50) / cycle.at(50);
        let Case { sessions, servers, udp } = case;
        let protocol = if udp { "udp" } else { "tcp" };
        if json {
            println!(
                r#"{{"bench":"packet","protocol":"{protocol}","sessions":{sessions},"servers":{servers},"ns":{},"reflect_ns":{},"cycles":{cycles:.1},"cycle_ns":{:.4},"cpu_share":{share:.3},"rounds":{rounds}}}"#,
                packet.json(),
                reflect.json(),
                cycle.at(50)
            );
        } else {
            println!(
                "{protocol} {sessions:>9} sessions {servers:>6} servers: {packet} ns per packet, {cycles:.0} cycles, {:.1} x reflecting ({:.1}); CPU share {:.0} %",
                packet.at(50) / reflect.at(50),
                reflect.at(50),
                share * 100.0
            );
        }
    }
}

/// `SESSIONS[/SERVERS][u]`
fn case(word: &str) -> Case {
    let (word, udp) = word.strip_suffix('u').map_or((word, false), |word| (word, true));
    let (sessions, servers) = word.split_once('/').unwrap_or((word, "1000"));
    let number = |text: &str| text.parse::<u64>().ok().filter(|n| *n > 0).expect("SESSIONS[/SERVERS][u], above 0");
    Case { sessions: number(sessions), servers: number(servers), udp }
}

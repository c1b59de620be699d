//! What a packet costs a worker in real processes: `lb-primary` and `lb-worker` (a DPDK secondary) on net_memif, fed by this
//! process on the other CPU; beside the same worker built to reflect only. Busy time per packet: the worker's time on its CPU,
//! times the part of it that its own account gives to turns that had packets, over the packets.
//!
//! `io --programs FOLDER --reflector FILE --packet FILE [--json] [--rounds N] [--cpu N]` (all set by `cargo xtask bench io`).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a benchmark: it may fail where it stands")]
#![allow(clippy::cast_precision_loss, reason = "figures")]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bench::appliance::Appliance;
use bench::clock;
use bench::options::Options;
use bench::spread::{Busy, Spread};
use bench::wire::{self, Wire};
use shm_layout::counters::Flow;

/// Flows.
const FLOWS: u64 = 1024;
const ROUND: Duration = Duration::from_millis(250);

fn main() {
    wire::main(run);
}

/// Rounds of one worker.
#[derive(Default)]
struct Figures {
    /// Busy ns per packet.
    ns: Spread,
    /// Packets per second sent by the worker, millions.
    mpps: Spread,
    /// Packets per turn that had some.
    burst: f64,
    /// Part of the worker's turns' time that had packets.
    busy: f64,
    worker_share: f64,
    wire_share: f64,
    /// Part of the generator's bursts that found the wire full.
    full: f64,
}

fn run(options: &Options) -> Result<(), String> {
    let mut wire = Wire::within(options)?;
    let client = options.memif("client");
    let cycle = clock::cycle_ns(options.cpu);
    let mut measure = |worker: &Path, reflecting: bool| {
        let appliance = Appliance::start(&options.programs, worker, &client, (options.cpu, options.other()))?;
        let figures = figures(&mut wire, &appliance, options.rounds, reflecting);
        appliance.stop();
        figures
    };
    let reflecting = measure(&options.reflector, true)?;
    let ours = measure(&options.programs.join("lb-worker"), false)?;
    let packet = packet(options)?;
    report(options, &ours, &reflecting, packet, cycle);
    Ok(())
}

/// Where the worker stands.
struct Mark {
    at: Instant,
    busy_ns: u64,
    total_ns: u64,
    busy_polls: u64,
    packets: u64,
    worker_ns: u64,
    bursts: [u64; 2],
}

fn figures(wire: &mut Wire, appliance: &Appliance, rounds: usize, reflecting: bool) -> Result<Figures, String> {
    wire.aim(FLOWS, appliance.mac);
    appliance.warm(wire, FLOWS, reflecting)?;
    let pulse = &appliance.slot.pulse;
    let mark = |wire: &Wire| Mark {
        at: Instant::now(),
        busy_ns: pulse.busy_ns.load(Relaxed),
        total_ns: pulse.total_ns.load(Relaxed),
        busy_polls: pulse.busy_polls.load(Relaxed),
        packets: appliance.slot.counters.read().map_or(0, |counts| counts.flow(Flow::Rx)),
        worker_ns: appliance.worker_ns(),
        bursts: wire.bursts,
    };
    let mut figures = Figures::default();
    let mut received = 0_u64;
    let share = Busy::begin();
    let first = mark(wire);
    for _ in 0..rounds {
        let begin = mark(wire);
        while begin.at.elapsed() < ROUND {
            for _ in 0..64 {
                wire.send(usize::MAX, 0);
                wire.receive(&mut received);
            }
        }
        let end = mark(wire);
        let packets = (end.packets - begin.packets) as f64;
        if packets > 0.0 {
            let busy = (end.busy_ns - begin.busy_ns) as f64 / (end.total_ns - begin.total_ns) as f64;
            figures.ns.add((end.worker_ns - begin.worker_ns) as f64 * busy / packets);
            figures.mpps.add(packets / (end.at - begin.at).as_secs_f64() / 1e6);
        }
    }
    let last = mark(wire);
    let wall = (last.at - first.at).as_nanos() as f64;
    figures.wire_share = share.share();
    figures.worker_share = (last.worker_ns - first.worker_ns) as f64 / wall;
    figures.burst = (last.packets - first.packets) as f64 / (last.busy_polls - first.busy_polls) as f64;
    figures.busy = (last.busy_ns - first.busy_ns) as f64 / (last.total_ns - first.total_ns) as f64;
    let [took, full] = [0, 1].map(|at| (last.bursts[at] - first.bursts[at]) as f64);
    figures.full = full / (took + full);
    wire.drain(&mut received);
    if received == 0 {
        return Err("nothing came back".into());
    }
    Ok(figures)
}

/// The datapath alone, UDP, as many sessions, on the worker's CPU: `packet`, ns.
fn packet(options: &Options) -> Result<f64, String> {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(options.cpu.to_string()).arg(&options.packet);
    let output = command.args(["--json", "--rounds", "100", "1000u"]).output().map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    value["ns"]["median"].as_f64().ok_or_else(|| "packet tells no median".into())
}

fn report(options: &Options, ours: &Figures, reflecting: &Figures, packet: f64, cycle: f64) {
    let difference = ours.ns.at(50) - reflecting.ns.at(50);
    let json = |name: &str, f: &Figures| {
        format!(
            r#""{name}":{{"busy_ns":{},"mpps":{:.2},"burst":{:.1},"busy":{:.3},"worker_share":{:.3},"wire_share":{:.3},"wire_full":{:.3}}}"#,
            f.ns.json(),
            f.mpps.at(50),
            f.burst,
            f.busy,
            f.worker_share,
            f.wire_share,
            f.full
        )
    };
    if options.json {
        println!(
            r#"{{"bench":"io","flows":{FLOWS},{},{},"packet_ns":{packet:.2},"cycle_ns":{cycle:.4},"ratio":{:.3}}}"#,
            json("ours", ours),
            json("reflecting", reflecting),
            difference / packet
        );
        return;
    }
    for (name, f) in [("reflecting", reflecting), ("ours", ours)] {
        println!(
            "{name:>10}: busy {} ns a packet, {:.0} cycles, {:.1} packets a turn, {:.2} Mpps; worker busy {:.0} % of its time; CPU share: worker {:.0} %, generator {:.0} %, which found the wire full in {:.0} % of its bursts",
            f.ns,
            f.ns.at(50) / cycle,
            f.burst,
            f.mpps.at(50),
            f.busy * 100.0,
            f.worker_share * 100.0,
            f.wire_share * 100.0,
            f.full * 100.0
        );
    }
    println!(
        "ours - reflecting: {difference:.1} ns, {:.0} cycles; packet (udp, 1,000 sessions) {packet:.1} ns; ratio {:.2} (bar 1.3)",
        difference / cycle,
        difference / packet
    );
}

//! Packets per second through one core: the worker's loop as shipped between net_pcap, which repeats a capture from
//! memory, and net_null, which takes all; beside `dpdk-testpmd` on the same two devices and CPU in the same run.
//!
//! `cargo xtask bench one-core [--json] [--rounds N] [--cpu N] [FLOWS…]`. FullNAT, IPv4, UDP, 64-byte frames, clients'
//! packets only (as DPVS was measured). Before the first figure every frame of a finite capture is compared with one made
//! anew; with each figure the counters of devices, slot and servers are.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a benchmark: it may fail where it stands")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bench::frames::{self, FRAME, PACKET};
use bench::loopback::{self, Loopback, Wanted, wait};
use bench::spread::Spread;
use bench::testpmd::{self, Swap};
use bench::{capture, clock, sandbox, world};
use packet::{Mac, ethernet};
use shm_layout::counters::{Counts, DropReason, Flow};

/// MAC of net_pcap's first port (DPDK: "02:70:63:61:70:00", the letters "pcap").
const MAC: Mac = Mac([2, 0x70, 0x63, 0x61, 0x70, 0]);
const USUAL: [u64; 5] = [64, 1024, 16_384, 262_144, 1_000_000];
/// Flows of the verifying run, and how often each is sent: the first packet begins the session.
const VERIFIED: u64 = 16_384;
const PASSES: usize = 3;
const ROUND: Duration = Duration::from_millis(200);
/// Seconds testpmd is listened to.
const SWAP_SECONDS: usize = 4;

struct Options {
    json: bool,
    rounds: usize,
    cpu: u16,
    other: u16,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["verify", folder, cpu, other] => verify(Path::new(folder), number(cpu), number(other)),
        ["measure", file, flows, rounds, cpu, other] => {
            measure(file, number(flows), number(rounds), number(cpu), number(other));
        }
        // The folder is gone before the process ends: a panic ends it at once.
        _ => {
            if let Err(error) = run(&words) {
                eprintln!("error: {error}");
                std::process::exit(1);
            }
        }
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| {
        panic!("{word:?} is not a number; usage: one-core [--json] [--rounds N] [--cpu N] [FLOWS…]")
    })
}

fn run(words: &[&str]) -> Result<(), String> {
    let mut options = Options { json: false, rounds: 25, cpu: 1, other: 0 };
    let mut flows = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().unwrap_or_default();
        match *word {
            "--json" => options.json = true,
            "--rounds" => options.rounds = number(value()),
            "--cpu" => options.cpu = number(value()),
            flow => flows.push(number(flow)),
        }
    }
    options.other = u16::from(options.cpu == 0);
    let folder = sandbox::Folder::new("one-core");
    let (cpu, other) = (options.cpu.to_string(), options.other.to_string());
    let checked = inside(&["verify", folder.path().to_str().unwrap(), &cpu, &other])?;
    if !options.json {
        println!("{}", checked.trim());
    }
    for flows in if flows.is_empty() { USUAL.to_vec() } else { flows } {
        let file = folder.file("in.pcap");
        capture::write(&file, frames::shuffled(flows).into_iter().map(|n| frames::request(n, MAC))).unwrap();
        let name = file.to_str().unwrap();
        let ours = inside(&["measure", name, &flows.to_string(), &options.rounds.to_string(), &cpu, &other])?;
        let ours: serde_json::Value = serde_json::from_str(&ours).unwrap();
        let swap = testpmd::swap(
            &receiver(name),
            SENDER,
            loopback::memory_mb(flows).max(256),
            (flows + 2047).max(16_384),
            (options.cpu, options.other),
            SWAP_SECONDS,
        )?;
        report(&options, flows, &ours, &swap);
    }
    Ok(())
}

const SENDER: &str = "net_null0,no-rx=1";

fn receiver(file: &str) -> String {
    format!("net_pcap0,rx_pcap={file},infinite_rx=1")
}

/// This program within the sandbox; what it says.
fn inside(arguments: &[&str]) -> Result<String, String> {
    let output = sandbox::again(arguments).stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| format!("unshare (util-linux): {error}"))?;
    if !output.status.success() {
        return Err(format!("{arguments:?} ended with {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

fn report(options: &Options, flows: u64, ours: &serde_json::Value, swap: &Swap) {
    let part = |name: &str| ours[name].as_f64().unwrap();
    let mpps = |percent| swap.rates.at(percent) / 1e6;
    let per_second = mpps(50) / swap.cpu_share;
    let ratio = part("mpps_cpu") / per_second;
    if options.json {
        println!(
            r#"{{"bench":"one-core","flows":{flows},"ours":{ours},"testpmd_5tswap":{{"mpps":{:.2},"least":{:.2},"mpps_cpu":{per_second:.2},"cpu_share":{:.3}}},"ratio":{ratio:.3}}}"#,
            mpps(50),
            mpps(0),
            swap.cpu_share
        );
        return;
    }
    println!(
        "{flows:>8} flows: {:.1} Mpps (least {:.1}, most {:.1}); per second of CPU {:.1}, best round {:.1}; {:.1} ns, {:.0} cycles a packet; {:.1} packets a burst; CPU share {:.0} %. testpmd 5tswap: {:.1} Mpps, per second of CPU {per_second:.1} (share {:.0} %). Ratio {ratio:.2}",
        part("mpps"),
        part("least"),
        part("most"),
        part("mpps_cpu"),
        1e3 / part("least_ns"),
        part("ns"),
        part("cycles"),
        part("burst"),
        part("cpu_share") * 100.0,
        mpps(50),
        swap.cpu_share * 100.0,
    );
}

/// Where the slot stands: packets, time on the CPU, polls.
struct Mark {
    at: Instant,
    cpu_ns: u64,
    packets: u64,
    polls: u64,
}

#[allow(clippy::cast_precision_loss, reason = "figures")]
fn measure(file: &str, flows: u64, rounds: usize, cpu: u16, other: u16) {
    sandbox::enter();
    let before = clock::cycle_ns(cpu);
    let (rx, tx) = (receiver(file), SENDER);
    let loopback = Loopback::start(&Wanted { rx: &rx, tx, flows, kept: flows, cpu, other });
    assert_eq!(loopback.mac(), MAC, "the frames are for the port");
    let thread = loopback.thread();
    loopback.wait_for_sessions(flows);
    std::thread::sleep(ROUND);
    let mark = || {
        let packets = counts(&loopback).flow(Flow::Tx);
        let polls = loopback.slot.pulse.polls.load(Relaxed);
        Mark { at: Instant::now(), cpu_ns: clock::cpu_ns(thread), packets, polls }
    };
    let (mut wall, mut on_cpu) = (Spread::default(), Spread::default());
    let first = mark();
    for _ in 0..rounds {
        let begin = mark();
        std::thread::sleep(ROUND);
        let end = mark();
        let packets = (end.packets - begin.packets) as f64;
        wall.add(packets / (end.at - begin.at).as_secs_f64() / 1e6);
        on_cpu.add((end.cpu_ns - begin.cpu_ns) as f64 / packets);
    }
    let last = mark();
    loopback.stop();
    let sent = check_counters(&loopback, flows);
    assert!(sent >= last.packets);
    let cycle = before.min(clock::cycle_ns(cpu));
    let share = (last.cpu_ns - first.cpu_ns) as f64 / (last.at - first.at).as_nanos() as f64;
    let burst = (last.packets - first.packets) as f64 / (last.polls - first.polls) as f64;
    let ns = on_cpu.at(50);
    println!(
        r#"{{"mpps":{:.3},"least":{:.3},"most":{:.3},"mpps_cpu":{:.3},"ns":{ns:.3},"least_ns":{:.3},"cycles":{:.1},"cycle_ns":{cycle:.4},"burst":{burst:.2},"cpu_share":{share:.4},"rounds":{rounds}}}"#,
        wall.at(50),
        wall.at(0),
        wall.at(100),
        1e3 / ns,
        on_cpu.at(0),
        ns / cycle,
    );
    dpdk::exit_now(0);
}

fn counts(loopback: &Loopback) -> Counts {
    loopback.slot.counters.read().expect("the counters are whole")
}

/// Devices, slot and servers have counted the same packets and bytes, and none was dropped. Returns how many were sent.
fn check_counters(loopback: &Loopback, flows: u64) -> u64 {
    let counts = counts(loopback);
    let (received, sent) = loopback.devices();
    assert_eq!(counts.balance().0, counts.balance().1, "conservation");
    assert_eq!(counts.flow(Flow::Rx), received, "the slot has all that the device received");
    let drops: Vec<_> = DropReason::ALL.iter().filter(|r| counts.dropped(**r) > 0).map(|r| r.name()).collect();
    // At the start the slot announces its addresses (gratuitous ARP).
    let all = received + counts.flow(Flow::Originated);
    assert_eq!((counts.flow(Flow::Tx), sent), (all, all), "all is sent; drops: {drops:?}");
    assert_eq!(counts.flow(Flow::RxBytes), received * FRAME as u64, "bytes received");
    let servers = &loopback.slot.servers;
    let packets: u64 = servers.iter().map(|row| row.packets_in.load(Relaxed)).sum();
    let bytes: u64 = servers.iter().map(|row| row.bytes_in.load(Relaxed)).sum();
    assert_eq!((packets, bytes), (received, received * PACKET as u64), "the servers' counters");
    let sessions: u64 = servers.iter().map(|row| u64::from(row.active.load(Relaxed))).sum();
    assert_eq!(sessions, flows, "sessions");
    sent
}

/// Sends every flow [`PASSES`] times through the loop into a capture and compares every frame.
fn verify(folder: &Path, cpu: u16, other: u16) {
    sandbox::enter();
    let (input, output) = (folder.join("verify-in.pcap"), folder.join("verify-out.pcap"));
    let order = frames::shuffled(VERIFIED);
    let sent: Vec<u64> = std::iter::repeat_n(&order, PASSES).flatten().copied().collect();
    capture::write(&input, sent.iter().map(|n| frames::request(*n, MAC))).unwrap();
    let (rx, tx) =
        (format!("net_pcap0,rx_pcap={}", input.display()), format!("net_pcap1,tx_pcap={}", output.display()));
    let loopback = Loopback::start(&Wanted { rx: &rx, tx: &tx, flows: VERIFIED, kept: 0, cpu, other });
    assert_eq!(loopback.mac(), MAC, "the frames are for the port");
    wait("all is sent", || counts(&loopback).flow(Flow::Tx) >= sent.len() as u64);
    loopback.stop();
    check_counters(&loopback, VERIFIED);
    loopback.close();
    let mut frames = capture::read(&output).unwrap();
    frames.retain(|frame| frame[12..14] != ethernet::ARP.to_be_bytes());
    let check = Check::new(&loopback);
    check.all(&sent, &frames).unwrap();
    for at in 0..FRAME {
        frames[77][at] ^= 1;
        assert!(check.all(&sent, &frames).is_err(), "damage at byte {at} of a frame is not found");
        frames[77][at] ^= 1;
    }
    println!("verified: {} frames of {VERIFIED} flows are what they must be, byte for byte", frames.len());
    dpdk::exit_now(0);
}

/// IPv4 address and port.
type Address = (u32, u16);

/// Local address and server of each client, by the session table.
struct Check(HashMap<Address, (Address, Address)>);

impl Check {
    fn new(loopback: &Loopback) -> Self {
        let used = loopback.slot.table.fresh.load(Relaxed) as usize;
        let rows = (0..used).filter_map(|at| loopback.slot.sessions.get(at));
        let pairs = rows.map(|row| {
            let address = |ip: &std::sync::atomic::AtomicU32, port: &std::sync::atomic::AtomicU16| {
                (ip.load(Relaxed), port.load(Relaxed))
            };
            let local = address(&row.local_ip, &row.local_port);
            (address(&row.client_ip, &row.client_port), (local, address(&row.server_ip, &row.server_port)))
        });
        Self(pairs.collect())
    }

    fn all(&self, sent: &[u64], frames: &[Vec<u8>]) -> Result<(), String> {
        if frames.len() != sent.len() {
            return Err(format!("{} frames came of {}", frames.len(), sent.len()));
        }
        sent.iter().zip(frames).try_for_each(|(n, frame)| {
            let (local, server) = self.0.get(&frames::client(*n)).ok_or_else(|| format!("flow {n} has no session"))?;
            let number = world::server_of(server.0).ok_or_else(|| format!("flow {n} goes to no server"))?;
            let wanted = frames::udp((world::server_mac(number), MAC), *local, *server, 63, n.to_be_bytes());
            if frame == &wanted { Ok(()) } else { Err(format!("flow {n}: {frame:02x?} instead of {wanted:02x?}")) }
        })
    }
}

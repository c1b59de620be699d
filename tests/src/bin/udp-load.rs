//! Sends DNS queries over many sockets, several in flight on each, and counts the answers.
//! Nothing is sent again: a lost query stays lost.
//!
//! `udp-load --target IP:PORT [--queries N] [--sockets K] [--window W] [--threads T] [--timeout-ms T]`
//! With `--queries 0`: until standard input closes, each socket sending `--per-socket` (10) queries.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tests::dns;
use tests::load::{LoadReport, Options, stdin_closed};

const USAGE: &str = "udp-load --target IP:PORT [--queries N] [--sockets K] [--window W] [--threads T] [--timeout-ms T]";

fn main() {
    let options = Options::from_args(0, USAGE);
    let target: SocketAddr = options.get("target", SocketAddr::from(([127, 0, 0, 1], 53)));
    let queries: u64 = options.get("queries", 0);
    let sockets: u64 = options.get("sockets", 1000);
    let pause = Duration::from_millis(options.get("pause-ms", 0));
    let window: u64 = options.get("window", 4);
    let timeout = Duration::from_millis(options.get("timeout-ms", 3000));
    let default_each = if queries > 0 { queries.div_ceil(sockets.max(1)) } else { 10 };
    let each: u64 = options.get("per-socket", default_each).clamp(1, 65_536);
    let closed = stdin_closed();
    let taken = AtomicU64::new(0);
    let begin = Instant::now();

    let worker = || {
        let (mut report, mut times) = (LoadReport::default(), Vec::new());
        loop {
            let first = taken.fetch_add(each, Relaxed);
            if (queries > 0 && first >= queries) || (queries == 0 && closed.load(Relaxed)) {
                return (report, times);
            }
            let count = if queries > 0 { each.min(queries - first) } else { each };
            report.requested += count;
            if let Err(error) = session(target, first / each, count, window, timeout, &mut report, &mut times) {
                report.failure(format!("socket: {error}"));
            }
            thread::sleep(pause);
        }
    };
    let (mut report, mut times) = (LoadReport::default(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..options.get("threads", 8)).map(|_| scope.spawn(worker)).collect();
        for thread in threads {
            let (part, part_times) = thread.join().expect("a client thread does not panic");
            report.merge(part);
            times.extend(part_times);
        }
    });
    report.seconds = begin.elapsed().as_secs_f64();
    report.set_times(times);
    println!("{}", serde_json::to_string(&report).expect("a report is plain data"));
}

/// A port of its own for the `turn`-th socket: drawn at random, one in thirty of 2,000 would be one used before, whose session
/// at the appliance lives on, and shares would not be counted by sockets.
fn bind(turn: u64, target: SocketAddr) -> std::io::Result<UdpSocket> {
    let port = u16::try_from(10_000 + turn % 50_000).unwrap_or(0);
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, port)).or_else(|_| UdpSocket::bind((any, 0)))
}

/// One socket: `count` queries, at most `window` unanswered at a time.
fn session(
    target: SocketAddr,
    turn: u64,
    count: u64,
    window: u64,
    timeout: Duration,
    report: &mut LoadReport,
    times: &mut Vec<u64>,
) -> std::io::Result<()> {
    let socket = bind(turn, target)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(timeout))?;
    let mut flying: HashMap<u16, Instant> = HashMap::new();
    let mut sent = 0;
    let mut server: Option<String> = None;
    let mut buffer = [0_u8; 1500];
    while sent < count || !flying.is_empty() {
        while sent < count && (flying.len() as u64) < window {
            let id = u16::try_from(sent).unwrap_or(u16::MAX);
            flying.insert(id, Instant::now());
            socket.send(&dns::query(id, &format!("q{sent}")))?;
            sent += 1;
        }
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) => {
                // All that fly are lost: the oldest waited its whole time.
                let kind = if error.kind() == std::io::ErrorKind::ConnectionRefused { "refused" } else { "no answer" };
                for _ in flying.drain() {
                    report.failure(kind);
                }
                continue;
            }
        };
        let Some((id, name)) = dns::read_answer(&buffer[..length]) else {
            report.failure("unreadable answer");
            continue;
        };
        // An answer nobody waits for is a duplicate or came too late; its query was counted.
        let Some(start) = flying.remove(&id) else {
            *report.errors.entry("answer without query".into()).or_default() += 1;
            continue;
        };
        times.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        if server.get_or_insert_with(|| name.clone()) != &name {
            report.failure("one session, two servers");
            continue;
        }
        report.answered(&name);
    }
    Ok(())
}

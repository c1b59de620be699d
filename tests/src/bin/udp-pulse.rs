//! Asks on each of K sockets every P ms, whether or not answers come, until standard input closes: how long was nothing
//! forwarded?
//!
//! `udp-pulse --target IP:PORT [--sockets K] [--period-ms P]`
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tests::dns;
use tests::load::{Options, PulseReport, stdin_closed};

const USAGE: &str = "udp-pulse --target IP:PORT [--sockets K] [--period-ms P]";
/// Answers may still come after the last question.
const LAST: Duration = Duration::from_millis(300);

fn main() {
    let options = Options::from_args(0, USAGE);
    let target: SocketAddr = options.get("target", SocketAddr::from(([127, 0, 0, 1], 53)));
    let period = Duration::from_millis(options.get("period-ms", 2));
    let closed = stdin_closed();
    let total = Mutex::new(PulseReport::default());
    thread::scope(|scope| {
        for _ in 0..options.get("sockets", 4) {
            scope.spawn(|| {
                let part = pulse(target, period, &closed).unwrap_or_else(|error| {
                    eprintln!("udp-pulse: {error}");
                    std::process::exit(1);
                });
                total.lock().expect("no thread panics while it adds up").merge(&part);
            });
        }
    });
    let report = total.into_inner().expect("no thread panics while it adds up");
    println!("{}", serde_json::to_string(&report).expect("a report is plain data"));
}

/// One socket's session.
fn pulse(target: SocketAddr, period: Duration, closed: &AtomicBool) -> std::io::Result<PulseReport> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(target)?;
    let mut report = PulseReport::default();
    let (mut next, mut end) = (Instant::now(), None);
    // Silence from the first question on counts, too.
    let mut heard = next;
    let mut buffer = [0_u8; 1500];
    loop {
        let now = Instant::now();
        if closed.load(Relaxed) {
            let end = *end.get_or_insert(now + LAST);
            if now >= end || report.answered == report.sent {
                return Ok(report);
            }
            next = end;
        } else if now >= next {
            let id = u16::try_from(report.sent & 0xffff).unwrap_or(0);
            // A refused or unreachable one is a lost one.
            let _ = socket.send(&dns::query(id, "pulse"));
            report.sent += 1;
            next = now + period;
        }
        let left = next.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
        socket.set_read_timeout(Some(left))?;
        if socket.recv(&mut buffer).is_ok_and(|length| dns::read_answer(&buffer[..length]).is_some()) {
            report.answered += 1;
            let gap = std::mem::replace(&mut heard, Instant::now()).elapsed();
            report.max_gap_ms = report.max_gap_ms.max(u64::try_from(gap.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

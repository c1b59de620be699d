//! Sends HTTP requests, each on a new connection, and counts who answered.
//!
//! `http-load --target IP:PORT [--requests N] [--concurrency C] [--rate R] [--timeout-ms T] [--path P] [--slow-ms S]`
//! With `--requests 0`: until standard input closes. `--rate` is requests per second, 0 as fast as
//! possible. The server names itself in the header `X-Server`.
#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tests::clock::now_us;
use tests::gaps::Gap;
use tests::load::{LoadReport, Options, stdin_closed};

const USAGE: &str = "http-load --target IP:PORT [--requests N] [--concurrency C] [--rate R] [--timeout-ms T]";
/// Of a client thread.
const STACK: usize = 128 << 10;

fn main() {
    let options = Options::from_args(0, USAGE);
    let target: SocketAddr = options.get("target", SocketAddr::from(([127, 0, 0, 1], 80)));
    let requests: u64 = options.get("requests", 0);
    let rate: u64 = options.get("rate", 0);
    let timeout = Duration::from_millis(options.get("timeout-ms", 5000));
    let path: String = options.get("path", "/".to_string());
    let slow: u64 = options.get("slow-ms", 200) * 1000;
    let closed = stdin_closed();
    let next = AtomicU64::new(0);
    let begin = Instant::now();

    let worker = || {
        let (mut report, mut times) = (LoadReport::default(), Vec::new());
        loop {
            let number = next.fetch_add(1, Relaxed);
            if (requests > 0 && number >= requests) || (requests == 0 && closed.load(Relaxed)) {
                return (report, times);
            }
            if let Some(micros) = (number * 1_000_000).checked_div(rate) {
                let due = Duration::from_micros(micros);
                thread::sleep(due.saturating_sub(begin.elapsed()));
            }
            report.requested += 1;
            let start = Instant::now();
            match request(target, &path, timeout) {
                Ok(server) => report.answered(&server),
                Err(kind) => report.failure(kind),
            }
            let gap_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            if gap_us >= slow {
                let lane = u32::try_from(number).unwrap_or(u32::MAX);
                report.waits.push(Gap { lane, end_us: now_us(), gap_us, sent_us: 0 });
            }
            times.push(gap_us);
        }
    };
    let (mut report, mut times) = (LoadReport::default(), Vec::new());
    thread::scope(|scope| {
        // Many threads, little depth: with a rate, they mostly wait for their turn.
        let spawn = || thread::Builder::new().stack_size(STACK).spawn_scoped(scope, worker);
        let threads: Vec<_> = (0..options.get("concurrency", 32)).map(|_| spawn()).collect();
        for thread in threads {
            let thread = thread.expect("a machine that has threads");
            let (part, part_times) = thread.join().expect("a client thread does not panic");
            report.merge(part);
            times.extend(part_times);
        }
    });
    report.seconds = begin.elapsed().as_secs_f64();
    report.set_times(times);
    println!("{}", serde_json::to_string(&report).expect("a report is plain data"));
}

/// One request; the name of the server, or the kind of failure.
fn request(target: SocketAddr, path: &str, timeout: Duration) -> Result<String, String> {
    let kind = |what: &str, error: &std::io::Error| match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => format!("{what} timed out"),
        ErrorKind::ConnectionRefused => format!("{what} refused"),
        ErrorKind::ConnectionReset => format!("{what} reset"),
        _ => format!("{what}: {error}"),
    };
    let mut stream = TcpStream::connect_timeout(&target, timeout).map_err(|e| kind("connect", &e))?;
    stream.set_nodelay(true).map_err(|e| kind("nodelay", &e))?;
    stream.set_read_timeout(Some(timeout)).map_err(|e| kind("timeout", &e))?;
    let text = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).map_err(|e| kind("write", &e))?;
    let mut answer = Vec::with_capacity(512);
    stream.read_to_end(&mut answer).map_err(|e| kind("read", &e))?;
    read_answer(&answer).ok_or_else(|| format!("answer of {} bytes is not whole", answer.len()))
}

/// The server's name, if the answer is a 200 and as long as it says.
fn read_answer(answer: &[u8]) -> Option<String> {
    let head_end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?;
    let mut lines = head.split("\r\n");
    if lines.next()?.split(' ').nth(1)? != "200" {
        return None;
    }
    let (mut server, mut length) = (None, None);
    for (name, value) in lines.filter_map(|l| l.split_once(": ")) {
        match name.to_ascii_lowercase().as_str() {
            "x-server" => server = Some(value.to_string()),
            "content-length" => length = value.parse::<usize>().ok(),
            _ => {}
        }
    }
    (length? == answer.len() - head_end - 4).then_some(server?)
}

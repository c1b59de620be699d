//! Hostile clients of the admin socket, all kinds at once: `admin-storm --socket PATH --seconds N --seed N`.
//!
//! Silent ones, slow readers, lines without end, a thousand connections at a time, and requests out of a generator. What
//! is answered must be JSON; prints an [`StormReport`] as JSON.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::load::{Options, StormReport};

const USAGE: &str = "admin-storm --socket PATH --seconds N [--seed N]";
/// Silent connections kept open at a time.
const SILENT: usize = 64;
/// Connections begun at a time by the crowd.
const CROWD: usize = 1000;
/// Bytes without a newline, in all.
const ENDLESS: u64 = 1 << 30;

#[derive(Default)]
struct Counts {
    silent: AtomicU64,
    cut: AtomicU64,
    crowd: AtomicU64,
    endless: AtomicU64,
    unread: AtomicU64,
    fuzzed: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Storm {
    socket: PathBuf,
    end: Instant,
    counts: Arc<Counts>,
}

fn main() {
    let options = Options::from_args(0, USAGE);
    let socket: String = options.get("socket", String::new());
    let seed: u64 = options.get("seed", 1);
    let end = Instant::now() + Duration::from_secs(options.get("seconds", 5));
    let storm = Storm { socket: socket.into(), end, counts: Arc::default() };
    // Children inherit the limit: a thousand sockets are more than some shells allow.
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 4096, 4096);
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut start = |body: fn(&Storm, u64), count: u64| {
        for n in 0..count {
            let storm = storm.clone();
            threads.push(spawn(move || body(&storm, seed.wrapping_mul(1000) + n)));
        }
    };
    start(silent, 1);
    start(crowd, 1);
    start(endless, 2);
    start(never_reads, 4);
    start(fuzz, 2);
    let panicked = threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
    let counts = &storm.counts;
    let report = StormReport {
        silent: counts.silent.load(Relaxed),
        cut: counts.cut.load(Relaxed),
        crowd: counts.crowd.load(Relaxed),
        endless_bytes: counts.endless.load(Relaxed),
        unread: counts.unread.load(Relaxed),
        fuzzed: counts.fuzzed.load(Relaxed),
        answered: counts.answered.load(Relaxed),
        refused: counts.refused.load(Relaxed),
        wrong: counts.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    };
    println!("{}", serde_json::to_string(&report).unwrap_or_default());
    std::process::exit(i32::from(panicked > 0));
}

impl Storm {
    fn on(&self) -> bool {
        Instant::now() < self.end
    }

    fn connect(&self) -> Option<UnixStream> {
        connect(&self.socket)
    }

    fn wrong(&self, text: String) {
        let mut wrong = self.counts.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() < 10 {
            wrong.push(text);
        }
    }
}

fn connect(socket: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(8))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(8))).ok()?;
    Some(stream)
}

/// Holds as many places as there are and says nothing; whoever is cut comes again.
fn silent(storm: &Storm, _: u64) {
    let mut held: Vec<UnixStream> = Vec::new();
    while storm.on() {
        held.retain_mut(|stream| {
            let _ = stream.set_nonblocking(true);
            let open = matches!(stream.read(&mut [0; 512]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
            storm.counts.cut.fetch_add(u64::from(!open), Relaxed);
            open
        });
        while held.len() < SILENT
            && let Some(stream) = storm.connect()
        {
            held.push(stream);
            storm.counts.silent.fetch_add(1, Relaxed);
        }
        sleep(Duration::from_millis(20));
    }
}

/// A thousand connections at once, again and again.
fn crowd(storm: &Storm, _: u64) {
    while storm.on() {
        let all: Vec<UnixStream> = (0..CROWD).filter_map(|_| storm.connect()).collect();
        storm.counts.crowd.fetch_add(all.len() as u64, Relaxed);
        sleep(Duration::from_millis(300));
    }
}

/// Lines without end.
fn endless(storm: &Storm, _: u64) {
    let bytes = vec![b'['; 256 << 10];
    while storm.on() && storm.counts.endless.load(Relaxed) < ENDLESS {
        let Some(mut stream) = storm.connect() else { continue };
        while storm.on()
            && let Ok(n) = stream.write(&bytes)
        {
            storm.counts.endless.fetch_add(n as u64, Relaxed);
        }
    }
}

/// Asks for long answers and reads none.
fn never_reads(storm: &Storm, _: u64) {
    let asks: String = (1..200)
        .map(|id| {
            let method = if id % 2 == 0 { "config.export" } else { "service.list" };
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\"}}\n")
        })
        .collect();
    while storm.on() {
        let Some(mut stream) = storm.connect() else { continue };
        if stream.write(asks.as_bytes()).is_ok() {
            storm.counts.unread.fetch_add(1, Relaxed);
        }
        // Stays until it is cut off: reading would be taking.
        let _ = stream.set_nonblocking(true);
        while storm.on() && stream.write(b"\n").is_ok_and(|n| n > 0) {
            sleep(Duration::from_millis(50));
        }
    }
}

/// Requests out of a generator; each line is answered or the connection closed.
fn fuzz(storm: &Storm, seed: u64) {
    let mut dice = Dice(seed | 1);
    while storm.on() {
        let Some(stream) = storm.connect() else { continue };
        let mut reader = BufReader::new(stream);
        for _ in 0..dice.below(30) + 1 {
            let mut line = request(&mut dice);
            line.retain(|b| *b != b'\n');
            let blank = line.iter().all(u8::is_ascii_whitespace);
            line.push(b'\n');
            storm.counts.fuzzed.fetch_add(1, Relaxed);
            if reader.get_mut().write_all(&line).is_err() || blank {
                break;
            }
            let mut reply = Vec::new();
            if reader.read_until(b'\n', &mut reply).is_err() || reply.is_empty() {
                break;
            }
            match serde_json::from_slice::<Value>(&reply) {
                Ok(reply) if reply.get("result").is_some() => storm.counts.answered.fetch_add(1, Relaxed),
                Ok(reply) if reply.get("error").is_some() => storm.counts.refused.fetch_add(1, Relaxed),
                _ => {
                    let text = String::from_utf8_lossy(&reply[..reply.len().min(200)]).into_owned();
                    storm.wrong(format!("seed {seed}: {} got {text}", String::from_utf8_lossy(&line)));
                    break;
                }
            };
            sleep(Duration::from_millis(2));
        }
    }
}

const METHODS: [&str; 26] = [
    "version",
    "service.list",
    "service.add",
    "service.set",
    "service.del",
    "rs.list",
    "rs.add",
    "rs.set",
    "rs.del",
    "rs.enable",
    "rs.disable",
    "rs.drain",
    "session.list",
    "session.count",
    "session.kill",
    "stats.show",
    "stats.reset",
    "worker.list",
    "port.list",
    "laddr.list",
    "neigh.list",
    "config.check",
    "config.apply",
    "config.history",
    "config.rollback",
    "no.such",
];
const KEYS: [&str; 12] =
    ["service", "rs", "keys", "now", "client", "limit", "after", "state", "text", "file", "generations", "confirm_ms"];

fn request(dice: &mut Dice) -> Vec<u8> {
    match dice.below(10) {
        0 => (0..dice.below(300)).map(|_| dice.byte()).collect(),
        1 => format!("{}1{}", "[".repeat(dice.below(3000)), "]".repeat(dice.below(3000))).into_bytes(),
        2 => format!("[{}]", format!("{},", envelope(dice)).repeat(3)).into_bytes(),
        3 => {
            let mut text = envelope(dice).into_bytes();
            for _ in 0..dice.below(4) + 1 {
                let at = dice.below(text.len());
                text[at] = dice.byte();
            }
            text
        }
        4 => format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rs.list\",\"params\":[{}0]}}",
            "0,".repeat(dice.below(60_000))
        )
        .into_bytes(),
        _ => envelope(dice).into_bytes(),
    }
}

fn envelope(dice: &mut Dice) -> String {
    let method = METHODS[dice.below(METHODS.len())];
    let members: Vec<String> =
        (0..dice.below(4)).map(|_| format!("\"{}\":{}", KEYS[dice.below(KEYS.len())], value(dice, 3))).collect();
    let params = if dice.below(5) == 0 { value(dice, 3) } else { format!("{{{}}}", members.join(",")) };
    let id = if dice.below(5) == 0 { value(dice, 1) } else { dice.below(1000).to_string() };
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{params}}}")
}

fn value(dice: &mut Dice, depth: usize) -> String {
    match dice.below(if depth == 0 { 8 } else { 10 }) {
        0 => "null".into(),
        1 => "true".into(),
        2 => "-1".into(),
        3 => "18446744073709551615".into(),
        4 => "1e400".into(),
        5 => format!("\"{}\"", "x".repeat(dice.below(5000))),
        6 => "\"10.0.0.21:8080\"".into(),
        7 => "\"web\"".into(),
        8 => format!("[{},{}]", value(dice, depth - 1), value(dice, depth - 1)),
        _ => format!("{{\"a\":{}}}", value(dice, depth - 1)),
    }
}

/// xorshift64 (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }
    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

//! Long-lived TCP connections whose every byte is checked.
//!
//! `tcp-talk server --listen IP:PORT`
//! `tcp-talk client --target IP:PORT [--connections K] [--period-ms P] [--quiet-ms Q] [--timeout-ms T]`
//!
//! The client keeps K connections until its standard input closes. On each it sends a numbered
//! frame every P ms and awaits its echo. With `--quiet-ms` the client instead asks the server to
//! be silent for Q ms and then to speak first; each connection does so once per round.
//! Frames have 16 bytes: kind, 7 bytes of zero, big-endian number.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tests::load::{Options, TalkReport, stdin_closed};

const USAGE: &str = "tcp-talk server --listen IP:PORT | client --target IP:PORT [--connections K] …";
/// The other side echoes the frame.
const ECHO: u8 = b'E';
/// The other side waits as many ms as the number says, then sends [`SPEAK`].
const QUIET: u8 = b'Q';
/// The answer to [`QUIET`].
const SPEAK: u8 = b'S';
/// Many threads, little depth.
const STACK: usize = 64 << 10;

fn main() -> std::io::Result<()> {
    let options = Options::from_args(1, USAGE);
    match std::env::args().nth(1).as_deref() {
        Some("server") => server(&options),
        Some("client") => {
            let report = client(&options);
            println!("{}", serde_json::to_string(&report).expect("a report is plain data"));
            Ok(())
        }
        _ => {
            eprintln!("usage: {USAGE}");
            std::process::exit(2);
        }
    }
}

fn frame(kind: u8, number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = kind;
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn number_of(frame: &[u8; 16]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&frame[8..]);
    u64::from_be_bytes(number)
}

fn server(options: &Options) -> std::io::Result<()> {
    let listen: SocketAddr = options.get("listen", SocketAddr::from(([0, 0, 0, 0], 9000)));
    let listener = TcpListener::bind(listen)?;
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        thread::Builder::new().stack_size(STACK).spawn(move || serve(stream))?;
    }
    Ok(())
}

/// Answers until the client closes or breaks the connection.
fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut bytes = [0; 16];
    while stream.read_exact(&mut bytes).is_ok() {
        let answer = if bytes[0] == QUIET {
            thread::sleep(Duration::from_millis(number_of(&bytes)));
            frame(SPEAK, number_of(&bytes))
        } else {
            bytes
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn client(options: &Options) -> TalkReport {
    let target: SocketAddr = options.get("target", SocketAddr::from(([127, 0, 0, 1], 9000)));
    let connections: u64 = options.get("connections", 10);
    let talk = Talk {
        period: Duration::from_millis(options.get("period-ms", 50)),
        quiet: Duration::from_millis(options.get("quiet-ms", 0)),
        timeout: Duration::from_millis(options.get("timeout-ms", 5000)),
    };
    let closed = stdin_closed();
    let total = Mutex::new(TalkReport { connections, ..TalkReport::default() });
    thread::scope(|scope| {
        for number in 0..connections {
            let (total, closed, talk) = (&total, &closed, &talk);
            let body = move || {
                let mut part = TalkReport::default();
                if let Err(error) = talk.keep(target, closed, &mut part) {
                    part.broken.push(format!("connection {number} after {} rounds: {error}", part.rounds));
                }
                let mut sum = total.lock().expect("no thread panics while it adds up");
                sum.opened += part.opened;
                sum.rounds += part.rounds;
                sum.spoke_first += part.spoke_first;
                sum.max_gap_ms = sum.max_gap_ms.max(part.max_gap_ms);
                sum.broken.extend(part.broken);
            };
            if let Err(error) = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, body) {
                eprintln!("connection {number} has no thread: {error}");
            }
            // Not all in one burst: the listen queue is not what is tested.
            if number % 64 == 63 {
                thread::sleep(Duration::from_millis(5));
            }
        }
    });
    total.into_inner().expect("no thread panics while it adds up")
}

struct Talk {
    period: Duration,
    quiet: Duration,
    timeout: Duration,
}

impl Talk {
    /// One connection from its opening to the word to end.
    fn keep(&self, target: SocketAddr, closed: &AtomicBool, report: &mut TalkReport) -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target, self.timeout)?;
        report.opened += 1;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout + self.quiet))?;
        let mut number: u64 = 0;
        while !closed.load(Relaxed) {
            let start = Instant::now();
            let (sent, expected) = if self.quiet.is_zero() {
                (frame(ECHO, number), frame(ECHO, number))
            } else {
                let ms = u64::try_from(self.quiet.as_millis()).unwrap_or(u64::MAX);
                (frame(QUIET, ms), frame(SPEAK, ms))
            };
            stream.write_all(&sent)?;
            let mut bytes = [0; 16];
            stream.read_exact(&mut bytes)?;
            if bytes != expected {
                return Err(std::io::Error::other(format!("expected {expected:02x?}, got {bytes:02x?}")));
            }
            let gap = start.elapsed().saturating_sub(self.quiet);
            report.max_gap_ms = report.max_gap_ms.max(u64::try_from(gap.as_millis()).unwrap_or(u64::MAX));
            report.rounds += 1;
            report.spoke_first += u64::from(!self.quiet.is_zero());
            number += 1;
            thread::sleep(self.period);
        }
        Ok(())
    }
}

//! Long-lived TCP connections whose every byte is checked; see `tests::talk`.
//!
//! `tcp-talk server --listen IP:PORT`
//! `tcp-talk client --target IP:PORT [--connections K] [--period-ms P] [--quiet-ms Q] [--timeout-ms T]
//!  [--open-rate R] [--size B] [--slow-ms S]`
//!
//! The client keeps K connections until its standard input closes. On each it sends a numbered
//! frame of B bytes payload every P ms and awaits its echo. With `--quiet-ms` the client instead asks the server to
//! be silent for Q ms and then to speak first; each connection does so once per round.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use tests::load::{Options, stdin_closed};
use tests::talk::client::{self, Manner};
use tests::talk::server;

const USAGE: &str = "tcp-talk server --listen IP:PORT | client --target IP:PORT [--connections K] …";

fn main() -> std::io::Result<()> {
    let options = Options::from_args(1, USAGE);
    let ms = |key, default| Duration::from_millis(options.get(key, default));
    match std::env::args().nth(1).as_deref() {
        Some("server") => server::run(options.get("listen", SocketAddr::from(([0, 0, 0, 0], 9000)))),
        Some("client") => {
            let target: SocketAddr = options.get("target", SocketAddr::from(([127, 0, 0, 1], 9000)));
            let manner = Manner {
                connections: options.get("connections", 10),
                period: ms("period-ms", 50),
                quiet: ms("quiet-ms", 0),
                timeout: ms("timeout-ms", 5000),
                open_rate: options.get("open-rate", 10_000),
                size: options.get("size", 0),
                slow: ms("slow-ms", 50),
            };
            let report = client::run(target, manner, &stdin_closed())?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
        _ => {
            eprintln!("usage: {USAGE}");
            std::process::exit(2);
        }
    }
}

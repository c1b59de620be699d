//! A numbered UDP stream and its echo; see `tests::stream`.
//!
//! `udp-stream echo --listen IP:PORT`
//! `udp-stream client --target IP:PORT --rate R [--flows F] [--size B] [--gap-us G]`: until standard input closes
//! `udp-stream search --target IP:PORT [--flows F] [--size B] [--min R] [--max R] [--burst-ms T] [--steps N]`
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tests::load::{Options, stdin_closed};
use tests::stream::{self, Plan};

const USAGE: &str = "udp-stream echo --listen IP:PORT | client --target IP:PORT --rate R … | search --target IP:PORT …";

fn main() -> std::io::Result<()> {
    let options = Options::from_args(1, USAGE);
    let target: SocketAddr = options.get("target", SocketAddr::from(([127, 0, 0, 1], 7000)));
    let flows = || stream::flows(target, options.get("flows", 8));
    let size = options.get("size", 64);
    match std::env::args().nth(1).as_deref() {
        Some("echo") => stream::echo::run(options.get("listen", SocketAddr::from(([0, 0, 0, 0], 7000)))),
        Some("client") => {
            let plan = Plan { rate: options.get("rate", 1000), size, gap_us: options.get("gap-us", 2000) };
            print(&stream::run(&flows()?, plan, &stdin_closed())?)
        }
        Some("search") => {
            let range = (options.get("min", 1000), options.get("max", 200_000));
            let burst = Duration::from_millis(options.get("burst-ms", 400));
            print(&stream::search(&flows()?, size, range, burst, options.get("steps", 7))?)
        }
        _ => {
            eprintln!("usage: {USAGE}");
            std::process::exit(2);
        }
    }
}

fn print(report: &impl Serialize) -> std::io::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

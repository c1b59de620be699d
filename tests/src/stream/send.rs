//! The sender: keeps the rate, says when it could not.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

use super::Plan;
use super::numbered::{CONTENT, Numbered};
use crate::clock::now_us;

/// Shortest sleep: more wake-ups would cost more than the datagrams.
const TICK_US: u64 = 250;
/// What the sender is late by more than this is not made up for: a burst would be a test of queues.
const LATE_US: u64 = 3000;

/// What was sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// Datagrams taken by the kernel, by flow.
    pub numbers: Vec<u64>,
    /// Not taken, by error.
    pub refused: BTreeMap<String, u64>,
    /// Microseconds for which nothing was sent.
    pub held_up_us: u64,
    /// First sending.
    pub begin_us: u64,
    /// Last sending.
    pub end_us: u64,
}

/// Names the stream: late datagrams of another are told apart by it.
pub fn stream_id(flows: &[UdpSocket]) -> u32 {
    // The process's number and the first port; bursts of one process are told apart by their numbers' time.
    let port = flows.first().and_then(|f| f.local_addr().ok()).map_or(0, |a| a.port());
    std::process::id() << 16 | u32::from(port)
}

/// Sends round the flows until `stop`.
pub fn run(flows: &[UdpSocket], plan: Plan, stop: &AtomicBool) -> Sent {
    // Naps are as long as asked for, not 50 µs longer.
    let _ = nix::sys::prctl::set_timerslack(1);
    let mut out = Sent { numbers: vec![0; flows.len()], begin_us: now_us(), ..Sent::default() };
    let mut bytes = vec![0; plan.size.max(CONTENT)];
    let stream = stream_id(flows);
    let (mut begin, mut count) = (out.begin_us, 0_u64);
    let due_at = |begin: u64, count: u64| begin + count * 1_000_000 / plan.rate.max(1);
    while !stop.load(Relaxed) {
        let now = now_us();
        let due = due_at(begin, count);
        if due > now {
            sleep(Duration::from_micros((due - now).max(TICK_US)));
            continue;
        }
        if now - due > LATE_US {
            out.held_up_us += now - due;
            begin += now - due;
        }
        let lane = usize::try_from(count).unwrap_or(0) % flows.len();
        let number = out.numbers[lane];
        let name = u32::try_from(lane).unwrap_or(u32::MAX);
        Numbered { stream, lane: name, number, sent_us: now }.write(&mut bytes);
        match flows[lane].send(&bytes) {
            Ok(_) => {
                out.numbers[lane] += 1;
                out.end_us = now;
            }
            // Its number goes to the next: what was never sent cannot be lost.
            Err(error) => *out.refused.entry(kind(&error)).or_default() += 1,
        }
        count += 1;
    }
    out
}

fn kind(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock => "own buffer full".into(),
        // An ICMP answer to an earlier one.
        ErrorKind::ConnectionRefused => "port unreachable".into(),
        _ => error.to_string(),
    }
}

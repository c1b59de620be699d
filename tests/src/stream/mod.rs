//! A numbered UDP stream: several flows at a fixed rate, echoed by the servers, every datagram
//! accounted for, every silence with its time.
//!
//! Honest about itself: what its own socket refused, what its own receive queue lost and when its
//! own sender was held up stand in the report, apart from what was lost on the way.

pub mod echo;
mod lane;
mod numbered;
mod receive;
mod send;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use crate::clock::now_us;
use crate::gaps::Gap;

/// Bytes of socket buffers: a second of any rate tried here.
const BUFFER: usize = 16 << 20;
/// A stream is over when so long after its last datagram nothing came.
const TAIL: Duration = Duration::from_millis(500);
/// Tries at the lowest rate of a search.
const LOWEST_TRIES: u32 = 5;

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Datagrams per second, of all flows together.
    pub rate: u64,
    /// UDP payload, bytes.
    pub size: usize,
    /// Silences of a flow shorter than this are not recorded, microseconds.
    pub gap_us: u64,
}

/// Datagrams of one flow that did not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Number of the flow.
    pub lane: u32,
    /// When the last one before them was sent, microseconds.
    pub at_us: u64,
    /// How many in a row.
    pub count: u64,
}

/// Report of `udp-stream client`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StreamReport {
    /// Datagrams per second asked for.
    pub rate: u64,
    /// Local port of each flow, by its number.
    pub ports: Vec<u16>,
    /// Datagrams the kernel took from us.
    pub sent: u64,
    /// Different ones that came back.
    pub received: u64,
    /// The others.
    pub lost: u64,
    /// Came more than once.
    pub duplicated: u64,
    /// Came after one with a higher number.
    pub reordered: u64,
    /// Came back with other content.
    pub foreign: u64,
    /// The kernel did not take, by error; not in `sent`.
    pub refused: BTreeMap<String, u64>,
    /// Lost in our own receive queue (`SO_RXQ_OVFL`); part of `lost`.
    pub overflowed: u64,
    /// Time in which the sender was not run, microseconds in all: the rate was not kept then.
    pub held_up_us: u64,
    /// Silences of a flow, by the kernel's stamps on the packets.
    pub gaps: Vec<Gap>,
    /// What was lost, with its time.
    pub losses: Vec<Loss>,
    /// Longest time of one datagram from `send` to the kernel's stamp, microseconds.
    pub longest_us: u64,
    /// First sending.
    pub begin_us: u64,
    /// Last sending.
    pub end_us: u64,
}

impl StreamReport {
    /// Datagrams lost of those sent within the window.
    #[must_use]
    pub fn lost_within(&self, from_us: u64, to_us: u64) -> u64 {
        self.losses.iter().filter(|l| (from_us..to_us).contains(&l.at_us)).map(|l| l.count).sum()
    }

    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "UDP stream of {} flows at {}/s: {} sent, {} lost ({} in our own queue), {} twice, {} out of order; sender held up {} ms, refused {:?}",
            self.ports.len(),
            self.rate,
            self.sent,
            self.lost,
            self.overflowed,
            self.duplicated,
            self.reordered,
            self.held_up_us / 1000,
            self.refused
        )
    }
}

/// The flows: a connected socket each.
///
/// # Errors
/// When a socket cannot be had or the target is unreachable.
pub fn flows(target: SocketAddr, count: u32) -> std::io::Result<Vec<UdpSocket>> {
    (0..count)
        .map(|_| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(target)?;
            tune(&socket)?;
            Ok(socket)
        })
        .collect()
}

/// Large buffers, never blocking.
fn tune(socket: &UdpSocket) -> std::io::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(socket, sockopt::SndBufForce, &BUFFER)?;
    socket.set_nonblocking(true)
}

/// Sends until `stop`, awaits the last answers, reports.
///
/// # Errors
/// When the sockets cannot be used at all.
pub fn run(flows: &[UdpSocket], plan: Plan, stop: &AtomicBool) -> std::io::Result<StreamReport> {
    let (begin_us, sent_all) = (now_us(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive::run(flows, plan, begin_us, &sent_all, TAIL));
        let sent = send::run(flows, plan, stop);
        sent_all.store(true, Relaxed);
        let lanes = receiver.join().expect("the receiving thread does not panic")?;
        let mut report = StreamReport { rate: plan.rate, ..StreamReport::default() };
        report.ports = flows.iter().map(|f| f.local_addr().map_or(0, |a| a.port())).collect();
        report.sent = sent.numbers.iter().sum();
        (report.refused, report.held_up_us) = (sent.refused, sent.held_up_us);
        (report.begin_us, report.end_us) = (sent.begin_us, sent.end_us);
        for (lane, sent) in lanes.into_iter().zip(sent.numbers) {
            lane.add_to(&mut report, sent);
        }
        Ok(report)
    })
}

/// One burst of the search.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Try {
    /// Datagrams per second asked for.
    pub rate: u64,
    /// Datagrams per second that were really sent.
    pub sent_rate: u64,
    /// Sent.
    pub sent: u64,
    /// Not come back.
    pub lost: u64,
}

impl Try {
    /// Nothing lost, of at least half of what was asked for. (What a sender on a busy machine really sent is what counts.)
    #[must_use]
    pub fn passed(&self) -> bool {
        self.lost == 0 && self.sent_rate * 2 >= self.rate
    }
}

/// Report of `udp-stream search`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SearchReport {
    /// Highest rate, as really sent, at which nothing was lost; 0 if at none.
    pub rate: u64,
    /// All bursts, in order.
    pub tries: Vec<Try>,
}

/// Looks for the loss-free rate between `low` and `high` by halving the interval (of logarithms)
/// `steps` times, with bursts of `burst`. A rate counts when a second burst of it passes too.
///
/// # Errors
/// As [`run`].
pub fn search(
    flows: &[UdpSocket],
    size: usize,
    (low, high): (u64, u64),
    burst: Duration,
    steps: u32,
) -> std::io::Result<SearchReport> {
    let mut report = SearchReport::default();
    let attempt = |rate: u64, report: &mut SearchReport| -> std::io::Result<bool> {
        let mut sent = rate;
        for _ in 0..2 {
            let one = one_burst(flows, Plan { rate, size, gap_us: u64::MAX }, burst)?;
            let passed = one.passed();
            sent = sent.min(one.sent_rate);
            report.tries.push(one);
            if !passed {
                return Ok(false);
            }
        }
        report.rate = report.rate.max(sent);
        Ok(true)
    };
    // The first burst opens the flows' sessions; a machine that hiccups has more than one try at the lowest rate.
    one_burst(flows, Plan { rate: low, size, gap_us: u64::MAX }, burst)?;
    let mut begun = false;
    for _ in 0..LOWEST_TRIES {
        begun = begun || attempt(low, &mut report)?;
    }
    if !begun || attempt(high, &mut report)? {
        return Ok(report);
    }
    let (mut good, mut bad) = (low, high);
    for _ in 0..steps {
        // The geometric mean: a factor is halved, not a difference.
        let middle = u64::isqrt(good.saturating_mul(bad));
        if attempt(middle, &mut report)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(report)
}

fn one_burst(flows: &[UdpSocket], plan: Plan, burst: Duration) -> std::io::Result<Try> {
    let stop = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let begin = Instant::now();
            std::thread::sleep(burst.saturating_sub(begin.elapsed()));
            stop.store(true, Relaxed);
        });
        run(flows, plan, &stop)
    })?;
    let micros = report.end_us.saturating_sub(report.begin_us).max(1);
    Ok(Try { rate: plan.rate, sent_rate: report.sent * 1_000_000 / micros, sent: report.sent, lost: report.lost })
}

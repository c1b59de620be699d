//! Time from the sending of a packet to its coming back through a worker in real processes, at 10, 50 and 90 % of what the
//! worker can do; beside the same worker built to reflect only, at the same rates. Generator and link are in both: the
//! difference is the datapath's.
//!
//! `latency --programs FOLDER --reflector FILE [--json] [--rounds N] [--cpu N]` (all set by `cargo xtask bench latency`).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a benchmark: it may fail where it stands")]
#![allow(clippy::cast_precision_loss, reason = "figures")]

use std::path::Path;
use std::time::{Duration, Instant};

use bench::appliance::Appliance;
use bench::options::Options;
use bench::spread::{Busy, Spread};
use bench::wire::{self, Taker, Wire, stamp};

/// Flows.
const FLOWS: u64 = 1024;
/// Load, percent of the capacity.
const LOADS: [u64; 3] = [10, 50, 90];
/// Time the capacity is measured in.
const CAPACITY: Duration = Duration::from_secs(2);
/// Percentiles told.
const PARTS: [f64; 3] = [0.5, 0.99, 0.999];
/// A window: long enough for percentiles, short enough that most have no preemption.
const WINDOW_NS: u64 = 5_000_000;
/// Frames a window must have.
const FEW: u64 = 1000;
/// Frames in flight above which the generator waits when it looks for the capacity: less than the link's two rings and the
/// worker's queue hold, so that what is lost is not counted as done.
const IN_FLIGHT: u64 = 512;

fn main() {
    wire::main(run);
}

/// Times of frames, in steps of 1/32 of a power of two: no figure is off by more than 3 %.
struct Times {
    counts: Vec<u64>,
    taken: u64,
    /// When the run began: what was sent before is not its.
    since: u64,
    /// When the present window ends, and what was taken in it.
    until: u64,
    window: Vec<u64>,
    /// Percentiles of the windows that had enough, us.
    windows: [Spread; 3],
}

impl Times {
    fn since(since: u64) -> Self {
        let places = 64 * 32;
        Self {
            counts: vec![0; places],
            taken: 0,
            since,
            until: since + WINDOW_NS,
            window: vec![0; places],
            windows: Default::default(),
        }
    }

    /// Closes the window.
    #[cold]
    fn next(&mut self, now: u64) {
        let taken: u64 = self.window.iter().sum();
        if taken >= FEW {
            for (spread, part) in self.windows.iter_mut().zip(PARTS) {
                spread.add(at_part(&self.window, taken, part));
            }
        }
        self.window.iter_mut().zip(&mut self.counts).for_each(|(window, count)| *count += std::mem::take(window));
        self.taken += taken;
        self.until = now + WINDOW_NS;
    }

    #[allow(clippy::cast_possible_truncation, reason = "a place in the table")]
    fn place(ns: u64) -> usize {
        if ns < 64 {
            return ns as usize;
        }
        let power = 63 - ns.leading_zeros() as usize;
        (power - 5) * 32 + (ns >> (power - 5)) as usize
    }

    /// The least time of a place.
    fn time(place: usize) -> u64 {
        if place < 64 {
            return place as u64;
        }
        let power = place / 32 + 4;
        ((place % 32 + 32) as u64) << (power - 5)
    }
}

/// µs that this part of the frames took at most.
fn at_part(counts: &[u64], taken: u64, part: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a count")]
    let mut left = (taken as f64 * part) as u64;
    for (place, count) in counts.iter().enumerate() {
        if *count > left {
            return Times::time(place) as f64 / 1e3;
        }
        left -= count;
    }
    f64::NAN
}

impl Taker for Times {
    #[inline]
    fn take(&mut self, frame: &[u8], now: u64) {
        if let Some(sent) = stamp(frame).filter(|sent| (self.since..=now).contains(sent)) {
            self.window[Self::place(now - sent)] += 1;
            if now >= self.until {
                self.next(now);
            }
        }
    }
}

/// One load of one worker.
struct Figures {
    /// Of all frames.
    times: [f64; 3],
    /// Median of the windows.
    typical: [f64; 3],
    /// Packets per second asked for and sent, millions.
    wanted: f64,
    sent: f64,
    /// Part of the frames that did not come back.
    lost: f64,
    worker_share: f64,
    wire_share: f64,
}

fn run(options: &Options) -> Result<(), String> {
    let mut wire = Wire::within(options)?;
    let client = options.memif("client");
    let mut capacity = None;
    let mut measure = |worker: &Path, reflecting: bool| {
        let appliance = Appliance::start(&options.programs, worker, &client, (options.cpu, options.other()))?;
        wire.aim(FLOWS, appliance.mac);
        appliance.warm(&mut wire, FLOWS, reflecting)?;
        let rate = *capacity.get_or_insert_with(|| find_capacity(&mut wire));
        let seconds = Duration::from_millis(250 * options.rounds as u64);
        let figures: Vec<_> = LOADS.iter().map(|load| at(&mut wire, &appliance, rate * load / 100, seconds)).collect();
        appliance.stop();
        Ok::<_, String>(figures)
    };
    let ours = measure(&options.programs.join("lb-worker"), false)?;
    let reflecting = measure(&options.reflector, true)?;
    let capacity = capacity.unwrap_or(0) as f64 / 1e6;
    for ((load, ours), reflecting) in LOADS.into_iter().zip(&ours).zip(&reflecting) {
        report(options, load, capacity, ours, reflecting);
    }
    Ok(())
}

/// Packets per second that come back with few in flight.
fn find_capacity(wire: &mut Wire) -> u64 {
    let (mut back, before) = (0_u64, wire.sent);
    let begin = Instant::now();
    while begin.elapsed() < CAPACITY {
        for _ in 0..64 {
            if wire.sent - before - back < IN_FLIGHT {
                wire.send(32, 0);
            }
            wire.receive(&mut back);
        }
    }
    let spent = begin.elapsed();
    wire.drain(&mut back);
    back * 1_000_000 / u64::try_from(spent.as_micros()).unwrap_or(u64::MAX)
}

/// Sends `rate` packets per second, each as soon as its time has come, and takes what comes back.
fn at(wire: &mut Wire, appliance: &Appliance, rate: u64, how_long: Duration) -> Figures {
    let (before, worker, share) = (wire.sent, appliance.worker_ns(), Busy::begin());
    let (begin, began) = (Instant::now(), shm_layout::clock::now_ns());
    let mut times = Times::since(began);
    loop {
        let now = shm_layout::clock::now_ns();
        let elapsed = now - began;
        if elapsed > u64::try_from(how_long.as_nanos()).unwrap_or(u64::MAX) {
            break;
        }
        let due = u64::try_from(u128::from(elapsed) * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX);
        let behind = due.saturating_sub(wire.sent - before);
        if behind > 0 {
            // Stamped when it is handed over first: waiting for room on the wire counts, the generator's own delay does not.
            wire.send(usize::try_from(behind).unwrap_or(usize::MAX), now);
        }
        wire.receive(&mut times);
    }
    let spent = begin.elapsed();
    let sent = wire.sent - before;
    let (worker_share, wire_share) = ((appliance.worker_ns() - worker) as f64 / spent.as_nanos() as f64, share.share());
    wire.drain(&mut times);
    times.next(u64::MAX - WINDOW_NS);
    Figures {
        times: PARTS.map(|part| at_part(&times.counts, times.taken, part)),
        typical: times.windows.each_ref().map(|windows| windows.at(50)),
        wanted: rate as f64 / 1e6,
        sent: sent as f64 / spent.as_secs_f64() / 1e6,
        lost: 1.0 - times.taken as f64 / sent as f64,
        worker_share,
        wire_share,
    }
}

fn report(options: &Options, load: u64, capacity: f64, ours: &Figures, reflecting: &Figures) {
    let less = |ours: [f64; 3], theirs: [f64; 3]| [0, 1, 2].map(|at| ours[at] - theirs[at]);
    let (over, typical) = (less(ours.times, reflecting.times), less(ours.typical, reflecting.typical));
    let us = |[p50, p99, p999]: [f64; 3]| format!(r#"{{"p50":{p50:.2},"p99":{p99:.2},"p999":{p999:.2}}}"#);
    let json = |f: &Figures| {
        format!(
            r#"{{"all":{},"typical":{},"mpps":{:.3},"lost":{:.5},"worker_share":{:.3},"wire_share":{:.3}}}"#,
            us(f.times),
            us(f.typical),
            f.sent,
            f.lost,
            f.worker_share,
            f.wire_share
        )
    };
    if options.json {
        println!(
            r#"{{"bench":"latency","load":{load},"capacity_mpps":{capacity:.3},"wanted_mpps":{:.3},"ours":{},"reflecting":{},"over":{},"over_typical":{}}}"#,
            ours.wanted,
            json(ours),
            json(reflecting),
            us(over),
            us(typical)
        );
        return;
    }
    println!("{load:>2} % of {capacity:.2} Mpps, {:.2} Mpps wanted:", ours.wanted);
    for (name, f) in [("reflecting", reflecting), ("ours", ours)] {
        println!(
            "  {name:>10}: {}; {:.2} Mpps sent, {:.3} % lost; CPU share: worker {:.0} %, generator {:.0} %",
            text(f.times, f.typical),
            f.sent,
            f.lost * 100.0,
            f.worker_share * 100.0,
            f.wire_share * 100.0
        );
    }
    println!("  difference: {}", text(over, typical));
}

/// Of all frames, and in the median window.
fn text(all: [f64; 3], typical: [f64; 3]) -> String {
    let words = |[p50, p99, p999]: [f64; 3]| format!("p50 {p50:.1}, p99 {p99:.1}, p99.9 {p999:.1} us");
    format!("{} (median of 5 ms: {})", words(all), words(typical))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_order_and_near() {
        for ns in (0..100_000).chain([1 << 40, (1 << 40) + 12_345]) {
            let least = Times::time(Times::place(ns));
            assert!(least <= ns && ns - least <= ns / 32, "{ns} {least}");
            assert!(Times::place(ns + 1) >= Times::place(ns));
        }
    }
}

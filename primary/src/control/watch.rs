//! What control sees of the workers over time: which of them hang, how busy they are.

use std::sync::atomic::Ordering::Relaxed;

use shm_layout::owner::hand;
use shm_layout::publish::owner_alive;
use shm_layout::slot::Slot;

/// Time between two samples, ms.
const SAMPLE_MS: u64 = 1000;
/// Time between two looks for local addresses in use, ms: it reads every session.
const LOCALS_MS: u64 = 10_000;

#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    heartbeat_ms: u64,
    /// Run time of the owning thread when the heartbeat was first seen, clock ticks.
    ticks: u64,
    busy_ns: u64,
    total_ns: u64,
    ratio: f64,
}

/// Samples of all slots.
#[derive(Debug)]
pub struct Watch {
    samples: Vec<Sample>,
    sampled_ms: u64,
    locals_ms: u64,
}

impl Watch {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self { samples: vec![Sample::default(); slots], sampled_ms: 0, locals_ms: 0 }
    }

    /// Looks at the slots, once a second.
    pub fn sample(&mut self, slots: &[Slot], now_ms: u64) {
        if now_ms < self.sampled_ms + SAMPLE_MS {
            return;
        }
        self.sampled_ms = now_ms;
        for (sample, slot) in self.samples.iter_mut().zip(slots) {
            let heartbeat_ms = slot.pulse.heartbeat_ms.load(Relaxed);
            if heartbeat_ms != sample.heartbeat_ms {
                sample.heartbeat_ms = heartbeat_ms;
                sample.ticks = thread(slot).map_or(0, |t| t.ticks);
            }
            let (busy, total) = (slot.pulse.busy_ns.load(Relaxed), slot.pulse.total_ns.load(Relaxed));
            let (more, time) = (busy.saturating_sub(sample.busy_ns), total.saturating_sub(sample.total_ns));
            sample.ratio = ratio(more, time);
            (sample.busy_ns, sample.total_ns) = (busy, total);
        }
    }

    /// Share of the last second in loops that had work.
    #[must_use]
    pub fn busy_ratio(&self, slot: usize) -> f64 {
        self.samples.get(slot).map_or(0.0, |s| s.ratio)
    }

    /// State of the slot's owner: hung is a heartbeat older than `hang_after_ms` while it ran, or stopped. One that is
    /// runnable and was not run is starved, which is not its fault.
    #[must_use]
    pub fn state(&self, slot: &Slot, now_ms: u64, hang_after_ms: u64) -> &'static str {
        if !owner_alive(&slot.owner) {
            return "dead";
        }
        let heartbeat = slot.pulse.heartbeat_ms.load(Relaxed);
        if now_ms.saturating_sub(heartbeat) > hang_after_ms {
            let sample = self.samples.get(slot.geometry.slot as usize).copied().unwrap_or_default();
            let seen = sample.heartbeat_ms == heartbeat;
            // A tick is 10 ms: two of them are more than a look at the clock.
            match thread(slot) {
                Some(thread) if thread.stopped || (seen && thread.ticks > sample.ticks + 2) => return "hung",
                _ => {}
            }
        }
        match slot.owner.hand.load(Relaxed) {
            hand::OWNED => "serving",
            hand::OFFERED => "draining",
            _ => "attaching",
        }
    }

    /// Is it time to look for removed local addresses that came free?
    pub fn locals_due(&mut self, now_ms: u64, wanted: bool) -> bool {
        let due = wanted && now_ms >= self.locals_ms + LOCALS_MS;
        if due {
            self.locals_ms = now_ms;
        }
        due
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

struct Thread {
    ticks: u64,
    stopped: bool,
}

/// Run time of the thread that owns the slot, user and system: fields 14 and 15 of `/proc/PID/task/TID/stat` (proc(5)).
fn thread(slot: &Slot) -> Option<Thread> {
    let (pid, tid) = (slot.owner.owner().pid(), slot.owner.tid.load(Relaxed));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let stopped = matches!(fields.next()?, "T" | "t");
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Thread { ticks: user + system, stopped })
}

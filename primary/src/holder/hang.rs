//! Hung workers: told from starved ones, which are not to blame.
//!
//! A heartbeat that stands still for `hang_after` means that the thread runs in circles, is stopped, sleeps on something
//! that does not come, or was not run at all. Only the last is no reason to kill it: the machine is short of CPU, and a
//! successor would starve as well.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shm_layout::owner::Process;
use shm_layout::slot::Slot;

/// Run time, in clock ticks of 10 ms, that says "it ran and made no turn". (A look at the clock is less than one.)
const RAN: u64 = 5;
/// A thread that sleeps is believed hung after so many times `hang_after`: a turn never sleeps longer than its naps.
const ASLEEP: u64 = 5;

/// A thread as `/proc/PID/task/TID/stat` shows it (proc(5)): state letter, user and system time in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thread {
    state: u8,
    ticks: u64,
}

/// What was seen of one slot since its heartbeat last moved.
#[derive(Clone, Copy, Debug)]
struct Still {
    owner: Process,
    heartbeat_ms: u64,
    /// Run time when it was first seen to stand still.
    ticks: u64,
    /// When that was, ms: after a stall of our own two looks may follow each other at once.
    seen_ms: u64,
}

/// A thread that makes no turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It hangs: why.
    Hung(String),
    /// It was not run.
    Starved,
}

/// The judge of all slots.
#[derive(Debug, Default)]
pub struct Judge {
    still: BTreeMap<u32, Still>,
}

impl Judge {
    /// Looks at a slot; to be called often. `None`: it turns, or belongs to nobody. Else whose thread was judged.
    pub fn look(&mut self, number: u32, slot: &Slot, now_ms: u64, hang_after_ms: u64) -> Option<(Process, Finding)> {
        let owner = slot.owner.owner();
        let tid = slot.owner.tid.load(Ordering::Relaxed); // Relaxed, here and below: true each by itself.
        let heartbeat_ms = slot.pulse.heartbeat_ms.load(Ordering::Relaxed);
        let seen = self.still.get(&number).filter(|s| s.owner == owner && s.heartbeat_ms == heartbeat_ms);
        let Some(seen) = seen.copied() else {
            // It moved, or we see it for the first time: its run time counts from here.
            self.still.remove(&number);
            if owner != Process::NOBODY && now_ms.saturating_sub(heartbeat_ms) > hang_after_ms / 10 {
                let ticks = thread(owner.pid(), tid)?.ticks;
                self.still.insert(number, Still { owner, heartbeat_ms, ticks, seen_ms: now_ms });
            }
            return None;
        };
        let age_ms = now_ms.saturating_sub(heartbeat_ms);
        if age_ms <= hang_after_ms || now_ms.saturating_sub(seen.seen_ms) <= hang_after_ms / 2 {
            return None;
        }
        judge(thread(owner.pid(), tid)?, seen.ticks, age_ms, hang_after_ms).map(|finding| (owner, finding))
    }
}

/// Owners that settle what a dead one left: a check of the whole tables takes as long as they are large.
#[derive(Debug, Default)]
pub struct Settling(BTreeMap<u64, Instant>);

impl Settling {
    /// Time for it.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Has `owner` taken a slot that it does not serve yet, and not for too long?
    pub fn lasts(&mut self, owner: Process, slots: &[Slot]) -> bool {
        // Relaxed: a number for people, 0 from the claim to the first turn.
        let settles = |slot: &Slot| slot.owner.owner() == owner && slot.owner.tid.load(Ordering::Relaxed) == 0;
        if !slots.iter().any(settles) {
            self.0.remove(&owner.word());
            return false;
        }
        self.0.entry(owner.word()).or_insert_with(Instant::now).elapsed() < Self::LIMIT
    }
}

fn judge(now: Thread, ticks_before: u64, age_ms: u64, hang_after_ms: u64) -> Option<Finding> {
    let ran = now.ticks.saturating_sub(ticks_before);
    let hung = |what: String| Some(Finding::Hung(format!("no turn for {age_ms} ms, while {what}")));
    match now.state {
        b'T' | b't' => hung("it was stopped".into()),
        b'Z' | b'X' => None, // Dead: the kernel tells.
        _ if ran >= RAN => hung(format!("it ran for {} ms", ran * 10)),
        b'S' | b'D' if age_ms > ASLEEP * hang_after_ms => hung("it slept".into()),
        _ => Some(Finding::Starved),
    }
}

fn thread(pid: u32, tid: u32) -> Option<Thread> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Thread { state, ticks: user + system })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_layout::slot::SlotGeometry;

    #[test]
    fn a_hung_thread_is_told_from_a_starved_one() {
        let thread = |state, ticks| Thread { state, ticks };
        let told = |thread, age| judge(thread, 100, age, 1000);
        assert!(matches!(told(thread(b'R', 160), 1100), Some(Finding::Hung(why)) if why.contains("ran for 600 ms")));
        assert!(matches!(told(thread(b'T', 100), 1100), Some(Finding::Hung(why)) if why.contains("stopped")));
        assert!(matches!(told(thread(b'S', 100), 5100), Some(Finding::Hung(why)) if why.contains("slept")));
        assert_eq!(told(thread(b'R', 102), 9000), Some(Finding::Starved), "runnable, and not run");
        assert_eq!(told(thread(b'S', 100), 1100), Some(Finding::Starved), "it may have been woken and not run");
        assert_eq!(told(thread(b'Z', 500), 9000), None);
    }

    #[test]
    fn the_slot_of_a_busy_thread_without_turns_is_found() {
        let geometry =
            SlotGeometry { slot: 0, slots: 1, sessions: 16, wide_sessions: 0, servers: 1, services: 1, extensions: 0 };
        let slot = Slot::anonymous(geometry, false).unwrap();
        let mut judge = Judge::default();
        assert_eq!(judge.look(0, &slot, 10_000, 1000), None, "nobody's");
        assert!(slot.owner.claim(Process::NOBODY, Process::this()));
        slot.owner.tid.store(u32::try_from(nix::unistd::gettid().as_raw()).unwrap(), Ordering::Relaxed);
        slot.pulse.heartbeat_ms.store(9_500, Ordering::Relaxed);
        assert_eq!(judge.look(0, &slot, 10_000, 1000), None, "its run time counts from here");
        let begin = std::time::Instant::now();
        while thread(std::process::id(), slot.owner.tid.load(Ordering::Relaxed)).unwrap().ticks
            < judge.still[&0].ticks + RAN
        {
            assert!(begin.elapsed().as_secs() < 60);
        }
        assert_eq!(judge.look(0, &slot, 10_400, 1000), None, "not yet");
        let found = judge.look(0, &slot, 10_600, 1000);
        assert!(matches!(found, Some((who, Finding::Hung(_))) if who == Process::this()));
        slot.pulse.heartbeat_ms.store(10_590, Ordering::Relaxed);
        assert_eq!(judge.look(0, &slot, 10_600, 1000), None, "it turned");
    }
}

//! After a hand-over the old worker stands by for a while: if its successor dies or drops more than it did itself, it
//! takes the slots back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use links::pidfd;
use shm_layout::clock;
use shm_layout::counters::{Counts, DropReason, Flow};
use shm_layout::owner::Process;

use crate::slots::Place;

/// How long the successor is watched, and how far back it is compared with.
pub const TRIAL: Duration = Duration::from_secs(3);
/// Fewer drops than this decide nothing.
const FEW: u64 = 50;
/// A successor that receives nothing while its predecessor received this much in the same time is deaf.
const BUSY: u64 = 1000;
/// A slot whose heartbeat is older is not well served.
const FRESH: Duration = Duration::from_millis(500);
/// How long it may receive nothing.
const DEAF: Duration = Duration::from_secs(1);

/// What the slots have counted, as far as it tells a good worker from a bad one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    packets: u64,
    drops: u64,
}

impl Sample {
    /// Of these slots, now.
    pub fn of<'a>(places: impl Iterator<Item = &'a Place>) -> Self {
        places.filter_map(|p| p.slot.counters.read()).fold(Self::default(), |sum, counts| sum.with(&counts))
    }

    fn with(self, counts: &Counts) -> Self {
        // What was taken in, or ended because somebody wanted it so, says nothing about who did it.
        let intended = [DropReason::HandledArp, DropReason::HandledReset, DropReason::Disabled];
        let drops = DropReason::ALL.iter().filter(|reason| !intended.contains(reason));
        Self {
            packets: self.packets + counts.flow(Flow::Rx) + counts.flow(Flow::FromRing),
            drops: self.drops + drops.map(|reason| counts.dropped(*reason)).sum::<u64>(),
        }
    }

    fn since(self, before: Self) -> Self {
        let less = |now: u64, then: u64| now.saturating_sub(then);
        Self { packets: less(self.packets, before.packets), drops: less(self.drops, before.drops) }
    }

    #[allow(clippy::cast_precision_loss, reason = "a share")]
    fn share(self) -> f64 {
        self.drops as f64 / (self.packets.max(1)) as f64
    }
}

/// Samples of the last [`TRIAL`] seconds, while we serve ourselves.
#[derive(Debug, Default)]
pub struct History(VecDeque<(Instant, Sample)>);

impl History {
    /// One more.
    pub fn add(&mut self, now: Instant, sample: Sample) {
        self.0.push_back((now, sample));
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > TRIAL) {
            self.0.pop_front();
        }
    }

    /// What was counted in it.
    fn counted(&self) -> Sample {
        let ends = self.0.front().zip(self.0.back());
        ends.map_or_else(Sample::default, |((_, first), (_, last))| last.since(*first))
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Watch on.
    Watch,
    /// It does well: leave.
    Passed,
    /// It has died: its slots are to be had.
    Dead,
    /// It lives and does worse: ask for the slots. Why.
    Worse(String),
}

/// A successor on trial.
#[derive(Debug)]
pub struct Trial {
    /// Who.
    pub heir: Process,
    /// The slots it has of us.
    pub places: Vec<Place>,
    since: Instant,
    before: Sample,
    at_start: Sample,
}

impl Trial {
    /// Begins now.
    pub fn new(heir: Process, places: Vec<Place>, history: &History) -> Self {
        let at_start = Sample::of(places.iter());
        Self { heir, places, since: Instant::now(), before: history.counted(), at_start }
    }

    /// More slots have gone to it.
    pub fn extend(&mut self, places: Vec<Place>) {
        let more = Sample::of(places.iter());
        self.at_start =
            Sample { packets: self.at_start.packets + more.packets, drops: self.at_start.drops + more.drops };
        self.places.extend(places);
    }

    /// Does it turn in every slot?
    fn turns(&self) -> bool {
        let now_ms = clock::now_ms();
        // Relaxed: a clock.
        let age =
            |p: &Place| now_ms.saturating_sub(p.slot.pulse.heartbeat_ms.load(std::sync::atomic::Ordering::Relaxed));
        self.places.iter().all(|p| Duration::from_millis(age(p)) < FRESH)
    }

    /// Looks at it. `all`: it has all slots that it asked for.
    pub fn look(&self, all: bool) -> Verdict {
        if !pidfd::lives(self.heir) {
            return Verdict::Dead;
        }
        let now = Sample::of(self.places.iter()).since(self.at_start);
        if let Some(why) = worse(self.before, now, self.since.elapsed()) {
            return Verdict::Worse(why);
        }
        // One that hangs now is killed soon: it does not pass, it dies on trial.
        if all && self.since.elapsed() >= TRIAL && self.turns() { Verdict::Passed } else { Verdict::Watch }
    }
}

/// Does the successor do worse? In words.
fn worse(before: Sample, now: Sample, elapsed: Duration) -> Option<String> {
    if now.packets == 0 && before.packets >= BUSY && elapsed >= DEAF {
        return Some(format!("it receives nothing, where {} packets came in {TRIAL:?}", before.packets));
    }
    let limit = 2.0 * before.share() + 0.01;
    (now.drops >= FEW && now.share() > limit).then(|| {
        let percent = |share: f64| share * 100.0;
        format!(
            "it drops {:.1} % of the packets, where {:.1} % were dropped before",
            percent(now.share()),
            percent(before.share())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(packets: u64, drops: u64) -> Sample {
        Sample { packets, drops }
    }

    #[test]
    fn one_that_drops_more_is_told_from_one_that_does_as_before() {
        let second = Duration::from_secs(1);
        assert_eq!(worse(sample(10_000, 100), sample(3_000, 60), second), None, "2 % after 1 %");
        assert!(worse(sample(10_000, 100), sample(3_000, 100), second).unwrap().contains("3.3 %"));
        assert_eq!(worse(sample(10_000, 100), sample(60, 40), second), None, "too few to say");
        assert!(worse(sample(10_000, 0), sample(0, 0), second).unwrap().contains("nothing"));
        assert_eq!(worse(sample(10_000, 0), sample(0, 0), second / 2), None, "give it time");
        assert_eq!(worse(sample(900, 0), sample(0, 0), second), None, "it was quiet before");
    }

    #[test]
    fn history_forgets() {
        let (mut history, begin) = (History::default(), Instant::now());
        for second in 0..10_u32 {
            history
                .add(begin + Duration::from_secs(second.into()), sample(u64::from(second) * 1000, u64::from(second)));
        }
        assert_eq!(history.counted(), sample(3000, 3));
    }
}

//! `stats show` and `stats reset`: the slots' counters, from a baseline. The law of DESIGN §4 holds in every answer.

use control_api::views::Stats;
use control_api::{ApiError, Code};
use shm_layout::counters::{Counts, Flow};
use shm_layout::slot::Slot;

/// Counts of each slot when the counters were last "reset"; the tables' own are never changed.
#[derive(Debug, Clone, Default)]
pub struct Baseline(Vec<Counts>);

impl Baseline {
    /// The counts of now.
    ///
    /// # Errors
    /// As [`read`].
    pub fn take(slots: &[Slot]) -> Result<Self, ApiError> {
        slots.iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// A consistent reading of a slot's counters.
///
/// # Errors
/// Its owner flips faster than we read, a thousand times in a row.
pub fn read(slot: &Slot) -> Result<Counts, ApiError> {
    slot.counters.read().ok_or_else(|| {
        ApiError::new(Code::Failed, format!("counters of slot {} are changing", slot.geometry.slot)).hint("ask again")
    })
}

/// All slots' counters since the baseline, and their sum: the sum of the very readings shown.
///
/// # Errors
/// As [`read`].
pub fn show(slots: &[Slot], zones: &[u32], baseline: &Baseline) -> Result<Stats, ApiError> {
    let reading = |(i, slot): (usize, &Slot)| -> Result<_, ApiError> {
        let zone = zones.get(i).copied().unwrap_or(0);
        Ok((slot.geometry.slot, zone, since(&read(slot)?, baseline.0.get(i))))
    };
    Ok(Stats::of(slots.iter().enumerate().map(reading).collect::<Result<Vec<_>, _>>()?))
}

/// What was counted since `base`. Packets held then had come in before: they count as received since, or the law would not
/// hold for what becomes of them.
fn since(counts: &Counts, base: Option<&Counts>) -> Counts {
    let Some(base) = base else { return *counts };
    if counts.0.iter().zip(&base.0).enumerate().any(|(i, (now, then))| i != Flow::Held as usize && now < then) {
        return *counts; // The tables were made anew since.
    }
    let mut difference = Counts::default();
    for (to, (now, then)) in difference.0.iter_mut().zip(counts.0.iter().zip(&base.0)) {
        *to = now.saturating_sub(*then);
    }
    difference.add(Flow::Rx, base.flow(Flow::Held));
    difference.set_held(counts.flow(Flow::Held));
    difference
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_layout::counters::DropReason;
    use shm_layout::slot::SlotGeometry;

    #[test]
    fn the_law_holds_over_a_reset_with_packets_held() {
        let geometry =
            SlotGeometry { slot: 0, slots: 1, sessions: 16, wide_sessions: 0, servers: 4, services: 4, extensions: 0 };
        let slots = [Slot::anonymous(geometry, false).unwrap()];
        let mut counts = Counts::default();
        counts.add(Flow::Rx, 10);
        counts.add(Flow::Tx, 6);
        counts.drop(DropReason::NoService);
        counts.set_held(3);
        slots[0].counters.flip(&counts);
        let balanced = |stats: &Stats| {
            let (came, went) = stats.sum.balance();
            assert_eq!(came, went, "{stats:?}");
        };
        balanced(&show(&slots, &[1], &Baseline::default()).unwrap());
        let baseline = Baseline::take(&slots).unwrap();
        balanced(&show(&slots, &[1], &baseline).unwrap());
        counts.add(Flow::Rx, 2);
        counts.add(Flow::Tx, 5);
        counts.set_held(0);
        slots[0].counters.flip(&counts);
        let stats = show(&slots, &[1], &baseline).unwrap();
        balanced(&stats);
        assert_eq!((stats.sum.tx, stats.per_slot[0].zone, stats.sum.drops["no_service"]), (5, 1, 0));
    }
}

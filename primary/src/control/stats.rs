//! `stats show` and `stats reset`: the slots' counters, from a baseline. The law of DESIGN §4 holds in every answer.

use control_api::views::{Counters, SlotCounters, Stats};
use control_api::{ApiError, Code};
use shm_layout::counters::{Counts, DropReason, Flow};
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
    let mut sum = Counts::default();
    let mut per_slot = Vec::with_capacity(slots.len());
    for (i, slot) in slots.iter().enumerate() {
        let counts = since(&read(slot)?, baseline.0.get(i));
        sum.merge(&counts);
        per_slot.push(SlotCounters {
            slot: slot.geometry.slot,
            zone: zones.get(i).copied().unwrap_or(0),
            counters: view(&counts),
        });
    }
    Ok(Stats { sum: view(&sum), per_slot })
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

fn view(counts: &Counts) -> Counters {
    Counters {
        rx: counts.flow(Flow::Rx),
        tx: counts.flow(Flow::Tx),
        from_ring: counts.flow(Flow::FromRing),
        to_ring: counts.flow(Flow::ToRing),
        to_kernel: counts.flow(Flow::ToKernel),
        from_kernel: counts.flow(Flow::FromKernel),
        originated: counts.flow(Flow::Originated),
        held: counts.flow(Flow::Held),
        drops: DropReason::ALL.iter().map(|r| (r.name().to_owned(), counts.dropped(*r))).collect(),
        rx_bytes: counts.flow(Flow::RxBytes),
        tx_bytes: counts.flow(Flow::TxBytes),
        sessions_created: counts.flow(Flow::Created),
        sessions_ended: counts.flow(Flow::Ended),
        sessions_refused: counts.flow(Flow::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shm_layout::slot::SlotGeometry;

    #[test]
    fn the_law_holds_over_a_reset_with_packets_held() {
        let geometry = SlotGeometry { slot: 0, slots: 1, sessions: 16, servers: 4, services: 4, extensions: 0 };
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

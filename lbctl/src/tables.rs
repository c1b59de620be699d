//! Reading without the daemon: the tables are shared memory, and counters go on while lb-primary is away.

use std::path::Path;

use control_api::views::{Counters, SlotCounters, Stats};
use control_api::{ApiError, Code};
use shm_layout::counters::{Counts, DropReason, Flow};
use shm_layout::published::Published;
use shm_layout::slot::Slot;

use crate::context::Context;
use crate::failure::Failure;

/// An answer read from the tables because nobody gave one. People are told.
///
/// # Errors
/// `why` there was no answer, if the tables cannot be read either.
pub fn instead<T>(
    context: &mut Context,
    why: Failure,
    read: impl FnOnce(&Path) -> Result<T, ApiError>,
) -> Result<T, Failure> {
    let Some(run_dir) = context.socket().ok().and_then(Path::parent).map(Path::to_owned) else { return Err(why) };
    match read(&run_dir.join("huge/tables")) {
        Ok(answer) => {
            context.warn([format!("{why}"), "this is read from the tables, counted since they were made".to_owned()]);
            Ok(answer)
        }
        Err(_) => Err(why),
    }
}

/// `stats show` from the slots' own counters.
///
/// # Errors
/// A table is missing, foreign, damaged, or changing all the time.
pub fn stats(tables: &Path) -> Result<Stats, ApiError> {
    let fail = |why: &dyn std::fmt::Display| ApiError::new(Code::Failed, why.to_string());
    let published = Published::open(tables, false).map_err(|why| fail(&why))?;
    let mut sum = Counts::default();
    let mut per_slot = Vec::new();
    for (number, row) in (0u32..).zip(published.slots.iter()) {
        // Relaxed: node rows do not change while the tables live.
        if row.used.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            continue;
        }
        let slot = Slot::open(tables, number, false).map_err(|why| fail(&why))?;
        let counts = slot.counters.read().ok_or_else(|| fail(&format!("counters of slot {number} are changing")))?;
        sum.merge(&counts);
        let zone = row.zone.load(std::sync::atomic::Ordering::Relaxed); // Relaxed: as above.
        per_slot.push(SlotCounters { slot: number, zone, counters: view(&counts) });
    }
    Ok(Stats { sum: view(&sum), per_slot })
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

//! Reading without the daemon: the tables are shared memory, and counters go on while lb-primary is away.

use std::path::Path;
use std::sync::atomic::Ordering;

use control_api::views::Stats;
use control_api::{ApiError, Code};
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
    let mut readings = Vec::new();
    for (number, row) in (0u32..).zip(published.slots.iter()) {
        // Relaxed: node rows do not change while the tables live.
        if row.used.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let slot = Slot::open(tables, number, false).map_err(|why| fail(&why))?;
        let counts = slot.counters.read().ok_or_else(|| fail(&format!("counters of slot {number} are changing")))?;
        readings.push((number, row.zone.load(Ordering::Relaxed), counts)); // Relaxed: as above.
    }
    Ok(Stats::of(readings))
}

//! A slot as far as the models go: the shipped rows, few of each.

#[path = "../../src/slot/rows.rs"]
mod rows;

pub use rows::*;

use crate::limits::NONE;
use crate::owner::OwnerRow;
use crate::segment::{One, Rows};
use crate::session::{AddressLine, BucketRow, SessionRow};
use crate::sync::{AtomicU32, Ordering};

/// See the shipped one.
#[derive(Clone, Copy, Debug)]
pub struct SlotGeometry {
    /// This slot's number.
    pub slot: u32,
}

/// See the shipped one.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "as in the shipped one")]
pub struct Slot {
    pub geometry: SlotGeometry,
    pub owner: One<OwnerRow>,
    pub pulse: One<PulseRow>,
    pub intent: One<IntentRow>,
    pub table: One<TableRow>,
    pub wheel: Rows<AtomicU32>,
    pub servers: Rows<ServerCountRow>,
    pub services: Rows<ServiceCountRow>,
    pub buckets: Rows<BucketRow>,
    pub sessions: Rows<SessionRow>,
}

#[allow(missing_docs, reason = "as in the shipped one: here are no wide records")]
impl Slot {
    pub fn heads_of(&self, _record: u32) -> (&AtomicU32, &AtomicU32) {
        (&self.table.free, &self.table.fresh)
    }

    pub const fn line(&self, _record: u32) -> Option<&AddressLine> {
        None
    }

    pub fn used(&self) -> [std::ops::Range<u32>; 2] {
        [0..self.table.fresh.load(Ordering::Relaxed).min(1), 1..1]
    }

    /// One session record, one wheel bucket, one index bucket; nobody's.
    #[must_use]
    pub fn small(slot: u32) -> Self {
        let small = Self {
            geometry: SlotGeometry { slot },
            owner: One::default(),
            pulse: One::default(),
            intent: One::default(),
            table: One::default(),
            wheel: Rows::fresh(1),
            servers: Rows::fresh(1),
            services: Rows::fresh(1),
            buckets: Rows::fresh(1),
            sessions: Rows::fresh(1),
        };
        small.pulse.seen_generation.store(SEEN_IDLE, Ordering::Relaxed);
        small.table.free.store(NONE, Ordering::Relaxed);
        small.wheel[0].store(NONE, Ordering::Relaxed);
        small
    }
}

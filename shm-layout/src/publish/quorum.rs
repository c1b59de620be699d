//! Who may still be reading an old generation.

use crate::owner::OwnerRow;
use crate::published::RootRow;
use crate::slot::{SEEN_IDLE, Slot};
use crate::sync::{Ordering, fence};

/// A slot whose owner holds back a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// Slot.
    pub slot: u32,
    /// Pid of its owner.
    pub pid: u32,
    /// Zone of its owner.
    pub zone: u32,
    /// Generation it was last seen with; 0: just joining.
    pub seen: u64,
}

/// The lowest generation that any live slot may be reading, and who reads it; `u64::MAX`: nobody reads any.
///
/// The dead are struck: a successor joins by [`crate::slot::SEEN_JOINING`] and reads the then current generation.
#[must_use]
pub fn lowest_seen(slots: &[Slot]) -> (u64, Option<Laggard>) {
    // With the fence of a joining reader (store JOINING, fence, load `current`): either we see it join, or it sees what
    // was published before this fence.
    fence(Ordering::SeqCst);
    let mut lowest = (u64::MAX, None);
    for slot in slots {
        // Acquire: the reader's loads from the older generation lie before its Release of the newer number.
        let seen = slot.pulse.seen_generation.load(Ordering::Acquire);
        if seen == SEEN_IDLE || seen >= lowest.0 || !owner_alive(&slot.owner) {
            continue;
        }
        let laggard = Laggard {
            slot: slot.geometry.slot,
            pid: slot.owner.owner().pid(),
            zone: slot.owner.zone.load(Ordering::Relaxed),
            seen,
        };
        lowest = (seen, Some(laggard));
    }
    lowest
}

/// Does the process that owns the slot still run? (By number and start time, so that a reused number is noticed.)
#[must_use]
pub fn owner_alive(owner: &OwnerRow) -> bool {
    owner.owner().runs()
}

/// Is control itself alive, by its own words in the root?
#[must_use]
pub fn control_age_ms(root: &RootRow, now_ms: u64) -> u64 {
    now_ms.saturating_sub(root.control_ms.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::Process;
    use crate::slot::SlotGeometry;

    #[test]
    fn only_live_owners_hold_generations_back() {
        let geometry =
            SlotGeometry { slot: 0, slots: 2, sessions: 16, wide_sessions: 0, servers: 4, services: 4, extensions: 0 };
        let slots = [
            Slot::anonymous(geometry, false).unwrap(),
            Slot::anonymous(SlotGeometry { slot: 1, ..geometry }, false).unwrap(),
        ];
        assert_eq!(lowest_seen(&slots), (u64::MAX, None));
        let me = Process::this();
        let pid = me.pid();
        assert!(slots[1].owner.claim(Process::NOBODY, me));
        slots[1].pulse.seen_generation.store(7, Ordering::Release);
        slots[0].pulse.seen_generation.store(3, Ordering::Release); // Nobody owns it.
        assert_eq!(lowest_seen(&slots), (7, Some(Laggard { slot: 1, pid, zone: 0, seen: 7 })));
        slots[1].owner.owner.store(me.word() ^ 1, Ordering::Release); // Another process with that pid.
        assert_eq!(lowest_seen(&slots).0, u64::MAX);
    }
}

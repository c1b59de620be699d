//! Who may come when all places are taken.
//!
//! A place is worth what is done with it: one held in silence goes first, then one of the user who holds most. So neither
//! sixty-four silent clients nor a crowd of one user keep others out, and root and the daemon's own user always get in.

use std::collections::HashMap;

/// A client that has connected a moment ago may still be about to ask, ms.
const GRACE_MS: u64 = 1000;
/// A client between two requests yields to its own user's newcomers after this, ms.
const IDLE_MS: u64 = 1000;

/// A taken place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whose.
    pub uid: u32,
    /// May change things.
    pub privileged: bool,
    /// Has made a request, ever.
    pub asked: bool,
    /// Waits for an answer or takes one.
    pub busy: bool,
    /// Since it came, or since its last answer, ms.
    pub quiet_ms: u64,
}

/// Which place a newcomer takes; `None`: nobody yields.
#[must_use]
pub fn yields(places: &[Place], uid: u32, privileged: bool) -> Option<usize> {
    let mut shares: HashMap<u32, usize> = HashMap::new();
    places.iter().for_each(|p| *shares.entry(p.uid).or_default() += 1);
    let share = |uid: u32| shares.get(&uid).copied().unwrap_or(0);
    let own = share(uid);
    // Longest quiet of whoever holds most.
    let pick = |may: &dyn Fn(&Place) -> bool| {
        let candidates = places.iter().enumerate().filter(|(_, p)| may(p));
        candidates.max_by_key(|(_, p)| (share(p.uid), p.quiet_ms)).map(|(at, _)| at)
    };
    let silent = |p: &Place| !p.asked && p.quiet_ms >= GRACE_MS && (privileged || share(p.uid) >= own);
    let greedy = |p: &Place| !p.privileged && (privileged || share(p.uid) > own + 1);
    let resting = |p: &Place| !p.busy && p.quiet_ms >= IDLE_MS && (p.uid == uid || privileged);
    pick(&silent).or_else(|| pick(&|p| greedy(p) && !p.busy)).or_else(|| pick(&greedy)).or_else(|| pick(&resting))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT: Place = Place { uid: 0, privileged: true, asked: false, busy: false, quiet_ms: 1300 };
    const FRESH: Place = Place { quiet_ms: 10, ..SILENT };
    const ASKING: Place = Place { uid: 7, privileged: false, asked: true, busy: true, quiet_ms: 20 };
    const RESTING: Place = Place { busy: false, quiet_ms: 5000, ..ASKING };

    #[test]
    fn the_silent_go_first_the_longest_silent_of_them() {
        let longer = Place { quiet_ms: 1400, ..SILENT };
        assert_eq!(yields(&[ASKING, SILENT, longer, FRESH], 0, true), Some(2));
        assert_eq!(yields(&[FRESH, FRESH], 0, true), None, "they may be about to ask");
        let of_7 = Place { uid: 7, privileged: false, ..SILENT };
        assert_eq!(yields(&[of_7, ASKING], 8, false), Some(0));
        assert_eq!(yields(&[of_7, Place { uid: 8, ..ASKING }, Place { uid: 8, ..ASKING }], 8, false), None);
    }

    #[test]
    fn root_always_finds_a_place_among_others() {
        assert_eq!(yields(&[ASKING, RESTING, ASKING], 0, true), Some(1));
        assert!(yields(&[ASKING, ASKING], 0, true).is_some(), "also one that is being answered");
        assert_eq!(yields(&[Place { uid: 0, privileged: true, ..ASKING }], 0, true), None, "but not root's own work");
    }

    #[test]
    fn a_user_who_holds_most_yields_to_one_who_holds_less() {
        let crowd = [ASKING, ASKING, ASKING, Place { uid: 9, ..RESTING }];
        assert!(yields(&crowd, 8, false).is_some_and(|at| at < 3));
        assert_eq!(yields(&crowd, 7, false), None, "not to himself");
        assert_eq!(yields(&[RESTING, ASKING], 7, false), Some(0), "unless he has one that does nothing");
        assert_eq!(yields(&[ASKING, Place { uid: 9, ..RESTING }], 8, false), None, "shares are equal");
    }
}

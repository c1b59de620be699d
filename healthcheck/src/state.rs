//! When is a server up? Pure: results in, state out.
//!
//! As HAProxy's rise and fall and glb's dampener: a state is left only after `rise` (or `fall`) results in a row that
//! contradict it; one result that agrees starts the count anew. A server nothing is known of yet is up with its *first*
//! success, since it is eligible anyway, and down only after `fall` failures, since one lost packet must not keep a new
//! server from serving.

use shm_layout::board::Probed;

/// Results in a row that change a state; 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Successes that bring a server up that is down.
    pub rise: u16,
    /// Failures that take a server down.
    pub fall: u16,
}

/// State of one server.
#[derive(Clone, Debug)]
pub struct Machine {
    limits: Limits,
    state: Probed,
    /// Results in a row that contradict `state`.
    against: u16,
}

impl Machine {
    /// A machine that begins in `state`: unknown, or what the board says.
    pub fn new(limits: Limits, state: Probed) -> Self {
        Self { limits, state, against: 0 }
    }

    /// The state now.
    pub fn state(&self) -> Probed {
        self.state
    }

    /// Nothing known yet, or the last result contradicts the state: worth a faster look.
    pub fn in_doubt(&self) -> bool {
        self.state == Probed::Unknown || self.against > 0
    }

    /// Takes a result; the new state if it changed.
    pub fn result(&mut self, success: bool) -> Option<Probed> {
        let (agrees, needed, next) = match (self.state, success) {
            (Probed::Up, true) | (Probed::Down, false) => (true, 0, self.state),
            (Probed::Unknown, true) => (false, 1, Probed::Up),
            (Probed::Down, true) => (false, self.limits.rise, Probed::Up),
            (Probed::Up | Probed::Unknown, false) => (false, self.limits.fall, Probed::Down),
        };
        self.against = if agrees { 0 } else { self.against.saturating_add(1) };
        if agrees || self.against < needed {
            return None;
        }
        self.against = 0;
        self.state = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs results (`+` success, `-` failure) through a machine; the states after each: `U` up, `D` down, `?` unknown.
    fn run(rise: u16, fall: u16, from: Probed, results: &str) -> String {
        let mut machine = Machine::new(Limits { rise, fall }, from);
        let letter = |state| match state {
            Probed::Up => 'U',
            Probed::Down => 'D',
            Probed::Unknown => '?',
        };
        results
            .chars()
            .map(|result| {
                let before = machine.state();
                let change = machine.result(result == '+');
                assert_eq!(change.is_some(), machine.state() != before, "a change is told exactly when it happens");
                letter(machine.state())
            })
            .collect()
    }

    #[test]
    fn vectors() {
        // (rise, fall, from, results, states)
        let vectors = [
            // No dampening.
            (1, 1, Probed::Unknown, "+-+-+-", "UDUDUD"),
            // Quick up, slow down: a success in between starts the count anew.
            (1, 3, Probed::Down, "--+-+-----+-", "DDUUUUUDDDUU"),
            // Slow up, quick down.
            (3, 1, Probed::Up, "++-+-+++++-+", "UUDDDDDUUUDD"),
            // The defaults, 2 and 3.
            (2, 3, Probed::Up, "--+--+---", "UUUUUUUUD"),
            (2, 3, Probed::Down, "+-+-++", "DDDDDU"),
            (2, 3, Probed::Up, "-----++++", "UUDDDDUUU"),
            // Flapping at every probe moves nothing, from either side.
            (2, 3, Probed::Up, "-+-+-+-+-+", "UUUUUUUUUU"),
            (2, 3, Probed::Down, "+-+-+-+-+-", "DDDDDDDDDD"),
            // Nothing known: first success, or `fall` failures in a row.
            (2, 3, Probed::Unknown, "+", "U"),
            (2, 3, Probed::Unknown, "--+--", "??UUU"),
            (2, 3, Probed::Unknown, "---+", "??DD"),
            // 0 counts as 1.
            (0, 0, Probed::Up, "-+", "DU"),
        ];
        for (rise, fall, from, results, states) in vectors {
            assert_eq!(run(rise, fall, from, results), states, "rise {rise} fall {fall} from {from:?}: {results}");
        }
    }

    #[test]
    fn doubt_is_a_result_against_the_state() {
        let mut machine = Machine::new(Limits { rise: 2, fall: 2 }, Probed::Unknown);
        assert!(machine.in_doubt());
        machine.result(true);
        assert!(!machine.in_doubt());
        machine.result(false);
        assert!(machine.in_doubt());
        machine.result(false);
        assert!(!machine.in_doubt(), "down and believed");
        machine.result(true);
        assert!(machine.in_doubt());
    }

    /// The slow model: a known state is left when the last `n` results since the last change all contradict it.
    fn model(rise: usize, fall: usize, results: &[bool]) -> Vec<Probed> {
        let (mut state, mut since) = (Probed::Unknown, 0);
        let mut states = Vec::new();
        for end in 1..=results.len() {
            let seen = &results[since..end];
            let last = |n: usize, value| seen.len() >= n && seen[seen.len() - n..].iter().all(|r| *r == value);
            let next = match state {
                Probed::Unknown if last(1, true) => Probed::Up,
                Probed::Unknown | Probed::Up if last(fall, false) => Probed::Down,
                Probed::Down if last(rise, true) => Probed::Up,
                same => same,
            };
            if next != state {
                (state, since) = (next, end);
            }
            states.push(state);
        }
        states
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(rise in 1u16..6, fall in 1u16..6, results: Vec<bool>) {
            let mut machine = Machine::new(Limits { rise, fall }, Probed::Unknown);
            let states: Vec<_> = results.iter().map(|r| { machine.result(*r); machine.state() }).collect();
            prop_assert_eq!(states, model(rise.into(), fall.into(), &results));
        }

        /// Between two changes lie at least `min(rise, fall)` results.
        #[test]
        fn changes_keep_their_distance(rise in 1u16..6, fall in 1u16..6, results: Vec<bool>) {
            let mut machine = Machine::new(Limits { rise, fall }, Probed::Up);
            let mut last = None;
            for (i, result) in results.iter().enumerate() {
                if machine.result(*result).is_some() {
                    if let Some(last) = last {
                        prop_assert!(i - last >= usize::from(rise.min(fall)));
                    }
                    last = Some(i);
                }
            }
        }
    }
}

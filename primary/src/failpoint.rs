//! Places where this process dies when it is told to, so that tests can kill it between any two steps of a change.
//!
//! Only with feature `failpoints`; else every step is nothing. `LB_DIE_AT=publish:3` dies by SIGKILL at the third step of
//! the place `publish`, in each process that gets there. `LB_DIE_AT=@FILE` reads `publish:3` from FILE each time and takes
//! FILE away before it dies, so that the successor lives, and that a running process can be armed: steps count from then.

/// Steps on the way of a generation through tables, board and neighbours.
pub const PUBLISH: &str = "publish";
/// Steps of writing the journal.
pub const JOURNAL: &str = "journal";
/// Steps of a start, until the admin socket is there.
pub const OPEN: &str = "open";

/// A step of `place`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn step(_place: &'static str) {}

#[cfg(feature = "failpoints")]
pub use armed::step;

#[cfg(feature = "failpoints")]
mod armed {
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};

    use nix::sys::signal::{Signal, raise};

    /// The order being counted, and the steps of its place so far.
    static COUNT: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

    /// A step of `place`: dies if it is the one that was named.
    pub fn step(place: &'static str) {
        let Ok(order) = std::env::var("LB_DIE_AT") else { return };
        let file = order.strip_prefix('@').map(Path::new);
        let order = match file {
            Some(file) => std::fs::read_to_string(file).unwrap_or_default(),
            None => order.clone(),
        };
        let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        if due(&mut count, order.trim(), place) {
            if let Some(file) = file {
                let _ = std::fs::remove_file(file); // Gone already: another process of ours was faster, and dies too.
            }
            let _ = raise(Signal::SIGKILL);
        }
    }

    /// Counts a step of `place`; is it the one that `order` (`PLACE:N`) names? Another order counts from 1 again.
    fn due(count: &mut (String, u64), order: &str, place: &str) -> bool {
        if count.0 != order {
            *count = (order.to_owned(), 0);
        }
        let Some((wanted, number)) = order.split_once(':') else { return false };
        if wanted != place {
            return false;
        }
        count.1 += 1;
        number.parse() == Ok(count.1)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_named_step_of_the_named_place_is_the_last() {
            let mut count = (String::new(), 0);
            let steps = ["open", "journal", "publish", "journal", "journal"];
            assert_eq!(steps.map(|place| due(&mut count, "journal:2", place)), [false, false, false, true, false]);
            assert_eq!([1, 2].map(|_| due(&mut count, "journal:1", "journal")), [true, false]);
            assert!(!due(&mut count, "", "journal") && !due(&mut count, "journal:x", "journal"));
        }
    }
}

//! Waiting with a deadline: every wait of the rig is bounded and says what it waited for.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Calls `probe` every `step` until it gives a value, at most for `limit`.
///
/// # Errors
/// [`Error::Timeout`] naming `what` when the time is over; an error of `probe` at once.
pub fn until<T>(
    what: &str,
    limit: Duration,
    step: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            return Err(Error::Timeout { what: what.into(), after: limit, detail: String::new() });
        }
        sleep(step);
    }
}

/// As [`until`], but failures of `probe` count as "not yet"; the last one is told at the end.
///
/// # Errors
/// [`Error::Timeout`] with the last failure as its detail.
pub fn until_ok<T>(what: &str, limit: Duration, step: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= limit => {
                let detail = format!("; last: {last}");
                return Err(Error::Timeout { what: what.into(), after: limit, detail });
            }
            Err(_) => sleep(step),
        }
    }
}

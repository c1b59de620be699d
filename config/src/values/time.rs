//! Spans of time with their unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::text::{ValueError, serde_as_text};

/// A span of time in milliseconds, written with its unit: `"200ms"`, `"90s"`, `"5m"`, `"1h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Millis(u32);

impl Millis {
    /// `ms` milliseconds.
    #[must_use]
    pub const fn new(ms: u32) -> Self {
        Self(ms)
    }

    /// `s` seconds (at most 49 days; a larger value stops at that).
    #[must_use]
    pub const fn secs(s: u32) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// In milliseconds.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// As a standard duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

/// Units of time, largest first, with their milliseconds.
const UNITS: [(&str, u32); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl fmt::Display for Millis {
    /// The largest unit that says it without a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let (unit, ms) = UNITS.iter().find(|(_, ms)| self.0.is_multiple_of(*ms)).unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", self.0 / ms)
    }
}

impl FromStr for Millis {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        if number.is_empty() {
            return Err(ValueError::new(format!("\"{text}\" is not a duration"))
                .hint("write a number and a unit, such as \"200ms\", \"90s\", \"5m\" or \"1h\""));
        }
        if unit.is_empty() {
            return Err(ValueError::new(format!("duration \"{text}\" has no unit"))
                .hint(format!("did you mean \"{number}s\" or \"{number}ms\"? units: ms, s, m, h")));
        }
        let Some((_, ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let known = ["ms", "s", "m", "h"];
            let guess = match unit.to_ascii_lowercase().as_str() {
                "sec" | "secs" | "second" | "seconds" => Some("s"),
                "min" | "mins" | "minute" | "minutes" => Some("m"),
                "hr" | "hour" | "hours" => Some("h"),
                "msec" | "millis" | "milliseconds" => Some("ms"),
                other => known.into_iter().find(|k| *k == other),
            };
            let error = ValueError::new(format!("unknown unit \"{unit}\" in duration \"{text}\""));
            return Err(match guess {
                Some(guess) => error.hint(format!("did you mean \"{number}{guess}\"? units: ms, s, m, h")),
                None => error.hint("units: ms, s, m, h"),
            });
        };
        number
            .parse::<u32>()
            .ok()
            .and_then(|n| n.checked_mul(*ms))
            .map(Self)
            .ok_or_else(|| ValueError::new(format!("duration \"{text}\" is too long")).hint("at most 24h"))
    }
}

serde_as_text!(Millis);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_say_their_unit() {
        let read = |text: &str| text.parse::<Millis>();
        for (text, ms) in
            [("200ms", 200), ("90s", 90_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0), ("3 s", 3000)]
        {
            assert_eq!(read(text), Ok(Millis::new(ms)), "{text}");
        }
        for text in ["90", "", "s", "1.5s", "-1s", "1d", "1S", "9999999h", "1s2"] {
            assert!(read(text).is_err(), "{text}");
        }
        let hint = |text: &str| read(text).unwrap_err().hint.unwrap();
        assert!(hint("90").contains("\"90s\""));
        assert!(hint("2 min").contains("\"2m\""));
        assert_eq!([90_000, 3_600_000, 1500, 0].map(|ms| Millis::new(ms).to_string()), ["90s", "1h", "1500ms", "0s"]);
    }
}

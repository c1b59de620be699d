//! Numbers as people read them; JSON has them as they are.

/// Bytes with a binary unit and three digits.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n}B");
    }
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = n as f64;
    let mut unit = "";
    for next in UNITS {
        value /= 1024.0;
        unit = next;
        if value < 999.5 {
            break;
        }
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$}{unit}")
}

/// A time span: two units at most.
pub fn span(ms: u64) -> String {
    let (s, m, h) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..10_000 => format!("{s}.{}s", ms % 1000 / 100),
        10_000..60_000 => format!("{s}s"),
        60_000..3_600_000 => format!("{m}m{:02}s", s % 60),
        3_600_000..86_400_000 => format!("{h}h{:02}m", m % 60),
        _ => format!("{}d{:02}h", h / 24, h % 24),
    }
}

/// A share of 0 to 1 in per cent.
pub fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// `1 session`, `2 sessions`.
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_keep_three_digits() {
        let sizes = [0, 1023, 1024, 1_048_000, 10_500_000, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0B", "1023B", "1.00KiB", "1.00MiB", "10.0MiB", "5.00GiB", "16.0EiB"]);
        let spans = [0, 999, 1_234, 59_000, 61_000, 3_720_000, 200_000_000].map(span);
        assert_eq!(spans, ["0ms", "999ms", "1.2s", "59s", "1m01s", "1h02m", "2d07h"]);
    }
}

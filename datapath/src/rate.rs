//! A token bucket for what the slot sends of its own accord.

/// At most `per_second` events a second, with a burst of a tenth of that.
#[derive(Debug)]
pub struct Rate {
    per_second: u32,
    tokens: u32,
    last_ms: u64,
}

impl Rate {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { per_second, tokens: per_second / 10, last_ms: 0 }
    }

    /// May one more happen now?
    pub fn allow(&mut self, now_ms: u64) -> bool {
        let earned = now_ms.saturating_sub(self.last_ms).saturating_mul(u64::from(self.per_second)) / 1000;
        if earned > 0 {
            let most = u64::from(self.per_second / 10).max(1);
            self.tokens = u32::try_from((u64::from(self.tokens) + earned).min(most)).unwrap_or(1);
            self.last_ms = now_ms;
        }
        self.tokens > 0 && {
            self.tokens -= 1;
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;

    #[test]
    fn no_more_than_the_rate() {
        let mut rate = Rate::new(100);
        let allowed = (0..10_000_u64).filter(|ms| rate.allow(5000 + ms)).count();
        assert!((990..=1020).contains(&allowed), "{allowed}");
    }
}

//! The weighted sequence of `wrr`: nginx's smooth weighted round robin, unrolled over one period.
//!
//! Source: nginx `ngx_http_upstream_get_peer`: each step every server gains its weight, the one with most is chosen and
//! pays the sum. Over a period each is chosen as often as its weight says, and as evenly spread as can be.

/// Longest period; longer ones are scaled down (but never below one place for each server that takes sessions).
pub const STEPS_MAX: usize = 4096;

/// Work above which the sequence is laid out by fractions instead (about 20 ms).
const SMOOTH_WORK: usize = 16 << 20;

/// Places of the servers, in the order they are to be chosen; servers of weight 0 do not occur. `most`: see [`STEPS_MAX`].
#[must_use]
pub fn smooth(weights: &[u16], most: usize) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b)));
    if divisor == 0 {
        return Vec::new();
    }
    let mut scaled: Vec<u64> = weights.iter().map(|w| u64::from(*w) / divisor).collect();
    let sum: u64 = scaled.iter().sum();
    if sum > most as u64 {
        for weight in scaled.iter_mut().filter(|w| **w != 0) {
            *weight = ((*weight * most as u64 + sum / 2) / sum).max(1);
        }
        let divisor = scaled.iter().fold(0, |a, b| gcd(a, *b)).max(1);
        scaled.iter_mut().for_each(|w| *w /= divisor);
    }
    let steps: u64 = scaled.iter().sum();
    let steps = usize::try_from(steps).unwrap_or(0);
    if steps.saturating_mul(scaled.len()) > SMOOTH_WORK { by_fractions(&scaled) } else { unrolled(&scaled, steps) }
}

fn unrolled(weights: &[u64], steps: usize) -> Vec<u32> {
    let total = i64::try_from(steps).unwrap_or(i64::MAX);
    let mut standing: Vec<(i64, i64, u32)> =
        (0_u32..).zip(weights).filter(|(_, w)| **w != 0).map(|(i, w)| (0, i64::try_from(*w).unwrap_or(0), i)).collect();
    let mut sequence = Vec::with_capacity(steps);
    for _ in 0..steps {
        let mut best = 0;
        for i in 0..standing.len() {
            standing[i].0 += standing[i].1;
            if standing[i].0 > standing[best].0 {
                best = i;
            }
        }
        standing[best].0 -= total;
        sequence.push(standing[best].2);
    }
    sequence
}

/// The k-th turn of a server of weight w at (2k+1)/2w of the period: the same shares, nearly as even, in n log n.
fn by_fractions(weights: &[u64]) -> Vec<u32> {
    let mut turns: Vec<(u64, u32)> =
        (0_u32..).zip(weights).flat_map(|(i, w)| (0..*w).map(move |k| (((2 * k + 1) << 40) / (2 * w), i))).collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, i)| i).collect()
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sequence: &[u32], n: usize) -> Vec<usize> {
        (0..n).map(|i| sequence.iter().filter(|s| **s as usize == i).count()).collect()
    }

    #[test]
    fn as_nginx_says() {
        // The example of nginx's own commit message: { 5, 1, 1 } gives a a b a c a a.
        assert_eq!(smooth(&[5, 1, 1], STEPS_MAX), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(smooth(&[10, 20, 0], STEPS_MAX), [1, 0, 1]);
        assert_eq!(smooth(&[1, 1, 1], STEPS_MAX), [0, 1, 2]);
        assert_eq!(smooth(&[0, 0], STEPS_MAX), [0; 0]);
        assert_eq!(smooth(&[], STEPS_MAX), [0; 0]);
    }

    #[test]
    fn long_periods_are_scaled_and_nobody_is_left_out() {
        let sequence = smooth(&[65_535, 1, 30_000], STEPS_MAX);
        let shares = shares(&sequence, 3);
        assert!(sequence.len() <= STEPS_MAX + 3 && shares[1] == 1, "{shares:?}");
        let ratio = shares[0] as f64 / shares[2] as f64;
        assert!((ratio - 65_535.0 / 30_000.0).abs() < 0.01, "{ratio}");
    }

    #[test]
    fn both_ways_give_the_same_shares() {
        let weights = [3_u64, 7, 1, 12];
        assert_eq!(shares(&by_fractions(&weights), 4), shares(&unrolled(&weights, 23), 4));
        let many = vec![2_u16; 16_000].into_iter().chain([1]).collect::<Vec<_>>();
        assert_eq!(shares(&smooth(&many, STEPS_MAX), 16_001)[16_000], 1);
    }
}

//! The choice table: which server a client's hash falls on, the same on every node with the same configuration.
//!
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4. Weights by turns:
//! the k-th turn of a server of weight w comes at (2k+1)/2w, whatever the others weigh, so that a change of one server
//! leaves the turns of the others in their order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::identity_hash;
use crate::neighbours::Ip;

/// Places of a table: a prime, so that every stride visits all of them.
pub const PLACES: usize = 65_537;
/// [`PLACES`] as the hash reads it.
pub(super) const PLACES_64: u64 = PLACES as u64;
/// A place of a table without servers.
pub const NOBODY: u16 = u16::MAX;

/// A server's part in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Address.
    pub ip: Ip,
    /// Port.
    pub port: u16,
    /// [`crate::published::protocol`].
    pub protocol: u8,
    /// Weight; 0: not in the table.
    pub weight: u16,
}

/// Where a server wants to sit next.
struct Seeker {
    at: usize,
    stride: usize,
    turns: u64,
    weight: u64,
    member: u16,
}

impl Seeker {
    /// Time of its next turn.
    fn due(&self) -> u64 {
        ((2 * self.turns + 1) << 40) / (2 * self.weight)
    }
}

/// Fills a table: for every place the member (its place among `shares`) that sits there; all [`NOBODY`] when no server has a
/// weight. Servers are known by address, port and protocol: their order changes nothing but their numbers. At most 65,535
/// members are looked at.
#[must_use]
pub fn build(shares: &[Share], key: [u64; 2]) -> Vec<u16> {
    let mut seekers: Vec<(u64, &Share, Seeker)> = (0..NOBODY)
        .zip(shares)
        .filter(|(_, share)| share.weight > 0)
        .map(|(member, share)| {
            let hash = identity_hash(share, key);
            let (at, stride) = super::start_and_stride(hash);
            (hash, share, Seeker { at, stride, turns: 0, weight: share.weight.into(), member })
        })
        .collect();
    // By what they are, not by where they were written.
    seekers.sort_by_key(|(hash, share, _)| (*hash, share.ip, share.port, share.protocol));
    let mut seekers: Vec<Seeker> = seekers.into_iter().map(|(_, _, seeker)| seeker).collect();
    let mut table = vec![NOBODY; PLACES];
    let mut turns: BinaryHeap<Reverse<(u64, usize)>> =
        seekers.iter().enumerate().map(|(n, seeker)| Reverse((seeker.due(), n))).collect();
    for _ in 0..PLACES {
        let Some(Reverse((_, n))) = turns.pop() else { break };
        let seeker = &mut seekers[n];
        while table[seeker.at] != NOBODY {
            seeker.at = super::step(seeker.at, seeker.stride);
        }
        table[seeker.at] = seeker.member;
        seeker.turns += 1;
        turns.push(Reverse((seeker.due(), n)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbours::ip4;

    fn share(n: u32, weight: u16) -> Share {
        Share { ip: ip4(0x0a00_0015 + n), port: 8080, protocol: 6, weight }
    }

    fn shares(count: u32) -> Vec<Share> {
        (0..count).map(|n| share(n, 1)).collect()
    }

    /// Who sits where, by address.
    fn seated(shares: &[Share], key: [u64; 2]) -> Vec<Ip> {
        build(shares, key).into_iter().map(|member| shares[usize::from(member)].ip).collect()
    }

    fn counts(table: &[u16], members: usize) -> Vec<usize> {
        let mut counts = vec![0; members];
        table.iter().for_each(|member| counts[usize::from(*member)] += 1);
        counts
    }

    /// Parts of the places that moved though their server is in both.
    fn collateral(before: &[Share], after: &[Share], key: [u64; 2]) -> f64 {
        let (old, new) = (seated(before, key), seated(after, key));
        let stays = |ip: &Ip| before.iter().any(|s| s.ip == *ip) && after.iter().any(|s| s.ip == *ip);
        let moved = old.iter().zip(&new).filter(|(a, b)| a != b && stays(a) && stays(b)).count();
        moved as f64 / PLACES as f64
    }

    #[test]
    fn shares_follow_the_weights() {
        let counts = counts(&build(&[share(0, 1), share(1, 2), share(2, 3), share(3, 0)], [0, 0]), 4);
        assert_eq!(counts.iter().sum::<usize>(), PLACES);
        for (got, part) in counts.iter().zip([1, 2, 3, 0]) {
            assert!(got.abs_diff(PLACES * part / 6) <= 1, "{counts:?}");
        }
        let even = self::counts(&build(&shares(100), [0, 0]), 100);
        assert!(
            even.iter().max().unwrap() - even.iter().min().unwrap() <= 1,
            "equal weights differ by a place at most"
        );
        assert!(build(&[share(0, 0)], [0, 0]).iter().chain(&build(&[], [0, 0])).all(|member| *member == NOBODY));
    }

    #[test]
    fn the_order_of_servers_changes_nothing() {
        let mut all: Vec<Share> = (0..50).map(|n| share(n, 1 + n as u16 % 5)).collect();
        let before = seated(&all, [3, 4]);
        all.reverse();
        all.swap(3, 20);
        assert_eq!(seated(&all, [3, 4]), before);
        assert_ne!(seated(&all, [3, 5]), before, "the key counts");
        // The same address on another port or protocol is another server.
        let twins = [(8080, 6), (8081, 6), (8080, 17)].map(|(port, protocol)| Share { port, protocol, ..share(0, 1) });
        let counts = counts(&build(&twins, [0, 0]), 3);
        assert!(counts.iter().all(|n| n.abs_diff(PLACES / 3) <= 1), "{counts:?}");
    }

    #[test]
    fn a_change_of_one_server_moves_few_keys_of_the_others() {
        for (count, bar) in [(10, 0.003), (100, 0.007)] {
            let all = shares(count);
            let (mut worst, mut sum, mut tried) = (0.0_f64, 0.0, 0);
            for key in 0..3 {
                for gone in (0..count as usize).step_by(count as usize / 10) {
                    let mut fewer = all.clone();
                    fewer.remove(gone);
                    for moved in [collateral(&all, &fewer, [key, 0]), collateral(&fewer, &all, [key, 0])] {
                        worst = worst.max(moved);
                        sum += moved;
                        tried += 1;
                    }
                }
            }
            let mean = sum / f64::from(tried);
            println!("{count} servers: collateral mean {:.3} %, worst {:.3} %", mean * 100.0, worst * 100.0);
            assert!(worst <= 2.0 * bar && sum / f64::from(tried) <= bar, "{count} servers: {worst}");
        }
    }
}

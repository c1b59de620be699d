//! The tables a slot works with, mapped by its process.

use std::sync::atomic::Ordering;

use arch::HashKey;
use shm_layout::board::Board;
use shm_layout::neighbours::{Hop, Ip, Neighbours};
use shm_layout::persistence::Persistence;
use shm_layout::published::{PortRow, Published};
use shm_layout::secrets::{self, Secrets};
use shm_layout::slot::Slot;

/// Everything shared, as one process maps it.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Services, servers, ports.
    pub published: Published,
    /// Next hops.
    pub neighbours: Neighbours,
    /// Health of the servers.
    pub board: Board,
    /// Keys.
    pub secrets: Secrets,
    /// Which servers clients had; `None`: tables of layout 1.0.
    pub persistence: Option<Persistence>,
    /// All slots: the own ones are written, the others read.
    pub slots: Vec<Slot>,
}

impl Shared {
    /// Key of the session index.
    #[must_use]
    pub fn hash_key(&self) -> HashKey {
        HashKey::new(secrets::bytes(&self.secrets.hash_key))
    }

    /// Key of the sequence number shifts.
    #[must_use]
    pub fn isn_key(&self) -> HashKey {
        HashKey::new(secrets::bytes(&self.secrets.isn_key))
    }

    /// Number of slots of the appliance.
    #[must_use]
    pub fn slot_count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(0)
    }

    /// Our number and row of every port in use.
    pub fn ports(&self) -> impl Iterator<Item = (u8, &PortRow)> {
        let used = |row: &&PortRow| row.used.load(Ordering::Relaxed) != 0;
        (0_u8..).zip(self.published.ports.iter()).filter(move |(_, row)| used(row))
    }

    /// Where a packet to `ip` goes next: our port and the neighbour's address. On-link first, else by a gateway of the first
    /// port that has one of the family. Of several the address decides (rendezvous hashing: nobody moves but those behind a
    /// gateway that fails or comes back) among those that answer.
    #[must_use]
    pub fn route(&self, ip: Ip) -> Option<(u8, Ip)> {
        let on_link = self.ports().find(|(_, port)| port.addresses.iter().any(|a| a.contains(ip)));
        if let Some((number, _)) = on_link {
            return Some((number, ip));
        }
        self.ports().find_map(|(number, port)| {
            let addresses = port.gateways.iter().filter_map(|row| row.get()).map(|(gateway, _)| gateway);
            let mut gateways = addresses.filter(|gateway| is_v4(*gateway) == is_v4(ip));
            let first = gateways.next()?;
            let Some(second) = gateways.next() else { return Some((number, first)) };
            let answers = |gateway: &Ip| self.neighbours.find(*gateway, number).is_some_and(|(_, hop)| hop.resolved());
            let all = [first, second].into_iter().chain(gateways);
            let chosen = all.filter(answers).max_by_key(|gateway| affinity(ip, *gateway));
            Some((number, chosen.unwrap_or(first)))
        })
    }

    /// Next hop to `ip`: its neighbour row (0: none yet), the hop, our port, the neighbour's address.
    #[must_use]
    pub fn next_hop(&self, ip: Ip) -> Option<NextHop> {
        let (port, neighbour) = self.route(ip)?;
        let (row, hop) = self.neighbours.find(neighbour, port).unwrap_or((0, Hop(0)));
        Some(NextHop { row, hop, port, neighbour })
    }
}

/// Answer of [`Shared::next_hop`].
#[derive(Clone, Copy, Debug)]
pub struct NextHop {
    /// Row of the neighbour table, 0: not there yet.
    pub row: u16,
    /// The hop; unresolved when `row` is 0.
    pub hop: Hop,
    /// Our port.
    pub port: u8,
    /// The neighbour's address.
    pub neighbour: Ip,
}

fn is_v4(ip: Ip) -> bool {
    ip[0] == 0 && ip[1] >> 32 == 0xffff
}

/// How much an address wants a gateway: whose value is highest gets it. Alike on every slot and node.
fn affinity(ip: Ip, gateway: Ip) -> u64 {
    let mix = |x: u64| {
        let x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ x >> 31
    };
    mix(mix(mix(ip[0]) ^ ip[1]) ^ mix(gateway[0] ^ mix(gateway[1])))
}

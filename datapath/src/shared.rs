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

    /// Where a packet to `ip` goes next: our port and the neighbour's address. On-link first, else the first gateway.
    #[must_use]
    pub fn route(&self, ip: Ip) -> Option<(u8, Ip)> {
        let on_link = self.ports().find(|(_, port)| port.addresses.iter().any(|a| a.contains(ip)));
        if let Some((number, _)) = on_link {
            return Some((number, ip));
        }
        let same_family = |gateway: Ip| is_v4(gateway) == is_v4(ip);
        self.ports().find_map(|(number, port)| {
            let mut gateways = port.gateways.iter().filter_map(|g| g.get());
            gateways.find(|(gateway, _)| same_family(*gateway)).map(|(gateway, _)| (number, gateway))
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

//! The appliance's tables, in this process's memory: one slot of one port, one UDP service, servers that are known.

use std::time::Duration;

use datapath::Shared;
use packet::Mac;
use shm_layout::board::Board;
use shm_layout::clock;
use shm_layout::learn::Learner;
use shm_layout::neighbours::{Neighbours, ip4};
use shm_layout::publish::{
    Hashing, LocalPlan, MemberPlan, Plan, PortPlan, Publisher, ServicePlan, SlotPlan, write_node,
};
use shm_layout::published::{Published, PublishedGeometry, protocol};
use shm_layout::secrets;
use shm_layout::slot::{Slot, SlotGeometry};

use crate::frames::{GATEWAY, VIP};

/// Real servers.
pub const SERVERS: u32 = 64;
/// Port they serve.
pub const SERVER_PORT: u16 = 8080;
/// The port's own address, of a /16 with the servers on its link.
const OWN: u32 = 0x0a00_0002;
const FIRST_SERVER: u32 = 0x0a00_0100;
const FIRST_LOCAL: u32 = 0x0a00_00c8;
const LOCALS: u32 = 4;
/// As in a configuration without `timeouts`.
const TIMEOUT_MS: u32 = 30_000;

/// MAC of server `n`.
#[must_use]
pub fn server_mac(n: u32) -> Mac {
    let [.., high, low] = n.to_be_bytes();
    Mac([2, 0, 0, 9, high, low])
}

/// Number of the server with this address.
#[must_use]
pub fn server_of(ip: u32) -> Option<u32> {
    ip.checked_sub(FIRST_SERVER).filter(|n| *n < SERVERS)
}

/// Tables for `flows` sessions of a slot on the port `mac`, DPDK's number `device`, served on `cpu`.
///
/// # Panics
/// There are not enough hugepages.
#[must_use]
pub fn tables(flows: u64, mac: Mac, device: u16, cpu: u16) -> Shared {
    let published = Published::anonymous(PublishedGeometry { services: 8, servers: SERVERS.into() }).unwrap();
    let neighbours = Neighbours::anonymous(1024).unwrap();
    let geometry = SlotGeometry {
        slot: 0,
        slots: 1,
        sessions: flows + 1024,
        wide_sessions: 0,
        servers: SERVERS.into(),
        services: 8,
        extensions: 0,
    };
    let slot = Slot::anonymous(geometry, true).expect("hugepages for the tables");
    let port = PortPlan {
        device: device.into(),
        first_slot: 0,
        slots: 1,
        mtu: 1500,
        vlan: 0,
        flags: 0,
        steering: 0,
        mac: mac.0,
        addresses: vec![(ip4(OWN), 96 + 16)],
        gateways: vec![ip4(GATEWAY.0)],
        name: "net0".into(),
    };
    write_node(&published, &[port], &[SlotPlan { port: 0, queue: 0, zone: 0, cpu: cpu.into() }]);
    let mut publisher = Publisher::attach(published.clone());
    let staged = publisher.stage(&plan(), 1, &[], Duration::from_secs(1)).unwrap();
    publisher.commit(staged);
    let mut learner = Learner::attach(neighbours.clone());
    let servers = (0..SERVERS).map(|n| (FIRST_SERVER + n, server_mac(n)));
    for (ip, mac) in servers.chain([GATEWAY]) {
        let row = learner.row(ip4(ip), 0).unwrap();
        learner.confirm(row, mac.0, clock::now_ms());
    }
    Shared {
        published,
        neighbours,
        board: Board::anonymous(SERVERS.into(), 8).unwrap(),
        secrets: secrets::anonymous().unwrap(),
        persistence: None,
        slots: vec![slot],
    }
}

fn plan() -> Plan {
    let member = |n| MemberPlan { id: n, tag: 1, ip: ip4(FIRST_SERVER + n), port: SERVER_PORT, weight: 1, admin: 0 };
    let local = |n| LocalPlan { ip: ip4(FIRST_LOCAL + n), port: 0, low: 1024, high: 65_535, flags: 0 };
    let service = ServicePlan {
        index: 0,
        id: 1,
        vip: ip4(VIP.0),
        port: VIP.1,
        protocol: protocol::UDP,
        mode: 0,
        scheduler: 0,
        flags: 0,
        max_sessions: 0,
        check_interval_ms: 0,
        timeouts: [TIMEOUT_MS; 10],
        hashing: Hashing::default(),
        name: "dns".into(),
        members: (0..SERVERS).map(member).collect(),
    };
    Plan { services: vec![service], locals: (0..LOCALS).map(local).collect() }
}

//! The appliance under test: one slot, services with their servers, everybody behind one gateway.

use std::sync::Arc;
use std::time::Duration;

use datapath::{Shared, SlotRunner};
use shm_layout::board::Board;
use shm_layout::learn::Learner;
use shm_layout::neighbours::{Neighbours, ip4};
use shm_layout::persistence::Persistence;
use shm_layout::publish::{
    Hashing, LocalPlan, MemberPlan, Plan, PortPlan, Publisher, ServicePlan, SlotPlan, write_node,
};
use shm_layout::published::{Published, PublishedGeometry, protocol};
use shm_layout::segment::Mapping;
use shm_layout::slot::{Slot, SlotGeometry};

/// The slot's port.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Behind which clients and servers are.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
const GATEWAY: u32 = 0x0a00_0001;
/// When it begins, ns.
pub const START_NS: u64 = 1_000_000_000_000;
const SESSIONS: u64 = 65_536;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub services: u32,
    /// Servers of each service.
    pub servers: u32,
    /// [`shm_layout::published::scheduler`]
    pub scheduler: u8,
    /// Clients keep their servers.
    pub persistent: bool,
}

/// Virtual address of service `n`.
pub const fn vip(n: u32) -> u32 {
    0x0a40_0000 + n
}

/// Tables and runner, without a session.
pub fn make(case: Case) -> SlotRunner {
    let servers = u64::from(case.services * case.servers).max(64);
    let services = u64::from(case.services);
    let geometry = PublishedGeometry { services: services.max(8), servers };
    let published = Published::format(&memory(Published::bytes(geometry)), geometry).unwrap();
    let neighbours = Neighbours::format(&memory(Neighbours::bytes(64)), 64).unwrap();
    let services = services.max(8);
    let geometry =
        SlotGeometry { slot: 0, slots: 1, sessions: SESSIONS, wide_sessions: 0, servers, services, extensions: 0 };
    let slot = Slot::anonymous(geometry, true).or_else(|_| Slot::anonymous(geometry, false)).unwrap();
    let port = PortPlan {
        device: 0,
        first_slot: 0,
        slots: 1,
        mtu: 1500,
        vlan: 0,
        flags: 0,
        steering: 0,
        mac: MAC,
        addresses: vec![(ip4(0x0a00_0002), 96 + 24)],
        gateways: vec![ip4(GATEWAY)],
        name: "net0".into(),
    };
    write_node(&published, &[port], &[SlotPlan { port: 0, queue: 0, zone: 0, cpu: 0 }]);
    let mut publisher = Publisher::attach(published.clone());
    let local = |n: u32| LocalPlan { ip: ip4(0x0a00_0080 + n), port: 0, low: 1024, high: 65_535, flags: 0 };
    let plan =
        Plan { services: (0..case.services).map(|n| service(case, n)).collect(), locals: (0..4).map(local).collect() };
    let staged = publisher.stage(&plan, 1, &[], Duration::from_secs(1)).unwrap();
    publisher.commit(staged);
    let mut learner = Learner::attach(neighbours.clone());
    let row = learner.row(ip4(GATEWAY), 0).unwrap();
    learner.confirm(row, GATEWAY_MAC, START_NS / 1_000_000);
    let board = Board::anonymous(servers, 8).unwrap();
    let persistence = Persistence::anonymous(1, SESSIONS).unwrap();
    let secrets = shm_layout::secrets::anonymous().unwrap();
    let mut word = 0x0123_4567_89ab_cdef_u64;
    for to in secrets.hash_key.iter().chain(&secrets.isn_key).chain(&secrets.port_key) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        to.store(word, std::sync::atomic::Ordering::Relaxed);
    }
    let shared = Shared { published, neighbours, board, secrets, persistence: Some(persistence), slots: vec![slot] };
    SlotRunner::new(Arc::new(shared), 0, START_NS).unwrap()
}

fn service(case: Case, n: u32) -> ServicePlan {
    let member = |m: u32| {
        let id = n * case.servers + m;
        // Weights that differ, for those schedulers that mind.
        MemberPlan { id, tag: 1, ip: ip4(0x0b00_0000 + id), port: 8080, weight: 1 + m as u16 % 4, admin: 0 }
    };
    ServicePlan {
        index: n,
        id: n + 1,
        vip: ip4(vip(n)),
        port: 80,
        protocol: protocol::TCP,
        mode: 0,
        scheduler: case.scheduler,
        flags: 0,
        max_sessions: 0,
        check_interval_ms: 0,
        timeouts: [0, 5000, 10_000, 90_000, 30_000, 30_000, 5000, 3000, 1000, 30_000],
        hashing: Hashing {
            persistence_ms: if case.persistent { 60_000 } else { 0 },
            prefix: 128,
            ..Hashing::default()
        },
        name: format!("service-{n}"),
        members: (0..case.servers).map(member).collect(),
    }
}

/// On hugepages, as the tables' files are.
fn memory(bytes: u64) -> Arc<Mapping> {
    Mapping::anonymous(bytes, true).or_else(|_| Mapping::anonymous(bytes, false)).unwrap()
}

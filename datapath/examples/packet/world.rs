//! The appliance under test: one slot, its tables on hugepages, sessions of which all words follow from their number.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use datapath::session::New;
use datapath::{Shared, SlotRunner};
use shm_layout::board::Board;
use shm_layout::learn::Learner;
use shm_layout::neighbours::{Neighbours, ip4};
use shm_layout::publish::{
    Hashing, LocalPlan, MemberPlan, Plan, PortPlan, Publisher, ServicePlan, SlotPlan, write_node,
};
use shm_layout::published::{Published, PublishedGeometry, protocol};
use shm_layout::secrets::Secrets;
use shm_layout::segment::Mapping;
use shm_layout::session::State;
use shm_layout::slot::{Slot, SlotGeometry};

/// The slot's port.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Next hops: the first towards clients, the others towards servers.
const CLIENT_HOPS: u64 = 8;
const SERVER_HOPS: u64 = 32;
const TIMEOUT_MS: u32 = 3_600_000;
/// When it begins, ns.
pub const START_NS: u64 = 1_000_000_000_000;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub sessions: u64,
    pub servers: u64,
    pub udp: bool,
}

/// MAC of a next hop.
pub fn hop_mac(hop: u64) -> [u8; 6] {
    [2, 0, 0, 0, 9, u8::try_from(hop).unwrap()]
}

impl Case {
    /// Number of the hop that packets of this side of session `n` leave by.
    pub fn hop(self, n: u64, from_server: bool) -> u64 {
        if from_server { n % CLIENT_HOPS } else { CLIENT_HOPS + n % self.servers % SERVER_HOPS }
    }

    /// ISN shift of session `n`, never 0.
    pub fn shift(self, n: u64) -> u32 {
        if self.udp { 0 } else { (n as u32).wrapping_mul(0x9E37_79B9) | 1 }
    }

    /// Session `n`: which client, which server, which local port.
    pub fn session(self, n: u64) -> New {
        let server = n % self.servers;
        let (tcp, udp) = (State::Established, State::Udp);
        New {
            client_ip: 0x0a40_0000 + (n >> 12) as u32,
            client_port: 1024 + (n & 4095) as u16,
            vip: 0x0a00_0064,
            vip_port: 80,
            local_ip: 0x0a00_0080 + (n / self.servers / 60_000) as u32,
            local_port: 1024 + (n / self.servers % 60_000) as u16,
            server_ip: 0x0a80_0000 + server as u32,
            server_port: 8080,
            udp: self.udp,
            tunnel: false,
            state: if self.udp { udp } else { tcp },
            client_hop: 0,
            client_hop_tag: 0,
            server_hop: 0,
            server_hop_tag: 0,
            server_id: server as u32,
            server_tag: 1,
            service: 0,
            service_id: 1,
            isn_shift: self.shift(n),
            end: [1000, 2000],
            ack: [2000, 1000],
            now_ms: START_NS / 1_000_000,
            timeout_ms: TIMEOUT_MS,
            wide: None,
        }
    }
}

/// Tables and runner with all sessions in place.
pub fn make(case: Case) -> (Slot, SlotRunner) {
    let geometry = PublishedGeometry { services: 8, servers: case.servers.max(64) };
    let published = Published::format(&memory(Published::bytes(geometry)), geometry).unwrap();
    let neighbours = Neighbours::format(&memory(Neighbours::bytes(64)), 64).unwrap();
    let geometry = SlotGeometry {
        slot: 0,
        slots: 1,
        sessions: case.sessions + 1024,
        wide_sessions: 0,
        servers: case.servers.max(64),
        services: 8,
        extensions: 0,
    };
    let slot = Slot::anonymous(geometry, true).or_else(|_| Slot::anonymous(geometry, false)).unwrap();
    publish(&published, case.udp);
    let mut learner = Learner::attach(neighbours.clone());
    let hop = |n: u64| {
        let row = learner.row(ip4(0x0aff_0000 + n as u32), 0).unwrap();
        learner.confirm(row, hop_mac(n), START_NS / 1_000_000);
        (row, neighbours.hop(row).tag())
    };
    let hops: Vec<(u16, u8)> = (0..CLIENT_HOPS + SERVER_HOPS).map(hop).collect();
    let shared = Shared {
        published,
        neighbours,
        board: Board::anonymous(case.servers.max(64), 8).unwrap(),
        secrets: known_secrets(),
        persistence: None,
        slots: vec![slot.clone()],
    };
    let mut runner = SlotRunner::new(Arc::new(shared), 0, START_NS).unwrap();
    for n in 0..case.sessions {
        let (client, server) = (hops[case.hop(n, true) as usize], hops[case.hop(n, false) as usize]);
        let new = New {
            client_hop: client.0,
            client_hop_tag: client.1,
            server_hop: server.0,
            server_hop_tag: server.1,
            ..case.session(n)
        };
        assert_eq!(runner.sessions_mut().create(&new), Ok(n as u32), "records are given in order");
    }
    (slot, runner)
}

fn publish(published: &Published, udp: bool) {
    let port = PortPlan {
        device: 0,
        first_slot: 0,
        slots: 1,
        mtu: 1500,
        vlan: 0,
        flags: 0,
        steering: 0,
        mac: MAC,
        addresses: vec![(ip4(0x0a00_0002), 96 + 8)],
        gateways: vec![],
        name: "net0".into(),
    };
    write_node(published, &[port], &[SlotPlan { port: 0, queue: 0, zone: 0, cpu: 0 }]);
    let member = MemberPlan { id: 0, tag: 1, ip: ip4(0x0a80_0000), port: 8080, weight: 1, admin: 0 };
    let service = ServicePlan {
        index: 0,
        id: 1,
        vip: ip4(0x0a00_0064),
        port: 80,
        protocol: if udp { protocol::UDP } else { protocol::TCP },
        mode: 0,
        scheduler: 0,
        flags: 0,
        max_sessions: 0,
        check_interval_ms: 0,
        timeouts: [TIMEOUT_MS; 10],
        hashing: Hashing::default(),
        name: "web".into(),
        members: vec![member],
    };
    let local = LocalPlan { ip: ip4(0x0a00_0080), port: 0, low: 1024, high: 65_535, flags: 0 };
    let mut publisher = Publisher::attach(published.clone());
    let plan = Plan { services: vec![service], locals: vec![local] };
    let staged = publisher.stage(&plan, 1, &[], Duration::from_secs(1)).unwrap();
    publisher.commit(staged);
}

/// The same in every run: the count of instructions depends on which keys lie in their second bucket.
fn known_secrets() -> Secrets {
    let secrets = shm_layout::secrets::anonymous().unwrap();
    let mut word = 0x0123_4567_89ab_cdef_u64;
    for to in secrets.hash_key.iter().chain(&secrets.isn_key).chain(&secrets.port_key) {
        word = super::xorshift(word);
        to.store(word, Relaxed);
    }
    secrets
}

/// On hugepages, as the tables' files are.
fn memory(bytes: u64) -> Arc<Mapping> {
    Mapping::anonymous(bytes, true).or_else(|_| Mapping::anonymous(bytes, false)).unwrap()
}

//! A small world in memory: an appliance of some slots, one port, a published configuration, neighbours that answer.
//! Every turn ends with the conservation law.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

pub mod v6;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use datapath::io_memory::MemoryIo;
use datapath::{Shared, SlotRunner};
use etherparse::PacketBuilder;
use packet::{Mac, Parsed, V4, classify};
use shm_layout::board::Board;
use shm_layout::counters::{Counts, DropReason, Flow};
use shm_layout::learn::Learner;
use shm_layout::neighbours::{Neighbours, ip4};
use shm_layout::persistence::Persistence;
use shm_layout::publish::{
    Hashing, LocalPlan, MemberPlan, Plan, PortPlan, Publisher, ServicePlan, SlotPlan, write_node,
};
use shm_layout::published::{Published, PublishedGeometry, admin, mode, protocol, scheduler, service_flag};
use shm_layout::secrets::Secrets;
use shm_layout::session::{SessionRow, State, flag};
use shm_layout::slot::{Slot, SlotGeometry};

pub const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// The second port's, and the local address on it.
pub const INSIDE_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
pub const INSIDE_LOCAL: u32 = ip(10, 1, 0, 128);
pub const PORT: u32 = ip(10, 0, 0, 2);
pub const VIP: u32 = ip(10, 0, 0, 100);
pub const LOCAL: u32 = ip(10, 0, 0, 128);
pub const CLIENT: u32 = ip(10, 0, 0, 10);

pub const fn ip(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

/// Address of real server `n`.
pub const fn server(n: u8) -> u32 {
    ip(10, 0, 0, 21 + n)
}

/// MAC of a station by its address.
pub fn mac_of(address: u32) -> [u8; 6] {
    let [_, _, c, d] = address.to_be_bytes();
    [2, 0, 0, 9, c, d]
}

pub const SECOND: u64 = 1_000_000_000;

pub struct World {
    pub shared: Arc<Shared>,
    pub runners: Vec<SlotRunner>,
    pub ios: Vec<MemoryIo>,
    pub publisher: Publisher,
    pub learner: Learner,
    pub plan: Plan,
    pub now: u64,
}

pub fn member(id: u32, address: u32) -> MemberPlan {
    MemberPlan { id, tag: 7, ip: ip4(address), port: 8080, weight: 1, admin: admin::ENABLED }
}

pub fn service(proto: u8, port: u16, members: Vec<MemberPlan>) -> ServicePlan {
    ServicePlan {
        index: if proto == protocol::TCP { 0 } else { 1 },
        id: if proto == protocol::TCP { 1 } else { 2 },
        vip: ip4(VIP),
        port,
        protocol: proto,
        mode: mode::FULLNAT,
        scheduler: scheduler::RR,
        flags: service_flag::PANIC,
        max_sessions: 0,
        check_interval_ms: 2000,
        timeouts: [0, 5000, 10_000, 90_000, 30_000, 30_000, 5000, 3000, 1000, 30_000],
        hashing: Hashing::default(),
        name: format!("service-{port}"),
        members,
    }
}

/// The usual port.
pub fn port(slots: u32) -> PortPlan {
    PortPlan {
        device: 0,
        first_slot: 0,
        slots,
        mtu: 1500,
        vlan: 0,
        flags: 0,
        steering: 0,
        mac: OUR_MAC.0,
        addresses: vec![(ip4(PORT), 96 + 16)],
        gateways: vec![ip4(ip(10, 0, 0, 1))],
        name: "net0".into(),
    }
}

impl World {
    pub fn new(slots: u32, sessions: u64, services: Vec<ServicePlan>) -> Self {
        Self::with_ports(vec![port(slots)], sessions, services)
    }

    /// Two ports: clients, VIP and port number 0 on one, servers and local address on the other; each of `slots` slots.
    pub fn two_armed(slots: u32) -> Self {
        Self::two_armed_tagged(slots, [0, 0])
    }

    /// The same with VLAN tags outside and inside, 0: none.
    pub fn two_armed_tagged(slots: u32, vlans: [u16; 2]) -> Self {
        let outside = PortPlan { vlan: vlans[0].into(), ..port(slots) };
        let inside = PortPlan {
            vlan: vlans[1].into(),
            device: 1,
            first_slot: slots,
            mac: INSIDE_MAC.0,
            addresses: vec![(ip4(ip(10, 1, 0, 2)), 96 + 16)],
            gateways: vec![],
            name: "net1".into(),
            ..port(slots)
        };
        let members = (0..3).map(|n| member(n, ip(10, 1, 0, 21 + n as u8))).collect();
        let mut world = Self::with_ports(vec![outside, inside], 4096, vec![service(protocol::TCP, 80, members)]);
        world.plan.locals = vec![LocalPlan { ip: ip4(INSIDE_LOCAL), port: 1, low: 1024, high: 65_535, flags: 0 }];
        for n in 0..3 {
            let row = world.learner.row(ip4(ip(10, 1, 0, 21 + n)), 1).unwrap();
            world.learner.confirm(row, mac_of(ip(10, 1, 0, 21 + n)), world.now / 1_000_000);
        }
        world.publish();
        world
    }

    pub fn with_ports(ports: Vec<PortPlan>, sessions: u64, services: Vec<ServicePlan>) -> Self {
        let slots: u32 = ports.iter().map(|p| p.slots).sum();
        let published = Published::anonymous(PublishedGeometry { services: 8, servers: 64 }).unwrap();
        let neighbours = Neighbours::anonymous(4096).unwrap();
        let geometry = |slot| SlotGeometry {
            slot,
            slots,
            sessions,
            wide_sessions: sessions / 4,
            servers: 64,
            services: 8,
            extensions: 0,
        };
        let tables: Vec<Slot> = (0..slots).map(|slot| Slot::anonymous(geometry(slot), false).unwrap()).collect();
        let slot_plans: Vec<_> = (0_u32..)
            .zip(&ports)
            .flat_map(|(number, p)| (0..p.slots).map(move |queue| SlotPlan { port: number, queue, zone: 0, cpu: 0 }))
            .collect();
        write_node(&published, &ports, &slot_plans);
        let shared = Shared {
            published: published.clone(),
            neighbours: neighbours.clone(),
            board: Board::anonymous(64, 8).unwrap(),
            secrets: known_secrets(),
            persistence: Some(Persistence::anonymous(slots, sessions).unwrap()),
            slots: tables,
        };
        let locals = vec![LocalPlan { ip: ip4(LOCAL), port: 0, low: 1024, high: 65_535, flags: 0 }];
        let now = 1000 * SECOND;
        let shared = Arc::new(shared);
        let mut world = Self {
            runners: Vec::new(),
            ios: (0..slots).map(|_| MemoryIo::new()).collect(),
            publisher: Publisher::attach(published),
            learner: Learner::attach(neighbours),
            plan: Plan { services, locals },
            now,
            shared,
        };
        for address in [CLIENT, ip(10, 0, 0, 1)].into_iter().chain((0..10).map(server)) {
            world.resolve(address);
        }
        world.publish();
        let shared = &world.shared;
        world.runners = (0..slots).map(|n| SlotRunner::new(Arc::clone(shared), n, now).unwrap()).collect();
        world.run();
        world
    }

    /// TCP and UDP service with three servers each.
    pub fn usual(slots: u32) -> Self {
        let members = |first: u32| (0..3).map(|n| member(first + n, server(n as u8))).collect();
        Self::new(slots, 4096, vec![service(protocol::TCP, 80, members(0)), service(protocol::UDP, 53, members(3))])
    }

    pub fn resolve(&mut self, address: u32) {
        let row = self.learner.row(ip4(address), 0).unwrap();
        self.learner.confirm(row, mac_of(address), self.now / 1_000_000);
    }

    /// Publishes the plan; all slots have seen it afterwards.
    pub fn publish(&mut self) {
        self.put_in_force();
        self.run();
    }

    /// Publishes the plan; the slots see it when they run.
    pub fn put_in_force(&mut self) {
        let number = self.publisher.generation() + 1;
        let slots = &self.shared.slots;
        let staged = self.publisher.stage(&self.plan, number, slots, Duration::from_secs(1)).unwrap();
        self.publisher.commit(staged);
    }

    /// Polls every slot until nothing moves; checks the law after every poll. Returns what the port took, by slot.
    pub fn run(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        for _ in 0..1000 {
            let mut moved = 0;
            for (number, (runner, io)) in self.runners.iter_mut().zip(&mut self.ios).enumerate() {
                self.now += 1000;
                moved += runner.poll(io, self.now);
                moved += io.output.len();
                out.extend(io.output.drain(..).map(|frame| (number, frame)));
                law(&self.shared.slots[number].counters.read().unwrap(), number);
            }
            if moved == 0 {
                return out;
            }
        }
        panic!("the world does not come to rest");
    }

    /// Lets time pass, in steps of 10 ms.
    pub fn pass(&mut self, ms: u64) -> Vec<(usize, Vec<u8>)> {
        let mut out = Vec::new();
        for _ in 0..ms / 10 {
            self.now += 10_000_000;
            out.extend(self.run());
        }
        out
    }

    pub fn deliver(&mut self, slot: usize, frame: Vec<u8>) -> Vec<(usize, Vec<u8>)> {
        self.ios[slot].input.push_back(frame);
        self.run()
    }

    /// Delivers a frame that must come out as exactly one, checked for its checksums.
    pub fn one(&mut self, slot: usize, frame: Vec<u8>) -> (usize, Vec<u8>, V4) {
        let mut out = self.deliver(slot, frame);
        assert_eq!(out.len(), 1, "drops: {:?}", self.drops());
        let (slot, frame) = out.remove(0);
        let packet = checked(&frame);
        (slot, frame, packet)
    }

    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for slot in &self.shared.slots {
            sum.merge(&slot.counters.read().unwrap());
        }
        sum
    }

    pub fn flow(&self, flow: Flow) -> u64 {
        self.counts().flow(flow)
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.counts().dropped(reason)
    }

    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts();
        let all = DropReason::ALL.iter().map(|r| (r.name(), counts.dropped(*r)));
        all.filter(|(_, n)| *n > 0).collect()
    }

    /// Live sessions at a server, over all slots.
    pub fn active(&self, id: usize) -> u32 {
        self.shared.slots.iter().map(|slot| slot.servers[id].active.load(Relaxed)).sum()
    }

    pub fn check_tables(&self) {
        for runner in &self.runners {
            runner.sessions().check().unwrap();
        }
    }

    /// What holds whenever nothing moves: the law, what lies in the rings, counts that equal what is there.
    pub fn rest(&self) {
        let mut lying = 0;
        for (number, slot) in self.shared.slots.iter().enumerate() {
            law(&slot.counters.read().unwrap(), number);
            lying += slot.inbound.iter().map(shm_layout::ring::Ring::len).sum::<u64>();
        }
        assert_eq!(self.flow(Flow::ToRing), self.flow(Flow::FromRing) + lying, "second law");
        self.check_tables();
        let active: u64 = self.runners.iter().map(|r| u64::from(r.sessions().active())).sum();
        assert_eq!(self.flow(Flow::Created) - self.flow(Flow::Ended), active, "begun less ended");
        let at_servers: u64 = (0..64).map(|id| u64::from(self.active(id))).sum();
        assert_eq!(at_servers, active, "sessions at servers");
    }

    /// The session of a client's port, wherever it is: slot and a copy of its words.
    pub fn session(&self, port: u16) -> Option<(usize, Record)> {
        self.find_session(|row| row.client_port.load(Relaxed) == port)
    }

    /// As [`session`](Self::session), of a protocol.
    pub fn session_of(&self, port: u16, udp: bool) -> Option<(usize, Record)> {
        let is = |row: &SessionRow| (row.flags.load(Relaxed) & flag::UDP != 0) == udp;
        self.find_session(|row| row.client_port.load(Relaxed) == port && is(row))
    }

    fn find_session(&self, is: impl Fn(&SessionRow) -> bool) -> Option<(usize, Record)> {
        let of = |slot: usize| {
            let slots = &self.shared.slots[slot];
            let mut rows = slots.sessions.iter().take(slots.table.fresh.load(Relaxed) as usize);
            let live = |r: &&SessionRow| r.flags.load(Relaxed) & flag::INDEXED != 0 && is(r);
            rows.find(live).map(|row| (slot, Record::of(row)))
        };
        (0..self.shared.slots.len()).find_map(of)
    }

    pub fn state(&self, port: u16) -> Option<State> {
        self.session(port).map(|(_, record)| record.state)
    }

    /// Replaces the owner of a slot by another thread's, as after a death or a hand-over; the port and its frames stay.
    pub fn replace(&mut self, slot: usize) {
        let number = u32::try_from(slot).unwrap();
        self.runners[slot] = SlotRunner::new(Arc::clone(&self.shared), number, self.now).unwrap();
    }
}

/// Keys that are the same in every run, so that a seed is all there is to a failure.
fn known_secrets() -> Secrets {
    let secrets = shm_layout::secrets::anonymous().unwrap();
    let mut rng = Rng(0x5ec2e7);
    for word in secrets.hash_key.iter().chain(&secrets.isn_key).chain(&secrets.port_key) {
        word.store(rng.next(), Relaxed);
    }
    secrets
}

/// The conservation law of one slot.
pub fn law(counts: &Counts, slot: usize) {
    let (into, out_of) = counts.balance();
    assert_eq!(into, out_of, "law of slot {slot}: {counts:?}");
}

/// What may change of a session by a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub state: State,
    pub flags: u8,
    pub last_seen: u32,
    pub shift: u32,
    pub end: [u32; 2],
    pub ack: [u32; 2],
    pub server: (u32, u16),
    pub local: (u32, u16),
}

impl Record {
    fn of(row: &SessionRow) -> Self {
        let both = |words: &[AtomicU32; 2]| [words[0].load(Relaxed), words[1].load(Relaxed)];
        Self {
            state: State::of(row.state.load(Relaxed)).unwrap(),
            flags: row.flags.load(Relaxed),
            last_seen: row.last_seen.load(Relaxed),
            shift: row.isn_shift.load(Relaxed),
            end: both(&row.end),
            ack: both(&row.ack),
            server: (row.server_ip.load(Relaxed), row.server_port.load(Relaxed)),
            local: (row.local_ip.load(Relaxed), row.local_port.load(Relaxed)),
        }
    }
}

/// splitmix64: the seed is all there is to print.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// Sum of 16-bit words, as RFC 1071 writes it: for headers made by hand.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Makes the IPv4 header checksum of an untagged frame right, as far as the frame goes.
pub fn fix_ip_checksum(frame: &mut [u8]) {
    if frame.len() < 34 {
        return;
    }
    let len = (usize::from(frame[14] & 15) * 4).clamp(20, frame.len() - 14);
    frame[24..26].fill(0);
    let sum = internet_checksum(&frame[14..14 + len]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// An echo request.
pub fn ping(from: u32, to: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    let link = PacketBuilder::ethernet2(mac_of(from), OUR_MAC.0);
    let net = link.ipv4(from.to_be_bytes(), to.to_be_bytes(), 64);
    net.icmpv4_echo_request(1, 2).write(&mut frame, b"ping").unwrap();
    frame
}

/// A router between us and clients or servers.
pub const ROUTER: u32 = ip(10, 0, 0, 1);

/// An ICMP error from [`ROUTER`]: type and code, the word behind the checksum, what is quoted from the IP header on.
pub fn icmp_error(kind: (u8, u8), word: u32, quote: &[u8], to: u32) -> Vec<u8> {
    let mut message = vec![kind.0, kind.1, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(quote);
    let sum = internet_checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let [high, low] = (20 + message.len() as u16).to_be_bytes();
    let mut frame = [OUR_MAC.0, mac_of(ROUTER)].concat();
    frame.extend([8, 0, 0x45, 0xc0, high, low, 0, 7, 0, 0, 60, 1, 0, 0]);
    frame.extend([ROUTER.to_be_bytes(), to.to_be_bytes()].concat());
    frame.extend(message);
    fix_ip_checksum(&mut frame);
    frame
}

/// "Who has `target`?"
pub fn arp_request(target: u32) -> Vec<u8> {
    let mut frame = [0; 64];
    let len = packet::build::arp_request(&mut frame, Mac::BROADCAST, Mac(mac_of(CLIENT)), CLIENT, target, 0).unwrap();
    frame[..len].to_vec()
}

/// Parses a frame the appliance sent; its checksums must be right (by an independent implementation).
pub fn checked(frame: &[u8]) -> V4 {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::NetSlice::Ipv4(net)) = sliced.net else { panic!("not IPv4") };
    let header = net.header();
    assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
    match sliced.transport {
        Some(etherparse::TransportSlice::Tcp(tcp)) => {
            let sum = tcp.calc_checksum_ipv4(header.source(), header.destination()).unwrap();
            assert_eq!(sum, tcp.checksum());
        }
        Some(etherparse::TransportSlice::Udp(udp)) => {
            let full = etherparse::UdpHeader::with_ipv4_checksum(
                udp.source_port(),
                udp.destination_port(),
                &header.to_header(),
                udp.payload(),
            );
            assert_eq!(full.unwrap().checksum, udp.checksum());
        }
        _ => {}
    }
    match classify(frame) {
        Ok(Parsed::L4(packet) | Parsed::Icmp(packet)) => packet,
        other => panic!("{other:?}"),
    }
}

/// A TCP segment to build.
#[derive(Clone, Debug)]
pub struct Tcp {
    pub from: (u32, u16),
    pub to: (u32, u16),
    pub seq: u32,
    pub ack: Option<u32>,
    pub flags: &'static str,
    pub payload: Vec<u8>,
    pub options: Vec<u8>,
    pub ttl: u8,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            from: (CLIENT, 40_000),
            to: (VIP, 80),
            seq: 0,
            ack: None,
            flags: "",
            payload: Vec::new(),
            options: Vec::new(),
            ttl: 64,
        }
    }
}

impl Tcp {
    pub fn frame(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(mac_of(self.from.0), OUR_MAC.0);
        let net = link.ipv4(self.from.0.to_be_bytes(), self.to.0.to_be_bytes(), self.ttl);
        let mut tcp = net.tcp(self.from.1, self.to.1, self.seq, 64_000);
        if let Some(ack) = self.ack {
            tcp = tcp.ack(ack);
        }
        for flag in self.flags.chars() {
            tcp = match flag {
                'S' => tcp.syn(),
                'F' => tcp.fin(),
                'R' => tcp.rst(),
                'P' => tcp.psh(),
                'U' => tcp.urg(0),
                other => panic!("flag {other}"),
            };
        }
        let mut frame = Vec::new();
        tcp.options_raw(&self.options).unwrap().write(&mut frame, &self.payload).unwrap();
        frame
    }
}

/// A SYN from port `port` of the usual client.
pub fn syn(port: u16, seq: u32) -> Tcp {
    Tcp { from: (CLIENT, port), seq, flags: "S", ..Tcp::default() }
}

pub fn udp(from: (u32, u16), to: (u32, u16), payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(mac_of(from.0), OUR_MAC.0);
    let mut frame = Vec::new();
    let net = link.ipv4(from.0.to_be_bytes(), to.0.to_be_bytes(), 64);
    net.udp(from.1, to.1).write(&mut frame, payload).unwrap();
    frame
}

/// An established connection through the appliance: what both ends know.
#[derive(Clone, Debug)]
pub struct Connection {
    pub slot: usize,
    pub client: (u32, u16),
    pub server: (u32, u16),
    pub local: (u32, u16),
    pub client_seq: u32,
    pub server_seq: u32,
    pub shift: u32,
}

impl Connection {
    /// Handshake by way of `slot`.
    pub fn open(world: &mut World, slot: usize, port: u16) -> Self {
        let isn = 1000 + u32::from(port);
        let (_, _, seen) = world.one(slot, syn(port, isn).frame());
        let shift = seen.seq.wrapping_sub(isn);
        let mut connection = Self {
            slot,
            client: (CLIENT, port),
            server: (seen.dst, seen.dport),
            local: (seen.src, seen.sport),
            client_seq: isn.wrapping_add(1),
            server_seq: 5000,
            shift,
        };
        let answer = connection.server_says("S", &[]);
        let (_, _, back) = world.one(slot, answer.frame());
        assert_eq!((back.src, back.sport, back.dst, back.dport), (VIP, 80, CLIENT, port));
        assert_eq!(back.ack, connection.client_seq);
        connection.server_seq += 1;
        let ack = connection.client_says("", &[]);
        world.one(slot, ack.frame());
        connection
    }

    pub fn client_says(&self, flags: &'static str, payload: &[u8]) -> Tcp {
        Tcp {
            from: self.client,
            to: (VIP, 80),
            seq: self.client_seq,
            ack: Some(self.server_seq),
            flags,
            payload: payload.to_vec(),
            ..Tcp::default()
        }
    }

    pub fn server_says(&self, flags: &'static str, payload: &[u8]) -> Tcp {
        Tcp {
            from: self.server,
            to: self.local,
            seq: self.server_seq,
            ack: Some(self.client_seq.wrapping_add(self.shift)),
            flags,
            payload: payload.to_vec(),
            ..Tcp::default()
        }
    }
}

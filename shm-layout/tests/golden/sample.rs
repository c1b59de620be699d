//! One small segment of each kind with known contents: how it is made, and what must be found in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use shm_layout::board::{Board, BoardHead, Cell, Failure, Probed, ProfileRow, TargetRow, failure};
use shm_layout::choice::{Choices, Share, maglev};
use shm_layout::counters::{Counts, DropReason, Flow};
use shm_layout::header::{self, Kind, PARAMS};
use shm_layout::learn::Learner;
use shm_layout::neighbours::{NeighbourRow, Neighbours, from_std};
use shm_layout::owner::{AutopsyRow, OwnerRow};
use shm_layout::persistence::{Kept, Persistence};
use shm_layout::publish::{
    Hashing, LocalPlan, MemberPlan, Plan, PortPlan, Publisher, ServicePlan, SlotPlan, write_node,
};
use shm_layout::published::{
    LocalRow, MemberRow, PortRow, Published, PublishedGeometry, RootRow, ServiceRow, SlotRow, protocol, scheduler,
};
use shm_layout::ring::RecordKind;
use shm_layout::secrets::{self, SecretsRow};
use shm_layout::segment::Mapping;
use shm_layout::session::{AddressLine, BucketRow, ExtensionRow, SessionRow, WideHead};
use shm_layout::slot::{
    IntentRow, LedgerRow, PulseRow, ServerCountRow, ServiceCountRow, Slot, SlotGeometry, TableRow, WaitRow,
};

use crate::fields;
use crate::visit::{Field, Visitor};

/// Sizes of the published tables.
pub const TABLES: PublishedGeometry = PublishedGeometry { services: 4, servers: 8 };
/// Sizes of the slot.
pub const SLOT: SlotGeometry =
    SlotGeometry { slot: 1, slots: 2, sessions: 8, wide_sessions: 3, servers: 8, services: 4, extensions: 2 };
/// Neighbours.
pub const NEIGHBOURS: u64 = 4;
/// Servers and services of the board.
pub const BOARD: (u64, u64) = (8, 4);

type Map = Arc<Mapping>;

fn anonymous(bytes: u64) -> Map {
    Mapping::anonymous(bytes, false).unwrap()
}

/// What each file holds, by name.
pub fn all() -> [(&'static str, Map); 7] {
    [
        ("published", published()),
        ("neighbours", neighbours()),
        ("slot-1", slot()),
        ("secrets", secrets()),
        ("board", board()),
        ("choices", choices()),
        ("persistence", persistence()),
    ]
}

fn ip(text: &str) -> [u64; 2] {
    from_std(text.parse().unwrap())
}

/// The plan in force.
pub fn plan() -> Plan {
    let member = |id: u32| MemberPlan {
        id,
        tag: 0x0102_0300 + id,
        ip: ip("192.0.2.21"),
        port: 8080 + u16::try_from(id).unwrap(),
        weight: 1 + u16::try_from(id).unwrap(),
        admin: u8::from(id == 5),
    };
    let service = |index: u32| ServicePlan {
        index,
        id: 900 + index,
        vip: ip(["198.51.100.1", "198.51.100.2", "2001:db8::80"][index as usize]),
        port: 80 + u16::try_from(index).unwrap(),
        protocol: if index == 1 { protocol::UDP } else { protocol::TCP },
        mode: 0,
        scheduler: [scheduler::RR, scheduler::WRR, scheduler::LC][index as usize],
        flags: u8::try_from(index % 2).unwrap(),
        max_sessions: 5000 + index,
        check_interval_ms: 2000 + index,
        timeouts: std::array::from_fn(|state| 1000 * u32::try_from(state + 1).unwrap() + index),
        hashing: Hashing::default(),
        name: format!("service-{index}-with-a-name-of-32-by"),
        members: (index * 2..index * 2 + 2).map(member).collect(),
    };
    let local = |n: u32| LocalPlan { ip: ip("203.0.113.7"), port: n, low: 1024, high: 65_535, flags: n };
    Plan { services: (0..3).map(service).collect(), locals: vec![local(1)] }
}

/// The node.
pub fn node() -> (PortPlan, SlotPlan) {
    let port = PortPlan {
        device: 3,
        first_slot: 1,
        slots: 2,
        mtu: 1500,
        vlan: 77,
        flags: 5,
        steering: 3,
        mac: [2, 3, 4, 5, 6, 7],
        addresses: vec![(ip("192.0.2.2"), 120), (ip("2001:db8::2"), 64)],
        gateways: vec![ip("192.0.2.1")],
        name: "port-zero".into(),
    };
    (port, SlotPlan { port: 0, queue: 1, zone: 2, cpu: 3 })
}

fn published() -> Map {
    let map = anonymous(Published::bytes(TABLES));
    let tables = Published::format(&map, TABLES).unwrap();
    let (port, slot) = node();
    write_node(&tables, &[port], &[slot, slot]);
    let mut publisher = Publisher::attach(tables.clone());
    let staged = publisher.stage(&plan(), 41, &[], Duration::ZERO).unwrap();
    publisher.commit(staged);
    published_fields(&mut Visitor::new(false), &tables);
    newer_fields(&mut Visitor::new(false), &tables);
    map
}

/// The same with what is new in layout 1.1.
pub fn newer_fields(v: &mut Visitor, tables: &Published) {
    fields!(v, ServiceRow, tables.services.last().unwrap(); choice, choice_sum, persistence_ms, persistence_prefix,
        choice_key);
}

/// Tables in the file of choice tables.
pub const CHOICES: u32 = 1;

fn choices() -> Map {
    let map = anonymous(Choices::bytes(CHOICES));
    let choices = Choices::format(&map, CHOICES).unwrap();
    choices.write(0, &maglev::build(&shares(), [1, 2]));
    map
}

/// What the table is made of.
pub fn shares() -> [Share; 2] {
    [1, 2].map(|weight| Share { ip: ip("192.0.2.21"), port: 8080 + weight, protocol: protocol::TCP, weight })
}

fn persistence() -> Map {
    let map = anonymous(Persistence::bytes(2, 0));
    let tables = Persistence::format(&map, 2, 0).unwrap();
    tables.bucket(1, KEPT.0)[2].write(KEPT.0, KEPT.1);
    map
}

/// A row of the second slot's, with its key.
pub const KEPT: (u64, Kept) = (0x1234_5678_9abc_def0, Kept { id: 5, tag: 0x0102_0305, made_ms: 1234, until_ms: 5678 });

/// Rows that no generation names, and the words of the root that are not published.
pub fn published_fields(v: &mut Visitor, tables: &Published) {
    fields!(v, RootRow, tables.root; control_ms, control_pid, holder_ms, holder_pid);
    fields!(v, PortRow, tables.ports.last().unwrap(); used, device, first_slot, slots, mtu, vlan, flags, steering, mac,
        addresses, gateways, name);
    fields!(v, SlotRow, tables.slots.last().unwrap(); used, port, queue, zone, cpu);
    fields!(v, ServiceRow, tables.services.last().unwrap(); id, checksum, vip, port, protocol, mode, scheduler, flags,
        first_member, members, first_step, steps, max_sessions, check_interval_ms, timeouts, name);
    fields!(v, MemberRow, tables.members.last().unwrap(); id, tag, ip, port, weight, admin, protocol, service);
    fields!(v, LocalRow, tables.directories.last().unwrap().locals.last().unwrap(); ip, port, low, high, flags);
    tables.steps.last().unwrap().visit("step", v);
}

fn neighbours() -> Map {
    let map = anonymous(Neighbours::bytes(NEIGHBOURS));
    let table = Neighbours::format(&map, NEIGHBOURS).unwrap();
    let mut learner = Learner::attach(table.clone());
    let row = learner.row(ip("192.0.2.9"), 5).unwrap();
    learner.confirm(row, [2, 0, 0, 0, 0, 9], 1234);
    neighbours_fields(&mut Visitor::new(false), &table);
    map
}

/// A row that is not in the index.
pub fn neighbours_fields(v: &mut Visitor, table: &Neighbours) {
    fields!(v, NeighbourRow, table.rows.last().unwrap(); hop, ip, confirmed_ms, asked_ms, state, port);
}

/// What the slot has counted.
pub fn counts() -> Counts {
    let mut counts = Counts::default();
    counts.add(Flow::Rx, 100);
    counts.add(Flow::Refused, 7);
    counts.drop_many(DropReason::TooShort, 3);
    counts.drop_many(DropReason::LostInCrash, 97);
    counts
}

/// The record that waits in each ring.
pub fn record(ring: usize) -> (RecordKind, [u32; 5], Vec<u8>) {
    let kinds = [RecordKind::Learn, RecordKind::Kill, RecordKind::Redirect, RecordKind::Send];
    (kinds[ring], [1, 2, 3, 4, 0xffff_0000 + ring as u32], (0..100 + ring as u8).collect())
}

fn slot() -> Map {
    let map = anonymous(SLOT.bytes());
    let slot = Slot::format(&map, SLOT).unwrap();
    slot.counters.flip(&counts());
    for (ring, to) in [&slot.to_control, &slot.from_control, &slot.inbound[0], &slot.inbound[1]].into_iter().enumerate()
    {
        let (kind, args, frame) = record(ring);
        assert!(to.push(kind, args, &frame));
    }
    slot_fields(&mut Visitor::new(false), &slot);
    wide_fields(&mut Visitor::new(false), &slot);
    map
}

/// The same with what is new in layout 1.2.
pub fn wide_fields(v: &mut Visitor, slot: &Slot) {
    for row in slot.wide.iter() {
        fields!(v, WideHead, row; free, fresh);
    }
    for row in slot.lines.iter() {
        fields!(v, AddressLine, row; client, vip, local, server);
    }
}

/// All rows of the slot.
pub fn slot_fields(v: &mut Visitor, slot: &Slot) {
    fields!(v, OwnerRow, slot.owner; owner, heir, hand, zone, lane, cpu, tid, layout, version, deaths, death_ms);
    fields!(v, PulseRow, slot.pulse; heartbeat_ms, seen_generation, busy_ns, total_ns, polls, busy_polls, quarantined);
    fields!(v, IntentRow, slot.intent; op, record, place, wheel, server, service, value);
    fields!(v, TableRow, slot.table; free, fresh, active, records, tick, sweep, extension_free, extension_fresh, random,
        created, ended, rebuilding);
    fields!(v, LedgerRow, slot.ledger; rx, tx, wait);
    fields!(v, WaitRow, slot.waits.last().unwrap(); neighbour, until_ms, port);
    fields!(v, AutopsyRow, slot.autopsy; process, at_ms, count, lengths, heads);
    slot.wheel.last().unwrap().visit("wheel", v);
    for row in slot.servers.iter() {
        fields!(v, ServerCountRow, row; active, tag, total, packets_in, packets_out, bytes_in, bytes_out, service);
    }
    for row in slot.services.iter() {
        fields!(v, ServiceCountRow, row; active, id, total, refused);
    }
    for row in slot.buckets.iter() {
        fields!(v, BucketRow, row; tags, records, overflow);
    }
    for row in slot.sessions.iter() {
        fields!(v, SessionRow, row; client_ip, vip, client_port, vip_port, local_ip, server_ip, local_port, server_port,
            last_seen, state, flags, hop, hop_tag, server_id, link, isn_shift, end, ack);
    }
    for row in slot.extensions.iter() {
        fields!(v, ExtensionRow, row; isn_shift, session, link);
    }
}

fn secrets() -> Map {
    let map = anonymous(secrets::BYTES);
    let keys = secrets::format(&map).unwrap();
    secrets_fields(&mut Visitor::new(false), &keys); // Keys of nobody: these stand in a repository.
    map
}

/// The keys.
pub fn secrets_fields(v: &mut Visitor, keys: &SecretsRow) {
    fields!(v, SecretsRow, keys; hash_key, isn_key, port_key, rss_key, cookie_keys);
}

/// The health board is made in a mapping of the size its own file would have.
fn board() -> Map {
    let (servers, services) = BOARD;
    let board = Board::anonymous(servers, services).unwrap();
    let map = Arc::clone(board.head.mapping());
    let mut params = [0; PARAMS];
    params[..2].copy_from_slice(&[servers, services]);
    header::write(&map, Kind::Board, &params).unwrap();
    board.set(3, Cell::new(Probed::Down, 0x00ab_cdef, 123_400));
    board.failures[3].store(Failure::new(failure::STATUS, 0x00ab_cdef, 503).0, Relaxed);
    board_fields(&mut Visitor::new(false), &board);
    map
}

/// Heads, targets, profiles; the epoch counts changes of results.
pub fn board_fields(v: &mut Visitor, board: &Board) {
    fields!(v, BoardHead, board.head; targets_sequence, targets, generation, heartbeat_ms, pid, seen_sequence);
    for row in board.targets.iter() {
        fields!(v, TargetRow, row; id, tag, ip, port, kind, interval_ms, fast_interval_ms, timeout_ms, rise_fall, profile);
    }
    for row in board.profiles.iter() {
        fields!(v, ProfileRow, row; service, path, host, expect, send);
    }
}

/// The words of a segment.
pub fn words(map: &Map) -> Vec<u64> {
    map.rows::<AtomicU64>(0, map.bytes() / 8).unwrap().iter().map(|word| word.load(Relaxed)).collect()
}

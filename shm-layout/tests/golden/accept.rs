//! Golden segments are opened and read, or refused for the reason there is.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use shm_layout::SegmentError;
use shm_layout::board::{Board, Failure, Probed};
use shm_layout::choice::{Choices, maglev};
use shm_layout::limits::{LAYOUT_CHOICES, LAYOUT_WIDE, RING_FRAME_MAX};
use shm_layout::neighbours::{Neighbours, from_std};
use shm_layout::persistence::Persistence;
use shm_layout::publish::{LocalPlan, Plan, Publisher, ServicePlan};
use shm_layout::published::{Published, load_name};
use shm_layout::secrets;
use shm_layout::slot::{Slot, SlotGeometry};

use super::*;
use crate::visit::Visitor;

/// Compares all fields a visit names; says what to do when one differs.
fn compare(version: &str, visit: impl Fn(&mut Visitor)) {
    let mut visitor = Visitor::new(true);
    visit(&mut visitor);
    assert!(visitor.fields() > 0);
    assert!(visitor.differences.is_empty(), "layout {version}: {:#?}\n{HINT}", visitor.differences);
}

fn open<T>(version: &str, opened: Result<T, SegmentError>) -> T {
    opened.unwrap_or_else(|error| panic!("layout {version}: {error}\n{HINT}"))
}

fn put(tables: &Tables, version: &str, name: &str) {
    tables.put(name, &of_this_boot(golden(version, name)));
}

#[test]
fn published_tables_are_read() {
    for version in ours() {
        let folder = Tables::new();
        put(&folder, &version, "published");
        let tables = open(&version, Published::open(folder.path(), true));
        assert_eq!(tables.geometry, sample::TABLES);
        let generation = tables.current().unwrap();
        assert_eq!((generation.number, tables.root.sequence.load(Relaxed) % 2), (41, 0), "{HINT}");
        open(&version, tables.verify(generation));
        let directory = tables.directory(generation);
        let services = (0..3).filter_map(|index| ServicePlan::load(&tables, index, tables.service(generation, index)?));
        let locals = directory.locals.iter().take(directory.head.locals.load(Relaxed) as usize).map(LocalPlan::load);
        let found = Plan { services: services.collect(), locals: locals.collect() };
        assert_eq!(found, sample::plan(), "{HINT}");
        for plan in &found.services {
            assert_eq!(tables.find_service(generation, plan.vip, plan.port, plan.protocol), Some(plan.index), "{HINT}");
            assert!(tables.is_vip(generation, plan.vip), "{HINT}");
            for member in &plan.members {
                assert!(tables.server(generation, member.id).is_some(), "{HINT}");
            }
        }
        let weighted = tables.service(generation, 1).unwrap();
        assert_eq!(tables.steps(weighted).len(), 7, "{HINT}");
        assert!(tables.find_local(generation, found.locals[0].ip).is_some(), "{HINT}");
        let (port, slot) = sample::node();
        let row = &tables.ports[0];
        let words =
            [&row.used, &row.device, &row.first_slot, &row.slots, &row.mtu, &row.vlan, &row.flags, &row.steering];
        let plan = [1, port.device, port.first_slot, port.slots, port.mtu, port.vlan, port.flags, port.steering];
        assert_eq!(words.map(|w| w.load(Relaxed)), plan, "{HINT}");
        assert_eq!(row.mac.load(Relaxed).to_le_bytes()[..6], port.mac, "{HINT}");
        let addresses: Vec<_> = row.addresses.iter().filter_map(|a| a.get()).collect();
        assert_eq!((addresses, load_name(&row.name)), (port.addresses, port.name), "{HINT}");
        let row = &tables.slots[1];
        let words = [&row.used, &row.port, &row.queue, &row.zone, &row.cpu].map(|w| w.load(Relaxed));
        assert_eq!(words, [1, slot.port, slot.queue, slot.zone, slot.cpu], "{HINT}");
        compare(&version, |v| sample::published_fields(v, &tables));
        if layout_of_text(&version).unwrap() >= LAYOUT_CHOICES {
            put(&folder, &version, "choices");
            assert!(open(&version, Published::open(folder.path(), true)).choices.is_some(), "{HINT}");
            compare(&version, |v| sample::newer_fields(v, &tables));
        } else {
            put(&folder, &layout_text(LAYOUT_VERSION), "choices");
            let older = open(&version, Published::open(folder.path(), true));
            assert!(older.choices.is_none(), "what an older version does not know is not written into its tables");
        }
        // This build's writer goes on where that version's left off.
        let mut publisher = Publisher::attach(tables.clone());
        assert!(publisher.in_force(&sample::plan()), "{HINT}");
        let mut next = sample::plan();
        next.services[0].max_sessions += 1;
        let staged = publisher.stage(&next, 42, &[], std::time::Duration::ZERO).unwrap();
        publisher.commit(staged);
        open(&version, tables.verify(tables.current().unwrap()));
    }
}

#[test]
fn choice_tables_and_persistence_are_read() {
    for version in ours().into_iter().filter(|v| layout_of_text(v).unwrap() >= LAYOUT_CHOICES) {
        let folder = Tables::new();
        put(&folder, &version, "choices");
        let choices = open(&version, Choices::open(folder.path(), false)).unwrap();
        let table: Vec<u16> = choices.table(0).unwrap().iter().map(|place| place.load(Relaxed)).collect();
        assert_eq!((choices.count(), table), (sample::CHOICES, maglev::build(&sample::shares(), [1, 2])), "{HINT}");
        put(&folder, &version, "persistence");
        let tables = open(&version, Persistence::open(folder.path(), true)).unwrap();
        let (key, kept) = sample::KEPT;
        assert_eq!(tables.bucket(1, key)[2].read(key), Some(kept), "{HINT}");
    }
    let nothing = Tables::new();
    assert!(Choices::open(nothing.path(), false).unwrap().is_none());
    assert!(Persistence::open(nothing.path(), false).unwrap().is_none());
}

#[test]
fn neighbours_are_read() {
    for version in ours() {
        let folder = Tables::new();
        put(&folder, &version, "neighbours");
        let table = open(&version, Neighbours::open(folder.path(), false));
        let (row, hop) = table.find(from_std("192.0.2.9".parse().unwrap()), 5).expect(HINT);
        assert_eq!((row, hop.mac(), hop.port(), hop.resolved()), (1, [2, 0, 0, 0, 0, 9], 5, true), "{HINT}");
        assert_eq!(table.head.used.load(Relaxed), 1, "{HINT}");
        assert_eq!(table.rows[1].confirmed_ms.load(Relaxed), 1234, "{HINT}");
        compare(&version, |v| sample::neighbours_fields(v, &table));
    }
}

#[test]
fn a_slot_is_read() {
    for version in ours() {
        let folder = Tables::new();
        put(&folder, &version, "slot-1");
        let slot = open(&version, Slot::open(folder.path(), 1, true));
        let wide = layout_of_text(&version).unwrap() >= LAYOUT_WIDE;
        let wide_sessions = if wide { sample::SLOT.wide_sessions } else { 0 };
        assert_eq!(slot.geometry, SlotGeometry { wide_sessions, ..sample::SLOT });
        assert_eq!(slot.counters.read().unwrap(), sample::counts(), "{HINT}");
        compare(&version, |v| sample::slot_fields(v, &slot));
        if wide {
            compare(&version, |v| sample::wide_fields(v, &slot));
            assert!(slot.line(sample::SLOT.sessions as u32).is_some(), "{HINT}");
        }
        assert!(
            slot.line(sample::SLOT.sessions as u32 - 1).is_none() && slot.line(slot.sessions.len() as u32).is_none()
        );
        let mut into = [0; RING_FRAME_MAX];
        for (ring, from) in
            [&slot.to_control, &slot.from_control, &slot.inbound[0], &slot.inbound[1]].iter().enumerate()
        {
            let (kind, args, frame) = sample::record(ring);
            let (found, found_args, len) = from.pop(&mut into).expect(HINT);
            assert_eq!((found, found_args, &into[..len]), (kind, args, &frame[..]), "{HINT}");
            assert!(from.is_empty());
        }
    }
}

#[test]
fn secrets_are_read() {
    for version in ours() {
        let folder = Tables::new();
        put(&folder, &version, "secrets");
        let keys = open(&version, secrets::open(folder.path()));
        compare(&version, |v| sample::secrets_fields(v, &keys));
    }
}

/// Removes a board when the test is over, passed or not.
struct OnBoard(String);

impl Drop for OnBoard {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Board::path(&self.0));
    }
}

#[test]
fn the_board_is_read() {
    for version in ours() {
        let name = OnBoard(format!("/lb-golden-{}-{version}", std::process::id()));
        std::fs::write(Board::path(&name.0), of_this_boot(golden(&version, "board"))).unwrap();
        let board = open(&version, Board::open(&name.0, false));
        assert_eq!((board.cells.len() as u64, board.profiles.len() as u64), sample::BOARD);
        let (tag, cell) = (0x00ab_cdef, board.cell(3));
        assert_eq!((cell.state(tag), cell.state(tag + 1)), (Probed::Down, Probed::Unknown), "{HINT}");
        assert_eq!((cell.changed_ms(), board.head.epoch.load(Acquire)), (123_400, 1), "{HINT}");
        let failure = Failure(board.failures[3].load(Relaxed));
        assert_eq!(failure.text(tag).as_deref(), Some("http status 503"), "{HINT}");
        compare(&version, |v| sample::board_fields(v, &board));
    }
}

#[test]
fn another_boot_is_refused() {
    for version in ours() {
        let folder = Tables::new();
        let [a, b] = shm_layout::header::boot_id();
        folder.put("secrets", &patched(golden(&version, "secrets"), &[(at::BOOT_ID, a ^ 1), (at::BOOT_ID + 8, b)]));
        let error = secrets::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("boot id") && error.contains("before a reboot"), "{error}");
    }
}

#[test]
fn versions_meet_as_they_should() {
    let version = layout_text(LAYOUT_VERSION);
    let with_layout = |layout: u32| {
        let bytes = of_this_boot(golden(&version, "secrets"));
        let word = u64::from_le_bytes(bytes[at::LAYOUT..at::LAYOUT + 8].try_into().unwrap());
        patched(bytes, &[(at::LAYOUT, word & !0xffff_ffff | u64::from(layout))])
    };
    for (layout, fits) in [
        (LAYOUT_VERSION, true),
        (LAYOUT_VERSION & 0xffff_0000, true), // The first minor version of this major one.
        (LAYOUT_VERSION + 1, false),
        (LAYOUT_VERSION + 0x1_0000, false),
        (LAYOUT_VERSION - 0x1_0000, false),
    ] {
        let folder = Tables::new();
        folder.put("secrets", &with_layout(layout));
        let opened = secrets::open(folder.path());
        assert_eq!(opened.is_ok(), fits, "layout {}", layout_text(layout));
        if let Err(error) = opened {
            let error = error.to_string();
            assert!(error.contains(&layout_text(layout)) && error.contains(&version), "both sides: {error}");
        }
    }
    for (own, tables, fits) in [
        (0x1_0001, 0x1_0000, true),
        (0x1_0000, 0x1_0001, false),
        (0x2_0000, 0x1_0000, false),
        (0x1_0003, 0x1_0003, true),
    ] {
        assert_eq!(shm_layout::header::compatible(own, tables), fits, "{own:#x} on {tables:#x}");
    }
}

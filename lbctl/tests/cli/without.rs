//! `stats show` while nobody answers: the tables are read.

use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::Value;
use shm_layout::counters::{Counts, DropReason, Flow};
use shm_layout::publish::{SlotPlan, write_node};
use shm_layout::published::{Published, PublishedGeometry};
use shm_layout::segment::Mapping;
use shm_layout::slot::{Slot, SlotGeometry, file_name};

use crate::fake::{Ran, run};

/// The tables of two slots below a run directory, as the holder and control leave them.
fn tables(run_dir: &Path) -> Vec<Slot> {
    let tables = run_dir.join("huge/tables");
    std::fs::create_dir_all(&tables).unwrap();
    let geometry = PublishedGeometry { services: 4, servers: 4 };
    let path = tables.join(shm_layout::published::FILE);
    let map = Mapping::create(&path, Published::bytes(geometry), 0o600).unwrap();
    let published = Published::format(&map, geometry).unwrap();
    let plan = |zone| SlotPlan { port: 0, queue: zone, zone, cpu: 0 };
    write_node(&published, &[], &[plan(0), plan(1)]);
    let slot = |slot| {
        let geometry =
            SlotGeometry { slot, slots: 2, sessions: 16, wide_sessions: 0, servers: 4, services: 4, extensions: 1 };
        let map = Mapping::create(&tables.join(file_name(slot)), geometry.bytes(), 0o600).unwrap();
        let slot = Slot::format(&map, geometry).unwrap();
        let mut counts = Counts::default();
        counts.add(Flow::Rx, 10);
        counts.add(Flow::Tx, 7);
        counts.set_held(1);
        counts.drop_many(DropReason::NoService, 2);
        slot.counters.flip(&counts);
        slot
    };
    vec![slot(0), slot(1)]
}

fn ask(run_dir: &Path, arguments: &str) -> Ran {
    run(&["--socket", run_dir.join("control.sock").to_str().unwrap()], arguments)
}

#[test]
fn counters_are_read_from_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let _slots = tables(dir.path());
    let ran = ask(dir.path(), "-o json stats show");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let stats: Value = serde_json::from_str(&ran.out).unwrap();
    let slot = &stats["per_slot"][1];
    assert_eq!((&stats["rx"], &stats["drops"]["no_service"]), (&20.into(), &4.into()));
    assert_eq!((&slot["slot"], &slot["zone"], &slot["held"]), (&1.into(), &1.into(), &1.into()));

    let ran = ask(dir.path(), "stats show");
    assert!(ran.code == 0 && ran.out.contains("balance   ") && ran.out.contains("no_service"), "{ran:?}");
    assert!(ran.err.starts_with("warning: cannot reach the daemon at "), "{}", ran.err);
}

#[test]
fn also_when_the_daemon_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let _slots = tables(dir.path());
    let _silent = UnixListener::bind(dir.path().join("control.sock")).unwrap();
    let ran = ask(dir.path(), "stats show");
    assert!(ran.code == 0 && ran.err.contains("no answer in time"), "{ran:?}");
}

#[test]
fn damaged_tables_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    drop(tables(dir.path()));
    let path = dir.path().join("huge/tables").join(file_name(1));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[9] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let ran = ask(dir.path(), "stats show");
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
}

//! Everything of the holder that needs neither EAL nor a mount. (What does: tests/, with real processes.)
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use shm_layout::counters::{DropReason, Flow};
use shm_layout::owner::Process;
use shm_layout::slot::Slot;

use super::error::HolderError;
use super::geometry::table_bytes;
use super::plan::HolderPlan;
use super::preflight::{Lock, no_worker_lives};
use super::segments::Segments;

fn config(more_node: &str, port: &str, slots: u16) -> config::Config {
    let text = format!(
        r#"
[node]
name = "t"
sessions = 1000
{more_node}
[primary]
cpu = 0
[[zone]]
id = 0
cpus = [0]
[[zone]]
id = 1
cpus = [1]
[[port]]
name = "net0"
device = "{port}"
zones = [0, 1]
slots = {slots}
addresses = ["10.0.0.2/24"]
[[port]]
name = "net1"
device = "net_null0"
zones = [1]
slots = 1
addresses = ["10.1.0.2/24"]
[limits]
services = 8
real_servers = 16
neighbours = 16
"#
    );
    config::load_text("test", &text, &config::AllFacts).map_err(|report| report.to_string()).unwrap().config
}

fn plan_in(folder: &Path, slots: u16) -> HolderPlan {
    let plan = HolderPlan {
        run_dir: folder.to_owned(),
        ..HolderPlan::of(&config("dpdk_mb = 128", "net_tap0,iface=t0", slots)).unwrap()
    };
    std::fs::create_dir_all(plan.tables_dir()).unwrap();
    plan
}

#[test]
fn a_plan_says_what_eal_and_workers_need() {
    let plan = HolderPlan::of(&config("dpdk_mb = 128", "net_tap0,iface=t0", 2)).unwrap();
    assert!(plan.ports[0].device.starts_with("net_tap0,iface=t0,mac="), "{}", plan.ports[0].device);
    assert_eq!((plan.ports[0].set_mac, plan.ports[0].first_slot, plan.ports[0].slots), (None, 0, 2));
    assert_eq!((plan.ports[1].first_slot, plan.ports[1].slots), (2, 1));
    assert!(plan.ports[1].set_mac.is_some(), "net_null takes its MAC by a call");
    assert_eq!(plan.memory_by_node(), [128]);
    assert_eq!(plan.socket_of(0), None, "one node: anywhere");
    let tables: u64 = plan.geometry.files().map(|(_, bytes)| bytes / shm_layout::segment::HUGE_PAGE).sum();
    assert_eq!((plan.pages.eal_pages, plan.pages.table_pages), (64, tables));
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<HolderPlan>(&json).unwrap(), plan);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_touched() {
    let mut jumbo = config("dpdk_mb = 64", "net_tap0,iface=t0", 4);
    jumbo.ports[0].mtu = 9000;
    let wrong = HolderPlan::of(&jumbo).unwrap_err().join("\n");
    assert!(wrong.contains("dpdk_mb is 64") && wrong.contains("help: dpdk_mb ="), "{wrong}");
}

#[test]
fn a_kernel_interface_is_a_tap_with_the_ports_mac() {
    let mut with = config("dpdk_mb = 128", "net_tap0,iface=t0", 2);
    with.ports[0].kernel = Some("lbk0".parse().unwrap());
    let plan = HolderPlan::of(&with).unwrap();
    let mac = plan.ports[0].device.rsplit_once("mac=").unwrap().1;
    assert_eq!(plan.ports[0].kernel, Some(format!("net_tap_k0,iface=lbk0,mac={mac}")));
    assert_eq!(plan.ports[1].kernel, None);
    with.ports[0].kernel = Some("a,remote=eth0".parse().unwrap());
    assert!(HolderPlan::of(&with).unwrap_err().join("").contains("without \",\""));
    // A NIC's own MAC is not known yet when EAL makes the tap.
    with.ports[0].kernel = Some("lbk0".parse().unwrap());
    with.ports[0].device = "0000:03:00.0".parse().unwrap();
    assert!(HolderPlan::of(&with).unwrap_err().join("").contains("help: mac ="));
    with.ports[0].mac = Some("02:00:00:00:00:07".parse().unwrap());
    let plan = HolderPlan::of(&with).unwrap();
    assert_eq!(plan.ports[0].kernel.as_deref(), Some("net_tap_k0,iface=lbk0,mac=02:00:00:00:00:07"));
}

#[test]
fn two_nodes_share_the_memory() {
    let mut two = config("dpdk_mb = 128", "net_tap0,iface=t0", 2);
    two.zones[1].numa = 1;
    let plan = HolderPlan::of(&two).unwrap();
    assert_eq!(plan.memory_by_node(), [64, 64]);
    assert_eq!((plan.socket_of(0), plan.socket_of(1)), (Some(0), Some(1)));
}

#[test]
fn the_lock_names_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("primary.lock");
    assert_eq!(Lock::owner(&path), None);
    let lock = Lock::take(&path).unwrap();
    assert_eq!(Lock::owner(&path), Some(std::process::id()));
    let error = Lock::take(&path).unwrap_err().to_string();
    assert!(error.contains(&format!("process {} holds", std::process::id())), "{error}");
    drop(lock);
    assert_eq!(Lock::owner(&path), None);
    Lock::take(&path).unwrap();
}

#[test]
fn tables_outlive_a_start_and_other_sizes_are_refused_while_sessions_live() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_in(folder.path(), 2);
    // As a start leaves it that was killed.
    std::fs::write(plan.tables_dir().join(".new-slot-1"), "half").unwrap();
    let first = Segments::open(&plan).unwrap();
    assert_eq!(first.slots.len(), 3);
    first.slots[1].table.active.store(7, Relaxed);
    first.published.root.current.store(5 << 8, Relaxed);
    let key = first.rss_key;
    drop(first);
    assert_eq!(std::fs::read_dir(plan.tables_dir()).unwrap().count(), 5 + 3);

    let again = Segments::open(&plan).unwrap();
    assert_eq!(again.slots[1].table.active.load(Relaxed), 7);
    assert_eq!(again.published.root.current.load(Relaxed), 0, "nothing is published until control has");
    drop(again);

    let more = HolderPlan { run_dir: folder.path().into(), ..plan_in(folder.path(), 3) };
    let error = Segments::open(&more).unwrap_err().to_string();
    for part in ["7 sessions", "3 slots of 1000", "4 slots of 1000", "hint"] {
        assert!(error.contains(part), "{error}");
    }
    Slot::open(&plan.tables_dir(), 1, true).unwrap().table.active.store(0, Relaxed);
    let grown = Segments::open(&more).unwrap();
    assert_eq!(grown.slots.len(), 4);
    assert_eq!(grown.rss_key, key, "keys are made once per boot");
}

/// Makes a file one of layout 1.0.
fn age(path: &Path) {
    const CHECKSUM: usize = 176;
    let mut bytes = std::fs::read(path).unwrap();
    bytes[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let rest = (16..CHECKSUM).chain(CHECKSUM + 8..4096).step_by(8).map(word);
    let sum = shm_layout::header::checksum([word(0), word(8).rotate_left(32)].into_iter().chain(rest));
    bytes[CHECKSUM..CHECKSUM + 8].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn tables_of_the_first_layout_stay_while_sessions_live() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_in(folder.path(), 2);
    let segments = Segments::open(&plan).unwrap();
    assert!(segments.published.choices.as_ref().is_some_and(|choices| choices.count() == 64));
    let new_files = ["choices", "persistence"].map(|name| plan.tables_dir().join(name));
    assert!(new_files.iter().all(|file| file.exists()));
    segments.slots[0].table.active.store(1, Relaxed);
    drop(segments);
    for entry in std::fs::read_dir(plan.tables_dir()).unwrap() {
        age(&entry.unwrap().path());
    }
    new_files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let older = Segments::open(&plan).unwrap();
    assert!(older.published.choices.is_none() && !new_files[1].exists());
    older.slots[0].table.active.store(0, Relaxed);
    drop(older);
    assert!(Segments::open(&plan).unwrap().published.choices.is_some(), "without sessions they are made anew");
    // More choice tables: that file alone is made anew, whatever lives.
    let mut more = plan.clone();
    more.geometry.choices = 8;
    let segments = Segments::open(&plan).unwrap();
    segments.slots[0].table.active.store(1, Relaxed);
    drop(segments);
    let segments = Segments::open(&more).unwrap();
    assert_eq!(segments.published.choices.as_ref().map(|choices| choices.count()), Some(8));
    assert_eq!(segments.slots[0].table.active.load(Relaxed), 1);
}

#[test]
fn a_damaged_table_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_in(folder.path(), 2);
    drop(Segments::open(&plan).unwrap());
    let path = plan.tables_dir().join("slot-0");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4 << 20).unwrap();
    let error = Segments::open(&plan).unwrap_err();
    assert!(matches!(error, HolderError::Segment(_)) && error.to_string().contains("slot-0"), "{error}");
}

#[test]
fn what_the_last_eal_held_is_counted_as_lost() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_in(folder.path(), 2);
    let segments = Segments::open(&plan).unwrap();
    let slot = &segments.slots[0];
    let mut counts = slot.counters.read().unwrap();
    counts.add(Flow::Rx, 5);
    counts.add(Flow::Tx, 2);
    counts.set_held(3);
    slot.counters.flip(&counts);
    slot.ledger.tx[0].store(0x1000, Relaxed);
    drop(segments);

    let segments = Segments::open(&plan).unwrap();
    let counts = segments.slots[0].counters.read().unwrap();
    assert_eq!((counts.dropped(DropReason::LostInCrash), counts.flow(Flow::Held)), (3, 0));
    assert_eq!(counts.balance(), (5, 5));
    assert_eq!(segments.slots[0].ledger.tx[0].load(Relaxed), 0, "an address of another EAL");
}

#[test]
fn a_living_worker_keeps_the_holder_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_in(folder.path(), 2);
    no_worker_lives(&plan).unwrap();
    let segments = Segments::open(&plan).unwrap();
    let owner = &segments.slots[2].owner;
    let (me, pid) = (Process::this(), std::process::id());
    assert!(owner.claim(Process::NOBODY, me));
    owner.zone.store(1, Relaxed);
    let error = no_worker_lives(&plan).unwrap_err().to_string();
    assert!(error.contains(&format!("process {pid} (zone 1, slot 2)")), "{error}");
    owner.release();
    no_worker_lives(&plan).unwrap();
    owner.owner.store(me.word() ^ 1, Relaxed); // The number is another process's now.
    no_worker_lives(&plan).unwrap();
}

#[test]
fn bytes_of_the_tables_follow_the_limits() {
    let small = table_bytes(config::TableSizes::of(&config("", "net_tap0,iface=t0", 2)));
    let mut large = config("", "net_tap0,iface=t0", 2);
    large.node.sessions = 1_000_000;
    // A tenth as many of IPv6 are kept room for.
    let both = table_bytes(config::TableSizes::of(&large));
    large.node.sessions_ipv6 = Some(0);
    let large = table_bytes(config::TableSizes::of(&large));
    assert!(large > small + 3 * 64_000_000 && large < small + 3 * 100_000_000, "{small} {large}");
    assert!(both > large + 3 * 12_000_000 && both < large + 3 * 18_000_000, "{large} {both}");
}

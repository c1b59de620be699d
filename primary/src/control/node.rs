//! `worker list`, `port list`, `laddr list`, `neigh list`, `version`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use control_api::params::Paging;
use control_api::views::{Laddr, LastPacket, Neigh, Page, Port, Tightest, Version, Worker, WorkerSlot};
use control_api::{API_VERSION, ApiError};
use shm_layout::clock::now_ms;
use shm_layout::counters::{DropReason, Flow};
use shm_layout::header::layout_text;
use shm_layout::neighbours::{Hop, neighbour_state, to_std};
use shm_layout::owner::Process;
use shm_layout::published::{load_name, port_flag, steering};
use shm_layout::slot::{SEEN_IDLE, SEEN_JOINING, Slot};

use super::core::Core;
use super::facts::{PORT_STATS, PortStats};
use super::{sessions, stats};

/// As long for the health-checker, which shows itself every second.
const CHECKER_SILENT_MS: u64 = 5000;
/// A holder that has not shown itself for so long is away: it does so ten times a second.
const HOLDER_SILENT_MS: u64 = 2000;

/// `version`.
#[must_use]
pub fn version(core: &Core) -> Version {
    Version {
        api_version: API_VERSION,
        version: env!("CARGO_PKG_VERSION").into(),
        layout: layout_text(shm_layout::header::layout_version()),
        node: core.entry.skeleton.node.name.to_string(),
        generation: core.entry.generation,
        pid: std::process::id(),
    }
}

/// `worker list`: slots grouped by their owners. A slot that was released and not taken again belongs to nobody.
#[must_use]
pub fn workers(core: &Core) -> Vec<Worker> {
    let now = now_ms();
    let hang_after = u64::from(core.entry.skeleton.node.hang_after.get());
    let degraded = degraded(core);
    let mut workers: BTreeMap<(u32, u32, u32), Worker> = BTreeMap::new();
    for (i, slot) in core.tables.slots.iter().enumerate() {
        let owner = &slot.owner;
        let pid = owner.owner().pid();
        let state = core.watch.state(slot, now, hang_after);
        if pid == 0 {
            continue;
        }
        let (zone, lane) = (owner.zone.load(Relaxed), owner.lane.load(Relaxed));
        let worker = workers.entry((zone, lane, pid)).or_insert_with(|| Worker {
            zone,
            lane: sessions::lane(lane).to_string(),
            pid,
            version: text(&owner.version),
            state: state.into(),
            slots: Vec::new(),
            degraded: degraded.clone(),
        });
        // One thread that hangs, or one slot on its way, is the worker's state.
        if state != "serving" {
            worker.state = state.into();
        }
        worker.slots.push(worker_slot(core, i, slot, now));
        // Who asks for the slot, or stands by since it handed it over: a process of the other lane, without slots.
        let heir = Process::from_word(owner.heir.load(Relaxed));
        if heir.runs() && heir.pid() != pid {
            let state = if owner.asked() { "attaching" } else { "draining" };
            workers.entry((zone, lane ^ 1, heir.pid())).or_insert_with(|| Worker {
                zone,
                lane: sessions::lane(lane ^ 1).to_string(),
                pid: heir.pid(),
                version: String::new(),
                state: state.into(),
                slots: Vec::new(),
                degraded: degraded.clone(),
            });
        }
    }
    workers.into_values().collect()
}

/// What the appliance lacks while it serves on.
pub(super) fn degraded(core: &Core) -> Option<String> {
    let (root, now) = (&core.tables.published.root, now_ms());
    let silent = now.saturating_sub(root.holder_ms.load(Relaxed));
    let primary = (silent > HOLDER_SILENT_MS).then(|| {
        format!("no primary: process {} has given no sign for {} s", root.holder_pid.load(Relaxed), silent / 1000)
    });
    let seen = core.tables.targets.board().head.heartbeat_ms.load(Relaxed);
    let checked = || core.entry.register.services.iter().any(|s| s.service.health.kind != config::HealthKind::None);
    let checker = (now.saturating_sub(seen) > CHECKER_SILENT_MS && checked()).then(|| match seen {
        0 => "no health-checker: it has never been here".to_owned(),
        _ => format!("no health-checker for {} s: the last results stay in force", now.saturating_sub(seen) / 1000),
    });
    let lacks: Vec<String> = primary.into_iter().chain(checker).chain(unserved(core, now)).collect();
    (!lacks.is_empty()).then(|| lacks.join("; "))
}

/// Slots that no worker serves: what comes to their queues is lost until one does.
fn unserved(core: &Core, now: u64) -> Option<String> {
    let hang_after = u64::from(core.entry.skeleton.node.hang_after.get());
    let nobody = |slot: &&Slot| slot.owner.owner().pid() == 0 || core.watch.state(slot, now, hang_after) == "dead";
    let without: Vec<u32> = core.tables.slots.iter().filter(nobody).map(|slot| slot.geometry.slot).collect();
    match without.len() {
        0 => None,
        all if all == core.tables.slots.len() => Some("no worker: nothing is forwarded".into()),
        _ => Some(format!("no worker serves slots {without:?}")),
    }
}

fn worker_slot(core: &Core, i: usize, slot: &Slot, now: u64) -> WorkerSlot {
    let seen = slot.pulse.seen_generation.load(Relaxed);
    WorkerSlot {
        slot: slot.geometry.slot,
        cpu: slot.owner.cpu.load(Relaxed),
        heartbeat_ms: now.saturating_sub(slot.pulse.heartbeat_ms.load(Relaxed)),
        busy_ratio: core.watch.busy_ratio(i),
        sessions: slot.table.active.load(Relaxed).into(),
        generation: Some(seen).filter(|g| ![SEEN_IDLE, SEEN_JOINING].contains(g)),
        quarantined: slot.pulse.quarantined.load(Relaxed),
        deaths: slot.owner.deaths.load(Relaxed),
        last_packets: last_packets(slot),
    }
}

fn last_packets(slot: &Slot) -> Vec<LastPacket> {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect();
    slot.autopsy.read().into_iter().map(|(length, head)| LastPacket { length, head: hex(head) }).collect()
}

fn text(words: &[std::sync::atomic::AtomicU64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()).collect();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

/// `port list`: packets as the slots count them, the rest as the holder wrote it last.
///
/// # Errors
/// Counters that change too fast to be read.
pub fn ports(core: &Core) -> Result<Vec<Port>, ApiError> {
    let from_holder = std::fs::read(core.run_dir.join(PORT_STATS)).ok();
    let from_holder: Vec<PortStats> = from_holder.and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default();
    let published = &core.tables.published;
    let mut ports = Vec::new();
    for row in published.ports.iter().filter(|row| row.used.load(Relaxed) != 0) {
        let name = load_name(&row.name);
        let told = from_holder.iter().find(|p| p.name == name).cloned().unwrap_or_default();
        let first = row.first_slot.load(Relaxed) as usize;
        let queues = row.slots.load(Relaxed);
        let (mut rx, mut tx) = (0, 0);
        for slot in core.tables.slots.iter().skip(first).take(queues as usize) {
            let counts = stats::read(slot)?;
            rx += counts.flow(Flow::Rx);
            tx += counts.flow(Flow::Tx);
        }
        let device = core.entry.skeleton.ports.iter().find(|p| p.name.as_str() == name);
        let pipeline = row.flags.load(Relaxed) & port_flag::PIPELINE != 0;
        ports.push(Port {
            device: device.map(|p| p.device.to_string()).unwrap_or_default(),
            mac: mac_text(row.mac.load(Relaxed)),
            link: if told.link.is_empty() { "unknown".into() } else { told.link },
            mode: if pipeline { "pipeline" } else { "rtc" }.into(),
            steering: steering_word(row.steering.load(Relaxed)).into(),
            queues,
            rx_packets: rx,
            tx_packets: tx,
            rx_missed: told.rx_missed,
            rx_nombuf: told.rx_nombuf,
            mbufs_free: told.mbufs_free,
            degraded: degraded(core),
            name,
        });
    }
    Ok(ports)
}

fn steering_word(value: u32) -> &'static str {
    match value {
        steering::DRIVER => "driver",
        steering::FLOW_RULE => "flow-rule",
        steering::RSS_PORT => "rss-port",
        _ => "redirect",
    }
}

fn mac_text(word: u64) -> String {
    let [a, b, c, d, e, f, ..] = word.to_le_bytes();
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// `laddr list`: reads every session once.
///
/// # Errors
/// Counters that change too fast to be read.
pub fn laddrs(core: &mut Core) -> Result<Option<Vec<Laddr>>, ApiError> {
    let Some(used) = core.locals_use.recent(now_ms()) else { return Ok(None) };
    let mut misses = 0;
    for slot in &core.tables.slots {
        misses += stats::read(slot)?.dropped(DropReason::NoPort);
    }
    let view = |entry: &super::register::LocalEntry| {
        let servers = used.get(&entry.address);
        let tightest = servers.and_then(|s| s.iter().max_by_key(|(_, n)| **n));
        let port = core.entry.skeleton.ports.get(usize::from(entry.port));
        Laddr {
            address: entry.address.to_string(),
            port: port.map(|p| p.name.to_string()).unwrap_or_default(),
            used: servers.map_or(0, |s| s.values().sum()),
            misses,
            tightest: tightest.map(|(rs, used)| Tightest {
                rs: rs.to_string(),
                used: *used,
                free: u64::from(entry.ports.count()).saturating_sub(*used),
            }),
            removed: entry.removed,
        }
    };
    Ok(Some(core.entry.register.locals.iter().map(view).collect()))
}

/// Neighbours in one page.
const PAGE: usize = 2000;

/// `neigh list`, by row.
#[must_use]
pub fn neighbours(core: &Core, paging: &Paging) -> Page<Neigh> {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let limit = paging.limit.map_or(PAGE, |l| number(l).min(PAGE));
    let after = paging.after.map_or(1, number);
    let now = now_ms();
    let mut items = Vec::new();
    for (i, row) in core.tables.neighbours.rows.iter().enumerate().skip(after.max(1)) {
        let state = match row.state.load(Relaxed) {
            neighbour_state::INCOMPLETE => "incomplete",
            neighbour_state::REACHABLE => "reachable",
            neighbour_state::PROBING => "probing",
            neighbour_state::FAILED => "failed",
            _ => continue,
        };
        if items.len() == limit {
            return Page { items, next: Some(i as u64) };
        }
        let hop = Hop(row.hop.load(Relaxed));
        let confirmed = row.confirmed_ms.load(Relaxed);
        let port = core.entry.skeleton.ports.get(usize::from(hop.port()));
        items.push(Neigh {
            address: to_std([row.ip[0].load(Relaxed), row.ip[1].load(Relaxed)]).to_string(),
            port: port.map(|p| p.name.to_string()).unwrap_or_default(),
            mac: hop.resolved().then(|| mac_text(hop.0)),
            state: state.into(),
            confirmed_ms: (confirmed != 0).then(|| now.saturating_sub(confirmed)),
            row: u32::try_from(i).unwrap_or(u32::MAX),
        });
    }
    Page { items, next: None }
}

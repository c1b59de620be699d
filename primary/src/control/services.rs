//! `service list`, `rs list`: configuration, health and the sums of the slots' counts.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use control_api::params::{RsList, ServiceList};
use control_api::views::{Health, Page, Rs, Service};
use control_api::{ApiError, Code};
use datapath::pool_panic_until;
use shm_layout::board::{Failure, Probed};
use shm_layout::clock::now_ms;
use shm_layout::slot::{ServerCountRow, Slot};

use super::core::Core;
use super::register::{Removal, ServerEntry, ServiceEntry};

/// Real servers in one page: a few hundred kilobytes.
const PAGE: usize = 1000;

/// `service list`: pages end after the service that fills them.
///
/// # Errors
/// No such service.
pub fn list(core: &Core, params: &ServiceList) -> Result<Page<Service>, ApiError> {
    let entries = chosen(core, params.service.as_deref())?;
    let after = index(params.after);
    let limit = params.limit.map_or(usize::MAX, |limit| index(Some(limit)));
    let (mut items, mut size) = (Vec::new(), 0);
    let mut next = None;
    for (i, entry) in entries.iter().enumerate().skip(after) {
        if size >= PAGE || items.len() >= limit {
            next = Some(i as u64);
            break;
        }
        size += 1 + entry.servers.len();
        items.push(service(core, entry));
    }
    Ok(Page { items, next })
}

/// `rs list`.
///
/// # Errors
/// No such service.
pub fn rs_list(core: &Core, params: &RsList) -> Result<Page<Rs>, ApiError> {
    let entries = chosen(core, params.service.as_deref())?;
    let limit = params.limit.map_or(PAGE, |limit| index(Some(limit)).min(PAGE));
    let mut skip = index(params.after);
    let (mut items, mut next) = (Vec::new(), None);
    'services: for entry in entries {
        if skip >= entry.servers.len() {
            skip -= entry.servers.len();
            continue;
        }
        let panic = panic_until(core, entry);
        for server in entry.servers.iter().skip(std::mem::take(&mut skip)) {
            if items.len() == limit {
                next = Some(index(params.after) as u64 + items.len() as u64);
                break 'services;
            }
            items.push(rs(core, entry, server, panic));
        }
    }
    Ok(Page { items, next })
}

fn index(number: Option<u64>) -> usize {
    usize::try_from(number.unwrap_or(0)).unwrap_or(usize::MAX)
}

fn chosen<'a>(core: &'a Core, name: Option<&str>) -> Result<Vec<&'a ServiceEntry>, ApiError> {
    let all = core.entry.register.services.iter().map(Arc::as_ref);
    let entries: Vec<_> = all.filter(|s| name.is_none_or(|n| s.service.name.as_str() == n)).collect();
    match name {
        Some(name) if entries.is_empty() => {
            let known = core.entry.register.services.iter().map(|s| s.service.name.as_str());
            let error = ApiError::new(Code::Failed, format!("no service \"{name}\"")).code(config::codes::NOT_FOUND);
            Err(match config::nearest(name, known) {
                Some(word) => error.hint(format!("did you mean \"{word}\"?")),
                None => error.hint("see lbctl service list"),
            })
        }
        _ => Ok(entries),
    }
}

fn service(core: &Core, entry: &ServiceEntry) -> Service {
    let panic = panic_until(core, entry);
    let rs: Vec<Rs> = entry.servers.iter().map(|server| rs(core, entry, server, panic)).collect();
    let sum = |of: fn(&Rs) -> u64| rs.iter().map(of).sum();
    let slots = &core.tables.slots;
    // Of the service's own counts: servers that are gone are in them.
    let rows = || slots.iter().filter_map(|s| s.services.get(entry.index as usize));
    let ours = || rows().filter(|row| row.id.load(Relaxed) == entry.id);
    Service {
        name: entry.service.name.to_string(),
        vip: entry.service.vip.to_string(),
        protocol: entry.service.protocol.to_string(),
        mode: entry.service.mode.to_string(),
        scheduler: entry.service.scheduler.to_string(),
        removed: entry.removed,
        sessions: ours().map(|row| u64::from(row.active.load(Relaxed))).sum(),
        sessions_total: ours().map(|row| row.total.load(Relaxed)).sum(),
        refused: ours().map(|row| row.refused.load(Relaxed)).sum(),
        packets_in: sum(|rs| rs.packets_in),
        packets_out: sum(|rs| rs.packets_out),
        bytes_in: sum(|rs| rs.bytes_in),
        bytes_out: sum(|rs| rs.bytes_out),
        degraded: super::node::degraded(core),
        rs,
    }
}

fn rs(core: &Core, entry: &ServiceEntry, server: &ServerEntry, panic: bool) -> Rs {
    let board = core.tables.targets.board();
    let cell = core.tables.targets.health().known.read(board, server.id, server.tag);
    let health = match cell.state(server.tag) {
        Probed::Unknown => Health::Unknown,
        Probed::Up => Health::Up,
        Probed::Down if panic => Health::Panic,
        Probed::Down => Health::Down,
    };
    let failure = board.failures.get(server.id as usize).map_or(0, |word| word.load(Relaxed));
    let sum = |of: fn(&ServerCountRow) -> u64| count(&core.tables.slots, server, of);
    Rs {
        id: server.id,
        degraded: super::node::degraded(core),
        service: entry.service.name.to_string(),
        address: server.rs.address.to_string(),
        weight: server.rs.weight,
        admin: server.rs.admin.to_string(),
        removed: server.removal != Removal::Present,
        health,
        sessions: sum(|row| u64::from(row.active.load(Relaxed))),
        sessions_total: sum(|row| row.total.load(Relaxed)),
        packets_in: sum(|row| row.packets_in.load(Relaxed)),
        packets_out: sum(|row| row.packets_out.load(Relaxed)),
        bytes_in: sum(|row| row.bytes_in.load(Relaxed)),
        bytes_out: sum(|row| row.bytes_out.load(Relaxed)),
        last_check_error: Failure(failure).text(server.tag),
    }
}

/// Sum over the slots, of counts that belong to this use of the id.
fn count(slots: &[Slot], server: &ServerEntry, of: fn(&ServerCountRow) -> u64) -> u64 {
    let rows = slots.iter().filter_map(|slot| slot.servers.get(server.id as usize));
    rows.filter(|row| row.tag.load(Relaxed) == server.tag).map(of).sum()
}

/// Does the panic rule keep the service's servers that are down? The slots' own rule, on the row they use.
fn panic_until(core: &Core, entry: &ServiceEntry) -> bool {
    let published = &core.tables.published;
    let Some(row) = core.generation().and_then(|g| published.service(g, entry.index)) else { return false };
    pool_panic_until(core.tables.targets.health(), row, published.members(row), now_ms()).is_some()
}

//! `session list`, `count`, `kill`. Read-only: torn records are skipped.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;

use arch::HashKey;
use control_api::params::{SessionKill, SessionList};
use control_api::views::{Asked, Page, Session, SessionCount};
use control_api::{ApiError, Code};
use datapath::session::{Session as Record, SessionReader};
use packet::ipv6;
use shm_layout::clock::now_ms;
use shm_layout::neighbours::{Ip, as_v4, from_std, ip4, to_std};
use shm_layout::publish::owner_alive;
use shm_layout::published::{load_name, protocol};
use shm_layout::slot::Slot;

use super::core::Core;
use super::pass::used;
use super::rings::Order;

/// Sessions in one page.
const PAGE: usize = 1000;
/// Records looked at for one page: a filter that matches little must not keep other clients waiting.
const RECORDS: usize = 100_000;

/// An address of either family, with or without port.
#[derive(Debug, Clone, Copy)]
struct Place {
    ip: IpAddr,
    port: Option<u16>,
}

impl Place {
    fn parse(key: &str, text: &str) -> Result<Self, ApiError> {
        let place = match text.parse::<SocketAddr>() {
            Ok(address) => Ok(Self { ip: address.ip(), port: Some(address.port()) }),
            Err(_) => text.parse().map(|ip| Self { ip, port: None }),
        };
        place.map_err(|_| {
            let message = format!("{key} \"{text}\" is not an IP address, with or without port");
            ApiError::new(Code::InvalidParams, message)
                .hint("such as 10.0.0.5, 10.0.0.5:4000, fd00::5 or [fd00::5]:4000")
        })
    }
    fn is(&self, ip: Ip, port: u16) -> bool {
        from_std(self.ip) == ip && self.port.is_none_or(|p| p == port)
    }
}

/// `session list`.
///
/// # Errors
/// A filter that is no address or no state.
pub fn list(core: &Core, params: &SessionList) -> Result<Page<Session>, ApiError> {
    let place = |key: &str, text: &Option<String>| text.as_ref().map(|t| Place::parse(key, t)).transpose();
    let (client, server) = (place("client", &params.client)?, place("rs", &params.rs)?);
    let state = params.state.as_deref().map(state).transpose()?;
    let limit = params.limit.map_or(PAGE, |l| usize::try_from(l).unwrap_or(PAGE).min(PAGE));
    let names = Names::of(core);
    let workers: Vec<_> = core.tables.slots.iter().map(worker).collect();
    let now = now_ms();
    let (first_slot, first_record) = cursor(params.after);
    let (mut items, mut looked) = (Vec::new(), 0);
    for (i, slot) in core.tables.slots.iter().enumerate().skip(first_slot) {
        let reader = SessionReader::new(slot.clone(), HashKey::new([0; 32]));
        let start = if i == first_slot { first_record } else { 0 };
        for record in used(slot, start) {
            if items.len() >= limit || looked >= RECORDS {
                return Ok(Page { items, next: Some((i as u64) << 32 | u64::from(record)) });
            }
            looked += 1;
            let Some(session) = reader.get(record) else { continue };
            if client.is_some_and(|p| !p.is(session.client_ip, session.client_port))
                || server.is_some_and(|p| !p.is(session.real_ip, session.server_port))
                || state.is_some_and(|s| s != session.state.name())
            {
                continue;
            }
            let service = names.service(&session);
            if params.service.is_some() && params.service != service {
                continue;
            }
            items.push(view(&session, slot, workers[i].clone(), service, now));
        }
    }
    Ok(Page { items, next: None })
}

fn cursor(after: Option<u64>) -> (usize, u32) {
    let after = after.unwrap_or(0);
    let record = u32::try_from(after & 0xffff_ffff).unwrap_or(0);
    (usize::try_from(after >> 32).unwrap_or(usize::MAX), record)
}

fn state(word: &str) -> Result<&'static str, ApiError> {
    let known = shm_layout::session::State::ALL.iter().skip(1).map(|s| s.name());
    known.clone().find(|name| *name == word).ok_or_else(|| {
        let all: Vec<_> = known.collect();
        ApiError::new(Code::InvalidParams, format!("no state \"{word}\"")).hint(format!("one of {}", all.join(", ")))
    })
}

fn view(session: &Record, slot: &Slot, worker: Option<String>, service: Option<String>, now: u64) -> Session {
    let address = |ip: Ip, port: u16| SocketAddr::new(to_std(ip), port).to_string();
    Session {
        protocol: if session.protocol == protocol::UDP { "udp" } else { "tcp" }.into(),
        client: address(session.client_ip, session.client_port),
        vip: address(session.vip, session.vip_port),
        laddr: (session.local_ip != ip4(0)).then(|| address(session.local_ip, session.local_port)),
        rs: address(session.real_ip, session.server_port),
        state: session.state.name().into(),
        idle_ms: session.idle_ms(now).into(),
        worker,
        slot: slot.geometry.slot,
        service,
    }
}

/// Zone and lane of a slot's owner, `0a`.
pub fn worker(slot: &Slot) -> Option<String> {
    let owner = &slot.owner;
    let lane = lane(owner.lane.load(Relaxed));
    owner_alive(owner).then(|| format!("{}{lane}", owner.zone.load(Relaxed)))
}

/// Letter of a lane.
pub fn lane(lane: u32) -> char {
    if lane == 0 { 'a' } else { 'b' }
}

/// Service of each server id in force, with the server's address to tell orphans.
struct Names(HashMap<u32, (String, IpAddr, u16)>);

impl Names {
    fn of(core: &Core) -> Self {
        let Some(generation) = core.generation() else { return Self(HashMap::new()) };
        let published = &core.tables.published;
        let mut names = HashMap::new();
        for entry in &core.entry.register.services {
            let Some(row) = published.service(generation, entry.index) else { continue };
            let name = load_name(&row.name);
            for member in published.members(row) {
                let ip = to_std([member.ip[0].load(Relaxed), member.ip[1].load(Relaxed)]);
                names.insert(member.id.load(Relaxed), (name.clone(), ip, member.port.load(Relaxed)));
            }
        }
        Self(names)
    }

    fn service(&self, session: &Record) -> Option<String> {
        let (name, ip, port) = self.0.get(&session.server_id)?;
        let same = *ip == to_std(session.real_ip) && *port == session.server_port;
        same.then(|| name.clone())
    }
}

/// `session count`.
#[must_use]
pub fn count(slots: &[Slot]) -> SessionCount {
    let sum = |of: fn(&Slot) -> u64| slots.iter().map(of).sum();
    SessionCount {
        active: sum(|s| s.table.active.load(Relaxed).into()),
        capacity: sum(|s| s.sessions.len() as u64),
        created_total: sum(|s| s.table.created.load(Relaxed)),
        expired_total: sum(|s| s.table.ended.load(Relaxed)),
    }
}

/// `session kill`: slots end what matches at their next bursts.
///
/// # Errors
/// Nothing is named, or something that is no address.
pub fn kill(core: &Core, params: &SessionKill) -> Result<Asked, ApiError> {
    let protocol = match params.protocol.as_deref() {
        None => 0,
        Some("tcp") => protocol::TCP.into(),
        Some("udp") => protocol::UDP.into(),
        Some(other) => {
            let error = ApiError::new(Code::InvalidParams, format!("no protocol \"{other}\""));
            return Err(error.hint("tcp or udp"));
        }
    };
    if params.client.is_none() && params.vip.is_none() && params.protocol.is_none() {
        let error = ApiError::new(Code::InvalidParams, "session kill names no session");
        return Err(error.hint("give a client, a service address or a protocol"));
    }
    let place = |key: &str, text: &Option<String>| text.as_ref().map(|t| Place::parse(key, t)).transpose();
    let (client, vip) = (place("client", &params.client)?, place("vip", &params.vip)?);
    let port = |place: Option<Place>| u32::from(place.and_then(|p| p.port).unwrap_or(0));
    let v4 = |place: Option<Place>| place.and_then(|p| as_v4(from_std(p.ip))).unwrap_or(0);
    let args = [v4(client), port(client), v4(vip), port(vip), protocol];
    let order = if [client, vip].iter().flatten().any(|place| place.ip.is_ipv6()) {
        // As it stands in a packet; zeros: any.
        let bytes = |place: Option<Place>| place.map_or([0; 16], |p| ipv6::bytes(from_std(p.ip)));
        let mut addresses = [0; 32];
        addresses[..16].copy_from_slice(&bytes(client));
        addresses[16..].copy_from_slice(&bytes(vip));
        // To a worker that knows IPv4 alone the words must match nothing.
        Order::Kill([u32::MAX, args[1], u32::MAX, args[3], protocol], Some(addresses))
    } else {
        Order::Kill(args, None)
    };
    if !core.rings.as_ref().is_some_and(|rings| rings.order(order)) {
        return Err(ApiError::new(Code::Busy, "the slots are behind with earlier orders").hint("try again"));
    }
    Ok(Asked { slots: u32::try_from(core.tables.slots.len()).unwrap_or(u32::MAX) })
}

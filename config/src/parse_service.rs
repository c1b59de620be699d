//! `[[service]]` and what is in it: TOML → model.

use crate::codes;
use crate::diag::Diagnostic;
use crate::model::{Health, RealServer, Service, Timeouts};
use crate::parse::{NO_ADDRESS, name, optional};
use crate::text::ValueError;
use crate::values::{Admin, HealthKind, Millis, Protocol, parse_socket};
use crate::walk::{Section, Walk};

/// One `[[service]]`.
pub(crate) fn service(walk: &mut Walk, mut section: Section<'_>) -> Service {
    let s = &mut section;
    let name = name(walk, s, "name");
    let vip = s.required_text(walk, "vip", codes::BAD_ADDRESS, parse_socket).unwrap_or(NO_ADDRESS);
    let protocol = s.word(walk, "protocol", Protocol::Tcp);
    let d = Service::new(name, vip, protocol);
    let health = match s.table(walk, "health", "health = { type = \"tcp\", interval = \"2s\" }") {
        Some(section) => health(walk, section, protocol),
        None => {
            if !s.has("health") && protocol == Protocol::Udp && !walk.poisoned.contains(&s.key("protocol")) {
                let message = format!("servers of udp service \"{}\" are not checked", d.name);
                let warning = Diagnostic::new(codes::UNCHECKED, s.path.clone(), message);
                walk.found.push(warning.hint("say so with health = { type = \"none\" }, or give a check"));
            }
            d.health
        }
    };
    let service = Service {
        mode: s.word(walk, "mode", d.mode),
        tunnel: optional(walk, s, "tunnel", codes::BAD_VALUE, str::parse),
        scheduler: s.word(walk, "scheduler", d.scheduler),
        persistence: s.duration(walk, "persistence").unwrap_or(d.persistence),
        persistence_prefix: s.integer(walk, "persistence_prefix", 1..=128),
        hash_key: optional(walk, s, "hash_key", codes::BAD_VALUE, hash_key),
        one_packet: s.flag(walk, "one_packet", d.one_packet),
        client_address: s.word(walk, "client_address", d.client_address),
        syn_proxy: s.flag(walk, "syn_proxy", d.syn_proxy),
        max_sessions: s.integer(walk, "max_sessions", 0..=u32::MAX).unwrap_or(d.max_sessions),
        timeouts: match s.table(walk, "timeouts", "timeouts = { established = \"90s\" }") {
            Some(section) => timeouts(walk, section),
            None => d.timeouts,
        },
        panic: s.word(walk, "panic", d.panic),
        health,
        rs: s.tables(walk, "rs").into_iter().map(|s| real_server(walk, s)).collect(),
        name: d.name,
        vip,
        protocol,
    };
    section.finish(walk);
    service
}

/// Long enough not to be guessed, short enough for a line.
fn hash_key(text: &str) -> Result<String, ValueError> {
    let wrong = |why: &str| ValueError::new(format!("hash_key {why}")).hint("16 to 64 printable characters");
    match text.len() {
        _ if !text.chars().all(|c| c.is_ascii_graphic()) => Err(wrong("has blanks or other than ASCII characters")),
        16..=64 => Ok(text.to_owned()),
        length => Err(wrong(&format!("has {length} characters"))),
    }
}

fn timeouts(walk: &mut Walk, mut section: Section<'_>) -> Timeouts {
    let (s, d) = (&mut section, Timeouts::default());
    let mut read = |key, default: Millis| s.duration(walk, key).unwrap_or(default);
    let timeouts = Timeouts {
        syn_sent: read("syn_sent", d.syn_sent),
        syn_recv: read("syn_recv", d.syn_recv),
        established: read("established", d.established),
        fin_wait: read("fin_wait", d.fin_wait),
        close_wait: read("close_wait", d.close_wait),
        last_ack: read("last_ack", d.last_ack),
        time_wait: read("time_wait", d.time_wait),
        close: read("close", d.close),
        udp: read("udp", d.udp),
    };
    section.finish(walk);
    timeouts
}

fn health(walk: &mut Walk, mut section: Section<'_>, protocol: Protocol) -> Health {
    let s = &mut section;
    let text = |text: &str| -> Result<String, ValueError> { Ok(text.to_owned()) };
    let default = if protocol == Protocol::Tcp { HealthKind::Tcp } else { HealthKind::None };
    let mut health = Health::of_kind(s.word(walk, "type", default));
    health.interval = s.duration(walk, "interval").unwrap_or(health.interval);
    // What is not given follows the interval that is.
    health.timeout = s.duration(walk, "timeout").unwrap_or(health.timeout.min(health.interval));
    let half = Millis::new(health.interval.get() / 2);
    let fast = half.max(health.timeout).min(health.interval);
    health.fast_interval = s.duration(walk, "fast_interval").unwrap_or(fast);
    health.rise = s.integer(walk, "rise", 1..=u8::MAX).unwrap_or(health.rise);
    health.fall = s.integer(walk, "fall", 1..=u8::MAX).unwrap_or(health.fall);
    health.path = optional(walk, s, "path", codes::BAD_VALUE, text);
    health.host = optional(walk, s, "host", codes::BAD_VALUE, text);
    health.expect = optional(walk, s, "expect", codes::BAD_VALUE, text);
    health.send = optional(walk, s, "send", codes::BAD_VALUE, text);
    health.port = s.integer(walk, "port", 1..=u16::MAX);
    section.finish(walk);
    health
}

/// One `[[service.rs]]`.
pub(crate) fn real_server(walk: &mut Walk, mut section: Section<'_>) -> RealServer {
    let s = &mut section;
    let server = RealServer {
        address: s.required_text(walk, "address", codes::BAD_ADDRESS, parse_socket).unwrap_or(NO_ADDRESS),
        weight: s.integer(walk, "weight", 0..=u16::MAX).unwrap_or(1),
        admin: s.word(walk, "admin", Admin::Enabled),
    };
    section.finish(walk);
    server
}

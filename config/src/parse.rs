//! TOML → model: one pass over the whole file that notes every mistake and goes on with a stand-in for the value.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use toml::de::DeTable;

use crate::codes;
use crate::diag::Diagnostic;
use crate::model::{Config, Healthcheck, Laddr, Limits, Node, Port, Primary, Zone};
use crate::parse_service::service;
use crate::text::ValueError;
use crate::values::{Cidr, Device, Millis, Name, PortRange, parse_ip};
use crate::walk::{Section, Walk, read_integer};

/// Longest time any key takes.
pub(crate) const DAY: Millis = Millis::secs(86_400);
/// Stands for an address that could not be read; equal to none that is accepted.
pub(crate) const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The whole file.
pub(crate) fn config(walk: &mut Walk, table: &DeTable<'_>) -> Config {
    let mut top = Section::new(walk, "", table, 0..0);
    let config = Config {
        node: node(walk, &mut top),
        primary: primary(walk, &mut top),
        zones: top.tables(walk, "zone").into_iter().map(|s| zone(walk, s)).collect(),
        ports: top.tables(walk, "port").into_iter().map(|s| port(walk, s)).collect(),
        healthcheck: healthcheck(walk, &mut top),
        limits: limits(walk, &mut top),
        laddrs: top.tables(walk, "laddr").into_iter().map(|s| laddr(walk, s)).collect(),
        services: top.tables(walk, "service").into_iter().map(|s| service(walk, s)).collect(),
    };
    for key in ["zone", "port"] {
        if !top.has(key) {
            let message = format!("no [[{key}]] is configured");
            walk.bad(Diagnostic::new(codes::MISSING_KEY, key, message).hint(match key {
                "zone" => "add [[zone]] with id = 0 and cpus = [1]: one worker process",
                _ => "add [[port]] with name, device and zones: where packets come and go",
            }));
        }
    }
    top.finish(walk);
    config
}

/// `[node]` alone: what workers and the health-checker need to find their instance.
pub(crate) fn node(walk: &mut Walk, top: &mut Section<'_>) -> Node {
    let mut node = Node::named(Name::unreadable());
    let Some(mut section) = top.table(walk, "node", "[node]") else {
        if !top.has("node") {
            walk.bad(
                Diagnostic::new(codes::MISSING_KEY, "node", "[node] is missing").hint("add [node] with name = \"…\""),
            );
        }
        return node;
    };
    let s = &mut section;
    node.name = name(walk, s, "name");
    node.poll = s.word(walk, "poll", node.poll);
    node.dpdk_mb = s.integer(walk, "dpdk_mb", 64..=1_048_576).unwrap_or(node.dpdk_mb);
    node.sessions = s.integer(walk, "sessions", 64..=200_000_000).unwrap_or(node.sessions);
    node.sessions_ipv6 = s.integer(walk, "sessions_ipv6", 0..=200_000_000);
    node.on_primary_death = s.word(walk, "on_primary_death", node.on_primary_death);
    node.hang_after = s.duration(walk, "hang_after").unwrap_or(node.hang_after);
    node.run_dir = s.text(walk, "run_dir", codes::BAD_VALUE, folder);
    node.state_dir = s.text(walk, "state_dir", codes::BAD_VALUE, folder);
    section.finish(walk);
    node
}

fn folder(text: &str) -> Result<PathBuf, ValueError> {
    let path = PathBuf::from(text);
    if path.is_absolute() && !text.contains('\0') {
        Ok(path)
    } else {
        Err(ValueError::new(format!("\"{text}\" is not an absolute path")).hint("begin with \"/\""))
    }
}

fn primary(walk: &mut Walk, top: &mut Section<'_>) -> Primary {
    let mut primary = Primary { cpu: 0, io_cpus: Vec::new() };
    if let Some(mut s) = top.table(walk, "primary", "[primary]") {
        primary.cpu = s.integer(walk, "cpu", 0..=u16::MAX).unwrap_or(0);
        primary.io_cpus = cpus(walk, &mut s, "io_cpus");
        s.finish(walk);
    }
    primary
}

fn zone(walk: &mut Walk, mut s: Section<'_>) -> Zone {
    let zone = Zone {
        id: s.required_integer(walk, "id", 0..=7).unwrap_or(u8::MAX),
        numa: s.integer(walk, "numa", 0..=63).unwrap_or(0),
        cpus: {
            if !s.has("cpus") {
                s.require(walk, "cpus");
            }
            cpus(walk, &mut s, "cpus")
        },
    };
    s.finish(walk);
    zone
}

fn cpus(walk: &mut Walk, s: &mut Section<'_>, key: &'static str) -> Vec<u16> {
    let items = s.list(walk, key, "a list of CPUs, such as [1, 2]").unwrap_or_default();
    items.iter().map(|(path, value)| read_integer(walk, path, value, 0..=u16::MAX).unwrap_or(u16::MAX)).collect()
}

fn port(walk: &mut Walk, mut section: Section<'_>) -> Port {
    let s = &mut section;
    if !s.has("zones") {
        s.require(walk, "zones");
    }
    let port = Port {
        name: name(walk, s, "name"),
        device: s.required_text(walk, "device", codes::BAD_VALUE, str::parse).unwrap_or_else(Device::unreadable),
        zones: {
            let items = s.list(walk, "zones", "a list of zone ids, such as [0, 1]").unwrap_or_default();
            items.iter().map(|(path, v)| read_integer(walk, path, v, 0..=7).unwrap_or(u8::MAX)).collect()
        },
        slots: s.integer(walk, "slots", 1..=64),
        mac: optional(walk, s, "mac", codes::BAD_VALUE, str::parse),
        addresses: s.texts(walk, "addresses", "[\"10.0.0.2/24\"]", str::parse, NO_BLOCK),
        gateways: s.texts(walk, "gateways", "[\"10.0.0.1\"]", parse_ip, NO_ADDRESS.ip()),
        mtu: s.integer(walk, "mtu", 576..=9600).unwrap_or(1500),
        vlan: s.integer(walk, "vlan", 0..=4094).unwrap_or(0),
        kernel: optional(walk, s, "kernel", codes::BAD_VALUE, str::parse),
    };
    section.finish(walk);
    port
}

/// Stands for a block of addresses that could not be read.
const NO_BLOCK: Cidr = Cidr { address: NO_ADDRESS.ip(), prefix: 32 };

fn healthcheck(walk: &mut Walk, top: &mut Section<'_>) -> Healthcheck {
    let mut health = Healthcheck::default();
    if let Some(mut s) = top.table(walk, "healthcheck", "[healthcheck]") {
        health.source = optional(walk, &mut s, "source", codes::BAD_ADDRESS, parse_ip);
        s.finish(walk);
    }
    health
}

fn limits(walk: &mut Walk, top: &mut Section<'_>) -> Limits {
    let mut limits = Limits::default();
    if let Some(mut s) = top.table(walk, "limits", "[limits]") {
        limits.services = s.integer(walk, "services", 1..=65_535).unwrap_or(limits.services);
        limits.real_servers = s.integer(walk, "real_servers", 1..=1_000_000).unwrap_or(limits.real_servers);
        limits.neighbours = s.integer(walk, "neighbours", 16..=65_535).unwrap_or(limits.neighbours);
        limits.hash_services = s.integer(walk, "hash_services", 0..=65_535).unwrap_or(limits.hash_services);
        s.finish(walk);
    }
    limits
}

fn laddr(walk: &mut Walk, mut section: Section<'_>) -> Laddr {
    let s = &mut section;
    let block = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Ok(Cidr { address, prefix: if address.is_ipv4() { 32 } else { 128 } }),
        Err(_) => text.parse::<Cidr>(),
    };
    let laddr = Laddr {
        port: name(walk, s, "port"),
        address: s.required_text(walk, "address", codes::BAD_ADDRESS, block).unwrap_or(NO_BLOCK),
        ports: s.word(walk, "ports", PortRange { first: 1024, last: 65535 }),
    };
    section.finish(walk);
    laddr
}

/// A name that must be there.
pub(crate) fn name(walk: &mut Walk, s: &mut Section<'_>, key: &'static str) -> Name {
    s.required_text(walk, key, codes::BAD_VALUE, str::parse).unwrap_or_else(Name::unreadable)
}

/// A text of which `""` means that it is not given.
pub(crate) fn optional<T>(
    walk: &mut Walk,
    s: &mut Section<'_>,
    key: &'static str,
    code: &'static str,
    read: impl Fn(&str) -> Result<T, ValueError>,
) -> Option<T> {
    s.text(walk, key, code, |text| if text.is_empty() { Ok(None) } else { read(text).map(Some) }).flatten()
}

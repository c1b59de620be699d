//! Services, their checks and their servers.

use std::net::IpAddr;

use super::{Checker, unusable};
use crate::codes;
use crate::diag::Diagnostic;
use crate::model::{RealServer, Service};
use crate::parse::DAY;
use crate::values::{ClientAddress, HealthKind, Millis, Mode, Protocol};

pub(super) fn check(c: &mut Checker<'_>) {
    let services = &c.config.services;
    let names = services.iter().enumerate().map(|(i, s)| (s.name.as_str(), i));
    c.unique(
        codes::DUPLICATE,
        names,
        |i| format!("service[{i}].name"),
        |name| format!("service \"{name}\" is configured twice"),
    );
    let vips = services.iter().enumerate().map(|(i, s)| ((s.vip, s.protocol), i));
    c.unique(
        codes::DUPLICATE_VIP,
        vips,
        |i| format!("service[{i}].vip"),
        |(vip, protocol)| format!("VIP {vip}/{protocol} belongs to two services"),
    );
    for (i, service) in services.iter().enumerate() {
        vip(c, i, service);
        conflicts(c, i, service);
        durations(c, i, service);
        health(c, i, service);
        local_addresses(c, i, service);
        room(c, i, service);
        servers(c, i, service);
    }
}

fn vip(c: &mut Checker<'_>, i: usize, service: &Service) {
    let path = || format!("service[{i}].vip");
    if let Some(why) = unusable(service.vip.ip()) {
        c.say(Diagnostic::new(codes::BAD_ADDRESS, path(), format!("VIP {} {why}", service.vip.ip())));
    } else if service.vip.port() == 0 {
        c.say(
            Diagnostic::new(codes::BAD_ADDRESS, path(), format!("VIP {} has port 0", service.vip)).hint("1 to 65535"),
        );
    }
}

/// Keys that exclude each other.
fn conflicts(c: &mut Checker<'_>, i: usize, s: &Service) {
    let mut say = |key: &str, message: String, hint: &str| {
        c.say(Diagnostic::new(codes::CONFLICT, format!("service[{i}].{key}"), message).hint(hint));
    };
    if s.tunnel.is_some() && s.mode != Mode::Tunnel {
        say("tunnel", format!("tunnel in a service of mode {}", s.mode), "set mode = \"tunnel\", or take the key out");
    }
    if s.syn_proxy && s.protocol == Protocol::Udp {
        say("syn_proxy", "syn_proxy in a udp service".into(), "only TCP has SYNs");
    }
    if s.one_packet {
        one_packet(s, &mut say);
    }
    match (s.client_address, s.protocol) {
        (ClientAddress::Toa | ClientAddress::ProxyV2, Protocol::Udp) => {
            let message = format!("client_address \"{}\" in a udp service", s.client_address);
            say("client_address", message, "write none or uoa");
        }
        (ClientAddress::Uoa, Protocol::Tcp) => {
            let message = "client_address \"uoa\" in a tcp service".into();
            say("client_address", message, "write none, toa or proxy-v2");
        }
        _ => {}
    }
}

/// One-packet scheduling keeps no session (ADR 0016): nothing that needs one goes with it.
fn one_packet(s: &Service, say: &mut impl FnMut(&str, String, &str)) {
    if s.protocol == Protocol::Tcp {
        say("one_packet", "one_packet in a tcp service".into(), "only datagrams stand alone");
    }
    if !matches!(s.mode, Mode::Dr | Mode::Tunnel) {
        let message = format!("one_packet in a service of mode {}: its replies would find nobody", s.mode);
        say("one_packet", message, "mode = \"dr\" or \"tunnel\", where servers reply to the client themselves");
    }
    if s.persistence.get() > 0 {
        say(
            "persistence",
            "persistence in a one_packet service".into(),
            "scheduler = \"source-ip\" keeps a client together",
        );
    }
    if s.max_sessions > 0 {
        say("max_sessions", "max_sessions in a one_packet service".into(), "it has no sessions: take the key out");
    }
}

fn durations(c: &mut Checker<'_>, i: usize, s: &Service) {
    let t = &s.timeouts;
    for (key, value) in [
        ("syn_sent", t.syn_sent),
        ("syn_recv", t.syn_recv),
        ("established", t.established),
        ("fin_wait", t.fin_wait),
        ("close_wait", t.close_wait),
        ("last_ack", t.last_ack),
        ("time_wait", t.time_wait),
        ("close", t.close),
        ("udp", t.udp),
    ] {
        c.within(value, Millis::new(100), DAY, || format!("service[{i}].timeouts.{key}"));
    }
    if s.persistence.get() != 0 {
        c.within(s.persistence, Millis::secs(1), DAY, || format!("service[{i}].persistence"));
    }
    let most = if s.vip.is_ipv4() { 32 } else { 128 };
    if let Some(prefix) = s.persistence_prefix.filter(|prefix| *prefix > most) {
        let message = format!("persistence_prefix {prefix} is longer than an address of VIP {}", s.vip.ip());
        let path = format!("service[{i}].persistence_prefix");
        c.say(Diagnostic::new(codes::BAD_VALUE, path, message).hint(format!("1 to {most}")));
    }
}

fn health(c: &mut Checker<'_>, i: usize, s: &Service) {
    let h = &s.health;
    let path = |key: &str| format!("service[{i}].health.{key}");
    c.within(h.interval, Millis::new(100), Millis::secs(3600), || path("interval"));
    c.within(h.fast_interval, Millis::new(100), Millis::secs(3600), || path("fast_interval"));
    c.within(h.timeout, Millis::new(10), Millis::secs(3600), || path("timeout"));
    for (key, value) in [("timeout", h.timeout), ("fast_interval", h.fast_interval)] {
        // Of an interval that could not be read nothing can be said.
        if value > h.interval && !c.unsure(&path("interval")) {
            let message = format!("{key} {value} is longer than the interval {}", h.interval);
            let hint = format!("at most \"{}\", or a longer interval", h.interval);
            c.say(Diagnostic::new(codes::CONFLICT, path(key), message).hint(hint));
        }
    }
    let http = matches!(h.kind, HealthKind::Http | HealthKind::Https);
    let talks = http || matches!(h.kind, HealthKind::Udp | HealthKind::Dns);
    for (key, given, fits, types) in [
        ("path", h.path.is_some(), http, "http and https"),
        ("host", h.host.is_some(), http || h.kind == HealthKind::Dns, "http, https and dns"),
        ("expect", h.expect.is_some(), talks, "http, https, udp and dns"),
        ("send", h.send.is_some(), h.kind == HealthKind::Udp, "udp"),
    ] {
        if given && !fits {
            let message = format!("{key} in a check of type {}", h.kind);
            c.say(Diagnostic::new(codes::CONFLICT, path(key), message).hint(format!("it belongs to type {types}")));
        }
    }
    if !http {
        return;
    }
    let plain = |text: &str| text.chars().all(|ch| ch.is_ascii_graphic());
    if let Some(text) = h.path.as_deref().filter(|p| !p.starts_with('/') || !plain(p)) {
        let error = Diagnostic::new(codes::BAD_VALUE, path("path"), format!("\"{text}\" is not an HTTP path"));
        c.say(error.hint("begin with \"/\", without blanks"));
    }
    if let Some(text) = h.host.as_deref().filter(|p| !plain(p)) {
        c.say(Diagnostic::new(codes::BAD_VALUE, path("host"), format!("\"{text}\" is not a host name")));
    }
    if let Err(why) = h.statuses() {
        let error = Diagnostic::new(codes::BAD_VALUE, path("expect"), why.message);
        c.say(error.hint(why.hint.unwrap_or_default()));
    }
}

/// FullNAT needs a source address of the family towards each of its servers (the VIP's, as long as it has none): with NAT64 it may
/// have servers of both.
fn local_addresses(c: &mut Checker<'_>, i: usize, s: &Service) {
    if s.mode != Mode::FullNat || c.unsure("laddr") {
        return;
    }
    for (v4, family, example) in [(true, "IPv4", "10.0.0.128/30"), (false, "IPv6", "fd00::80/126")] {
        let needed = match s.rs.is_empty() {
            true => s.vip.is_ipv4() == v4,
            false => s.rs.iter().any(|rs| rs.address.is_ipv4() == v4 && wrong_server(s, rs).is_none()),
        };
        if needed && !c.config.laddrs.iter().any(|l| l.address.address.is_ipv4() == v4) {
            let message = format!("fullnat service \"{}\" has no {family} local address", s.name);
            let error = Diagnostic::new(codes::NO_LADDR, format!("service[{i}].vip"), message);
            let hint =
                format!("add [[laddr]] with port = \"…\" and address = \"{example}\": the source towards its servers");
            c.say(error.hint(hint));
        }
    }
}

/// IPv6 sessions, and those of an IPv4 VIP in tunnels to IPv6 servers, need records that `node.sessions_ipv6` makes room for.
fn room(c: &mut Checker<'_>, i: usize, s: &Service) {
    let wide = s.vip.is_ipv6() || s.rs.iter().any(|rs| rs.address.is_ipv6());
    if wide && c.config.node.sessions_ipv6() == 0 && !c.unsure("node.sessions_ipv6") {
        let message = format!("service \"{}\" has IPv6 addresses, and node.sessions_ipv6 is 0", s.name);
        let error = Diagnostic::new(codes::CONFLICT, format!("service[{i}].vip"), message);
        c.say(error.hint("give IPv6 sessions room: sessions_ipv6 = 100_000"));
    }
}

fn servers(c: &mut Checker<'_>, i: usize, s: &Service) {
    let addresses = s.rs.iter().enumerate().map(|(n, rs)| (rs.address, n));
    c.unique(
        codes::DUPLICATE_RS,
        addresses,
        |n| format!("service[{i}].rs[{n}].address"),
        |a| format!("server {a} is twice in service \"{}\"", s.name),
    );
    let reachable = !c.unsure("port");
    for (n, rs) in s.rs.iter().enumerate() {
        let path = || format!("service[{i}].rs[{n}].address");
        if let Some(why) = wrong_server(s, rs) {
            c.say(Diagnostic::new(codes::BAD_ADDRESS, path(), why));
            continue;
        }
        let ip = rs.address.ip();
        if s.mode == Mode::Dr && reachable && c.config.connected(ip).is_none() {
            let message =
                format!("server {ip} is on no port's network: in mode dr a router would send it back to the VIP");
            c.say(Diagnostic::new(codes::BAD_ADDRESS, path(), message).hint("mode = \"tunnel\" reaches it"));
        }
        if reachable && !next_hop(c, ip) {
            let message = format!("server {ip} lies in no network of a port, and no port has a gateway");
            c.say(Diagnostic::new(codes::NO_NEXT_HOP, path(), message).hint("its sessions would go nowhere"));
        }
        if s.health.kind != HealthKind::None && !probe_route(c, ip) {
            let error =
                Diagnostic::new(codes::NO_ROUTE, path(), format!("no route to server {ip}: it could not be checked"));
            c.say(error.hint(
                "checks follow the kernel's routes: add a route or kernel interface, or health = { type = \"none\" }",
            ));
        }
    }
}

/// Why a server cannot be one of this service, if it cannot.
fn wrong_server(s: &Service, rs: &RealServer) -> Option<String> {
    let (address, ip) = (rs.address, rs.address.ip());
    if let Some(why) = unusable(ip) {
        return Some(format!("server {ip} {why}"));
    }
    if address.port() == 0 {
        return Some(format!("server {address} has port 0"));
    }
    if address == s.vip {
        return Some(format!("server {address} is the VIP of its own service: packets would go round"));
    }
    let crosses = s.mode == Mode::Tunnel || s.mode == Mode::FullNat && s.vip.is_ipv6();
    if s.vip.is_ipv4() != address.is_ipv4() && !crosses {
        let why = "only fullnat from IPv6 to IPv4 (NAT64) and tunnels cross families";
        return Some(format!("server {address} is of another address family than VIP {}: {why}", s.vip));
    }
    if matches!(s.mode, Mode::Dr | Mode::Tunnel) && address.port() != s.vip.port() {
        return Some(format!("server {address} must have the VIP's port {} in mode {}", s.vip.port(), s.mode));
    }
    None
}

/// Whether a worker can send to the server: on a port's network, or by a gateway of its family.
fn next_hop(c: &Checker<'_>, ip: IpAddr) -> bool {
    let gateway = |g: &IpAddr| g.is_ipv4() == ip.is_ipv4();
    c.config.connected(ip).is_some() || c.config.ports.iter().any(|p| p.gateways.iter().any(gateway))
}

/// Whether a probe can leave: the kernel has a route, or will have one once a port's kernel interface is up.
fn probe_route(c: &Checker<'_>, ip: IpAddr) -> bool {
    let kernel = c.config.connected(ip).is_some_and(|port| c.config.ports[port].kernel.is_some());
    kernel || c.facts.has_route(ip)
}

//! A model taken apart into keys and TOML values: what export writes, diff compares and an edit overrides.

use crate::model::{Config, Laddr, Node, Port, Primary, RealServer, Service, Zone};

/// Keys of one table in the order of the documentation, each with its value as TOML writes it. Keys without a value are
/// left out; keys of an inner table are dotted (`health.type`).
pub(crate) type Keys = Vec<(&'static str, String)>;

/// A text as TOML writes it.
pub(crate) fn quoted(text: impl ToString) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn list<T>(items: &[T], write: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(write).collect::<Vec<_>>().join(", "))
}

fn push_some<T: ToString>(keys: &mut Keys, key: &'static str, value: Option<T>, write: impl Fn(T) -> String) {
    keys.extend(value.map(|value| (key, write(value))));
}

/// A number with `_` between thousands, as a person would write it.
fn number(n: u32) -> String {
    let digits = n.to_string();
    if digits.len() <= 5 {
        return digits;
    }
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

pub(crate) fn node(n: &Node) -> Keys {
    let mut keys = vec![
        ("name", quoted(&n.name)),
        ("poll", quoted(n.poll)),
        ("dpdk_mb", number(n.dpdk_mb)),
        ("sessions", number(n.sessions)),
        ("on_primary_death", quoted(n.on_primary_death)),
        ("hang_after", quoted(n.hang_after)),
    ];
    push_some(&mut keys, "sessions_ipv6", n.sessions_ipv6.map(number), |n| n);
    // The paths came from the UTF-8 text of a file.
    push_some(&mut keys, "run_dir", n.run_dir.as_ref().map(|p| p.display()), quoted);
    push_some(&mut keys, "state_dir", n.state_dir.as_ref().map(|p| p.display()), quoted);
    keys
}

pub(crate) fn primary(p: &Primary) -> Keys {
    vec![("cpu", p.cpu.to_string()), ("io_cpus", list(&p.io_cpus, u16::to_string))]
}

pub(crate) fn zone(z: &Zone) -> Keys {
    vec![("id", z.id.to_string()), ("numa", z.numa.to_string()), ("cpus", list(&z.cpus, u16::to_string))]
}

pub(crate) fn port(p: &Port) -> Keys {
    let mut keys =
        vec![("name", quoted(&p.name)), ("device", quoted(&p.device)), ("zones", list(&p.zones, u8::to_string))];
    push_some(&mut keys, "slots", p.slots, |n| n.to_string());
    push_some(&mut keys, "mac", p.mac, quoted);
    keys.push(("addresses", list(&p.addresses, |a| quoted(a))));
    keys.push(("gateways", list(&p.gateways, |g| quoted(g))));
    keys.push(("mtu", p.mtu.to_string()));
    keys.push(("vlan", p.vlan.to_string()));
    push_some(&mut keys, "kernel", p.kernel.as_ref(), quoted);
    keys
}

pub(crate) fn healthcheck(config: &Config) -> Keys {
    let mut keys = Keys::new();
    push_some(&mut keys, "source", config.healthcheck.source, quoted);
    keys
}

pub(crate) fn limits(config: &Config) -> Keys {
    let l = &config.limits;
    vec![
        ("services", number(l.services)),
        ("real_servers", number(l.real_servers)),
        ("neighbours", number(l.neighbours)),
        ("hash_services", number(l.hash_services)),
    ]
}

pub(crate) fn laddr(l: &Laddr) -> Keys {
    vec![("port", quoted(&l.port)), ("address", quoted(l.address)), ("ports", quoted(l.ports))]
}

/// All but its servers.
pub(crate) fn service(s: &Service) -> Keys {
    let mut keys = vec![
        ("name", quoted(&s.name)),
        ("vip", quoted(s.vip)),
        ("protocol", quoted(s.protocol)),
        ("mode", quoted(s.mode)),
    ];
    push_some(&mut keys, "tunnel", s.tunnel, quoted);
    let (t, h) = (&s.timeouts, &s.health);
    keys.extend([("scheduler", quoted(s.scheduler)), ("persistence", quoted(s.persistence))]);
    push_some(&mut keys, "persistence_prefix", s.persistence_prefix, |n| n.to_string());
    push_some(&mut keys, "hash_key", s.hash_key.as_ref(), quoted);
    keys.extend([
        ("client_address", quoted(s.client_address)),
        ("syn_proxy", s.syn_proxy.to_string()),
        ("max_sessions", number(s.max_sessions)),
        ("timeouts.syn_sent", quoted(t.syn_sent)),
        ("timeouts.syn_recv", quoted(t.syn_recv)),
        ("timeouts.established", quoted(t.established)),
        ("timeouts.fin_wait", quoted(t.fin_wait)),
        ("timeouts.close_wait", quoted(t.close_wait)),
        ("timeouts.last_ack", quoted(t.last_ack)),
        ("timeouts.time_wait", quoted(t.time_wait)),
        ("timeouts.close", quoted(t.close)),
        ("timeouts.udp", quoted(t.udp)),
        ("panic", quoted(s.panic)),
        ("health.type", quoted(h.kind)),
        ("health.interval", quoted(h.interval)),
        ("health.fast_interval", quoted(h.fast_interval)),
        ("health.timeout", quoted(h.timeout)),
        ("health.rise", h.rise.to_string()),
        ("health.fall", h.fall.to_string()),
    ]);
    push_some(&mut keys, "health.path", h.path.as_ref(), quoted);
    push_some(&mut keys, "health.host", h.host.as_ref(), quoted);
    push_some(&mut keys, "health.expect", h.expect.as_ref(), quoted);
    push_some(&mut keys, "health.send", h.send.as_ref(), quoted);
    push_some(&mut keys, "health.port", h.port, |n| n.to_string());
    keys
}

pub(crate) fn real_server(rs: &RealServer) -> Keys {
    vec![("address", quoted(rs.address)), ("weight", rs.weight.to_string()), ("admin", quoted(rs.admin))]
}

/// Keys whose value is a number or `true`/`false`: a word given for them in an edit is not put in quotes.
pub(crate) fn is_plain(key: &str) -> bool {
    matches!(
        key,
        "weight" | "max_sessions" | "syn_proxy" | "persistence_prefix" | "health.rise" | "health.fall" | "health.port"
    )
}

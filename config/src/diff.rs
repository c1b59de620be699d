//! What differs between two configurations, typed for the planner and in one line each for people and the history.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::keys::{self, Keys};
use crate::model::{Config, Laddr, RealServer, Service};
use crate::values::{Admin, Name};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields are the nouns of the configuration")]
pub enum Change {
    /// A new service with its servers.
    ServiceAdded { service: Name, summary: String },
    /// A service that is gone with its servers.
    ServiceRemoved { service: Name },
    /// A key of a service.
    ServiceSet { service: Name, key: String, from: String, to: String },
    /// A new server.
    RsAdded { service: Name, rs: SocketAddr, weight: u16 },
    /// A server that is gone.
    RsRemoved { service: Name, rs: SocketAddr },
    /// A server's weight.
    RsWeight { service: Name, rs: SocketAddr, from: u16, to: u16 },
    /// A server's admin state.
    RsAdmin { service: Name, rs: SocketAddr, from: Admin, to: Admin },
    /// New local addresses.
    LaddrAdded { laddr: Laddr },
    /// Local addresses that are gone.
    LaddrRemoved { laddr: Laddr },
    /// A key that holds for all checks.
    Healthcheck { key: String, from: String, to: String },
    /// A key of node, primary, zone, port or limits: `apply` refuses it, a restart takes it.
    NeedsRestart { path: String, from: String, to: String },
}

impl Change {
    /// Whether only a restart can take it.
    #[must_use]
    pub const fn needs_restart(&self) -> bool {
        matches!(self, Self::NeedsRestart { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |laddr: &Laddr| format!("{} ports {} on {}", laddr.address, laddr.ports, laddr.port);
        match self {
            Self::ServiceAdded { service, summary } => write!(f, "service {service}: added ({summary})"),
            Self::ServiceRemoved { service } => write!(f, "service {service}: removed"),
            Self::ServiceSet { service, key, from, to } => write!(f, "service {service}: {key} {from} → {to}"),
            Self::RsAdded { service, rs, weight } => write!(f, "service {service}: rs {rs} added, weight {weight}"),
            Self::RsRemoved { service, rs } => write!(f, "service {service}: rs {rs} removed"),
            Self::RsWeight { service, rs, from, to } => write!(f, "service {service}: rs {rs} weight {from} → {to}"),
            Self::RsAdmin { service, rs, from, to } => write!(f, "service {service}: rs {rs} {from} → {to}"),
            Self::LaddrAdded { laddr } => write!(f, "laddr {} added", range(laddr)),
            Self::LaddrRemoved { laddr } => write!(f, "laddr {} removed", range(laddr)),
            Self::Healthcheck { key, from, to } => write!(f, "healthcheck: {key} {from} → {to}"),
            Self::NeedsRestart { path, from, to } => write!(f, "{path} {from} → {to} (needs a restart)"),
        }
    }
}

/// What leads from `old` to `new`; empty when they mean the same. The order of services, servers and blocks does not
/// count, and a port without `slots` keeps the number it has.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let (mut old, mut new) = (old.clone(), new.clone());
    old.fix_slots(None);
    new.fix_slots(Some(&old));
    let mut changes = Vec::new();
    fixed(&old, &new, &mut changes);
    for (key, from, to) in changed(keys::healthcheck(&old), keys::healthcheck(&new)) {
        changes.push(Change::Healthcheck { key, from, to });
    }
    laddrs(&old, &new, &mut changes);
    services(&old, &new, &mut changes);
    changes
}

/// Node, primary, zones, ports and limits.
fn fixed(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    let sections = |c: &Config| -> Vec<(String, Keys)> {
        let zones = c.zones.iter().map(|z| (format!("zone {}", z.id), keys::zone(z)));
        let ports = c.ports.iter().map(|p| (format!("port {}", p.name), keys::port(p)));
        let single =
            [("node", keys::node(&c.node)), ("primary", keys::primary(&c.primary)), ("limits", keys::limits(c))];
        single.map(|(name, keys)| (name.to_owned(), keys)).into_iter().chain(zones).chain(ports).collect()
    };
    let restart = |path: String, from: &str, to: &str| Change::NeedsRestart { path, from: from.into(), to: to.into() };
    let (old, new) = (sections(old), sections(new));
    for (name, keys) in &old {
        match new.iter().find(|(other, _)| other == name) {
            Some((_, other)) => {
                for (key, from, to) in changed(keys.clone(), other.clone()) {
                    changes.push(restart(format!("{name}: {key}"), &from, &to));
                }
            }
            None => changes.push(restart(format!("{name}:"), "configured", "removed")),
        }
    }
    for (name, _) in new.iter().filter(|(name, _)| !old.iter().any(|(other, _)| other == name)) {
        changes.push(restart(format!("{name}:"), "absent", "added"));
    }
}

/// Keys whose values differ: key, old, new, without quotes; a key that is absent reads "unset".
fn changed(old: Keys, new: Keys) -> Vec<(String, String, String)> {
    let plain = |value: Option<&String>| {
        value.map_or_else(
            || "unset".to_owned(),
            |v| v.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(v).to_owned(),
        )
    };
    let find = |keys: &Keys, key: &str| keys.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone());
    let mut names: Vec<&str> = old.iter().map(|(k, _)| *k).collect();
    names.extend(new.iter().map(|(k, _)| *k).filter(|k| !old.iter().any(|(o, _)| o == k)));
    let pairs = names.into_iter().map(|key| (key, find(&old, key), find(&new, key)));
    let differ = pairs.filter(|(_, from, to)| from != to);
    differ.map(|(key, from, to)| (key.to_owned(), plain(from.as_ref()), plain(to.as_ref()))).collect()
}

fn laddrs(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    let (before, after): (HashSet<_>, HashSet<_>) = (old.laddrs.iter().collect(), new.laddrs.iter().collect());
    let gone = old.laddrs.iter().filter(|l| !after.contains(l));
    changes.extend(gone.map(|l| Change::LaddrRemoved { laddr: l.clone() }));
    let come = new.laddrs.iter().filter(|l| !before.contains(l));
    changes.extend(come.map(|l| Change::LaddrAdded { laddr: l.clone() }));
}

fn services(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    let before: HashMap<&Name, &Service> = old.services.iter().map(|s| (&s.name, s)).collect();
    let after: HashSet<&Name> = new.services.iter().map(|s| &s.name).collect();
    for service in old.services.iter().filter(|s| !after.contains(&s.name)) {
        changes.push(Change::ServiceRemoved { service: service.name.clone() });
    }
    for service in &new.services {
        match before.get(&service.name) {
            Some(old) if *old == service => {}
            Some(old) => one_service(old, service, changes),
            None => changes.push(Change::ServiceAdded {
                service: service.name.clone(),
                summary: format!(
                    "{}/{}, {}, {} rs",
                    service.vip,
                    service.protocol,
                    service.scheduler,
                    service.rs.len()
                ),
            }),
        }
    }
}

fn one_service(old: &Service, new: &Service, changes: &mut Vec<Change>) {
    let service = || new.name.clone();
    for (key, from, to) in changed(keys::service(old), keys::service(new)) {
        changes.push(Change::ServiceSet { service: service(), key, from, to });
    }
    let before: HashMap<SocketAddr, &RealServer> = old.rs.iter().map(|rs| (rs.address, rs)).collect();
    let after: HashSet<SocketAddr> = new.rs.iter().map(|rs| rs.address).collect();
    for rs in old.rs.iter().filter(|rs| !after.contains(&rs.address)) {
        changes.push(Change::RsRemoved { service: service(), rs: rs.address });
    }
    for rs in &new.rs {
        let Some(was) = before.get(&rs.address) else {
            changes.push(Change::RsAdded { service: service(), rs: rs.address, weight: rs.weight });
            if rs.admin != Admin::Enabled {
                let from = Admin::Enabled;
                changes.push(Change::RsAdmin { service: service(), rs: rs.address, from, to: rs.admin });
            }
            continue;
        };
        if was.weight != rs.weight {
            let (from, to) = (was.weight, rs.weight);
            changes.push(Change::RsWeight { service: service(), rs: rs.address, from, to });
        }
        if was.admin != rs.admin {
            let (from, to) = (was.admin, rs.admin);
            changes.push(Change::RsAdmin { service: service(), rs: rs.address, from, to });
        }
    }
}

//! What a configuration must satisfy as a whole. The same checks run on a file, on an edit and in the daemons.

mod laddrs;
mod node;
mod owners;
mod ports;
mod services;

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use crate::codes;
use crate::diag::Diagnostic;
use crate::facts::Facts;
use crate::model::Config;
use crate::release;
use crate::values::Millis;

/// Everything wrong with a model; the same rules as for a file.
#[must_use]
pub fn validate(config: &Config, facts: &dyn Facts) -> Vec<Diagnostic> {
    check(config, facts, &BTreeSet::new())
}

/// Everything wrong with a model of which the `poisoned` keys could not be read.
pub(crate) fn check(config: &Config, facts: &dyn Facts, poisoned: &BTreeSet<String>) -> Vec<Diagnostic> {
    let servers = config.services.iter().map(|s| s.rs.len()).sum();
    check_sized(config, Size { services: config.services.len(), servers }, facts, poisoned)
}

/// How large the whole is of which a model may be a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) services: usize,
    pub(crate) servers: usize,
}

/// As [`check`], of a part of the services: all rules but those of size are of one service, or of two that share a name or
/// an address.
pub(crate) fn check_sized(
    config: &Config,
    size: Size,
    facts: &dyn Facts,
    poisoned: &BTreeSet<String>,
) -> Vec<Diagnostic> {
    let mut checker = Checker { config, size, facts, poisoned, found: Vec::new() };
    node::check(&mut checker);
    ports::check(&mut checker);
    laddrs::check(&mut checker);
    services::check(&mut checker);
    owners::check(&mut checker);
    // What is wrong for ever need not be told that it is not there yet.
    let wrong: BTreeSet<String> = checker.found.iter().map(|d| d.path.clone()).collect();
    for diagnostic in release::not_yet(config) {
        if !wrong.contains(&diagnostic.path) {
            checker.say(diagnostic);
        }
    }
    checker.found
}

/// The checks' common ground.
struct Checker<'a> {
    config: &'a Config,
    size: Size,
    facts: &'a dyn Facts,
    poisoned: &'a BTreeSet<String>,
    found: Vec<Diagnostic>,
}

impl Checker<'_> {
    /// Notes a mistake, unless its key could not even be read (which has been said).
    fn say(&mut self, diagnostic: Diagnostic) {
        let path = &diagnostic.path;
        let within =
            |p: &String| path.strip_prefix(p.as_str()).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']));
        if !self.poisoned.iter().any(within) {
            self.found.push(diagnostic);
        }
    }

    /// Whether anything under `section` could not be read: what it lacks may be just that.
    fn unsure(&self, section: &str) -> bool {
        self.poisoned.iter().any(|p| p.starts_with(section))
    }

    /// Notes every key that appears twice, with the first place. `path` names the place of what comes with a key; it is
    /// called for duplicates only.
    fn unique<K: Eq + Hash, P: Clone>(
        &mut self,
        code: &str,
        items: impl IntoIterator<Item = (K, P)>,
        path: impl Fn(P) -> String,
        message: impl Fn(&K) -> String,
    ) {
        let mut seen: HashMap<K, P> = HashMap::new();
        for (key, place) in items {
            if let Some(first) = seen.get(&key) {
                let error = Diagnostic::new(code, path(place), message(&key));
                let hint = match code {
                    codes::DUPLICATE_VIP => "give one of them another address, port or protocol",
                    codes::DUPLICATE_RS => "take one out; a larger share is a larger weight",
                    _ => "each may be used once",
                };
                self.say(error.hint(hint).related(path(first.clone()), "first used here"));
            } else {
                seen.insert(key, place);
            }
        }
    }

    /// Notes a duration outside its limits.
    fn within(&mut self, value: Millis, low: Millis, high: Millis, path: impl FnOnce() -> String) {
        if value < low || value > high {
            self.say(Diagnostic::new(codes::OUT_OF_RANGE, path(), format!("{value} is outside {low} to {high}")));
        }
    }
}

/// Why an address cannot be one station's, if it cannot.
fn unusable(address: IpAddr) -> Option<&'static str> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    // `::ffff:a.b.c.d`, and `::a.b.c.d` but for `::` and `::1`, of which more is said.
    let embedded = matches!(address, IpAddr::V6(v6) if v6.to_ipv4().is_some());
    let link_local = is_link_local(address);
    if address.is_unspecified() {
        Some("is the unspecified address")
    } else if address.is_multicast() {
        Some("is a multicast address")
    } else if address.is_loopback() {
        Some("is a loopback address")
    } else if broadcast {
        Some("is the broadcast address")
    } else if embedded {
        Some("is an IPv4 address written as IPv6: write it as IPv4")
    } else if link_local {
        Some("is of one link alone (link-local)")
    } else {
        None
    }
}

/// Of one IPv6 link: without the link it names nobody.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

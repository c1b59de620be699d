//! What INTERFACE names and this version does not do yet: refused honestly, never ignored. Later work deletes lines here.

use crate::codes;
use crate::diag::Diagnostic;
use crate::model::{Config, Service};
use crate::values::{ClientAddress, HealthKind, Tunnel};

const CHECKS: &[HealthKind] = &[HealthKind::Tcp, HealthKind::Http, HealthKind::None];
const CLIENT_ADDRESS: &[ClientAddress] = &[ClientAddress::None];
const SYN_PROXY: bool = false;
const PIPELINE: bool = false;

/// Every use of something that is not there yet.
pub(crate) fn not_yet(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut say = |path: String, what: String, instead: String| {
        let hint = format!("not in this version; {instead}");
        found.push(Diagnostic::new(codes::NOT_YET, path, format!("{what} is not supported yet")).hint(hint));
    };
    if !PIPELINE && !config.primary.io_cpus.is_empty() {
        say("primary.io_cpus".into(), "pipeline mode".into(), "leave io_cpus empty".into());
    }
    for (i, s) in config.services.iter().enumerate() {
        service(i, s, &mut say);
    }
    found
}

fn service(i: usize, s: &Service, say: &mut impl FnMut(String, String, String)) {
    let path = |key: &str| format!("service[{i}].{key}");
    let only = |words: Vec<&str>| format!("there is {}", words.join(", "));
    if s.tunnel.is_some_and(|kind| kind != Tunnel::Ipip) {
        say(path("tunnel"), "tunnel \"gue\"".into(), "there is ipip".into());
    }
    if !CHECKS.contains(&s.health.kind) {
        let words = CHECKS.iter().map(|m| m.as_str()).collect();
        say(path("health.type"), format!("check type \"{}\"", s.health.kind), only(words));
    }
    if !CLIENT_ADDRESS.contains(&s.client_address) {
        let words = CLIENT_ADDRESS.iter().map(|m| m.as_str()).collect();
        say(path("client_address"), format!("client_address \"{}\"", s.client_address), only(words));
    }
    if !SYN_PROXY && s.syn_proxy {
        say(path("syn_proxy"), "syn_proxy".into(), "write syn_proxy = false".into());
    }
}

//! The model as TOML that reads back to an equal model.

use std::fmt::Write;

use crate::keys::{self, Keys};
use crate::model::Config;

/// The configuration as a file, every key written out.
#[must_use]
pub fn export(config: &Config) -> String {
    let mut out = String::new();
    table(&mut out, "[node]", "", keys::node(&config.node));
    table(&mut out, "[primary]", "", keys::primary(&config.primary));
    for zone in &config.zones {
        table(&mut out, "[[zone]]", "", keys::zone(zone));
    }
    for port in &config.ports {
        table(&mut out, "[[port]]", "", keys::port(port));
    }
    table(&mut out, "[healthcheck]", "", keys::healthcheck(config));
    table(&mut out, "[limits]", "", keys::limits(config));
    for laddr in &config.laddrs {
        table(&mut out, "[[laddr]]", "", keys::laddr(laddr));
    }
    for service in &config.services {
        table(&mut out, "[[service]]", "", keys::service(service));
        for rs in &service.rs {
            table(&mut out, "[[service.rs]]", "  ", keys::real_server(rs));
        }
    }
    out
}

/// A header and its keys; dotted ones become inline tables (`health = { type = "tcp", … }`).
fn table(out: &mut String, header: &str, indent: &str, keys: Keys) {
    if !out.is_empty() {
        out.push('\n');
    }
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{indent}{header}");
    let mut keys = keys.into_iter().peekable();
    while let Some((key, value)) = keys.next() {
        let Some((inner, first)) = key.split_once('.') else {
            let _ = writeln!(out, "{indent}{key} = {value}");
            continue;
        };
        let _ = write!(out, "{indent}{inner} = {{ {first} = {value}");
        let same = |(key, _): &(&'static str, String)| key.split_once('.').is_some_and(|(table, _)| table == inner);
        while let Some((key, value)) = keys.next_if(same) {
            let _ = write!(out, ", {} = {value}", &key[inner.len() + 1..]);
        }
        out.push_str(" }\n");
    }
}

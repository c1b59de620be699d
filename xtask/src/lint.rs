//! Checks that need no running appliance.

use crate::Outcome;
use crate::step::{self, Tally, cargo, say};
use crate::systemd;

/// A named part of the checks.
type Part = (&'static str, fn(&mut Tally));

const PARTS: &[Part] = &[
    ("fmt", |t| t.check("cargo fmt", run_cargo(&["fmt", "--all", "--check"], &[]))),
    ("clippy", |t| {
        let arguments = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        t.check("cargo clippy", run_cargo(&arguments, &[]));
    }),
    ("doc", |t| {
        let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items"];
        t.check("cargo doc", run_cargo(&arguments, &[("RUSTDOCFLAGS", "-D warnings")]));
    }),
    ("units", systemd::checks),
];

/// `cargo xtask lint`: all parts, or those named.
pub fn run(names: &[&str]) -> Outcome {
    let known: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    if let Some(name) = names.iter().find(|n| !known.contains(n)) {
        return Err(format!("lint has no part {name}; there are: {}", known.join(", ")));
    }
    let mut tally = Tally::default();
    checks(&mut tally, names);
    tally.close()
}

/// Formatting, clippy, documentation, units; with `names` only those.
pub fn checks(tally: &mut Tally, names: &[&str]) {
    for (name, part) in PARTS.iter().filter(|(name, _)| names.is_empty() || names.contains(name)) {
        say(name);
        part(tally);
    }
}

fn run_cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    step::run(cargo().args(arguments).envs(environment.iter().copied()))
}

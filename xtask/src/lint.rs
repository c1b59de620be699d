//! Checks that need no running appliance.

use crate::Outcome;
use crate::step::{self, Tally, cargo, say};
use crate::systemd;

/// `cargo xtask lint`.
pub fn run() -> Outcome {
    let mut tally = Tally::default();
    checks(&mut tally);
    tally.close()
}

/// Formatting, clippy, documentation, units.
pub fn checks(tally: &mut Tally) {
    say("formatting");
    tally.check("cargo fmt", run_cargo(&["fmt", "--all", "--check"], &[]));
    say("clippy");
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    tally.check("cargo clippy", run_cargo(&clippy, &[]));
    say("documentation");
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    tally.check("cargo doc", run_cargo(&doc, &[("RUSTDOCFLAGS", "-D warnings")]));
    say("systemd units");
    systemd::checks(tally);
}

fn run_cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
    step::run(cargo().args(arguments).envs(environment.iter().copied()))
}

//! `cargo xtask demo`.

use std::os::unix::process::CommandExt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Outcome;
use crate::setup;
use crate::step::{self, cargo, say, target};

/// What runs in the demo and in the end-to-end tests.
pub const PROGRAMS: &[&str] = &["primary", "worker", "healthcheck", "lbctl", "tests"];

/// Prepares the machine, builds, and becomes the demo.
pub fn run(options: &[&str]) -> Outcome {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis().to_string();
    if let Some(word) = options.iter().find(|o| !["--keep", "--json"].contains(o)) {
        return Err(format!("demo knows --keep and --json, not {word:?}"));
    }
    setup::run_all()?;
    build()?;
    // Not a child but ourselves: Ctrl-C then has one receiver, which cleans up before it ends.
    let error =
        std::process::Command::new(target().join("release/demo")).args(["--started-ms", &started]).args(options).exec();
    Err(format!("the demo cannot be started: {error}"))
}

/// Builds lb-primary with failpoints, which tests kill at every step of a change, as `target/failpoints/lb-primary`. In the
/// profile of the unit tests: its libraries are there already.
pub fn build_failpoints() -> Outcome {
    say("building (failpoints)");
    step::run(cargo().args(["build", "--package", "primary", "--features", "failpoints"]))?;
    let (built, folder) = (target().join("debug/lb-primary"), target().join("failpoints"));
    let copied = std::fs::create_dir_all(&folder).and_then(|()| std::fs::copy(&built, folder.join("lb-primary")));
    copied.map(drop).map_err(|error| format!("{} cannot be copied: {error}", built.display()))
}

/// Builds the programs as they are shipped.
pub fn build() -> Outcome {
    say("building (release)");
    let mut command = cargo();
    command.args(["build", "--release"]);
    for package in PROGRAMS {
        command.args(["--package", package]);
    }
    step::run(&mut command)
}

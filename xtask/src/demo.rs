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
    let arguments: Vec<&str> = ["--started-ms", &started].into_iter().chain(options.iter().copied()).collect();
    turn_into("demo", &arguments)
}

/// Becomes a built program. Not a child but ourselves: Ctrl-C then has one receiver, which cleans up before it ends.
pub fn turn_into(program: &str, arguments: &[&str]) -> Outcome {
    let error = std::process::Command::new(target().join("release").join(program)).args(arguments).exec();
    Err(format!("{program} cannot be started: {error}"))
}

/// Builds the programs that die where they are told to (`LB_DIE_AT`), as `target/failpoints/lb-primary` and `lb-worker`. In
/// the profile of the unit tests: their libraries are there already.
pub fn build_failpoints() -> Outcome {
    say("building (failpoints)");
    let features = ["--features", "primary/failpoints,worker/failpoints"];
    step::run(cargo().args(["build", "--package", "primary", "--package", "worker"]).args(features))?;
    let folder = target().join("failpoints");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    for program in ["lb-primary", "lb-worker"] {
        let built = target().join("debug").join(program);
        let copied = std::fs::copy(&built, folder.join(program));
        copied.map_err(|error| format!("{} cannot be copied: {error}", built.display()))?;
    }
    Ok(())
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

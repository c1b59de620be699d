//! Benchmarks of the worker over DPDK ports: programs of the package `bench`, in release builds.

use std::process::Command;

use crate::step::{cargo, run, say, target};
use crate::{Outcome, demo, setup};

/// Their names.
pub const NAMES: [&str; 3] = ["one-core", "io", "latency"];

/// Prepares the machine, builds, measures.
pub fn bench(name: &str, arguments: &[&str]) -> Outcome {
    setup::run_all()?;
    say("building (release)");
    run(cargo().args(["build", "--release", "--package", "bench"]))?;
    let mut command = Command::new(target().join("release").join(name));
    if name != "one-core" {
        let reflector = reflector()?;
        demo::build()?;
        command.arg("--programs").arg(target().join("release")).arg("--reflector").arg(reflector);
    }
    if name == "io" {
        run(cargo().args(["build", "--release", "--package", "datapath", "--example", "packet"]))?;
        command.arg("--packet").arg(target().join("release/examples/packet"));
    }
    run(command.args(arguments))
}

/// The worker that only reflects, put aside: the real one has the same name.
fn reflector() -> Result<std::path::PathBuf, String> {
    let build = ["build", "--release", "--package", "worker", "--bin", "lb-worker", "--features", "reflect"];
    run(cargo().args(build))?;
    let aside = target().join("reflect");
    let copied = std::fs::create_dir_all(&aside)
        .and_then(|()| std::fs::copy(target().join("release/lb-worker"), aside.join("lb-worker")));
    copied.map_err(|error| format!("{}: {error}", aside.display()))?;
    Ok(aside.join("lb-worker"))
}

//! `cargo xtask test`: everything CI runs, in one command, ending with one line of sums.

use std::process::Command;

use crate::step::{Tally, cargo, run as run_command, target};
use crate::{Outcome, demo, instructions, lint, setup, wire};

/// All tests; with filters only the end-to-end tests whose names contain one of them. A machine
/// that lacks something fails here: nothing is skipped.
pub fn run(filters: &[&str]) -> Outcome {
    setup::run_all()?;
    let mut tally = Tally::default();
    if filters.is_empty() {
        lint::checks(&mut tally, &[]);
        tally.tests("unit tests", cargo().args(["test", "--workspace", "--no-fail-fast"]));
        let simulator = ["test", "--package", "datapath", "--features", "datapath/failpoints", "--test", "sim"];
        tally.tests("simulator", cargo().args(simulator).args(["--", "--nocapture"]));
        let sessions = "10 million sessions: found from both sides, expired, bytes each";
        tally.check(sessions, bench("session-table", &[]));
        tally.check("instructions per packet and per connection", instructions::run(false));
    }
    match demo::build().and_then(|()| demo::build_failpoints()) {
        Ok(()) => tally.tests("end to end", Command::new(target().join("release/e2e")).args(filters)),
        Err(message) => tally.check("release build", Err(message)),
    }
    tally.close()
}

/// A benchmark: name, example of `datapath`, arguments put before the caller's.
type Bench = (&'static str, &'static str, &'static [&'static str]);

/// Each with few and with many servers; what is not `rr` is told in parts of it.
const SCHEDULERS: &[&str] = &[
    "rr/1/10",
    "wrr/1/10",
    "lc/1/10",
    "wlc/1/10",
    "source-ip/1/10",
    "source-ip-port/1/10",
    "maglev/1/10",
    "persistence/1/10",
    "rr/1/1000",
    "wrr/1/1000",
    "lc/1/1000",
    "wlc/1/1000",
    "source-ip/1/1000",
    "source-ip-port/1/1000",
    "maglev/1/1000",
    "persistence/1/1000",
];

const BENCHES: &[Bench] = &[
    ("packet", "packet", &[]),
    ("session", "session", &[]),
    ("schedule", "session", SCHEDULERS),
    ("services", "session", &["rr/1/10", "rr/10000/10"]),
    ("session-table", "session_table", &[]),
];

/// Benchmarks of real processes: name, program of `tests`.
const WHOLE: &[(&str, &str)] = &[("users", "bench-users"), ("control", "bench-control")];

/// A benchmark by its name.
pub fn bench(name: &str, arguments: &[&str]) -> Outcome {
    if let Some((_, program)) = WHOLE.iter().find(|(known, _)| *known == name) {
        setup::run_all()?;
        demo::build()?;
        return demo::turn_into(program, arguments);
    }
    if name == "instructions" {
        return instructions::run(arguments.contains(&"--record"));
    }
    if wire::NAMES.contains(&name) {
        return wire::bench(name, arguments);
    }
    let Some((_, example, own)) = BENCHES.iter().find(|(known, ..)| *known == name) else {
        let known: Vec<&str> = BENCHES.iter().map(|(n, ..)| *n).chain(WHOLE.iter().map(|(n, _)| *n)).collect();
        return Err(format!(
            "no benchmark {name}; there are: {}, instructions, {}",
            known.join(", "),
            wire::NAMES.join(", ")
        ));
    };
    let mut command = cargo();
    command.args(["run", "--release", "--package", "datapath", "--example", example, "--"]);
    run_command(command.args(*own).args(arguments))
}

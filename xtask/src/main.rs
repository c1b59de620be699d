//! The single entrance: `cargo xtask setup | demo | test | bench | lint`.
//!
//! Depends on nothing but the standard library, so that it builds on a bare machine and can
//! install what everything else needs.
#![forbid(unsafe_code)]

mod demo;
mod instructions;
mod lint;
mod setup;
mod step;
mod systemd;
mod test;
mod wire;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask COMMAND

  setup                  install what is missing (apt), reserve hugepages; needs root
  demo [--keep] [--json] build, start the appliance between real servers and clients, show figures
                         --keep: stay up until Ctrl-C;  --json: the summary as JSON
  test [FILTER…]         everything that CI runs; with filters: only the end-to-end tests that match
  bench NAME [ARGS…]     a benchmark: packet session schedule services session-table instructions one-core io latency
                         control users
  lint [PART…]           formatting, clippy, documentation, systemd units: fmt clippy doc units

Exit status: 0 done, 1 failed, 2 wrong usage.";

/// What a command ends with: the message of what failed, already explained.
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["setup"] => setup::run(),
        ["demo", ref options @ ..] => demo::run(options),
        ["test", ref filters @ ..] => test::run(filters),
        ["bench", name, ref arguments @ ..] => test::bench(name, arguments),
        ["lint", ref parts @ ..] => lint::run(parts),
        ["--help" | "-h" | "help"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

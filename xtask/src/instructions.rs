//! `cargo xtask bench instructions`: counts of instructions, which are the same on a busy machine as on a quiet one, against those
//! recorded in `docs/performance/instructions.toml`. A change that makes a packet dearer is seen in the change itself.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::Outcome;
use crate::step::{cargo, root, say, target};

/// What is counted: name in the file, example of `datapath`, its arguments. Only its function `measured` counts.
const COUNTED: &[(&str, &str, &[&str])] = &[
    ("packet_tcp", "packet", &["--rounds", "9", "1000"]),
    ("packet_udp", "packet", &["--rounds", "9", "1000u"]),
    ("session", "session", &["--rounds", "2", "rr/1/1000"]),
];

/// How much more is a failure, and how much less is worth recording, in thousandths.
const SLACK: u64 = 20;

/// Counts and compares; with `record` writes the file anew.
pub fn run(record: bool) -> Outcome {
    let recorded = recorded()?;
    let mut file = HEAD.to_string();
    let mut failures = Vec::new();
    for (name, example, arguments) in COUNTED {
        let tenths = count(example, arguments)?;
        let (whole, tenth) = (tenths / 10, tenths % 10);
        let _infallible = writeln!(file, "{name} = {whole}.{tenth}");
        let before = recorded.iter().find(|(known, _)| known == name).map(|(_, tenths)| *tenths);
        say(&format!("{name}: {whole}.{tenth} instructions, recorded {}", before.map_or("none".into(), show)));
        match before {
            Some(before) if tenths * 1000 > before * (1000 + SLACK) => failures.push(format!(
                "{name} takes {} instructions, {} were recorded (2 % more are allowed)",
                show(tenths),
                show(before)
            )),
            Some(before) if tenths * 1000 < before * (1000 - SLACK) && !record => {
                say(&format!("{name} has become cheaper; hint: cargo xtask bench instructions --record"));
            }
            None if !record => failures.push(format!("{name} is not recorded")),
            _ => {}
        }
    }
    if record {
        return fs::write(path(), file).map_err(|error| format!("{}: {error}", path().display()));
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}; hint: find out why, or record it with a reason in the commit: cargo xtask bench instructions --record",
        failures.join("; ")
    ))
}

/// Instructions per packet or connection, in tenths.
fn count(example: &str, arguments: &[&str]) -> Result<u64, String> {
    crate::step::run(cargo().args(["build", "--release", "--package", "datapath", "--example", example]))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(format!("--toggle-collect={example}::measured"));
    command.arg(target().join("release/examples").join(example)).args(arguments).arg("--count");
    let output = command.output().map_err(|error| format!("valgrind: {error}; hint: cargo xtask setup"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}:\n{err}", output.status));
    }
    let done = out.trim().parse::<u64>().ok().filter(|done| *done > 0);
    let counted = err.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<u64>().ok());
    match (done, counted) {
        (Some(done), Some(counted)) if counted > 0 => Ok(counted * 10 / done),
        _ => Err(format!("{command:?} counted nothing:\n{out}{err}")),
    }
}

/// Names and tenths of instructions.
fn recorded() -> Result<Vec<(String, u64)>, String> {
    let text = fs::read_to_string(path()).map_err(|error| format!("{}: {error}", path().display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, number) = line.split_once('=').ok_or_else(|| format!("{}: {line:?}", path().display()))?;
            let tenths = number.trim().split_once('.').and_then(|(whole, tenth)| {
                Some(whole.parse::<u64>().ok()? * 10 + tenth.parse::<u64>().ok().filter(|tenth| *tenth < 10)?)
            });
            let tenths = tenths.ok_or_else(|| format!("{}: {line:?} has no number like 123.4", path().display()))?;
            Ok((name.trim().to_string(), tenths))
        })
        .collect()
}

fn show(tenths: u64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn path() -> PathBuf {
    root().join("docs/performance/instructions.toml")
}

const HEAD: &str = "\
# Instructions per packet of an established session, and per TCP connection from SYN to the expiry of its record, in the
# datapath alone (callgrind). `cargo xtask test` fails when one becomes more than 2 % dearer. To record anew, with the
# reason in the commit: cargo xtask bench instructions --record
";

//! `cargo xtask bench control`: what a change of the configuration costs control, and how that grows with the number of
//! services: a small and a large appliance side by side, real processes, interleaved rounds.
#![forbid(unsafe_code)]

mod report;
mod subject;

use tests::bench::machine;
use tests::interrupt;
use tests::{Error, Result};

use report::{Kind, Report};
use subject::Subject;

const USAGE: &str = "bench-control [--json] [--rounds N] [--services N] [--servers N]";

/// What is asked for.
#[derive(Clone, Copy)]
struct Options {
    json: bool,
    /// Rounds; each makes every kind of change once at each appliance.
    rounds: u32,
    /// Services of the large appliance; the small one has a hundredth.
    services: u32,
    /// Servers of each service.
    servers: u32,
}

fn main() {
    let options = options().unwrap_or_else(|word| {
        eprintln!("bench-control: {word:?}?\nusage: {USAGE}");
        std::process::exit(2);
    });
    let body = move |_: &interrupt::Interrupt| match run(options) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bench-control: {error}");
            1
        }
    };
    std::process::exit(interrupt::run(body, || eprintln!("\ninterrupted: cleaning up")));
}

fn options() -> std::result::Result<Options, String> {
    let mut options = Options { json: false, rounds: 30, services: 10_000, servers: 10 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|w| w.parse().ok()).filter(|n| *n > 0).ok_or(word.clone());
        match word.as_str() {
            "--json" => options.json = true,
            "--rounds" => options.rounds = number()?,
            "--services" => options.services = number()?,
            "--servers" => options.servers = number()?,
            _ => return Err(word),
        }
    }
    Ok(options)
}

fn run(options: Options) -> Result<()> {
    let say = |text: String| eprintln!("── {text}");
    let mut report = Report::new(machine());
    let mut subjects = Vec::new();
    for (name, services) in [("few", (options.services / 100).max(1)), ("many", options.services)] {
        say(format!("an appliance of {services} services × {} servers", options.servers));
        let mut subject = Subject::start(name, services, options.servers)?;
        subject.whole(&mut report)?;
        subjects.push(subject);
    }
    let [few, many] = &mut subjects[..] else { return Err(Error::claim("two appliances were made")) };
    say(format!("{} rounds of {} changes each", options.rounds, Kind::CHANGES.len()));
    for round in 0..options.rounds {
        for kind in Kind::CHANGES {
            few.change(kind, round, &mut report)?;
            many.change(kind, round, &mut report)?;
        }
        report.disk(few.disk()?);
    }
    for subject in &mut subjects {
        subject.rest(&mut report)?;
        subject.memory(&mut report)?;
        subject.restart(&mut report)?;
        subject.stop()?;
    }
    report.print(options.json);
    Ok(())
}

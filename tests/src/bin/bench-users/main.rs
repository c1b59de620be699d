//! `cargo xtask bench users`: what clients of a real nginx get through us, beside what they would use instead, and beside
//! testpmd that merely forwards over the same kind of link. All in one run, one at a time, in interleaved rounds.
#![forbid(unsafe_code)]

mod contender;
mod network;
mod report;
mod wrk;

use std::time::Duration;

use tests::bench::machine;
use tests::interrupt;
use tests::{Error, Result};

use contender::Contender;
use network::Network;
use report::Report;
use wrk::Kind;

const USAGE: &str = "bench-users [--json] [--rounds N] [--seconds N] [CONTENDER…]";

/// What is asked for.
#[derive(Clone)]
struct Options {
    json: bool,
    /// Each contender has its turn once a round.
    rounds: usize,
    /// Of each measurement.
    seconds: u64,
    /// Who takes part; empty: all.
    names: Vec<String>,
}

fn main() {
    let options = options().unwrap_or_else(|word| {
        let known: Vec<&str> = Contender::ALL.iter().map(|c| c.name()).collect();
        eprintln!("bench-users: {word:?}?\nusage: {USAGE}\ncontenders: {}", known.join(" "));
        std::process::exit(2);
    });
    let body = move |_: &interrupt::Interrupt| match run(&options) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bench-users: {error}");
            1
        }
    };
    std::process::exit(interrupt::run(body, || eprintln!("\ninterrupted: cleaning up")));
}

fn options() -> std::result::Result<Options, String> {
    let mut options = Options { json: false, rounds: 5, seconds: 2, names: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|w| w.parse::<u64>().ok()).filter(|n| *n > 0).ok_or(word.clone());
        match word.as_str() {
            "--json" => options.json = true,
            "--rounds" => options.rounds = usize::try_from(number()?).map_err(|_| word)?,
            "--seconds" => options.seconds = number()?,
            name if Contender::ALL.iter().any(|c| c.name() == name) => options.names.push(word),
            _ => return Err(word),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    let say = |text: &str| eprintln!("── {text}");
    let asked = |c: &&Contender| options.names.is_empty() || options.names.iter().any(|n| n == c.name());
    let mut report = Report::new(machine());
    let mut contenders = Vec::new();
    for contender in Contender::ALL.iter().filter(asked).copied() {
        match contender.missing() {
            None => contenders.push(contender),
            // Ours is never left out: without it there is nothing to compare.
            Some(what) if contender.is_ours() => return Err(Error::claim(what)),
            Some(what) => {
                say(&format!("{} is left out: {what}", contender.name()));
                report.left_out(contender, &what);
            }
        }
    }
    let mut network = Network::lay()?;
    let length = Duration::from_secs(options.seconds);
    for round in 0..options.rounds {
        // Another one begins each time.
        let turns = contenders.iter().cycle().skip(round % contenders.len().max(1)).take(contenders.len());
        for contender in turns {
            say(&format!("round {} of {}: {}", round + 1, options.rounds, contender.name()));
            let mut running = contender.start(&mut network)?;
            for kind in Kind::ALL {
                report.add(*contender, kind, running.measure(&network, kind, length)?);
            }
            running.stop(&mut network)?;
        }
    }
    report.print(options.json);
    Ok(())
}

//! The figures, as a table and as JSON lines.

use std::collections::BTreeMap;

use serde_json::json;
use tests::bench::Figures;

use crate::contender::{Contender, Measured};
use crate::wrk::Kind;

/// What ours must reach of testpmd that merely forwards.
const BAR: f64 = 0.9;

#[derive(Default)]
struct Line {
    rate: Figures,
    p50_us: Figures,
    p99_us: Figures,
    /// Of all processes and of the balancer's own, µs per request.
    cpu: Figures,
    balancer: Figures,
    /// CPUs that others kept busy.
    others: Figures,
    errors: u64,
    /// Rates in the order of rounds.
    rates: Vec<f64>,
}

/// All that was measured.
pub struct Report {
    machine: String,
    lines: BTreeMap<(Kind, Contender), Line>,
    left_out: Vec<(Contender, String)>,
}

impl Report {
    /// An empty one.
    pub fn new(machine: String) -> Self {
        Self { machine, lines: BTreeMap::new(), left_out: Vec::new() }
    }

    /// Somebody does not take part.
    pub fn left_out(&mut self, contender: Contender, why: &str) {
        self.left_out.push((contender, why.into()));
    }

    /// One more round.
    pub fn add(&mut self, contender: Contender, kind: Kind, measured: Measured) {
        let Measured { answer, balancer, all, others } = measured;
        let line = self.lines.entry((kind, contender)).or_default();
        line.rate.push(answer.rate);
        line.rates.push(answer.rate);
        line.p50_us.push(answer.p50_us);
        line.p99_us.push(answer.p99_us);
        #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
        let requests = answer.requests.max(1) as f64;
        line.cpu.push(all * 1e6 / requests);
        line.balancer.push(balancer * 1e6 / requests);
        line.others.push(others);
        line.errors += answer.errors;
    }

    /// Ratio to testpmd: of the medians, and the least and greatest of the rounds.
    fn ratio(&self, kind: Kind, line: &Line) -> Option<Figures> {
        let testpmd = self.lines.get(&(kind, Contender::Testpmd))?;
        let mut ratios = Figures::default();
        line.rates.iter().zip(&testpmd.rates).for_each(|(rate, of)| ratios.push(rate / of));
        Some(ratios)
    }

    /// Prints all.
    pub fn print(&self, json: bool) {
        if json { self.json() } else { self.table() }
    }

    fn json(&self) {
        println!("{}", json!({"machine": self.machine}));
        for (contender, why) in &self.left_out {
            println!("{}", json!({"contender": contender.name(), "left_out": why}));
        }
        for ((kind, contender), line) in &self.lines {
            println!(
                "{}",
                json!({"what": kind.text(), "contender": contender.name(), "rate": line.rate.json(),
                    "p50_us": line.p50_us.json(), "p99_us": line.p99_us.json(), "cpu_us_per_request": line.cpu.json(),
                    "balancer_cpu_us_per_request": line.balancer.json(), "others_cpus": line.others.json(), "errors": line.errors,
                    "of_testpmd": self.ratio(*kind, line).map(|r| r.json())})
            );
        }
    }

    fn table(&self) {
        println!("{}", self.machine);
        println!(
            "medians (least–most) of the rounds; CPU: µs per request of all processes, and of the balancer's own\n"
        );
        for (contender, why) in &self.left_out {
            println!("{} is left out: {why}", contender.name());
        }
        for kind in Kind::ALL {
            println!(
                "{:31} {:>24} {:>9} {:>9} {:>9} {:>9} {:>20} {:>7} {:>7}",
                kind.text(),
                "rate",
                "p50 µs",
                "p99 µs",
                "CPU",
                "its own",
                "of testpmd",
                "others",
                "errors"
            );
            for ((_, contender), line) in self.lines.iter().filter(|((of, _), _)| *of == kind) {
                let ratio = self.ratio(kind, line);
                let ratio =
                    ratio.map_or("–".into(), |r| format!("{:.2} ({:.2}–{:.2})", r.median(), r.least(), r.most()));
                let rate = format!("{:.0} ({:.0}–{:.0})", line.rate.median(), line.rate.least(), line.rate.most());
                println!(
                    "  {:29} {rate:>24} {:>9.0} {:>9.0} {:>9.1} {:>9.1} {ratio:>20} {:>7.2} {:>7}",
                    contender.name(),
                    line.p50_us.median(),
                    line.p99_us.median(),
                    line.cpu.median(),
                    line.balancer.median(),
                    line.others.median(),
                    line.errors
                );
            }
            println!();
        }
        for kind in Kind::ALL {
            let ours = self.lines.get(&(kind, Contender::Ours)).and_then(|line| self.ratio(kind, line));
            let Some(ours) = ours.filter(|r| r.count() > 0) else { continue };
            let word = if ours.median() >= BAR { "met" } else { "MISSED" };
            println!("ours / testpmd ≥ {BAR}, {}: {:.2}: {word}", kind.text(), ours.median());
        }
    }
}

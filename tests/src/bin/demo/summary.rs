//! What the demo prints: a table for people, the same as JSON for programs.

use std::fmt;

use serde::Serialize;
use tests::claims::zone_percent;
use tests::load::LoadReport;
use tests::views::Stats;

/// All figures of a run.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Every claim holds.
    pub ok: bool,
    /// Seconds since the command was given, with installing and building.
    pub seconds: f64,
    /// The TCP service.
    pub http: LoadReport,
    /// The UDP service.
    pub udp: LoadReport,
    /// Workers by zone.
    pub workers: Vec<Worker>,
    /// The conservation law.
    pub slots: Vec<Slot>,
    /// Frames the tap's kernel end gave and took, where it agrees with the slots.
    pub kernel: Option<(u64, u64)>,
    /// What was promised.
    pub claims: Vec<Claim>,
}

/// One worker's part.
#[derive(Debug, Serialize)]
pub struct Worker {
    /// Its zone.
    pub zone: u32,
    /// Share of the packets, percent.
    pub percent: f64,
}

/// One slot's law; `slot` is absent in the sum.
#[derive(Debug, Serialize)]
pub struct Slot {
    /// Number of the slot.
    pub slot: Option<u32>,
    /// `rx`.
    pub rx: u64,
    /// `tx`.
    pub tx: u64,
    /// `to_ring`: redirected to the owner of the session.
    pub to_ring: u64,
    /// Sum of all drop reasons, what the appliance answered itself included.
    pub drops: u64,
    /// rx + `from_ring` + `from_kernel` + originated.
    pub came: u64,
    /// tx + `to_ring` + `to_kernel` + drops + held.
    pub went: u64,
}

/// One promise.
#[derive(Debug, Serialize)]
pub struct Claim {
    /// What is promised.
    pub claim: String,
    /// Whether it is kept.
    pub holds: bool,
    /// If not: what was seen.
    pub detail: Option<String>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            ok: true,
            seconds: 0.0,
            http: LoadReport::default(),
            udp: LoadReport::default(),
            workers: Vec::new(),
            slots: Vec::new(),
            kernel: None,
            claims: Vec::new(),
        }
    }
}

impl Summary {
    /// Notes a promise.
    pub fn claim(&mut self, claim: &str, result: tests::Result<()>) {
        let detail = result.err().map(|error| error.to_string());
        self.ok &= detail.is_none();
        self.claims.push(Claim { claim: claim.into(), holds: detail.is_none(), detail });
    }

    /// Takes over the figures.
    pub fn fill(&mut self, http: LoadReport, udp: LoadReport, stats: &Stats) {
        self.workers = zone_percent(stats).into_iter().map(|(zone, percent)| Worker { zone, percent }).collect();
        let per_slot = stats.per_slot.iter().map(|s| (Some(s.slot), &s.counters));
        self.slots = per_slot
            .chain([(None, &stats.sum)])
            .map(|(slot, c)| {
                let (came, went) = c.sides();
                let drops = c.drops.values().sum();
                Slot { slot, rx: c.rx, tx: c.tx, to_ring: c.to_ring, drops, came, went }
            })
            .collect();
        (self.http, self.udp) = (http, udp);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<12}{:>10}{:>10}{:>11}{:>11}  by server", "", "requests", "answered", "p50 µs", "p99 µs")?;
        for (name, report) in [("HTTP  :80", &self.http), ("DNS   :53", &self.udp)] {
            write!(f, "{name:<12}{:>10}{:>10}", report.requested, report.ok)?;
            write!(f, "{:>11}{:>11} ", report.p50_us, report.p99_us)?;
            for (server, count) in &report.by_server {
                write!(f, " {server} {count}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\n{:<12}{:>10}", "worker", "packets %")?;
        for worker in &self.workers {
            writeln!(f, "zone {:<7}{:>10.1}", worker.zone, worker.percent)?;
        }
        writeln!(
            f,
            "\n{:<12}{:>10}{:>10}{:>10}{:>10}{:>12}{:>12}",
            "slot", "rx", "tx", "to_ring", "drops", "came", "went"
        )?;
        for slot in &self.slots {
            let name = slot.slot.map_or("sum".into(), |n| n.to_string());
            writeln!(
                f,
                "{name:<12}{:>10}{:>10}{:>10}{:>10}{:>12}{:>12}",
                slot.rx, slot.tx, slot.to_ring, slot.drops, slot.came, slot.went
            )?;
        }
        if let Some((gave, took)) = self.kernel {
            writeln!(f, "{:<12}{gave:>10}{took:>10}", "kernel end")?;
        }
        writeln!(f)?;
        for claim in &self.claims {
            writeln!(f, "{} {}", if claim.holds { "ok  " } else { "FAIL" }, claim.claim)?;
            if let Some(detail) = &claim.detail {
                writeln!(f, "     {detail}")?;
            }
        }
        Ok(())
    }
}

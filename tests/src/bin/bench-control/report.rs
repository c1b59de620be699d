//! The figures, as a table and as JSON lines.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tests::bench::Figures;

/// What is promised of a change among 10,000 services: visible to the slots within this, ms.
const BAR_MS: f64 = 10.0;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    CheckAll,
    ApplyAll,
    CheckFile,
    ApplyFile,
    Weight,
    Drain,
    RsAdd,
    RsDel,
    ServiceAdd,
    ServiceDel,
    Restart,
}

impl Kind {
    /// Single changes.
    pub const CHANGES: [Self; 6] =
        [Self::Weight, Self::Drain, Self::RsAdd, Self::RsDel, Self::ServiceAdd, Self::ServiceDel];

    fn text(self) -> &'static str {
        match self {
            Self::CheckAll => "config apply --dry-run, all new",
            Self::ApplyAll => "config apply, all new",
            Self::CheckFile => "config apply --dry-run, one weight",
            Self::ApplyFile => "config apply, one weight",
            Self::Weight => "rs set weight",
            Self::Drain => "rs drain",
            Self::RsAdd => "rs add",
            Self::RsDel => "rs del",
            Self::ServiceAdd => "service add",
            Self::ServiceDel => "service del",
            Self::Restart => "control killed and back",
        }
    }
}

/// What one took.
pub struct Cost {
    /// From the request to the answer.
    pub answered: Duration,
    /// From the request until every slot was seen to read it.
    pub visible: Duration,
    /// Of control's process, seconds, work behind the answer included.
    pub cpu: f64,
    /// Bytes that control wrote.
    pub written: u64,
}

#[derive(Default)]
struct Line {
    answered: Figures,
    visible: Figures,
    cpu: Figures,
    written: Figures,
}

/// All that was measured, by appliance (`few`, `many`).
pub struct Report {
    machine: String,
    lines: BTreeMap<(Kind, &'static str), Line>,
    rest: Vec<(&'static str, f64)>,
    memory: Vec<(&'static str, String, u64)>,
    disk: Figures,
}

impl Report {
    /// An empty one.
    pub fn new(machine: String) -> Self {
        Self { machine, lines: BTreeMap::new(), rest: Vec::new(), memory: Vec::new(), disk: Figures::default() }
    }

    /// One more round of one kind.
    pub fn add(&mut self, name: &'static str, kind: Kind, cost: &Cost) {
        let line = self.lines.entry((kind, name)).or_default();
        line.answered.push(cost.answered.as_secs_f64() * 1e3);
        line.visible.push(cost.visible.as_secs_f64() * 1e3);
        line.cpu.push(cost.cpu * 1e3);
        #[allow(clippy::cast_precision_loss, reason = "a count of bytes")]
        line.written.push(cost.written as f64);
    }

    /// CPUs that control uses at rest.
    pub fn rest(&mut self, name: &'static str, share: f64) {
        self.rest.push((name, share));
    }

    /// Bytes of something.
    pub fn memory(&mut self, name: &'static str, what: &str, bytes: u64) {
        self.memory.push((name, what.into(), bytes));
    }

    /// One more measurement of the disk.
    pub fn disk(&mut self, took: Duration) {
        self.disk.push(took.as_secs_f64() * 1e3);
    }

    /// Prints all.
    pub fn print(&self, json: bool) {
        if json { self.json() } else { self.table() }
    }

    fn json(&self) {
        println!("{}", json!({"machine": self.machine, "disk_ms": self.disk.json()}));
        for ((kind, name), line) in &self.lines {
            println!(
                "{}",
                json!({"what": kind.text(), "appliance": name, "answered_ms": line.answered.json(),
                    "visible_ms": line.visible.json(), "cpu_ms": line.cpu.json(), "written_bytes": line.written.json()})
            );
        }
        for (name, share) in &self.rest {
            println!("{}", json!({"what": "at rest", "appliance": name, "cpus": share}));
        }
        for (name, what, bytes) in &self.memory {
            println!("{}", json!({"what": what, "appliance": name, "bytes": bytes}));
        }
    }

    fn table(&self) {
        println!("{}", self.machine);
        println!(
            "the disk alone (1 KiB: write, sync, rename, sync of the folder): {:.2} ms ({:.2}–{:.2})\n",
            self.disk.median(),
            self.disk.least(),
            self.disk.most()
        );
        println!("ms: median (least–most) · many/few: ratio of medians");
        println!(
            "{:36} {:>5}  {:>26} {:>22} {:>22} {:>10}",
            "", "", "visible in all slots", "answered", "CPU", "written"
        );
        for ((kind, name), line) in &self.lines {
            let text = |f: &Figures| format!("{:.2} ({:.2}–{:.2})", f.median(), f.least(), f.most());
            println!(
                "{:36} {name:>5}  {:>26} {:>22} {:>22} {:>10.0}",
                kind.text(),
                text(&line.visible),
                text(&line.answered),
                text(&line.cpu),
                line.written.median()
            );
            if let Some(few) = self.lines.get(&(*kind, "few")).filter(|_| *name == "many") {
                println!(
                    "{:36} ratio  {:>26.2} {:>22.2} {:>22.2}",
                    "",
                    line.visible.median() / few.visible.median(),
                    line.answered.median() / few.answered.median(),
                    line.cpu.median() / few.cpu.median()
                );
            }
        }
        println!();
        for (name, share) in &self.rest {
            println!("{name:>5}: control at rest uses {:.3} % of a CPU", share * 100.0);
        }
        for (name, what, bytes) in &self.memory {
            #[allow(clippy::cast_precision_loss, reason = "for people")]
            let mib = *bytes as f64 / f64::from(1 << 20);
            println!("{name:>5}: {what}: {mib:.1} MiB");
        }
        let worst = Kind::CHANGES.iter().filter_map(|kind| self.lines.get(&(*kind, "many")));
        let worst = worst.map(|line| line.visible.median()).fold(0.0, f64::max);
        let word = if worst <= BAR_MS { "met" } else { "MISSED" };
        println!(
            "\na change is visible within {BAR_MS} ms: the slowest kind takes {worst:.2} ms in the median: {word}"
        );
    }
}

//! `stats`: what came in and what became of it, by slot; the law of DESIGN §4 in every answer.

use std::time::Duration;

use clap::Subcommand;
use control_api::method;
use control_api::views::{Asked, Counters, Stats};
use shm_layout::counters::DropReason;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::table::{Cell, Table, Tone};
use crate::tables;

/// Longest wait before the tables are read instead: whoever looks at counters while control hangs is in a hurry.
const PATIENCE: Duration = Duration::from_secs(3);

const SHOW_ABOUT: &str = "\
What came in and what became of it, by slot.

Every packet ends in exactly one counter, so at any instant and for each slot
  rx + from_ring + from_kernel + originated = tx + to_ring + to_kernel + held + drops.
`came` and `went` are the two sides, `balance` compares them. Reasons that begin with `handled_` are packets the \
appliance itself answered or took in. If lb-primary does not answer, the counters are read from the tables.";

/// Verbs of `stats`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// What came in and what became of it, by slot
    #[command(long_about = SHOW_ABOUT)]
    Show,
    /// Count from now on; the tables' own counters are not changed, nor what is forwarded
    Reset,
}

impl Verb {
    /// Carries it out.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn run(self, context: &mut Context) -> Result<Status, Failure> {
        match self {
            Self::Show => {
                context.set_patience(PATIENCE);
                let stats: Stats = match context.get(method::STATS_SHOW) {
                    Err(failure) if failure.is_unreachable() => tables::instead(context, failure, tables::stats)?,
                    other => other?,
                };
                let colour = context.out.colour;
                context.show(&stats, |stats| lines(stats, colour))?;
            }
            Self::Reset => {
                let asked: Asked = context.get(method::STATS_RESET)?;
                context.show(&asked, |asked| vec![format!("counting anew in {} slots", asked.slots)])?;
            }
        }
        Ok(Status::DONE)
    }
}

/// A counter of [`Counters`].
type Counter = (&'static str, fn(&Counters) -> u64);

const CAME: [Counter; 5] = [
    ("rx", |c| c.rx),
    ("from_ring", |c| c.from_ring),
    ("from_kernel", |c| c.from_kernel),
    ("originated", |c| c.originated),
    ("= came", |c| c.balance().0),
];
const WENT: [Counter; 6] = [
    ("tx", |c| c.tx),
    ("to_ring", |c| c.to_ring),
    ("to_kernel", |c| c.to_kernel),
    ("held", |c| c.held),
    ("drops", |c| c.drops.values().sum()),
    ("= went", |c| c.balance().1),
];
const MORE: [Counter; 5] = [
    ("rx_bytes", |c| c.rx_bytes),
    ("tx_bytes", |c| c.tx_bytes),
    ("sessions_created", |c| c.sessions_created),
    ("sessions_ended", |c| c.sessions_ended),
    ("sessions_refused", |c| c.sessions_refused),
];

fn lines(stats: &Stats, colour: bool) -> Vec<String> {
    let columns: Vec<&Counters> =
        std::iter::once(&stats.sum).chain(stats.per_slot.iter().map(|s| &s.counters)).collect();
    let slots = stats.per_slot.iter().map(|s| format!(">SLOT-{}/ZONE-{}", s.slot, s.zone));
    let heads: Vec<String> = [">SUM".to_owned()].into_iter().chain(slots).collect();

    let mut law = Table::new(["COUNTER".to_owned()].iter().chain(&heads));
    let counters = |table: &mut Table, rows: &[Counter]| {
        for (name, value) in rows {
            table.row([Cell::from(name)].into_iter().chain(columns.iter().map(|c| Cell::from(value(c)))));
        }
    };
    counters(&mut law, &CAME);
    counters(&mut law, &WENT);
    law.row([Cell::from("balance")].into_iter().chain(columns.iter().map(|c| verdict(c))));
    counters(&mut law, &MORE);

    let mut drops = Table::new(["DROPPED".to_owned()].iter().chain(&heads).chain([&"BECAUSE".to_owned()]));
    let mut reasons: Vec<(&String, &u64)> = stats.sum.drops.iter().filter(|(_, n)| **n > 0).collect();
    reasons.sort_by_key(|(name, n)| (std::cmp::Reverse(**n), *name));
    for (name, _) in &reasons {
        let counts = columns.iter().map(|c| Cell::from(c.drops.get(*name).copied().unwrap_or(0)));
        drops.row([Cell::from(name)].into_iter().chain(counts).chain([Cell::from(meaning(name))]));
    }
    let mut lines = law.lines(colour);
    if !reasons.is_empty() {
        lines.push(String::new());
        lines.extend(drops.lines(colour));
    }
    lines
}

/// Whether the law holds.
fn verdict(counters: &Counters) -> Cell {
    let (came, went) = counters.balance();
    if came == went {
        return Cell::toned("ok", Tone::Good);
    }
    let sign = if came > went { "missing" } else { "too many" };
    Cell::toned(format!("{} {sign}", came.abs_diff(went)), Tone::Bad)
}

fn meaning(name: &str) -> &'static str {
    DropReason::ALL.iter().find(|r| r.name() == name).map_or("", |r| r.describe()).trim()
}

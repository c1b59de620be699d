//! `worker`: worker processes and the slots they serve.

use clap::Subcommand;
use control_api::method;
use control_api::views::Worker;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::table::{Cell, Table, Tone};
use crate::text;

/// Verbs of `worker`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// Workers, a line for each slot: BUSY is the share of time in loops that had packets
    List,
}

impl Verb {
    /// Carries it out.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn run(self, context: &mut Context) -> Result<Status, Failure> {
        match self {
            Self::List => {
                let workers: Vec<Worker> = context.get(method::WORKER_LIST)?;
                context.show_table(&workers, |workers| table(workers))?;
            }
        }
        Ok(Status::DONE)
    }
}

fn table(workers: &[Worker]) -> Table {
    let mut table = Table::new([
        "WORKER",
        ">ZONE",
        "LANE",
        ">PID",
        "VERSION",
        "STATE",
        ">SLOT",
        ">CPU",
        ">HEARTBEAT",
        ">BUSY",
        ">SESSIONS",
    ]);
    for worker in workers {
        let tone = match worker.state.as_str() {
            "serving" => Tone::Good,
            "dead" | "hung" => Tone::Bad,
            _ => Tone::Poor,
        };
        let process = || {
            [
                Cell::from(format!("{}{}", worker.zone, worker.lane)),
                Cell::from(worker.zone),
                Cell::from(&worker.lane),
                Cell::from(worker.pid),
                Cell::from(&worker.version),
                Cell::toned(&worker.state, tone),
            ]
        };
        for slot in &worker.slots {
            table.row(process().into_iter().chain([
                Cell::from(slot.slot),
                Cell::from(slot.cpu),
                Cell::from(text::span(slot.heartbeat_ms)),
                Cell::from(text::percent(slot.busy_ratio)),
                Cell::from(slot.sessions),
            ]));
        }
        if worker.slots.is_empty() {
            table.row(process().into_iter().chain([(); 5].map(|()| Cell::from("-"))));
        }
    }
    table
}

//! `worker`: worker processes and the slots they serve.

use std::path::PathBuf;

use clap::Subcommand;
use control_api::method;
use control_api::views::Worker;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::table::{Cell, Table, Tone};
use crate::{text, upgrade};

/// Verbs of `worker`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// Workers, a line for each slot: BUSY is the share of time in loops that had packets
    List,
    /// Starts a successor beside the zone's worker, which hands its slots over: no packet is lost, no connection broken
    ///
    /// The old worker stands by for some seconds. It takes the slots back when the successor dies or drops more packets.
    Upgrade {
        /// Zone
        zone: u32,
        /// The successor's program [default: what is installed now where the old one was started from]
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
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
                let degraded = workers.iter().find_map(|w| w.degraded.as_deref());
                let degraded = degraded.or(workers.is_empty().then_some("no worker: nothing is forwarded"));
                context.warn(degraded.map(|why| format!("degraded: {why}")));
                context.show_table(&workers, |workers| table(workers))?;
            }
            Self::Upgrade { zone, binary } => {
                let done = upgrade::run(context, zone, binary.as_deref())?;
                context.show(&done, |done| {
                    let (from, to) = (&done.from, &done.to);
                    vec![format!(
                        "zone {zone}: process {} (lane {}, {}) has relieved process {} (lane {}, {}), slots {:?}, in {} ms with its trial",
                        to.pid, to.lane, to.version, from.pid, from.lane, from.version, done.slots, done.took_ms
                    )]
                })?;
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

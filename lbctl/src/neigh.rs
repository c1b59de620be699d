//! `neigh`: next hops and their MACs.

use clap::Subcommand;
use control_api::method;
use control_api::params::Paging;
use control_api::views::Neigh;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::table::{Cell, Table, Tone};
use crate::text;

/// Verbs of `neigh`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// Next hops with MAC, state and the age of their last answer
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
                let neighbours: Vec<Neigh> = context.list(method::NEIGH_LIST, &Paging::default())?;
                context.show_table(&neighbours, |neighbours| table(neighbours))?;
            }
        }
        Ok(Status::DONE)
    }
}

fn table(neighbours: &[Neigh]) -> Table {
    let mut table = Table::new(["ADDRESS", "PORT", "MAC", "STATE", ">CONFIRMED"]);
    for neighbour in neighbours {
        let tone = match neighbour.state.as_str() {
            "reachable" => Tone::Good,
            "failed" => Tone::Bad,
            _ => Tone::Poor,
        };
        table.row([
            Cell::from(&neighbour.address),
            Cell::from(&neighbour.port),
            Cell::maybe(neighbour.mac.as_ref()),
            Cell::toned(&neighbour.state, tone),
            Cell::maybe(neighbour.confirmed_ms.map(|ms| format!("{} ago", text::span(ms)))),
        ]);
    }
    table
}

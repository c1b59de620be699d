//! `laddr`: local addresses, the sources FullNAT gives to sessions.

use clap::Subcommand;
use control_api::method;
use control_api::views::Laddr;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::table::{Cell, Table, Tone};

const ABOUT: &str = "\
Local addresses and how many of their ports are left.

A port is unique for each real server, so it serves as many servers as there are. TIGHTEST is the server towards which \
the fewest ports are free, with ports used and free; MISSES counts new sessions refused for want of a port. Many misses: \
add addresses ([[laddr]]).";

/// Verbs of `laddr`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// Local addresses and how many of their ports are left
    #[command(long_about = ABOUT)]
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
                let locals: Vec<Laddr> = context.get(method::LADDR_LIST)?;
                context.show_table(&locals, |locals| table(locals))?;
            }
        }
        Ok(Status::DONE)
    }
}

fn table(locals: &[Laddr]) -> Table {
    let mut table = Table::new(["ADDRESS", "PORT", ">SESSIONS", ">MISSES", "TIGHTEST", ">USED", ">FREE"]);
    for local in locals {
        let tightest = local.tightest.as_ref();
        let free = tightest.map_or_else(
            || Cell::from("-"),
            |t| Cell::toned(t.free, if t.free * 10 < t.used + t.free { Tone::Bad } else { Tone::Plain }),
        );
        table.row([
            Cell::from(if local.removed { format!("{} (removed)", local.address) } else { local.address.clone() }),
            Cell::from(&local.port),
            Cell::from(local.used),
            Cell::toned(local.misses, if local.misses == 0 { Tone::Plain } else { Tone::Poor }),
            Cell::maybe(tightest.map(|t| &t.rs)),
            Cell::maybe(tightest.map(|t| t.used)),
            free,
        ]);
    }
    table
}

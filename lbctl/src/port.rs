//! `port`: NICs and virtual devices.

use clap::Subcommand;
use control_api::method;
use control_api::views::Port;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::table::{Cell, Table, Tone};

const ABOUT: &str = "\
Ports with their link, mode, steering and counters.

MODE      rtc: workers poll it; pipeline: the primary polls it, and it stops with the primary
STEERING  how both directions of a session reach one slot: flow-rule, rss-port, redirect, driver
MISSED    packets the NIC had no descriptor for; NOMBUF: packets there was no buffer for
LINK      of a virtual device it is only shown, never acted upon";

/// Verbs of `port`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// Ports with their link, mode, steering and counters
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
                let ports: Vec<Port> = context.get(method::PORT_LIST)?;
                context.warn(ports.iter().find_map(|p| p.degraded.as_ref()).map(|why| format!("degraded: {why}")));
                context.show_table(&ports, |ports| table(ports))?;
            }
        }
        Ok(Status::DONE)
    }
}

fn table(ports: &[Port]) -> Table {
    let mut table = Table::new([
        "NAME",
        "DEVICE",
        "MAC",
        "LINK",
        "MODE",
        "STEERING",
        ">QUEUES",
        ">RX",
        ">TX",
        ">MISSED",
        ">NOMBUF",
        ">MBUFS-FREE",
    ]);
    let lost = |n: u64| Cell::toned(n, if n == 0 { Tone::Plain } else { Tone::Poor });
    for port in ports {
        table.row([
            Cell::from(&port.name),
            Cell::from(&port.device),
            Cell::from(&port.mac),
            Cell::from(&port.link),
            Cell::from(&port.mode),
            Cell::from(&port.steering),
            Cell::from(port.queues),
            Cell::from(port.rx_packets),
            Cell::from(port.tx_packets),
            lost(port.rx_missed),
            lost(port.rx_nombuf),
            Cell::from(port.mbufs_free),
        ]);
    }
    table
}

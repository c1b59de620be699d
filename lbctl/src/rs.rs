//! `rs`: real servers, addressed as SERVICE RS.

use clap::{Args, Subcommand};
use control_api::method;
use control_api::params::{RsAdd, RsDel, RsList, RsName, RsSet};
use control_api::views::{Changed, Health, Rs};

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::service::changed_service;
use crate::table::{Cell, Table, Tone};
use crate::text;

const EXAMPLES: &str = "\
Examples:
  lbctl rs add web 10.0.0.23:8080 --weight 2
  lbctl rs drain web 10.0.0.21:8080                   before maintenance: no new sessions, the old ones go on
  lbctl rs disable web 10.0.0.21:8080                 now: the old ones are ended too
  lbctl rs enable web 10.0.0.21:8080";

/// Verbs of `rs`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB", after_help = EXAMPLES)]
pub enum Verb {
    /// Real servers with weight, state, health and traffic
    List {
        /// Of this service alone
        service: Option<String>,
    },
    /// A new real server
    Add {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change weight or admin state; nothing moves an established session
    Set {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove a real server: it drains and is gone with its last session
    Del {
        #[command(flatten)]
        name: Name,
        /// End its sessions now (reset to both ends)
        #[arg(long)]
        now: bool,
    },
    /// Let it take new sessions
    Enable {
        #[command(flatten)]
        name: Name,
    },
    /// No new sessions, and end the old ones (reset to both ends)
    Disable {
        #[command(flatten)]
        name: Name,
    },
    /// No new sessions; the old ones go on
    Drain {
        #[command(flatten)]
        name: Name,
    },
}

/// A real server's name.
#[derive(Debug, Args)]
pub struct Name {
    /// Name of the service
    service: String,
    /// Address and port of the real server, as in the configuration
    #[arg(value_name = "RS")]
    rs: String,
}

/// The keys of `[[service.rs]]` as options.
#[derive(Debug, Args)]
pub struct Settings {
    /// Share among its peers (default 1); 0: no new sessions
    #[arg(long, value_name = "N")]
    weight: Option<u16>,
    /// enabled, drain or disabled
    #[arg(long, value_name = "STATE")]
    admin: Option<String>,
}

impl Settings {
    fn keys(self) -> Vec<(String, String)> {
        let keys = [("weight", self.weight.map(|n| n.to_string())), ("admin", self.admin)];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

impl Verb {
    /// Carries it out.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn run(self, context: &mut Context) -> Result<Status, Failure> {
        match self {
            Self::List { service } => {
                let servers: Vec<Rs> = context.list(method::RS_LIST, &RsList { service, ..RsList::default() })?;
                let degraded = servers.iter().find_map(|s| s.degraded.as_ref());
                context.warn(degraded.map(|why| format!("degraded: {why}")));
                context.show_table(&servers, |servers| table(servers))?;
            }
            Self::Add { name: Name { service, rs }, settings } => {
                let what = format!("rs {rs} of {service} added");
                let changed = context.call(method::RS_ADD, &RsAdd { service, rs, keys: settings.keys() })?;
                changed_service(context, &changed, &what)?;
            }
            Self::Set { name: Name { service, rs }, settings } => {
                let keys = settings.keys();
                if keys.is_empty() {
                    return Err(crate::usage::nothing_to_set("rs set", "--weight 2"));
                }
                let what = format!("rs {rs} of {service} changed");
                let changed = context.call(method::RS_SET, &RsSet { service, rs, keys })?;
                changed_service(context, &changed, &what)?;
            }
            Self::Del { name: Name { service, rs }, now } => {
                let how = if now { "its sessions ended" } else { "gone with its last session" };
                let what = format!("rs {rs} of {service} removed, {how}");
                let changed = context.call(method::RS_DEL, &RsDel { service, rs, now })?;
                changed_service(context, &changed, &what)?;
            }
            Self::Enable { name } => state(context, method::RS_ENABLE, name, "enabled")?,
            Self::Disable { name } => state(context, method::RS_DISABLE, name, "disabled, its sessions ended")?,
            Self::Drain { name } => state(context, method::RS_DRAIN, name, "drains: no new sessions")?,
        }
        Ok(Status::DONE)
    }
}

fn state(context: &mut Context, method: &str, name: Name, how: &str) -> Result<(), Failure> {
    let Name { service, rs } = name;
    let what = format!("rs {rs} of {service} {how}");
    let changed: Changed = context.call(method, &RsName { service, rs })?;
    changed_service(context, &changed, &what)
}

/// Whether new sessions may go to it.
pub fn takes_sessions(rs: &Rs) -> bool {
    !rs.removed && rs.admin == "enabled" && rs.health != Health::Down && rs.weight > 0
}

/// The table of `rs list` and of `service show`.
pub fn table(servers: &[Rs]) -> Table {
    let mut table = Table::new([
        ">ID",
        "SERVICE",
        "ADDRESS",
        ">WEIGHT",
        "ADMIN",
        "HEALTH",
        ">SESSIONS",
        ">TOTAL",
        ">PKTS-IN",
        ">PKTS-OUT",
        ">BYTES-IN",
        ">BYTES-OUT",
        "LAST-CHECK-ERROR",
    ]);
    for rs in servers {
        let (admin, tone) = match rs.admin.as_str() {
            _ if rs.removed => ("removed", Tone::Poor),
            "enabled" => ("enabled", Tone::Plain),
            other => (other, Tone::Poor),
        };
        let health = match rs.health {
            Health::Up => Tone::Good,
            Health::Unknown => Tone::Plain,
            Health::Panic => Tone::Poor,
            Health::Down => Tone::Bad,
        };
        table.row([
            Cell::from(rs.id),
            Cell::from(&rs.service),
            Cell::from(&rs.address),
            Cell::from(rs.weight),
            Cell::toned(admin, tone),
            Cell::toned(rs.health.as_str(), health),
            Cell::from(rs.sessions),
            Cell::from(rs.sessions_total),
            Cell::from(rs.packets_in),
            Cell::from(rs.packets_out),
            Cell::from(text::bytes(rs.bytes_in)),
            Cell::from(text::bytes(rs.bytes_out)),
            Cell::maybe(rs.last_check_error.as_ref()),
        ]);
    }
    table
}

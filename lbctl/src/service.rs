//! `service`: virtual services.

use clap::{Args, Subcommand};
use control_api::method;
use control_api::params::{Keys, ServiceAdd, ServiceDel, ServiceList, ServiceSet};
use control_api::views::{Changed, ConfigExport, Service};

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::rs;
use crate::table::{Cell, Table, Tone, pairs};
use crate::text;

const ADD_EXAMPLES: &str = "\
Examples:
  lbctl service add web --vip 10.0.0.100:80 --health type=http --health path=/healthz
  lbctl service add dns --vip 10.0.0.100:53 --protocol udp --scheduler wrr --timeout udp=10s
  lbctl rs add web 10.0.0.21:8080                     then give it servers";

const SET_EXAMPLES: &str = "\
Examples:
  lbctl service set web --scheduler wrr               established sessions stay where they are
  lbctl service set web --health interval=5s --health fall=2
  lbctl service set web --timeout established=        back to the default";

/// Verbs of `service`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// Services with their traffic; RS counts the servers that may take new sessions, of all
    List,
    /// One service: its settings, its traffic, its servers
    Show {
        /// Name of the service
        service: String,
    },
    /// A new service, without servers
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// Name of the service
        service: String,
        /// Address and port clients use
        #[arg(long, value_name = "ADDR:PORT")]
        vip: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change settings of a service; nothing moves an established session
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// Name of the service
        service: String,
        /// New address and port
        #[arg(long, value_name = "ADDR:PORT")]
        vip: Option<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove a service: it takes no new sessions and is gone with the last
    Del {
        /// Name of the service
        service: String,
        /// End its sessions now (reset to both ends)
        #[arg(long)]
        now: bool,
    },
}

/// The keys of `[[service]]` as options. Values are those of the configuration file, checked by the daemon; an empty value
/// takes the key back to its default.
#[derive(Debug, Args)]
pub struct Settings {
    /// tcp or udp
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// fullnat
    #[arg(long)]
    mode: Option<String>,
    /// rr, wrr, lc, wlc, source-ip, source-ip-port or maglev
    #[arg(long)]
    scheduler: Option<String>,
    /// How long a client address keeps its server, such as 5m
    #[arg(long, value_name = "DURATION")]
    persistence: Option<String>,
    /// Bits of the client address that keep a server together, such as 24
    #[arg(long, value_name = "BITS")]
    persistence_prefix: Option<String>,
    /// Secret of the choices by hash, the same on all nodes of a cluster
    #[arg(long, value_name = "TEXT")]
    hash_key: Option<String>,
    /// Every datagram is scheduled for itself, without a session (udp; dr and tunnel): true or false
    #[arg(long, value_name = "BOOL")]
    one_packet: Option<String>,
    /// How the server learns the client's address
    #[arg(long, value_name = "HOW")]
    client_address: Option<String>,
    /// Answer SYNs by cookie: true or false
    #[arg(long, value_name = "BOOL")]
    syn_proxy: Option<String>,
    /// Most sessions at a time; 0: no limit
    #[arg(long, value_name = "N")]
    max_sessions: Option<String>,
    /// Wrapping of mode tunnel
    #[arg(long, value_name = "KIND")]
    tunnel: Option<String>,
    /// on or off: whether a pool that goes down at once is doubted for a while
    #[arg(long, value_name = "ON")]
    panic: Option<String>,
    /// A key of the checks: type, interval, timeout, rise, fall, fast_interval, path, host, expect, send, port
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    health: Vec<(String, String)>,
    /// An idle time by state: established, udp, syn_sent, syn_recv, fin_wait, close_wait, last_ack, time_wait, close
    #[arg(long, value_name = "STATE=DURATION", value_parser = key_value)]
    timeout: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a key and a value with = between, such as interval=2s")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Settings {
    fn keys(self, vip: Option<String>) -> Keys {
        let single = [
            ("vip", vip),
            ("protocol", self.protocol),
            ("mode", self.mode),
            ("tunnel", self.tunnel),
            ("scheduler", self.scheduler),
            ("persistence", self.persistence),
            ("persistence_prefix", self.persistence_prefix),
            ("hash_key", self.hash_key),
            ("one_packet", self.one_packet),
            ("client_address", self.client_address),
            ("syn_proxy", self.syn_proxy),
            ("max_sessions", self.max_sessions),
            ("panic", self.panic),
        ];
        let single = single.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let inner = |table: &'static str| move |(key, value): (String, String)| (format!("{table}.{key}"), value);
        let health = self.health.into_iter().map(inner("health"));
        let timeouts = self.timeout.into_iter().map(inner("timeouts"));
        single.chain(health).chain(timeouts).collect()
    }
}

impl Verb {
    /// Carries it out.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn run(self, context: &mut Context) -> Result<Status, Failure> {
        match self {
            Self::List => list(context)?,
            Self::Show { service } => show(context, &service)?,
            Self::Add { service, vip, settings } => {
                let params = ServiceAdd { service: service.clone(), keys: settings.keys(Some(vip)) };
                let changed = context.call(method::SERVICE_ADD, &params)?;
                changed_service(context, &changed, &format!("service {service} added"))?;
            }
            Self::Set { service, vip, settings } => {
                let keys = settings.keys(vip);
                if keys.is_empty() {
                    return Err(crate::usage::nothing_to_set("service set", "--scheduler wrr"));
                }
                let changed = context.call(method::SERVICE_SET, &ServiceSet { service: service.clone(), keys })?;
                changed_service(context, &changed, &format!("service {service} changed"))?;
            }
            Self::Del { service, now } => {
                let changed = context.call(method::SERVICE_DEL, &ServiceDel { service: service.clone(), now })?;
                let how = if now { "removed, its sessions ended" } else { "removed, gone with its last session" };
                changed_service(context, &changed, &format!("service {service} {how}"))?;
            }
        }
        Ok(Status::DONE)
    }
}

/// Says what was done, with the generation that has it.
pub fn changed_service(context: &mut Context, changed: &Changed, what: &str) -> Result<(), Failure> {
    context.warn(&changed.warnings);
    let what = match changed.id {
        Some(id) => format!("{what} (id {id}, generation {})", changed.generation),
        None => format!("{what} (generation {})", changed.generation),
    };
    context.show(changed, |_| vec![what])
}

fn list(context: &mut Context) -> Result<(), Failure> {
    let services: Vec<Service> = context.list(method::SERVICE_LIST, &ServiceList::default())?;
    context.warn(services.iter().find_map(|s| s.degraded.as_ref()).map(|why| format!("degraded: {why}")));
    context.show_table(&services, |services| {
        let mut table = Table::new([
            "NAME",
            "VIP",
            "PROTO",
            "MODE",
            "SCHED",
            ">RS",
            ">SESSIONS",
            ">TOTAL",
            ">PKTS-IN",
            ">PKTS-OUT",
            ">BYTES-IN",
            ">BYTES-OUT",
        ]);
        for s in services {
            table.row([
                Cell::from(if s.removed { format!("{} (removed)", s.name) } else { s.name.clone() }),
                Cell::from(&s.vip),
                Cell::from(&s.protocol),
                Cell::from(&s.mode),
                Cell::from(&s.scheduler),
                takers(s),
                Cell::from(s.sessions),
                Cell::from(s.sessions_total),
                Cell::from(s.packets_in),
                Cell::from(s.packets_out),
                Cell::from(text::bytes(s.bytes_in)),
                Cell::from(text::bytes(s.bytes_out)),
            ]);
        }
        table
    })
}

/// `2/3`: servers that may take new sessions, of all.
fn takers(service: &Service) -> Cell {
    let all = service.rs.iter().filter(|rs| !rs.removed).count();
    let able = service.rs.iter().filter(|rs| rs::takes_sessions(rs)).count();
    let tone = match able {
        0 => Tone::Bad,
        n if n < all => Tone::Poor,
        _ => Tone::Good,
    };
    Cell::toned(format!("{able}/{all}"), tone)
}

fn show(context: &mut Context, name: &str) -> Result<(), Failure> {
    let params = ServiceList { service: Some(name.to_owned()), ..ServiceList::default() };
    let mut found: Vec<Service> = context.list(method::SERVICE_LIST, &params)?;
    let Some(at) = found.iter().position(|s| s.name == name) else {
        return Err(Failure::failed(format!("there is no service \"{name}\""), "`lbctl service list` names all"));
    };
    let service = found.swap_remove(at);
    if context.json() {
        return context.show_json(&service);
    }
    let export: ConfigExport = context.get(method::CONFIG_EXPORT)?;
    let removed = service.removed.then(|| vec!["removed: gone with its last session".to_owned()]);
    let settings = settings_of(&export.text, name).or(removed).unwrap_or_default();
    let traffic = pairs(&[
        (
            "sessions",
            format!("{} now, {} in all, {} refused", service.sessions, service.sessions_total, service.refused),
        ),
        ("in", format!("{} packets, {}", service.packets_in, text::bytes(service.bytes_in))),
        ("out", format!("{} packets, {}", service.packets_out, text::bytes(service.bytes_out))),
    ]);
    let colour = context.out.colour;
    let servers = rs::table(&service.rs).lines(colour);
    let empty = [String::new()];
    for line in settings.iter().chain(&empty).chain(&traffic).chain(&empty).chain(&servers) {
        context.out.line(line)?;
    }
    Ok(())
}

/// The lines of a service's own keys in an exported configuration, whose tables are parted by empty lines.
fn settings_of(export: &str, name: &str) -> Option<Vec<String>> {
    let named = format!("name = \"{name}\"");
    let table = export.split("\n\n").find(|table| {
        let mut lines = table.lines();
        lines.next() == Some("[[service]]") && lines.any(|line| line == named)
    })?;
    Some(table.lines().skip(1).map(str::to_owned).collect())
}

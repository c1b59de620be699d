//! Control: configuration, journal, publication, admin socket, neighbours, targets for the health-checker.
//!
//! `lbctl → admin socket → validate → plan → stage → journal → commit → workers see it at their next burst`. It may crash
//! or be replaced at any time: what it knows stands in the journal and in the tables, and workers go on without it.

mod admin;
mod change;
mod core;
mod deadline;
mod dispatch;
mod facts;
mod journal;
mod neighbour;
mod node;
mod pass;
mod peers;
mod plan;
mod register;
mod rings;
mod rollback;
mod services;
mod sessions;
#[cfg(test)]
mod size_tests;
mod start;
mod stats;
mod targets;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod time;
#[cfg(test)]
mod trial_tests;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::{Config, SystemFacts};
use control_api::ApiError;
use packet::Mac;
use shm_layout::SegmentError;
use shm_layout::clock::now_ms;
use shm_layout::learn::Learner;
use shm_layout::neighbours::{Neighbours, from_std};
use shm_layout::published::Published;
use shm_layout::slot::Slot;

use self::core::{Core, Tables};
use admin::Admin;
pub use facts::{PORT_STATS, PortFacts, PortStats};
use neighbour::{Neighbourhood, PortNet, longest_timeout};
use peers::Peers;
use rings::{Rings, SlotRings};
pub use start::Prefer;
pub use start::{StartError, start_config};
use targets::Targets;

/// What control is started with.
#[derive(Debug)]
pub struct ControlArgs {
    /// The configuration file.
    pub config_path: PathBuf,
    /// Which configuration wins.
    pub prefer: Prefer,
    /// The holder's facts, one per configured port.
    pub ports: Vec<PortFacts>,
    /// The journal's folder, as the holder has it; `None`: as the file says.
    pub state_dir: Option<PathBuf>,
}

/// Longest time between two looks at what is due.
const TURN: Duration = Duration::from_millis(100);

/// Control could not start.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Tables(#[from] SegmentError),
    #[error("{}", .0.message)]
    Refused(Box<ApiError>),
    #[error("the holder knows {found} ports, the configuration has {wanted}; hint: restart lb-primary")]
    Ports { found: usize, wanted: usize },
    #[error("{what}: {source}")]
    System { what: String, source: std::io::Error },
}

impl From<ApiError> for ControlError {
    fn from(error: ApiError) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl ControlError {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Start(error) => error.exit_status(),
            Self::Refused(error) if error.exit_status() == 4 => 4,
            _ => 1,
        }
    }
}

/// Runs until SIGTERM (status 0). Status 4: the configuration is refused; 1: it cannot start or go on.
#[must_use]
pub fn run(args: ControlArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("control: {error}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn serve(args: ControlArgs) -> Result<(), ControlError> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |source| ControlError::System { what, source }
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(system("signals"))?;
    }
    let machine = SystemFacts::read();
    let chosen = start::choose(&args.config_path, args.prefer, args.state_dir.as_deref(), &machine)?;
    let config = &chosen.config;
    if args.ports.len() != config.ports.len() {
        return Err(ControlError::Ports { found: args.ports.len(), wanted: config.ports.len() });
    }
    say_differences(&chosen);
    let (run_dir, socket) = (config.node.run_dir(), config.node.socket());
    let tables = open_tables(config)?;
    let mut core = Core::open(chosen, args.config_path, &args.ports, tables, Box::new(machine))?;
    core.rings = Some(start_rings(&core, &args.ports).map_err(system("neighbour thread"))?);
    core.pin_neighbours();
    let mut admin = Admin::bind(&socket).map_err(system(&format!("admin socket {}", socket.display())))?;
    let peers = Peers::listen(&run_dir).map_err(|error| log::warn!("no links to workers: {error}")).ok();
    if let Some(peers) = peers.clone() {
        core.announce = Box::new(move |generation| peers.announce(generation));
    }
    core.tick();
    // From here on the holder may say that the appliance is up.
    core.tables.published.root.control_pid.store(std::process::id().into(), Ordering::Release);
    while !stop.load(Ordering::Relaxed) {
        admin.turn(&mut core, TURN);
        core.tick();
        if let Some(peers) = &peers {
            peers.listen_once();
        }
        if !core.rings.as_ref().is_some_and(Rings::alive) {
            let source = std::io::Error::other("it ended; a new control takes over");
            return Err(ControlError::System { what: "neighbour thread".into(), source });
        }
    }
    let Core { journal, entry, .. } = &mut core;
    journal.close(entry);
    log::info!("control ends; workers go on with generation {}", core.entry.generation);
    Ok(())
}

/// The file wins over a journal that has something else: what is lost by that is said.
fn say_differences(chosen: &start::Chosen) {
    if let (Some(entry), Some(_)) = (&chosen.entry, &chosen.file) {
        log::info!("configuration from the file; the journal's generation {} differs:", entry.generation);
        for change in config::diff(&entry.config(), &chosen.config) {
            log::info!("  {change}");
        }
    }
}

fn open_tables(config: &Config) -> Result<Tables, SegmentError> {
    let (run_dir, folder) = (config.node.run_dir(), config.node.tables_dir());
    let published = Published::open(&folder, true)?;
    let slots = u32::try_from(config.slot_homes().len()).unwrap_or(u32::MAX);
    let (servers, services) = (published.geometry.servers, published.geometry.services);
    Ok(Tables {
        neighbours: Neighbours::open(&folder, true)?,
        slots: (0..slots).map(|slot| Slot::open(&folder, slot, true)).collect::<Result<_, _>>()?,
        targets: Targets::open(&config.node.board_name(), &run_dir, servers, services)?,
        published,
    })
}

fn start_rings(core: &Core, facts: &[PortFacts]) -> std::io::Result<Rings> {
    let config = &core.entry.skeleton;
    let port = |(port, facts): (&config::Port, &PortFacts)| PortNet {
        mac: Mac(facts.mac),
        vlan: port.vlan,
        addresses: port.addresses.iter().map(|a| (from_std(a.address), a.prefix_as_v6())).collect(),
        gateways: port.gateways.iter().map(|g| from_std(*g)).collect(),
    };
    let ports = config.ports.iter().zip(facts).map(port).collect();
    let homes = config.slot_homes();
    let slots = core.tables.slots.iter().zip(&homes);
    let slots =
        slots.map(|(slot, home)| SlotRings { port: u8::try_from(home.port).unwrap_or(u8::MAX), slot: slot.clone() });
    let learner = Learner::attach(core.tables.neighbours.clone());
    let neighbours = Neighbourhood::new(learner, ports, longest_timeout(&core.entry.register), now_ms());
    Rings::start(slots.collect(), neighbours)
}

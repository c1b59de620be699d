//! The holder: DPDK's primary. Owns EAL, ports, pools and the shared files; watches workers and control; forwards nothing.
//!
//! Start: lock → nobody of an earlier start lives → memory is there → mount, tables → EAL → ports → control → ready.
//! Stop: workers → control → ports → EAL. Tables and mount stay: sessions outlive the appliance.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use dpdk::{Eal, EalArgs, Locks, ProcType};
use links::messages::{ControlSays, HolderTells, WorkerSays};
use links::{Hello, Link, Listener, Pending, Role, service};
use signal_hook::consts::{SIGINT, SIGTERM};

pub mod child;
mod error;
pub mod geometry;
mod hang;
pub mod plan;
mod ports;
mod preflight;
mod segments;
#[cfg(test)]
mod tests;
mod workers;

use crate::control::{PORT_STATS, Prefer};
use child::Control;
use error::HolderError;
use plan::HolderPlan;
use ports::HeldPort;
use preflight::Lock;
use segments::Segments;
use workers::Workers;

/// Time between two looks at everything.
const TICK: Duration = Duration::from_millis(100);
/// Time between two writings of the port statistics.
const STATISTICS: Duration = Duration::from_secs(1);
/// Controls that may end without having published before the start is given up.
const FIRST_TRIES: u32 = 3;

/// What the holder waits for.
#[derive(Debug)]
pub enum Event {
    /// A peer said hello.
    Arrived(Pending),
    /// A worker says something; `None`: it closed the link.
    WorkerSaid(u32, Option<WorkerSays>),
    /// The kernel says that a worker died.
    WorkerDied(u32),
    /// Control says something; `None`: it closed the link.
    ControlSaid(u32, Option<ControlSays>),
    /// SIGTERM or SIGINT.
    Signal(i32),
}

/// The holder's life.
pub fn main(config: &Path, prefer: Prefer) -> ExitCode {
    let done = plan::inherited().map_err(HolderError::from).and_then(|plan| run(&plan, config, prefer));
    match done {
        Ok(End::Stop) => ExitCode::SUCCESS,
        Ok(End::Again) => plan::begin_again(config),
        Err(error) => {
            log::error!("{error}");
            service::status(&error.to_string());
            ExitCode::from(error.status())
        }
    }
}

/// Why the holder ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was told to.
    Stop,
    /// To start again under a fresh EAL: the planned restart.
    Again,
}

fn run(plan: &HolderPlan, config: &Path, prefer: Prefer) -> Result<End, HolderError> {
    preflight::folder(&plan.run_dir, 0o750)?;
    let _lock = Lock::take(&plan.run_dir.join("primary.lock"))?;
    preflight::no_worker_lives(plan)?;
    child::end_orphan(&plan.run_dir);
    preflight::clear_leftovers(plan)?;
    preflight::enough_pages(plan)?;
    let ipc = plan.run_dir.join("ipc");
    // The sockets in it get our own group: the one that the health-checker is in, too.
    preflight::folder(&ipc, 0o750)?;
    preflight::empty(&ipc);
    fs::create_dir_all(&plan.state_dir).map_err(HolderError::file("make folder", &plan.state_dir))?;
    preflight::mount(plan)?;
    crate::privileges::holder(plan.ports.iter().any(|p| p.pci))?;
    let segments = Segments::open(plan)?;

    let (tell, events) = mpsc::channel();
    let signals = tell.clone();
    let mut watch =
        signal_hook::iterator::Signals::new([SIGTERM, SIGINT]).map_err(HolderError::file("watch", "signals"))?;
    let forward = move || watch.forever().all(|signal| signals.send(Event::Signal(signal)).is_ok());
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(forward)
        .map_err(HolderError::file("start", "a thread"))?;

    // A fresh prefix: whatever still holds files of an earlier one is not disturbed.
    let prefix = format!("{}-{}", plan.file_prefix, std::process::id());
    let eal = start_eal(plan, &prefix)?;
    let started = start_ports(plan, &segments);
    let result = match started {
        Ok(ports) => {
            let holder = Holder::new(plan, &prefix, segments, ports);
            holder.serve(config, prefer, &tell, &events)
        }
        Err(error) => Err(error),
    };
    eal.cleanup();
    let _ = fs::remove_dir_all(plan.run_dir.join("dpdk").join(&prefix)); // EAL's files; nobody uses them now.
    preflight::remove_unlocked(&plan.eal_dir());
    preflight::empty(&ipc);
    for name in [PORT_STATS, child::FACTS_FILE, child::STATE_DIR_FILE] {
        let _ = fs::remove_file(plan.run_dir.join(name)); // They tell of what is no more.
    }
    result
}

fn start_eal(plan: &HolderPlan, prefix: &str) -> Result<Eal, HolderError> {
    let mut args = EalArgs::new(ProcType::Primary, prefix, &plan.eal_dir(), &format!("0@{}", plan.cpu))
        .memory_mb_per_node(&plan.memory_by_node());
    for port in &plan.ports {
        args = if port.pci { args.allow_pci(&port.device) } else { args.vdev(&port.device) };
        args = port.kernel.iter().fold(args, |args, interface| args.vdev(interface));
    }
    Ok(dpdk::eal::init(&args)?)
}

fn start_ports(plan: &HolderPlan, segments: &Segments) -> Result<Vec<HeldPort>, HolderError> {
    (0..).zip(&plan.ports).map(|(index, port)| HeldPort::start(plan, index, port, &segments.rss_key)).collect()
}

struct Holder<'a> {
    plan: &'a HolderPlan,
    own: Hello,
    segments: Segments,
    ports: Vec<HeldPort>,
    workers: Workers,
    control_link: Option<Link<HolderTells>>,
    generation: Option<u64>,
    status: String,
}

impl<'a> Holder<'a> {
    fn new(plan: &'a HolderPlan, prefix: &str, segments: Segments, ports: Vec<HeldPort>) -> Self {
        let locks = Locks::find(prefix).inspect_err(|error| {
            log::warn!("{error}; a worker killed in its attach may keep all others out");
        });
        let workers = Workers::new(plan, prefix, ports.iter().map(HeldPort::admit).collect(), locks.ok());
        let own = Hello::new(Role::Holder, Some(dpdk::version()));
        Self { plan, own, segments, ports, workers, control_link: None, generation: None, status: String::new() }
    }

    fn serve(
        mut self,
        config: &Path,
        prefer: Prefer,
        tell: &mpsc::Sender<Event>,
        events: &Receiver<Event>,
    ) -> Result<End, HolderError> {
        let arrivals = tell.clone();
        Listener::serve(&links::holder_socket(&self.plan.run_dir), move |p| arrivals.send(Event::Arrived(p)).is_ok())?;
        let facts: Vec<_> = self.ports.iter().map(HeldPort::facts).collect();
        let mut control = Control::start(self.plan, config, prefer, &facts)?;
        let result = self.watch(&mut control, tell, events);
        if !matches!(result, Ok(End::Again)) {
            service::stopping();
        }
        self.workers.stop();
        if let Some(link) = &self.control_link {
            let _ = link.send(HolderTells::Stop); // A signal follows anyway.
        }
        control.stop();
        self.ports.into_iter().for_each(HeldPort::close);
        result
    }

    /// Until a signal comes, or control cannot begin.
    fn watch(
        &mut self,
        control: &mut Control,
        tell: &mpsc::Sender<Event>,
        events: &Receiver<Event>,
    ) -> Result<End, HolderError> {
        let mut watchdog = service::watchdog();
        let mut statistics = Instant::now();
        let mut early_ends = 0;
        self.write_statistics();
        loop {
            match events.recv_timeout(TICK) {
                Ok(Event::Signal(signal)) => {
                    log::info!("signal {signal}: stopping");
                    return Ok(End::Stop);
                }
                Ok(event) => self.handle(event, tell),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Stop),
            }
            // Relaxed: a clock for people.
            self.segments.published.root.holder_ms.store(shm_layout::clock::now_ms(), Ordering::Relaxed);
            if let Some(status) = control.tend(&self.segments.published)
                && self.generation.is_none()
            {
                early_ends += 1;
                if status == 4 || early_ends == FIRST_TRIES {
                    return Err(HolderError::Control(status));
                }
            }
            self.workers.tend(&self.segments.slots);
            if self.workers.needs_restart() {
                log::error!("no worker can attach any more: planned restart, sessions stay");
                return Ok(End::Again);
            }
            if statistics.elapsed() >= STATISTICS {
                statistics = Instant::now();
                self.write_statistics();
                self.tell_status();
            }
            if let Some(watchdog) = &mut watchdog {
                watchdog.beat();
            }
        }
    }

    fn handle(&mut self, event: Event, tell: &mpsc::Sender<Event>) {
        match event {
            Event::Arrived(pending) => self.arrived(pending, tell),
            Event::WorkerSaid(pid, message) => self.workers.said(pid, message),
            Event::WorkerDied(pid) => self.workers.died(pid, &self.segments, &self.ports),
            Event::ControlSaid(_, Some(ControlSays::Ready { generation })) => {
                log::info!("control has published generation {generation}");
                if self.generation.replace(generation).is_none() {
                    self.status = self.workers.summary();
                    service::ready(&self.status);
                }
            }
            Event::ControlSaid(_, Some(ControlSays::Failed { why })) => log::error!("control: {why}"),
            Event::ControlSaid(pid, None) => drop(self.control_link.take_if(|link| link.peer() == pid)),
            Event::Signal(_) => {}
        }
    }

    fn arrived(&mut self, pending: Pending, tell: &mpsc::Sender<Event>) {
        let hello = match pending.check(&self.own) {
            Ok(hello) => hello,
            Err(why) => {
                log::warn!("refused: {why}");
                return pending.refuse(&why);
            }
        };
        // The health-checker shares the group, and with it the socket: it must not pass for a worker or for control.
        let (uid, own) = (pending.uid(), nix::unistd::geteuid().as_raw());
        if uid != own && uid != 0 {
            let why = format!("process {} is of user {uid}; a {} must be of user {own}", pending.pid(), hello.role);
            log::warn!("refused: {why}");
            return pending.refuse(&why);
        }
        match hello.role {
            Role::Worker if self.generation.is_some() => {
                for pid in self.workers.dead_already() {
                    self.workers.died(pid, &self.segments, &self.ports);
                }
                self.workers.arrived(pending, &hello, &self.own, tell);
            }
            Role::Worker => pending.refuse("lb-primary is not ready yet: no configuration is published; try again"),
            Role::Control => {
                let (said, pid) = (tell.clone(), pending.pid());
                // The loop ends before its channel: a failed send is of no consequence.
                let deliver = move |message| drop(said.send(Event::ControlSaid(pid, message)));
                match pending.accept_with(&self.own, deliver) {
                    Ok(link) => self.control_link = Some(link),
                    Err(error) => log::warn!("control: {error}"),
                }
            }
            Role::Holder | Role::Healthcheck => pending.refuse(&format!("the holder has no link for a {}", hello.role)),
        }
    }

    fn write_statistics(&self) {
        let stats: Vec<_> = self.ports.iter().map(HeldPort::stats).collect();
        let written = serde_json::to_vec(&stats).map_err(HolderError::from);
        let written = written.and_then(|json| write_whole(&self.plan.run_dir.join(PORT_STATS), &json));
        if let Err(error) = written {
            log::debug!("port statistics: {error}"); // Only `port list` misses them.
        }
    }

    fn tell_status(&mut self) {
        let now = self.workers.summary();
        if self.generation.is_some() && now != self.status {
            service::status(&now);
            self.status = now;
        }
    }
}

/// Replaces a file in one step: readers see the old or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HolderError> {
    let new = path.with_extension("new");
    fs::write(&new, bytes).map_err(HolderError::file("write", &new))?;
    fs::rename(&new, path).map_err(HolderError::file("rename", &new))
}

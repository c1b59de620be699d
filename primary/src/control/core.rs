//! Control's own state and the one way it changes: plan → stage → journal → commit → board and neighbours.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::{Config, Facts, Touched};
use control_api::{ApiError, Code};
use shm_layout::clock::now_ms;
use shm_layout::in_use;
use shm_layout::neighbours::Neighbours;
use shm_layout::publish::{PublishError, Publisher, write_node};
use shm_layout::published::{Generation, Published};
use shm_layout::slot::Slot;

use super::deadline::Now;
use super::facts::PortFacts;
use super::journal::{Entry, FORMAT, Journal, JournalError, Unconfirmed, Written};
use super::neighbour;
use super::pass::{LocalsUse, addresses};
use super::plan::{self, Planner};
use super::register::{Counts, EndNow, Register};
use super::rings::{Order, Rings};
use super::rollback;
use super::start::Chosen;
use super::stats::Baseline;
use super::targets::{self, Targets};
use super::watch::Watch;
use crate::failpoint::{OPEN, PUBLISH, step};

/// How long a change waits for a worker that reads old generations.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time between two looks at every server, ms.
const LOOK_MS: u64 = 100;

/// The shared tables, opened.
#[derive(Debug)]
pub struct Tables {
    /// Services, servers, ports.
    pub published: Published,
    /// Next hops.
    pub neighbours: Neighbours,
    /// Live tables, by slot.
    pub slots: Vec<Slot>,
    /// Health board.
    pub targets: Targets,
}

/// Control.
pub struct Core {
    /// The configuration file.
    pub config_path: PathBuf,
    /// The run directory.
    pub run_dir: PathBuf,
    /// The tables.
    pub tables: Tables,
    /// The generation in force.
    pub entry: Entry,
    /// Where generations are kept.
    pub journal: Journal,
    /// Way to the slots.
    pub rings: Option<Rings>,
    /// What `stats reset` remembers.
    pub baseline: Baseline,
    /// What was seen of workers.
    pub watch: Watch,
    /// What checks ask of the machine.
    pub machine: Box<dyn Facts>,
    /// Told of each new generation.
    pub announce: Box<dyn Fn(u64)>,
    /// Which local addresses sessions use.
    pub locals_use: LocalsUse,
    /// Generation and time since when it is asked whether removed local addresses are free, ms.
    locals_asked: Option<(u64, u64)>,
    /// A rollback that failed is not tried again before this, ms.
    pub rollback_again_ms: u64,
    /// What the journal had to say about the last change, though it was made.
    pub said: Option<String>,
    /// When every server was looked at, ms.
    looked_ms: u64,
    /// Has the generation anything that was removed?
    removed: (u64, bool),
    publisher: Publisher,
    planner: Planner,
}

/// What a change takes from a file.
#[derive(Debug, Clone)]
pub struct FromFile<'a> {
    /// The configuration as the file has it, without the operator's words.
    pub config: &'a Config,
    /// Digest of the configuration file it descends from.
    pub digest: String,
}

/// Who changes what.
#[derive(Debug, Clone)]
pub struct Author {
    /// User name, or "control".
    pub user: String,
    /// One line.
    pub summary: String,
}

/// Session counts of the slots' tables.
pub struct SlotCounts<'a>(pub &'a [Slot]);

impl Counts for SlotCounts<'_> {
    fn server(&self, id: u32) -> u64 {
        in_use::server(self.0, id)
    }
    fn service(&self, index: u32) -> u64 {
        in_use::service(self.0, index)
    }
}

impl Core {
    /// Takes over what is there: journal, tables, board; brings the chosen configuration in force. Nothing is published
    /// anew that is published already.
    ///
    /// # Errors
    /// The configuration does not fit the tables, the journal cannot be written, or a worker holds the tables.
    pub fn open(
        chosen: Chosen,
        config_path: PathBuf,
        ports: &[PortFacts],
        tables: Tables,
        machine: Box<dyn Facts>,
    ) -> Result<Self, ApiError> {
        let Chosen { config, file, digest, entry, base } = chosen;
        let mut journal = Journal::open(&config.node.state_dir()).map_err(failed)?;
        if let Some(base) = base {
            journal.go_on(base);
        }
        step(OPEN);
        let mut publisher = Publisher::attach(tables.published.clone());
        publisher.at_each_step(|| step(PUBLISH));
        let (port_plans, slot_plans) = plan::node(&config, ports);
        write_node(&tables.published, &port_plans, &slot_plans);
        let newest = entry.as_ref().map_or(0, |e| e.generation);
        let first = entry.is_none();
        let unchanged = file.is_none();
        let mut register = entry.as_ref().map_or_else(fresh_register, |e| e.register.clone());
        let entry_trial = entry.as_ref().and_then(|e| e.unconfirmed.clone());
        if !unchanged {
            let counts = SlotCounts(&tables.slots);
            register = register
                .next(&config, file.as_ref(), &EndNow::default(), &counts)
                .map_err(|e| ApiError::new(Code::Refused, e.to_string()))?;
        }
        let mut planner = Planner::default();
        let plan = planner.plan(&register);
        let skeleton = Config { services: Vec::new(), ..config };
        if let Some(trial) = entry.as_ref().filter(|_| !unchanged).and_then(|e| e.unconfirmed.as_ref()) {
            log::warn!("generation {} was not confirmed yet; the changed file takes its place", trial.applied);
        }
        // The journal's generation as it is, or a new one: above whatever the journal or the tables have.
        let (mut entry, write) = match entry.filter(|e| unchanged && e.generation >= publisher.generation()) {
            Some(mut entry) => {
                // A deadline of before a reboot is set on this boot's clock, once.
                let trial = entry.unconfirmed.as_mut();
                let moved = trial.is_some_and(|trial| match trial.deadline.in_this_boot(&Now::read()) {
                    Some(deadline) => std::mem::replace(&mut trial.deadline, deadline.clone()) != deadline,
                    None => false,
                });
                (entry, moved)
            }
            None => {
                let generation = newest.max(publisher.generation()) + 1;
                let summary =
                    if first { "first start".into() } else { format!("start from {}", config_path.display()) };
                let author = Author { user: "control".into(), summary };
                let trial = entry_trial.filter(|_| unchanged);
                (new_entry(generation, author, digest.clone(), skeleton, register, trial), true)
            }
        };
        if write && publisher.in_force(&plan) && newest == publisher.generation() {
            // Same content under another file: remembered, not published again.
            entry.generation = newest;
        }
        step(OPEN);
        if write {
            let written = if entry.generation == newest { journal.rewrite(&entry) } else { journal.write(&entry) };
            let _logged = written.map_err(failed)?;
        }
        step(OPEN);
        if entry.generation > publisher.generation() {
            let staged = publisher.stage(&plan, entry.generation, &tables.slots, PATIENCE).map_err(refusal)?;
            step(OPEN);
            publisher.commit(staged);
        }
        step(OPEN);
        tables.targets.write(&entry.register, entry.generation);
        step(OPEN);
        log::info!("generation {} in force: {}", entry.generation, entry.summary);
        let run_dir = entry.skeleton.node.run_dir();
        let slots = tables.slots.len();
        Ok(Self {
            config_path,
            run_dir,
            tables,
            entry,
            journal,
            rings: None,
            baseline: Baseline::default(),
            watch: Watch::new(slots),
            machine,
            announce: Box::new(|_| ()),
            locals_use: LocalsUse::default(),
            locals_asked: None,
            rollback_again_ms: 0,
            said: None,
            looked_ms: 0,
            removed: (0, false),
            publisher,
            planner,
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Config {
        self.entry.config()
    }

    /// The generation in force, as readers find it.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.tables.published.current()
    }

    /// Brings `config` in force. `file`: the same as a file has it; `None` for edits. `unconfirmed`: it is on trial. All
    /// or nothing.
    ///
    /// # Errors
    /// No id is free, a worker holds the tables, the journal cannot be written.
    pub fn change(
        &mut self,
        config: &Config,
        file: Option<FromFile>,
        now: &EndNow,
        author: Author,
        unconfirmed: Option<Unconfirmed>,
    ) -> Result<u64, ApiError> {
        let counts = SlotCounts(&self.tables.slots);
        let register = self
            .entry
            .register
            .next(config, file.as_ref().map(|f| f.config), now, &counts)
            .map_err(|e| ApiError::new(Code::Refused, e.to_string()))?;
        self.alive();
        let digest = file.map_or_else(|| self.entry.file_digest.clone(), |f| f.digest);
        let skeleton = Config { services: Vec::new(), ..config.clone() };
        let entry = new_entry(self.entry.generation + 1, author, digest, skeleton, register, unconfirmed);
        self.put_in_force(entry)
    }

    /// Brings an edit in force: as [`Self::change`], at the cost of what it touches. `None`: only what waits for its last
    /// session is ended by `now`.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub fn edit(&mut self, touched: Option<&Touched>, now: &EndNow, author: Author) -> Result<u64, ApiError> {
        let Entry { file_digest, skeleton, unconfirmed, register, generation, .. } = &self.entry;
        let register = register
            .touched(touched, &skeleton.limits, now, &SlotCounts(&self.tables.slots))
            .map_err(|e| ApiError::new(Code::Refused, e.to_string()))?;
        // A trial goes on; its end undoes this change too, but for admin states.
        let (digest, trial) = (file_digest.clone(), unconfirmed.clone());
        let entry = new_entry(generation + 1, author, digest, skeleton.clone(), register, trial);
        self.put_in_force(entry)
    }

    /// The change on trial stays: the journal forgets its deadline.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn settle(&mut self) -> Result<(), ApiError> {
        let entry = Entry { unconfirmed: None, ..self.entry.clone() };
        let written = self.journal.rewrite(&entry);
        self.note(written)?;
        self.entry = entry;
        Ok(())
    }

    /// What the journal says of a generation it has taken is kept for the answer.
    fn note(&mut self, written: Result<Written, JournalError>) -> Result<(), ApiError> {
        self.said = written.map_err(failed)?.unsynced;
        Ok(())
    }

    /// Only the file's digest changed: the generation stays, the journal learns which file it is.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn adopt_digest(&mut self, digest: String) -> Result<(), ApiError> {
        if digest != self.entry.file_digest {
            let entry = Entry { file_digest: digest, ..self.entry.clone() };
            let written = self.journal.rewrite(&entry);
            self.note(written)?;
            self.entry = entry;
        }
        Ok(())
    }

    fn put_in_force(&mut self, entry: Entry) -> Result<u64, ApiError> {
        let plan = self.planner.plan(&entry.register);
        self.alive();
        step(PUBLISH);
        let staged = self.publisher.stage(&plan, entry.generation, &self.tables.slots, PATIENCE).map_err(refusal)?;
        self.alive();
        step(PUBLISH);
        let written = self.journal.write(&entry);
        if let Err(error) = self.note(written) {
            self.publisher.abort(staged);
            return Err(error);
        }
        step(PUBLISH);
        let generation = self.publisher.commit(staged);
        step(PUBLISH);
        let housekeeping = self.entry.housekeeping.then_some(self.entry.generation);
        let before = std::mem::replace(&mut self.entry, entry);
        let difference = before.register.difference(&self.entry.register);
        if targets::concerned(&difference) {
            self.tables.targets.write(&self.entry.register, generation);
        } else {
            self.tables.targets.stay(generation);
        }
        step(PUBLISH);
        if neighbour::concerned(&difference) {
            self.pin_neighbours();
        }
        step(PUBLISH);
        let trial = self.entry.unconfirmed.as_ref().map(|trial| [trial.back_to, trial.applied]);
        let needed = [&[generation][..], trial.as_ref().map_or(&[], |t| t)].concat();
        self.journal.prune(&needed, housekeeping);
        step(PUBLISH);
        (self.announce)(generation);
        step(PUBLISH);
        Ok(generation)
    }

    /// A sign of life between the steps of what takes seconds when everything changes: the holder waits ten.
    pub fn alive(&self) {
        self.tables.published.root.control_ms.store(now_ms(), Relaxed); // Relaxed: a heartbeat.
    }

    /// Tells the neighbours' thread whom the configuration names.
    pub fn pin_neighbours(&self) {
        let Entry { skeleton, register, .. } = &self.entry;
        let order = Order::Pin(neighbour::configured(skeleton, register), neighbour::longest_timeout(register));
        if let Some(rings) = &self.rings
            && !rings.order(order)
        {
            log::warn!("neighbours of generation {} are asked when a worker needs them", self.entry.generation);
        }
    }

    /// What is due at times: heartbeat, rows of old generations, servers whose last session is gone. Called at every turn,
    /// which a client may cause; what looks at every server is done a few times a second.
    pub fn tick(&mut self) {
        let now = now_ms();
        self.tables.published.root.control_ms.store(now, Relaxed); // Relaxed: a heartbeat.
        self.watch.sample(&self.tables.slots, now);
        self.publisher.reclaim(&self.tables.slots);
        self.journal.tend();
        rollback::tend(self, now);
        self.locals_use.go_on(&self.tables.slots, now);
        if now < self.looked_ms + LOOK_MS {
            return;
        }
        self.looked_ms = now;
        self.tables.targets.look(&self.entry.register);
        if self.removed.0 != self.entry.generation {
            self.removed = (self.entry.generation, self.entry.register.has_removed());
        }
        // Every live slot has seen the removal: no session is begun towards the removed any more.
        if self.publisher.retired() == 0 && self.removed.1 {
            self.sweep();
        }
    }

    /// Is something under way that is done in pieces?
    #[must_use]
    pub fn busy(&self) -> bool {
        self.locals_use.busy()
    }

    /// Local addresses that sessions use, when it is time to drop removed ones and all sessions have been looked at. A
    /// change of generation meanwhile makes it begin anew: addresses removed since were still in use when it looked.
    fn locals_in_use(&mut self) -> Option<HashSet<IpAddr>> {
        let (now, generation) = (now_ms(), self.entry.generation);
        if self.watch.locals_due(now, self.entry.register.has_removed_locals()) {
            self.locals_asked = Some((generation, now));
        }
        let (_, since) = self.locals_asked.filter(|(asked, _)| *asked == generation)?;
        let found = self.locals_use.since(since, now)?;
        self.locals_asked = None;
        Some(addresses(&found))
    }

    fn sweep(&mut self) {
        let used = self.locals_in_use();
        let free = |address: IpAddr| used.as_ref().is_some_and(|used| !used.contains(&address));
        let Some(register) = self.entry.register.swept(&SlotCounts(&self.tables.slots), &free) else { return };
        let count = |r: &Register| r.services.iter().map(|s| s.servers.len()).sum::<usize>();
        let dropped = count(&self.entry.register) - count(&register);
        let author =
            Author { user: "control".into(), summary: format!("{dropped} removed servers without sessions dropped") };
        let Entry { file_digest, skeleton, unconfirmed, .. } = self.entry.clone();
        let mut entry = new_entry(self.entry.generation + 1, author, file_digest, skeleton, register, unconfirmed);
        entry.housekeeping = true;
        match self.put_in_force(entry) {
            Ok(generation) => log::info!("generation {generation}: {dropped} removed servers dropped"),
            Err(error) => log::warn!("removed servers are dropped later: {}", error.message),
        }
    }
}

/// The register of an appliance without journal: tags begin anywhere, so that results an older journal's tags left on the
/// health board do not fit.
fn fresh_register() -> Register {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_secs());
    let next_tag = u32::try_from(seconds & 0x7f_ffff).unwrap_or(1);
    Register { next_tag, ..Register::default() }
}

fn new_entry(
    generation: u64,
    author: Author,
    file_digest: String,
    skeleton: Config,
    register: Register,
    unconfirmed: Option<Unconfirmed>,
) -> Entry {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let Author { user, summary } = author;
    Entry {
        format: FORMAT,
        generation,
        time,
        user,
        summary,
        file_digest,
        housekeeping: false,
        unconfirmed,
        skeleton,
        register,
    }
}

fn failed(error: JournalError) -> ApiError {
    ApiError::new(Code::Failed, error.to_string())
}

fn refusal(error: PublishError) -> ApiError {
    let kind = match error {
        PublishError::Held { .. } => Code::Busy,
        PublishError::Limit { .. } | PublishError::Full { .. } => Code::Refused,
        PublishError::Older { .. } | PublishError::NoIpv6 { .. } => Code::NeedsRestart,
        PublishError::Stale { .. } => Code::Failed,
    };
    ApiError::new(kind, error.to_string())
}

//! Control's own state and the one way it changes: plan → stage → journal → commit → board and neighbours.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::{Config, Facts};
use control_api::{ApiError, Code};
use shm_layout::clock::now_ms;
use shm_layout::neighbours::Neighbours;
use shm_layout::publish::{PublishError, Publisher, write_node};
use shm_layout::published::{Generation, Published};
use shm_layout::slot::Slot;

use super::facts::PortFacts;
use super::journal::{Entry, FORMAT, Journal};
use super::neighbour;
use super::plan;
use super::register::{Counts, EndNow, Register};
use super::rings::{Order, Rings};
use super::start::Chosen;
use super::stats::Baseline;
use super::targets::Targets;
use super::watch::Watch;

/// How long a change waits for a worker that reads old generations.
const PATIENCE: Duration = Duration::from_secs(2);

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
    publisher: Publisher,
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
        let of = |slot: &Slot| slot.servers.get(id as usize).map_or(0, |row| u64::from(row.active.load(Relaxed)));
        self.0.iter().map(of).sum()
    }
    fn service(&self, index: u32) -> u64 {
        let of = |slot: &Slot| slot.services.get(index as usize).map_or(0, |row| u64::from(row.active.load(Relaxed)));
        self.0.iter().map(of).sum()
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
        let Chosen { config, file, digest, entry } = chosen;
        let journal =
            Journal::open(&config.node.state_dir()).map_err(|e| ApiError::new(Code::Failed, e.to_string()))?;
        let mut publisher = Publisher::attach(tables.published.clone());
        let (port_plans, slot_plans) = plan::node(&config, ports);
        write_node(&tables.published, &port_plans, &slot_plans);
        let newest = entry.as_ref().map_or(0, |e| e.generation);
        let first = entry.is_none();
        let unchanged = file.is_none();
        let mut register = entry.as_ref().map_or_else(fresh_register, |e| e.register.clone());
        if !unchanged {
            let counts = SlotCounts(&tables.slots);
            register = register
                .next(&config, file.as_ref(), &EndNow::default(), &counts)
                .map_err(|e| ApiError::new(Code::Refused, e.to_string()))?;
        }
        let plan = plan::plan(&register)?;
        let skeleton = Config { services: Vec::new(), ..config };
        // The journal's generation as it is, or a new one: above whatever the journal or the tables have.
        let (mut entry, write) = match entry.filter(|e| unchanged && e.generation >= publisher.generation()) {
            Some(entry) => (entry, false),
            None => {
                let generation = newest.max(publisher.generation()) + 1;
                let summary =
                    if first { "first start".into() } else { format!("start from {}", config_path.display()) };
                let author = Author { user: "control".into(), summary };
                (new_entry(generation, author, digest.clone(), skeleton, register), true)
            }
        };
        if write && publisher.in_force(&plan) && newest == publisher.generation() {
            // Same content under another file: remembered, not published again.
            entry.generation = newest;
        }
        if write {
            journal.write(&entry).map_err(|e| ApiError::new(Code::Failed, e.to_string()))?;
        }
        if entry.generation > publisher.generation() {
            let staged = publisher.stage(&plan, entry.generation, &tables.slots, PATIENCE).map_err(refusal)?;
            publisher.commit(staged);
        }
        tables.targets.write(&entry.register, entry.generation);
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
            publisher,
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

    /// Brings `config` in force. `file`: the same as a file has it, and the file's digest. All or nothing.
    ///
    /// # Errors
    /// No id is free, a worker holds the tables, the journal cannot be written.
    pub fn change(
        &mut self,
        config: &Config,
        file: Option<(&Config, String)>,
        now: &EndNow,
        author: Author,
    ) -> Result<u64, ApiError> {
        let counts = SlotCounts(&self.tables.slots);
        let register = self
            .entry
            .register
            .next(config, file.as_ref().map(|f| f.0), now, &counts)
            .map_err(|e| ApiError::new(Code::Refused, e.to_string()))?;
        let digest = file.map_or_else(|| self.entry.file_digest.clone(), |f| f.1);
        let skeleton = Config { services: Vec::new(), ..config.clone() };
        let entry = new_entry(self.entry.generation + 1, author, digest, skeleton, register);
        self.put_in_force(entry)
    }

    /// Only the file's digest changed: the generation stays, the journal learns which file it is.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn adopt_digest(&mut self, digest: String) -> Result<(), ApiError> {
        if digest != self.entry.file_digest {
            let entry = Entry { file_digest: digest, ..self.entry.clone() };
            self.journal.rewrite(&entry).map_err(|e| ApiError::new(Code::Failed, e.to_string()))?;
            self.entry = entry;
        }
        Ok(())
    }

    fn put_in_force(&mut self, entry: Entry) -> Result<u64, ApiError> {
        let plan = plan::plan(&entry.register)?;
        let staged = self.publisher.stage(&plan, entry.generation, &self.tables.slots, PATIENCE).map_err(refusal)?;
        if let Err(error) = self.journal.write(&entry) {
            self.publisher.abort(staged);
            return Err(ApiError::new(Code::Failed, error.to_string()));
        }
        let generation = self.publisher.commit(staged);
        let housekeeping = self.entry.housekeeping.then_some(self.entry.generation);
        self.entry = entry;
        self.tables.targets.write(&self.entry.register, generation);
        self.pin_neighbours();
        self.journal.prune(generation, housekeeping);
        (self.announce)(generation);
        Ok(generation)
    }

    /// Tells the neighbours' thread whom the configuration names.
    pub fn pin_neighbours(&self) {
        let config = self.config();
        let order = Order::Pin(neighbour::configured(&config), neighbour::longest_timeout(&config));
        if let Some(rings) = &self.rings
            && !rings.order(order)
        {
            log::warn!("neighbours of generation {} are asked when a worker needs them", self.entry.generation);
        }
    }

    /// What is due at times: heartbeat, rows of old generations, servers whose last session is gone.
    pub fn tick(&mut self) {
        self.tables.published.root.control_ms.store(now_ms(), Relaxed); // Relaxed: a heartbeat.
        self.watch.sample(&self.tables.slots, now_ms());
        self.tables.targets.look(&self.entry.register);
        self.publisher.reclaim(&self.tables.slots);
        // Every live slot has seen the removal: no session is begun towards the removed any more.
        if self.publisher.retired() == 0 && self.entry.register.has_removed() {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let used = self
            .watch
            .locals_due(now_ms(), self.entry.register.has_removed_locals())
            .then(|| super::sessions::locals_in_use(&self.tables.slots));
        let free = |address: IpAddr| used.as_ref().is_some_and(|used| !used.contains(&address));
        let Some(register) = self.entry.register.swept(&SlotCounts(&self.tables.slots), &free) else { return };
        let count = |r: &Register| r.services.iter().map(|s| s.servers.len()).sum::<usize>();
        let dropped = count(&self.entry.register) - count(&register);
        let author =
            Author { user: "control".into(), summary: format!("{dropped} removed servers without sessions dropped") };
        let (digest, skeleton) = (self.entry.file_digest.clone(), self.entry.skeleton.clone());
        let mut entry = new_entry(self.entry.generation + 1, author, digest, skeleton, register);
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

fn new_entry(generation: u64, author: Author, file_digest: String, skeleton: Config, register: Register) -> Entry {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let Author { user, summary } = author;
    Entry { format: FORMAT, generation, time, user, summary, file_digest, housekeeping: false, skeleton, register }
}

fn refusal(error: PublishError) -> ApiError {
    let kind = match error {
        PublishError::Held { .. } => Code::Busy,
        PublishError::Limit { .. } | PublishError::Full { .. } => Code::Refused,
        PublishError::Stale { .. } => Code::Failed,
    };
    ApiError::new(kind, error.to_string())
}

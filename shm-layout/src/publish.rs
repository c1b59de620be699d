//! The writer of the published tables: stages a generation in rows nobody reads, releases it by one store, and takes rows
//! back when every live slot has passed a burst boundary since.
//!
//! Copy on write per service: a service that did not change keeps its rows. Stage and commit are two steps, so that a
//! journal is written between them: what can fail has failed before.

mod arena;
mod choices;
mod directory;
mod node;
mod plan;
mod quorum;
mod sequence;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use arena::Arena;
use choices::{Table, Tables};
pub use node::{PortPlan, SlotPlan, write_node};
pub use plan::{Hashing, LocalPlan, MemberPlan, Plan, ServicePlan, SharedPlan};
pub use quorum::{Laggard, control_age_ms, lowest_seen, owner_alive};
pub use sequence::{STEPS_MAX, smooth};

use crate::limits::{MAX_LADDRS, NONE, RETIRED_GENERATIONS};
use crate::published::Published;
use crate::seqlock;
use crate::slot::Slot;

/// Nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// More than the tables were made for.
    #[error(
        "{what} number {value} does not fit the tables, made for {limit}; hint: raise [limits], which needs a restart"
    )]
    Limit {
        /// Of what.
        what: &'static str,
        /// The number.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A worker does not let go of old generations.
    #[error("generation {generation} waits for slot {} of zone {} (pid {}), which still reads generation {}; hint: lbctl worker list", who.slot, who.zone, who.pid, who.seen)]
    Held {
        /// The generation that cannot be built.
        generation: u64,
        /// Who holds it up.
        who: Laggard,
    },
    /// The rows are scattered or full.
    #[error(
        "no room for {count} rows of {what} in one piece ({free} free); hint: raise [limits], which needs a restart"
    )]
    Full {
        /// Of what.
        what: &'static str,
        /// Rows asked for.
        count: u64,
        /// Rows free.
        free: u64,
    },
    /// The tables know nothing of what the service asks for.
    #[error(
        "the tables were made by a version that does not know the mode, scheduler or persistence of service {service}; hint: stop the appliance when no session lives, its next start makes them anew"
    )]
    Older {
        /// Name of the service.
        service: String,
    },
    /// The slots have no wide records, which sessions of the service need.
    #[error(
        "the tables have no room for the IPv6 sessions of service {service}; hint: set node.sessions_ipv6 if it is 0; stop the appliance when no session lives, its next start makes the tables anew"
    )]
    NoIpv6 {
        /// Name of the service.
        service: String,
    },
    /// Generations only go up.
    #[error("generation {number} is not newer than the published {current}")]
    Stale {
        /// Number asked for.
        number: u64,
        /// Number in force.
        current: u64,
    },
}

/// A service version: its rows.
#[derive(Debug)]
struct Version {
    /// `None`: damaged; its rows are kept until its generation goes.
    plan: Option<Arc<ServicePlan>>,
    row: u32,
    members: Range<u32>,
    steps: Range<u32>,
    table: Option<Arc<Table>>,
}

/// A generation whose rows are in use.
#[derive(Debug)]
struct Held {
    number: u64,
    directory: usize,
    versions: Vec<Arc<Version>>,
}

/// A generation that is written but not released. Give it to [`Publisher::commit`] or [`Publisher::abort`].
#[derive(Debug)]
#[must_use = "a staged generation is committed or aborted"]
pub struct Staged(Held);

impl Staged {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.number
    }
}

/// The one writer of the published tables.
#[derive(Debug)]
pub struct Publisher {
    tables: Published,
    /// Oldest first; the last one is in force.
    held: VecDeque<Held>,
    rows: Arena,
    members: Arena,
    steps: Arena,
    choices: Tables,
    /// Called between stores: tests die there.
    step: fn(),
}

impl Publisher {
    /// Takes over the tables, fresh or used: what any directory names stays in use until its readers have gone on.
    #[must_use]
    pub fn attach(tables: Published) -> Self {
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut publisher = Self {
            rows: Arena::new(size(tables.services.len())),
            members: Arena::new(size(tables.members.len())),
            steps: Arena::new(size(tables.steps.len())),
            choices: Tables::new(tables.choices.clone()),
            held: VecDeque::new(),
            step: || (),
            tables,
        };
        publisher.rebuild();
        publisher
    }

    fn rebuild(&mut self) {
        let Some(current) = self.tables.current() else {
            // Fresh, or a new holder took everything back: nobody reads.
            self.tables.directories.iter().for_each(|d| d.head.generation.store(0, Relaxed));
            return;
        };
        let mut versions: HashMap<u32, Arc<Version>> = HashMap::new();
        let mut found: Vec<Held> = Vec::new();
        let tables = self.tables.clone();
        for (directory, block) in tables.directories.iter().enumerate() {
            let number = block.head.generation.load(Acquire);
            // A number above the current one was staged by a writer that died: nobody has it.
            if number == 0 || number > current.number || (number == current.number && directory != current.directory) {
                block.head.generation.store(0, Relaxed);
                continue;
            }
            let mut held = Held { number, directory, versions: Vec::new() };
            for (index, row) in (0_u32..).zip(block.services.iter()) {
                let row = row.load(Relaxed);
                if row == NONE {
                    continue;
                }
                if let Some(version) = versions.get(&row) {
                    held.versions.push(Arc::clone(version));
                } else if let Some(version) = self.claim(index, row) {
                    versions.insert(row, Arc::clone(&version));
                    held.versions.push(version);
                }
            }
            found.push(held);
        }
        self.choices.claimed();
        found.sort_by_key(|held| held.number);
        self.held = found.into();
    }

    /// A version found in the tables, its rows claimed; `None` when its row does not exist or is named twice.
    fn claim(&mut self, index: u32, row: u32) -> Option<Arc<Version>> {
        let service = self.tables.services.get(row as usize)?;
        if !self.rows.claim(&(row..row + 1)) {
            return None;
        }
        let range = |first: &AtomicU32, count: &AtomicU32| {
            let first = first.load(Relaxed);
            first..first.saturating_add(count.load(Relaxed))
        };
        let mut members = range(&service.first_member, &service.members);
        let mut steps = range(&service.first_step, &service.steps);
        let plan = ServicePlan::load(&self.tables, index, service).map(Arc::new);
        // A damaged row may name what another owns: then it owns nothing.
        if !self.members.claim(&members) {
            members = 0..0;
        }
        if !self.steps.claim(&steps) {
            steps = 0..0;
        }
        let table = self.choices.claim(service.choice.load(Relaxed));
        Some(Arc::new(Version { plan, row, members, steps, table }))
    }

    /// Calls `step` between the stores of a generation, so that a test can end the process there.
    pub fn at_each_step(&mut self, step: fn()) {
        self.step = step;
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &Published {
        &self.tables
    }

    /// Number in force; 0: none yet.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.held.back().map_or(0, |held| held.number)
    }

    /// Generations that wait for readers.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.held.len().saturating_sub(1)
    }

    /// Is exactly this in force? (A plan in another order of services is the same one.)
    #[must_use]
    pub fn in_force<'a>(&self, plan: impl Into<Cow<'a, SharedPlan>>) -> bool {
        let plan = plan.into();
        let Some(held) = self.held.back() else { return false };
        let block = &self.tables.directories[held.directory];
        let now: HashMap<u32, &Version> =
            held.versions.iter().filter_map(|v| v.plan.as_ref().map(|p| (p.index, v.as_ref()))).collect();
        let locals = block.locals.iter().take(block.head.locals.load(Relaxed) as usize).map(LocalPlan::load);
        block.head.checksum.load(Relaxed) == block.sum()
            && held.versions.len() == plan.services.len()
            && plan.services.iter().all(|s| now.get(&s.index).is_some_and(|v| v.plan.as_ref() == Some(s)))
            && locals.eq(plan.locals.iter().cloned())
    }

    /// Takes back what no live slot can be reading. Returns who holds the oldest generation, if one is held.
    pub fn reclaim(&mut self, slots: &[Slot]) -> Option<Laggard> {
        if self.held.len() <= 1 {
            return None; // Nothing waits: nobody's life need be asked after.
        }
        let (lowest, who) = lowest_seen(slots);
        while self.held.len() > 1 {
            // Superseded by the next one: free when everybody has seen that.
            if lowest < self.held[1].number {
                return who;
            }
            if let Some(held) = self.held.pop_front() {
                self.release(held);
            }
        }
        None
    }

    fn release(&mut self, held: Held) {
        self.tables.directories[held.directory].head.generation.store(0, Relaxed);
        self.give_all(held.versions);
    }

    /// Gives back the rows of those that no other generation has.
    fn give_all(&mut self, versions: Vec<Arc<Version>>) {
        for version in versions.into_iter().filter_map(Arc::into_inner) {
            self.give(version);
        }
    }

    fn give(&mut self, version: Version) {
        self.rows.give(version.row..version.row + 1);
        self.members.give(version.members);
        self.steps.give(version.steps);
        self.choices.give(version.table);
    }

    /// Writes `plan` as generation `number` into rows that nobody reads. Waits at most `patience` for workers that read
    /// old generations, when there is no room otherwise.
    ///
    /// # Errors
    /// Limits, or a worker that holds rows: nothing was changed.
    pub fn stage<'a>(
        &mut self,
        plan: impl Into<Cow<'a, SharedPlan>>,
        number: u64,
        slots: &[Slot],
        patience: Duration,
    ) -> Result<Staged, PublishError> {
        let plan = &plan.into();
        self.check(plan, number)?;
        if slots.iter().any(|slot| slot.lines.is_empty())
            && let Some(service) = plan.services.iter().find(|service| service.is_wide())
        {
            return Err(PublishError::NoIpv6 { service: service.name.clone() });
        }
        let deadline = Instant::now() + patience;
        loop {
            let who = self.reclaim(slots);
            let outcome =
                if self.retired() > RETIRED_GENERATIONS { Ok(None) } else { self.build(plan, number).map(Some) };
            match (outcome, who) {
                (Ok(Some(held)), _) => return Ok(Staged(held)),
                (Err(error), None) => return Err(error),
                (_, Some(who)) if Instant::now() >= deadline => {
                    return Err(PublishError::Held { generation: number, who });
                }
                // Not busy: the reader may need this CPU to get on.
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn check(&self, plan: &SharedPlan, number: u64) -> Result<(), PublishError> {
        let current = self.generation();
        if number <= current || number >> 56 != 0 {
            return Err(PublishError::Stale { number, current });
        }
        below("local address", (plan.locals.len() as u64).saturating_sub(1), MAX_LADDRS as u64)
    }

    /// Have the tables places of its numbers?
    fn fits(&self, service: &ServicePlan) -> Result<(), PublishError> {
        below("service", service.index.into(), self.tables.geometry.services)?;
        let servers = self.tables.geometry.servers;
        service.members.iter().try_for_each(|member| below("real server", member.id.into(), servers))
    }

    fn build(&mut self, plan: &SharedPlan, number: u64) -> Result<Held, PublishError> {
        let free = |d: &usize| !self.held.iter().any(|held| held.directory == *d);
        let directory = (0..self.tables.directories.len()).find(free).ok_or(PublishError::Full {
            what: "directories",
            count: 1,
            free: 0,
        })?;
        // Out of the queue while it is looked at: `self` writes meanwhile.
        let in_force = self.held.pop_back();
        let versions = self.versions(plan, in_force.as_ref().map_or(&[], |held| &held.versions));
        self.held.extend(in_force);
        let held = Held { number, directory, versions: versions? };
        self.write_directory(&held, plan);
        Ok(held)
    }

    /// The versions of a plan's services: of those that stay as they are `in_force` the same, of the others new ones.
    fn versions(&mut self, plan: &SharedPlan, in_force: &[Arc<Version>]) -> Result<Vec<Arc<Version>>, PublishError> {
        let mut by_index = None;
        let mut versions = Vec::with_capacity(plan.services.len());
        for (place, service) in plan.services.iter().enumerate() {
            let here = in_force.get(place).filter(|v| v.plan.as_ref().is_some_and(|p| p.index == service.index));
            let before = match here {
                Some(version) => Some(version),
                None => by_index.get_or_insert_with(|| versions_by_index(in_force)).get(&service.index).copied(),
            };
            let version = match before
                .filter(|v| v.plan.as_ref().is_some_and(|p| Arc::ptr_eq(p, service) || p == service))
            {
                Some(version) => Ok(Arc::clone(version)),
                None => {
                    self.fits(service).and_then(|()| self.write_service(service, before.map(Arc::as_ref))).map(Arc::new)
                }
            };
            match version {
                Ok(version) => versions.push(version),
                Err(error) => {
                    self.give_all(versions);
                    return Err(error);
                }
            }
            (self.step)();
        }
        Ok(versions)
    }

    fn write_service(&mut self, plan: &Arc<ServicePlan>, before: Option<&Version>) -> Result<Version, PublishError> {
        let full =
            |what, count: usize, arena: &Arena| PublishError::Full { what, count: count as u64, free: arena.free() };
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let count = plan.members.len();
        let row = self.rows.take(1).ok_or_else(|| full("services", 1, &self.rows))?;
        let Some(members) = self.members.take(size(count)) else {
            self.rows.give(row);
            return Err(full("real servers", count, &self.members));
        };
        let mut sequence = plan.weights().map(|w| smooth(&w, STEPS_MAX.max(count))).unwrap_or_default();
        let mut steps = self.steps.take(size(sequence.len()));
        if steps.is_none() {
            // Coarser shares rather than no service.
            sequence = plan.weights().map(|w| smooth(&w, count * 3)).unwrap_or_default();
            steps = self.steps.take(size(sequence.len()));
        }
        let Some(steps) = steps else {
            self.rows.give(row);
            self.members.give(members);
            return Err(full("weighted places", sequence.len(), &self.steps));
        };
        let before = before.and_then(|version| version.plan.as_deref().zip(version.table.as_ref()));
        let table = match self.choices.of(plan, before) {
            Ok(table) => table,
            Err(error) => {
                self.give(Version { plan: None, row: row.start, members, steps, table: None });
                return Err(error);
            }
        };
        let service = &self.tables.services[row.start as usize];
        plan.store(service);
        service.first_member.store(members.start, Relaxed);
        service.members.store(members.end - members.start, Relaxed);
        service.first_step.store(steps.start, Relaxed);
        service.steps.store(steps.end - steps.start, Relaxed);
        let (choice, sum) = self.choices.named(table.as_ref());
        service.choice.store(choice, Relaxed);
        service.choice_sum.store(sum, Relaxed);
        for (member, at) in plan.members.iter().zip(members.clone()) {
            member.store(&self.tables.members[at as usize], plan);
        }
        for (step, at) in sequence.iter().zip(steps.clone()) {
            self.tables.steps[at as usize].store(*step, Relaxed);
        }
        service.checksum.store(self.tables.service_sum(service), Relaxed);
        Ok(Version { plan: Some(Arc::clone(plan)), row: row.start, members, steps, table })
    }

    /// Puts a staged generation in force, by one store.
    pub fn commit(&mut self, staged: Staged) -> u64 {
        let Staged(held) = staged;
        let number = held.number;
        let odd = seqlock::begin(&self.tables.root.sequence);
        self.tables.root.put_in_force(number, held.directory);
        (self.step)();
        seqlock::end(&self.tables.root.sequence, odd); // Even again, whatever a dead writer left.
        self.held.push_back(held);
        number
    }

    /// Takes a staged generation back: nobody saw it.
    pub fn abort(&mut self, staged: Staged) {
        self.release(staged.0);
    }
}

fn below(what: &'static str, value: u64, limit: u64) -> Result<(), PublishError> {
    if value < limit { Ok(()) } else { Err(PublishError::Limit { what, value, limit }) }
}

fn versions_by_index(versions: &[Arc<Version>]) -> HashMap<u32, &Arc<Version>> {
    versions.iter().filter_map(|v| v.plan.as_ref().map(|p| (p.index, v))).collect()
}

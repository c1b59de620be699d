//! The writer of the published tables: stages a generation in rows nobody reads, releases it by one store, and takes rows
//! back when every live slot has passed a burst boundary since.
//!
//! Copy on write per service: a service that did not change keeps its rows. Stage and commit are two steps, so that a
//! journal is written between them: what can fail has failed before.

mod arena;
mod choices;
mod node;
mod plan;
mod quorum;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use arena::Arena;
use choices::{Table, Tables};
pub use node::{PortPlan, SlotPlan, write_node};
pub use plan::{Hashing, LocalPlan, MemberPlan, Plan, ServicePlan, SharedPlan};
pub use quorum::{Laggard, control_age_ms, lowest_seen, owner_alive};
pub use sequence::{STEPS_MAX, smooth};

use crate::limits::{MAX_LADDRS, NONE, RETIRED_GENERATIONS};
use crate::published::{Published, address_hash, admin, directory_flag, mode, service_flag};
use crate::segment::Rows;
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
    pub fn in_force(&self, plan: impl Into<SharedPlan>) -> bool {
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
        for version in held.versions {
            if let Some(version) = Arc::into_inner(version) {
                self.give(version);
            }
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
    pub fn stage(
        &mut self,
        plan: impl Into<SharedPlan>,
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
        let limit = |what, value: u64, limit: u64| {
            if value < limit { Ok(()) } else { Err(PublishError::Limit { what, value, limit }) }
        };
        for service in &plan.services {
            limit("service", service.index.into(), self.tables.geometry.services)?;
            for member in &service.members {
                limit("real server", member.id.into(), self.tables.geometry.servers)?;
            }
        }
        limit("local address", (plan.locals.len() as u64).saturating_sub(1), MAX_LADDRS as u64)
    }

    fn build(&mut self, plan: &SharedPlan, number: u64) -> Result<Held, PublishError> {
        let free = |d: &usize| !self.held.iter().any(|held| held.directory == *d);
        let directory = (0..self.tables.directories.len()).find(free).ok_or(PublishError::Full {
            what: "directories",
            count: 1,
            free: 0,
        })?;
        // By service index: what is in force of it.
        let mut now: Vec<Option<Arc<Version>>> = vec![None; self.tables.services.len()];
        for version in self.held.back().into_iter().flat_map(|held| &held.versions) {
            if let Some(place) = version.plan.as_ref().and_then(|p| now.get_mut(p.index as usize)) {
                *place = Some(Arc::clone(version));
            }
        }
        let mut held = Held { number, directory, versions: Vec::with_capacity(plan.services.len()) };
        for service in &plan.services {
            let same = |v: &&Arc<Version>| v.plan.as_ref().is_some_and(|p| Arc::ptr_eq(p, service) || p == service);
            let version = match now.get(service.index as usize).and_then(Option::as_ref).filter(same) {
                Some(version) => Ok(Arc::clone(version)),
                None => {
                    let before = now.get(service.index as usize).and_then(Option::as_deref);
                    self.write_service(service, before).map(Arc::new).inspect(|_| (self.step)())
                }
            };
            match version {
                Ok(version) => held.versions.push(version),
                Err(error) => {
                    drop(now);
                    self.release(held);
                    return Err(error);
                }
            }
        }
        self.write_directory(&held, plan);
        Ok(held)
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

    fn write_directory(&self, held: &Held, plan: &SharedPlan) {
        let block = &self.tables.directories[held.directory];
        // Release: a reader outside the quorum that sees new words below also sees that the block is being written.
        block.head.generation.store(0, Release);
        let clear = |rows: &Rows<AtomicU32>, value| rows.iter().for_each(|w| w.store(value, Relaxed));
        clear(&block.services, NONE);
        clear(&block.servers, NONE);
        clear(&block.vips, 0);
        clear(&block.vip_addresses, 0);
        clear(&block.local_addresses, 0);
        (self.step)();
        // Services by index, for comparing what a place of the hash tables holds with what is to be put there.
        let mut plans: Vec<Option<&ServicePlan>> = vec![None; block.services.len()];
        for service in held.versions.iter().filter_map(|v| v.plan.as_deref()) {
            plans[service.index as usize] = Some(service);
        }
        let plan_of = |index: u32| plans.get(index as usize).copied().flatten();
        // A removed service whose address has been given to another is found by its sessions only.
        let gone = |v: &&Arc<Version>| v.plan.as_ref().is_some_and(|p| p.flags & service_flag::REMOVED != 0);
        let (removed, kept): (Vec<_>, Vec<_>) = held.versions.iter().partition(gone);
        for version in kept.into_iter().chain(removed) {
            let Some(service) = version.plan.as_deref() else { continue };
            block.services[service.index as usize].store(version.row, Relaxed);
            insert(&block.vips, address_hash(service.vip, service.port, service.protocol), service.index, |other| {
                plan_of(other)
                    .is_some_and(|o| (o.vip, o.port, o.protocol) == (service.vip, service.port, service.protocol))
            });
            insert(&block.vip_addresses, address_hash(service.vip, 0, 0), service.index, |other| {
                plan_of(other).is_some_and(|o| o.vip == service.vip)
            });
            for (member, at) in service.members.iter().zip(version.members.clone()) {
                block.servers[member.id as usize].store(at, Relaxed);
            }
        }
        for (at, local) in (0_u32..).zip(&plan.locals) {
            local.store(&block.locals[at as usize]);
            insert(&block.local_addresses, address_hash(local.ip, 0, 0), at, |other| {
                plan.locals.get(other as usize).is_some_and(|o| o.ip == local.ip)
            });
        }
        let highest = plan.services.iter().map(|s| s.index + 1).max().unwrap_or(0);
        block.head.services.store(highest, Relaxed);
        block.head.locals.store(u32::try_from(plan.locals.len()).unwrap_or(0), Relaxed);
        let ends = |m: &MemberPlan| matches!(m.admin, admin::DISABLED | admin::REMOVED_NOW);
        let sweep = plan.services.iter().any(|s| s.members.iter().any(ends));
        // Once set it stays: sessions outlive the mode of their service.
        let before = self.tables.current().map_or(0, |g| self.tables.directory(g).head.flags.load(Relaxed));
        let nat = before & directory_flag::NAT != 0 || plan.services.iter().any(|s| s.mode == mode::NAT);
        let flags = [(sweep, directory_flag::SWEEP), (nat, directory_flag::NAT)];
        block.head.flags.store(flags.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum(), Relaxed);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        block.head.published_at.store(since.map_or(0, |t| t.as_secs()), Relaxed);
        (self.step)();
        block.head.generation.store(held.number, Relaxed);
        block.head.checksum.store(block.sum(), Relaxed);
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

/// Puts `value + 1` at the first empty place from the hash's, unless one that is the `same` stands on the way: the first
/// of two wins. The tables are at most half full.
fn insert(rows: &Rows<AtomicU32>, hash: u64, value: u32, same: impl Fn(u32) -> bool) {
    let mask = rows.len().wrapping_sub(1);
    let start = usize::try_from(hash >> 32).unwrap_or(0);
    for step in 0..rows.len() {
        let place = &rows[start.wrapping_add(step) & mask];
        match place.load(Relaxed) {
            0 => return place.store(value + 1, Relaxed),
            other if same(other - 1) => return,
            _ => {}
        }
    }
}

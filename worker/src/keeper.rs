//! Main, once its threads serve: feeds the watchdog, follows orders, watches a successor, adopts slots without owner.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use config::{Node, OnPrimaryDeath};
use links::messages::{ToWorker, WorkerSays};
use links::pidfd::{self, Peer};
use links::{Link, service};
use shm_layout::owner::Process;

use crate::error::WorkerError;
use crate::serve::{Ended, Event, server_for};
use crate::slots::Place;
use crate::threads::{Common, Order, Server};
use crate::trial::{History, Sample, Trial, Verdict};

/// Time between two looks at everything.
const TICK: Duration = Duration::from_millis(100);
/// A slot without owner for so long is adopted.
const ORPHANED: Duration = Duration::from_secs(2);

/// Time a successor has to give slots back.
const RETURN_LIMIT: Duration = Duration::from_secs(2);

/// Slots that a successor was asked to give back.
struct Returning {
    heir: Process,
    places: Vec<Place>,
    since: Instant,
    /// It was killed.
    told: bool,
}

/// What main knows.
pub struct Keeper<'a> {
    node: &'a Node,
    common: &'a Common,
    servers: &'a [Server],
    /// The slots we serve.
    ours: BTreeMap<u32, Place>,
    /// The worker we relieved, while it may take its slots back.
    elder: Option<Process>,
    trial: Option<Trial>,
    returning: Option<Returning>,
    history: History,
    /// Slots without owner, and since when.
    orphans: BTreeMap<u32, Instant>,
    holder_died: bool,
    link: &'a Link<WorkerSays>,
    tell: Sender<Event>,
    turns: Vec<u64>,
}

impl<'a> Keeper<'a> {
    /// Of the slots `places`, which the threads serve.
    pub fn new(
        node: &'a Node,
        common: &'a Common,
        servers: &'a [Server],
        places: Vec<Place>,
        elder: Option<Process>,
        tell: Sender<Event>,
        link: &'a Link<WorkerSays>,
    ) -> Self {
        Self {
            node,
            common,
            servers,
            ours: places.into_iter().map(|p| (p.number, p)).collect(),
            elder,
            trial: None,
            returning: None,
            history: History::default(),
            orphans: BTreeMap::new(),
            holder_died: false,
            link,
            tell,
            turns: Vec::new(),
        }
    }

    /// Until there is a reason to leave. The watchdog is fed only while every thread makes turns.
    pub fn keep(&mut self, events: &Receiver<Event>) -> Result<Ended, WorkerError> {
        let mut watchdog = service::watchdog();
        loop {
            let ended = match events.recv_timeout(TICK) {
                Ok(event) => self.follow(event)?,
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Ended::Asked),
            };
            if let Some(ended) = ended.or(self.tick()?) {
                return Ok(ended);
            }
            if self.all_threads_turn()
                && let Some(watchdog) = &mut watchdog
            {
                watchdog.beat();
            }
        }
    }

    fn follow(&mut self, event: Event) -> Result<Option<Ended>, WorkerError> {
        match event {
            Event::Signal(signal) => {
                log::info!("signal {signal}: stopping");
                return Ok(Some(Ended::Asked));
            }
            Event::Order(ToWorker::Stop) => {
                log::info!("lb-primary stops: stopping");
                return Ok(Some(Ended::Ordered));
            }
            Event::Order(ToWorker::Died { pid }) => self.common.slots.bury(pid),
            // The next tick sees it; it must not wait for its time.
            Event::Order(ToWorker::Admit(_)) | Event::HeirDied => {}
            Event::HolderDied => {
                self.holder_died = true;
                self.common.slots.alone.store(true, Ordering::Relaxed); // Relaxed: a fact that never changes back.
                match self.node.on_primary_death {
                    OnPrimaryDeath::Restart => {
                        log::error!("lb-primary has died: leaving, to attach to its successor");
                        return Err(WorkerError::HolderGone);
                    }
                    OnPrimaryDeath::Hold => log::error!("lb-primary has died: serving on without it"),
                }
                service::status("degraded: no primary; serving on without it");
            }
        }
        Ok(None)
    }

    fn tick(&mut self) -> Result<Option<Ended>, WorkerError> {
        if self.servers.iter().any(|s| s.pulse.failed.load(Ordering::Acquire)) {
            let source = std::io::Error::other("a slot cannot be served; see the line above");
            return Err(WorkerError::System { what: "serve", source });
        }
        self.look_at_ours()?;
        if self.elder.is_some_and(|elder| !pidfd::lives(elder)) {
            self.elder = None; // It was content, or has died: nobody stands by.
            self.ours.values().for_each(|p| p.slot.owner.heir.store(0, Ordering::Relaxed)); // Relaxed: for people.
        }
        self.look_at_returning();
        if self.trial.is_some() {
            if let Some(ended) = self.look_at_heir() {
                return Ok(Some(ended));
            }
        } else {
            self.history.add(Instant::now(), Sample::of(self.ours.values()));
        }
        self.look_at_orphans()
    }

    /// Slots that have gone to somebody else.
    fn look_at_ours(&mut self) -> Result<(), WorkerError> {
        let me = self.common.slots.me;
        let gone: Vec<Place> = self.ours.values().filter(|p| p.slot.owner.owner() != me).cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        gone.iter().for_each(|p| drop(self.ours.remove(&p.number)));
        let numbers: Vec<u32> = gone.iter().map(|p| p.number).collect();
        // An adopted slot goes home; one of our own zone goes to a successor.
        let Some(home) = gone.iter().find(|p| p.zone == u32::from(self.common.slots.zone)) else {
            log::info!("slots {numbers:?} have gone home");
            return Ok(());
        };
        // Acquire by `owner()`: who asked wrote its name before; from its first turn on it is the owner.
        let owner = home.slot.owner.owner();
        let heir = if owner == Process::NOBODY {
            Process::from_word(home.slot.owner.heir.load(Ordering::Acquire))
        } else {
            owner
        };
        if self.elder == Some(heir) {
            return Err(WorkerError::TakenBack { pid: heir.pid() });
        }
        log::info!("slots {numbers:?} are handed over to process {}, which is on trial now", heir.pid());
        service::status(&format!("standing by: process {} has the slots", heir.pid()));
        match &mut self.trial {
            Some(trial) => trial.extend(gone),
            None => {
                self.trial = Some(Trial::new(heir, gone, &self.history));
                let tell = self.tell.clone();
                // One that is dead already is seen by the look that follows.
                if let Ok(peer) = Peer::open(heir.pid()) {
                    peer.watch(move |_| drop(tell.send(Event::HeirDied)))
                        .map_err(WorkerError::system("watch a process"))?;
                }
            }
        }
        Ok(())
    }

    fn look_at_heir(&mut self) -> Option<Ended> {
        let trial = self.trial.as_ref()?;
        let (trial_of, heir) = (trial.heir, trial.heir.pid());
        match trial.look(!self.ours.values().any(|p| p.slot.owner.asked())) {
            Verdict::Watch => {}
            Verdict::Passed => {
                log::info!("process {heir} does well: leaving");
                return Some(Ended::Relieved);
            }
            Verdict::Dead => {
                let places = self.trial.as_mut().map_or_else(Vec::new, |t| std::mem::take(&mut t.places));
                // One whose queue pair lb-primary has not made whole yet is taken at a later look.
                let left: Vec<Place> = places
                    .into_iter()
                    .filter(|place| !self.take(place) && !pidfd::lives(place.slot.owner.owner()))
                    .collect();
                match &mut self.trial {
                    Some(trial) if !left.is_empty() => trial.places = left,
                    _ => {
                        log::error!("process {heir} has died on trial: its slots are taken back");
                        self.took_back();
                    }
                }
            }
            Verdict::Worse(why) => {
                log::error!("process {heir}: {why}: its slots are taken back");
                let places = self.trial.take().map_or_else(Vec::new, |t| t.places);
                for place in &places {
                    server_for(self.servers, place).order(Order::Succeed(vec![place.clone()]));
                }
                self.returning = Some(Returning { heir: trial_of, places, since: Instant::now(), told: false });
            }
        }
        None
    }

    /// Slots that a successor was asked to give back. One that does not is killed: it was bad before it hung.
    fn look_at_returning(&mut self) {
        let Some(returning) = &mut self.returning else { return };
        let me = self.common.slots.me;
        let (back, left): (Vec<Place>, _) =
            std::mem::take(&mut returning.places).into_iter().partition(|p| p.slot.owner.owner() == me);
        returning.places = left;
        if returning.since.elapsed() > RETURN_LIMIT && !std::mem::replace(&mut returning.told, true) {
            log::error!("process {} does not give its slots back: killed", returning.heir.pid());
            if pidfd::lives(returning.heir)
                && let Ok(peer) = Peer::open(returning.heir.pid())
            {
                peer.kill();
            }
        }
        let over = returning.places.is_empty();
        self.ours.extend(back.into_iter().map(|p| (p.number, p)));
        if over {
            self.returning = None;
            self.took_back();
        }
    }

    /// A successor was not good enough, and the slots are here again.
    fn took_back(&mut self) {
        self.trial = None;
        self.history = History::default();
        if let Err(error) = self.link.send(WorkerSays::TookBack) {
            log::debug!("{error}"); // lb-primary is away: no successor can come either.
        }
        service::status(&format!("{} slots served; a successor was not good enough", self.ours.len()));
    }

    /// Takes a slot that is nobody's or a dead process's. `false`: somebody was quicker, or it is not to be had yet.
    fn take(&mut self, place: &Place) -> bool {
        if let Some(taken) = self.common.slots.take(place) {
            server_for(self.servers, place).order(Order::Serve(Box::new(taken)));
        } else if place.slot.owner.owner() != self.common.slots.me {
            return false;
        }
        self.ours.insert(place.number, place.clone());
        true
    }

    /// Slots whose owner is dead, or which have none, and that nobody takes.
    fn look_at_orphans(&mut self) -> Result<Option<Ended>, WorkerError> {
        let now = Instant::now();
        let mut adopt = Vec::new();
        for place in &self.common.slots.places {
            let awaited =
                self.trial.iter().flat_map(|t| &t.places).chain(self.returning.iter().flat_map(|r| &r.places));
            let known = self.ours.contains_key(&place.number) || awaited.into_iter().any(|p| p.number == place.number);
            if known || pidfd::lives(place.slot.owner.owner()) {
                self.orphans.remove(&place.number);
                continue;
            }
            let since = *self.orphans.entry(place.number).or_insert(now);
            if now.duration_since(since) >= ORPHANED {
                adopt.push(place.clone());
            }
        }
        if adopt.is_empty() {
            return Ok(None);
        }
        if self.holder_died && std::env::var_os("LB_STOPPED_STATUS").is_some() {
            log::error!("lb-primary has died and so has a worker: leaving, for a planned restart");
            return Ok(Some(Ended::Ordered));
        }
        for place in adopt {
            log::warn!("slot {} (zone {}) has no owner: adopted", place.number, place.zone);
            self.orphans.remove(&place.number);
            self.history = History::default(); // Its past is not ours.
            self.take(&place);
        }
        Ok(None)
    }

    fn all_threads_turn(&mut self) -> bool {
        let now: Vec<u64> = self.servers.iter().map(|s| s.pulse.turns.load(Ordering::Relaxed)).collect();
        let moved = now.len() != self.turns.len() || now.iter().zip(&self.turns).all(|(now, before)| now != before);
        if moved {
            self.turns = now;
        }
        moved
    }
}

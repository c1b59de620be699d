//! Main, once its threads serve: feeds the watchdog, follows orders, watches a successor, adopts slots without owner.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use config::{Node, OnPrimaryDeath};
use links::messages::ToWorker;
use links::pidfd::{self, Peer};
use links::service;
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
    history: History,
    /// Slots without owner, and since when.
    orphans: BTreeMap<u32, Instant>,
    holder_died: bool,
    /// Workers whose torn queue pairs the holder has made whole.
    buried: Vec<u32>,
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
    ) -> Self {
        Self {
            node,
            common,
            servers,
            ours: places.into_iter().map(|p| (p.number, p)).collect(),
            elder,
            trial: None,
            history: History::default(),
            orphans: BTreeMap::new(),
            holder_died: false,
            buried: Vec::new(),
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
            Event::Order(ToWorker::Died { pid }) => self.buried.push(pid),
            // The next tick sees it; it must not wait for its time.
            Event::Order(ToWorker::Admit(_)) | Event::HeirDied => {}
            Event::HolderDied => {
                self.holder_died = true;
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
        if self.trial.is_some() {
            return self.look_at_heir();
        }
        self.history.add(Instant::now(), Sample::of(self.ours.values()));
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
            Some(trial) => trial.places.extend(gone),
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

    fn look_at_heir(&mut self) -> Result<Option<Ended>, WorkerError> {
        let Some(trial) = &self.trial else { return Ok(None) };
        match trial.look(self.ours.is_empty()) {
            Verdict::Watch => {}
            Verdict::Passed => {
                log::info!("process {} does well: leaving", trial.heir.pid());
                return Ok(Some(Ended::Relieved));
            }
            Verdict::Dead => {
                let torn = trial.places.iter().any(|p| p.restarts);
                if torn && !self.holder_died && !self.buried.contains(&trial.heir.pid()) {
                    return Ok(None); // The holder restarts its queue pairs first.
                }
                log::error!("process {} has died on trial: its slots are taken back", trial.heir.pid());
                let places = std::mem::take(&mut self.trial).map_or_else(Vec::new, |t| t.places);
                places.into_iter().for_each(|place| self.take(place));
            }
            Verdict::Worse(why) => {
                log::error!("process {}: {why}: its slots are taken back", trial.heir.pid());
                let places = std::mem::take(&mut self.trial).map_or_else(Vec::new, |t| t.places);
                for place in places {
                    server_for(self.servers, &place).order(Order::Succeed(vec![place.clone()]));
                    self.await_return(place);
                }
            }
        }
        if self.trial.is_none() {
            self.history = History::default();
            service::status(&format!("{} slots served; a successor was not good enough", self.ours.len()));
        }
        Ok(None)
    }

    /// Waits until a slot that was asked for is ours again. Its owner, alive or dead, cannot keep it: the holder kills one
    /// that hangs.
    fn await_return(&mut self, place: Place) {
        let end = Instant::now() + ORPHANED;
        while place.slot.owner.owner() != self.common.slots.me && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ours.insert(place.number, place);
    }

    /// Takes a slot that is nobody's or a dead process's; somebody may be quicker.
    fn take(&mut self, place: Place) {
        if let Some(taken) = self.common.slots.take(&place) {
            server_for(self.servers, &place).order(Order::Serve(Box::new(taken)));
            self.ours.insert(place.number, place);
        }
    }

    /// Slots whose owner is dead, or which have none, and that nobody takes.
    fn look_at_orphans(&mut self) -> Result<Option<Ended>, WorkerError> {
        let now = Instant::now();
        let mut adopt = Vec::new();
        for place in &self.common.slots.places {
            if self.ours.contains_key(&place.number) || pidfd::lives(place.slot.owner.owner()) {
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
            self.take(place);
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

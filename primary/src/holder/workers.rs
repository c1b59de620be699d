//! Workers: admitted one at a time, watched until they die.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use dpdk::Locks;
use dpdk::locks::Snapshot;
use links::messages::{Admit, AdmitPort, ToWorker, WorkerSays};
use links::pidfd::Peer;
use links::{Hello, Link, Pending};
use shm_layout::owner::Process;
use shm_layout::slot::Slot;

use super::Event;
use super::hang::{Finding, Judge, Settling};
use super::plan::HolderPlan;
use super::ports::HeldPort;
use super::segments::Segments;

/// An attach that takes longer is told to the log. It is not killed: a kill within it may leave EAL's lock taken.
const ATTACH_LONG: Duration = Duration::from_secs(10);
/// Time for an ordered end of all workers.
const END_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Worker {
    zone: u8,
    lane: u8,
    link: Link<ToWorker>,
    peer: Peer,
    slots: Vec<u32>,
}

/// Successors of a zone that were not good enough. A service manager starts a dead one again at once: after three in a row
/// each must wait, longer each time.
#[derive(Debug, Default)]
struct Refused {
    count: u32,
    last: Option<Instant>,
}

impl Refused {
    /// So many are tried without a pause. (A build whose workers die by order never makes one wait.)
    const TRIES: u32 = if cfg!(feature = "failpoints") { u32::MAX } else { 3 };
    const PAUSE: Duration = Duration::from_secs(10);
    const PAUSE_MAX: Duration = Duration::from_secs(300);
    /// One after so long begins a new row.
    const FORGET: Duration = Duration::from_secs(600);

    fn failed(&mut self, now: Instant) {
        let old = self.last.is_some_and(|last| now.duration_since(last) > Self::FORGET);
        self.count = if old { 1 } else { self.count + 1 };
        self.last = Some(now);
    }

    /// Time left until the next one may come; `None`: it may come.
    fn left(&self, now: Instant) -> Option<Duration> {
        let over = self.count.checked_sub(Self::TRIES)?;
        let pause = (Self::PAUSE * 2_u32.saturating_pow(over)).min(Self::PAUSE_MAX);
        pause.checked_sub(now.duration_since(self.last?)).filter(|left| !left.is_zero())
    }
}

/// The one that attaches.
#[derive(Debug)]
struct Attaching {
    pid: u32,
    since: Instant,
    told: bool,
    /// EAL's locks before.
    before: Option<Snapshot>,
}

/// All workers that said hello and live.
#[derive(Debug)]
pub struct Workers {
    alive: BTreeMap<u32, Worker>,
    queue: VecDeque<u32>,
    attaching: Option<Attaching>,
    /// EAL's locks; `None`: not found, so nothing is repaired.
    locks: Option<Locks>,
    /// A worker has died in its attach.
    suspicious: bool,
    /// EAL cannot be attached to any more: the appliance needs a planned restart.
    wedged: bool,
    judge: Judge,
    settling: Settling,
    starved: BTreeMap<u32, bool>,
    /// Successors that were not good enough, by zone.
    refused: BTreeMap<u8, Refused>,
    hang_after_ms: u64,
    /// All but lane, lcore and CPU.
    admit: Admit,
    zones: BTreeSet<u8>,
}

impl Workers {
    /// None yet.
    pub fn new(plan: &HolderPlan, file_prefix: &str, ports: Vec<AdmitPort>, locks: Option<Locks>) -> Self {
        let admit = Admit {
            file_prefix: file_prefix.into(),
            huge_dir: plan.eal_dir(),
            tables_dir: plan.tables_dir(),
            lane: 0,
            lcore: 0,
            // A worker attaches and looks after its threads beside the holder: not on a CPU where slots are polled.
            cpu: plan.cpu,
            ports,
            holder_pid: std::process::id(),
        };
        let zones = plan.zones.iter().map(|z| z.id).collect();
        Self {
            alive: BTreeMap::new(),
            queue: VecDeque::new(),
            attaching: None,
            locks,
            suspicious: false,
            wedged: false,
            judge: Judge::default(),
            settling: Settling::default(),
            starved: BTreeMap::new(),
            refused: BTreeMap::new(),
            hang_after_ms: plan.hang_after_ms,
            admit,
            zones,
        }
    }

    /// A worker said hello: refuses it or queues it for its attach.
    pub fn arrived(&mut self, pending: Pending, hello: &Hello, own: &Hello, events: &Sender<Event>) {
        let (zone, lane) = match self.place(hello) {
            Ok(place) => place,
            Err(why) => {
                log::warn!("refused: {why}");
                return pending.refuse(&why);
            }
        };
        let pid = pending.pid();
        let (said, died) = (events.clone(), events.clone());
        // The loop ends before its channel: a failed send is of no consequence.
        let deliver = move |message| drop(said.send(Event::WorkerSaid(pid, message)));
        let watch = || -> Result<_, links::LinkError> {
            let fail = |e: std::io::Error| links::LinkError::Channel { what: "watching a worker", why: e.to_string() };
            let peer = Peer::open(pid).map_err(fail)?;
            Peer::open(pid).and_then(|p| p.watch(move |pid| drop(died.send(Event::WorkerDied(pid))))).map_err(fail)?;
            Ok((peer, pending.accept_with::<ToWorker, WorkerSays>(own, deliver)?))
        };
        match watch() {
            Ok((peer, link)) => {
                log::info!("{} takes lane {} of zone {zone}", hello.who(), lane_name(lane));
                self.alive.insert(pid, Worker { zone, lane, link, peer, slots: Vec::new() });
                self.queue.push_back(pid);
                self.admit_next();
            }
            Err(error) => log::warn!("{}: {error}", hello.who()),
        }
    }

    /// Zone and lane for a worker.
    fn place(&self, hello: &Hello) -> Result<(u8, u8), String> {
        let zone = hello.zone.ok_or_else(|| format!("{} names no zone", hello.who()))?;
        if !self.zones.contains(&zone) {
            let known: Vec<String> = self.zones.iter().map(u8::to_string).collect();
            return Err(format!("zone {zone} is not configured (there are: {})", known.join(", ")));
        }
        if hello.take_over
            && let Some(left) = self.refused.get(&zone).and_then(|r| r.left(Instant::now()))
        {
            return Err(format!(
                "zone {zone} has had several successors that were not good enough; the next is admitted in {} s",
                left.as_secs() + 1
            ));
        }
        let taken = |lane| self.alive.iter().find(|(_, w)| w.zone == zone && w.lane == lane);
        match (taken(0), taken(1)) {
            (None, None) => Ok((zone, hello.lane.filter(|lane| *lane < 2).unwrap_or(0))),
            (None, Some(_)) if hello.take_over => Ok((zone, 0)),
            (Some(_), None) if hello.take_over => Ok((zone, 1)),
            (Some((pid, w)), _) | (_, Some((pid, w))) => Err(format!(
                "zone {zone} is served by worker process {pid} (lane {}){}",
                lane_name(w.lane),
                if hello.take_over { ", and another take-over is under way" } else { "; hint: stop it first" }
            )),
        }
    }

    fn admit_next(&mut self) {
        if self.attaching.is_some() {
            return;
        }
        while let Some(pid) = self.queue.pop_front() {
            let Some(worker) = self.alive.get(&pid) else { continue };
            let admit =
                Admit { lane: worker.lane, lcore: Admit::lcore_of(worker.zone, worker.lane), ..self.admit.clone() };
            // Before it may begin: what it takes is not what was there.
            let before = self.locks.as_ref().map(Locks::snapshot);
            if let Err(error) = worker.link.send(ToWorker::Admit(Box::new(admit))) {
                log::warn!("{error}");
                continue;
            }
            self.attaching = Some(Attaching { pid, since: Instant::now(), told: false, before });
            return;
        }
    }

    fn attached(&mut self, pid: u32) {
        if self.attaching.as_ref().is_some_and(|a| a.pid == pid) {
            self.attaching = None;
            self.suspicious = false; // Who gets through has shown that nothing was left taken.
            self.admit_next();
        }
    }

    /// A worker says something; `None`: it has closed the link.
    pub fn said(&mut self, pid: u32, message: Option<WorkerSays>) {
        match message {
            Some(WorkerSays::Attached) => self.attached(pid),
            Some(WorkerSays::Serving { slots }) => {
                self.attached(pid);
                for worker in self.alive.values_mut() {
                    worker.slots.retain(|slot| !slots.contains(slot)); // It has handed them over.
                }
                if let Some(worker) = self.alive.get_mut(&pid) {
                    log::info!("worker process {pid} (zone {}) serves slots {slots:?}", worker.zone);
                    worker.slots = slots;
                }
            }
            Some(WorkerSays::Stopped) => {
                if let Some(worker) = self.alive.get_mut(&pid) {
                    worker.slots.clear();
                }
            }
            Some(WorkerSays::TookBack) => {
                if let Some(worker) = self.alive.get(&pid) {
                    self.refused.entry(worker.zone).or_default().failed(Instant::now());
                }
            }
            // Death is the kernel's to tell.
            None => {}
        }
    }

    /// Workers whose death the kernel would tell this moment, but whose watcher has not had its turn yet: their
    /// successors may be quicker.
    pub fn dead_already(&self) -> Vec<u32> {
        self.alive.iter().filter(|(_, w)| w.peer.dead()).map(|(pid, _)| *pid).collect()
    }

    /// The kernel says that a worker has died.
    pub fn died(&mut self, pid: u32, segments: &Segments, ports: &[HeldPort]) {
        let Some(worker) = self.alive.remove(&pid) else { return };
        let mut left = Vec::new();
        // Those a quicker successor has taken already are none of ours any more.
        for number in segments.owned_by(pid) {
            left.push(number);
            let torn = ports.iter().filter(|p| p.tears()).find_map(|p| Some((p, p.queue_of(number)?)));
            let Some(((port, queue), slot)) = torn.zip(segments.slots.get(number as usize)) else { continue };
            // As its owner, so that nobody polls it meanwhile; then it is the dead one's again, to be settled.
            let (dead, me) = (slot.owner.owner(), Process::this());
            if dead.pid() == pid && slot.owner.claim(dead, me) {
                port.restart_queue(queue);
                slot.owner.give_back_to(dead);
            }
        }
        if left.is_empty() {
            log::info!("worker process {pid} (zone {}) has left", worker.zone);
        } else {
            log::error!("worker process {pid} (zone {}) has died and leaves slots {left:?}", worker.zone);
        }
        if let Some(attaching) = self.attaching.take_if(|a| a.pid == pid) {
            self.repair(pid, attaching.before.as_ref());
            self.admit_next();
        }
        // After the queue pairs are whole: from here on others may poll them.
        for other in self.alive.values() {
            if let Err(error) = other.link.send(ToWorker::Died { pid }) {
                log::debug!("{error}"); // It dies or leaves itself.
            }
        }
    }

    /// A worker was killed in its attach: what it left taken of EAL's locks keeps every later one out.
    fn repair(&mut self, pid: u32, before: Option<&Snapshot>) {
        self.suspicious = true;
        let restored = self.locks.as_ref().zip(before).map(|(locks, before)| locks.restore(before));
        match restored {
            Some(restored) if restored.heap => {
                log::error!(
                    "worker process {pid} died while it attached, with EAL's heap locked: not to be trusted any more"
                );
                self.wedged = true;
            }
            Some(restored) if !restored.locks.is_empty() => log::warn!(
                "worker process {pid} died while it attached and left EAL's {} lock taken: free again",
                restored.locks.join(" and ")
            ),
            Some(_) => log::warn!("worker process {pid} died while it attached; it had no lock of EAL's"),
            None => log::error!("worker process {pid} died while it attached; EAL's locks are not known"),
        }
    }

    /// Does somebody want to attach who cannot?
    pub fn needs_restart(&self) -> bool {
        let waits = self.attaching.is_some() || !self.queue.is_empty();
        self.wedged && waits
    }

    /// To be called often.
    pub fn tend(&mut self, slots: &[Slot]) {
        if let Some(attaching) = &mut self.attaching
            && attaching.since.elapsed() > ATTACH_LONG
            && !std::mem::replace(&mut attaching.told, true)
        {
            log::warn!("worker process {} attaches for more than {ATTACH_LONG:?}; others wait", attaching.pid);
            self.wedged |= self.suspicious;
        }
        let now_ms = shm_layout::clock::now_ms();
        for (number, slot) in (0..).zip(slots) {
            let found = self.judge.look(number, slot, now_ms, self.hang_after_ms);
            let owner = found.as_ref().map_or_else(|| slot.owner.owner(), |(who, _)| *who);
            let finding = found.map(|(_, finding)| finding);
            let Some(worker) = self.alive.get(&owner.pid()) else {
                self.starved.remove(&number);
                continue;
            };
            if self.settling.lasts(owner, slots) {
                continue; // It checks the tables of a slot whole: its thread makes no turn meanwhile.
            }
            let was_starved = self.starved.insert(number, finding == Some(Finding::Starved)).unwrap_or(false);
            match finding {
                Some(Finding::Hung(why)) => {
                    log::error!(
                        "worker process {} (zone {}) hangs: slot {number} made {why}: killed",
                        worker.peer.pid(),
                        worker.zone
                    );
                    worker.peer.kill();
                }
                Some(Finding::Starved) if !was_starved => log::warn!(
                    "worker process {} (zone {}) is starved: slot {number} was given no CPU for {} ms",
                    worker.peer.pid(),
                    worker.zone,
                    self.hang_after_ms
                ),
                _ => {}
            }
        }
    }

    /// "2 workers, 4 slots served".
    pub fn summary(&self) -> String {
        let slots: usize = self.alive.values().map(|w| w.slots.len()).sum();
        let starved = self.starved.values().filter(|s| **s).count();
        let starved = if starved == 0 { String::new() } else { format!(", {starved} starved of CPU") };
        format!("{} workers, {slots} slots served{starved}", self.alive.len())
    }

    /// Ends all of them: a worker that polls a port its holder has closed would crash.
    pub fn stop(&mut self) {
        for worker in self.alive.values() {
            if let Err(error) = worker.link.send(ToWorker::Stop) {
                log::warn!("{error}; told by signal");
                worker.peer.terminate();
            }
        }
        let end = Instant::now() + END_LIMIT;
        for (pid, worker) in std::mem::take(&mut self.alive) {
            let left = end.saturating_duration_since(Instant::now());
            if !worker.peer.wait(Some(left)).unwrap_or(false) {
                log::error!("worker process {pid} (zone {}) does not leave: killed", worker.zone);
                worker.peer.kill();
                let _ = worker.peer.wait(Some(END_LIMIT)); // The kernel ends it when it can.
            }
        }
    }
}

fn lane_name(lane: u8) -> char {
    if lane == 0 { 'a' } else { 'b' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_three_bad_successors_each_waits_longer() {
        let (mut refused, begin) = (Refused::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in 0..Refused::TRIES.min(3) {
            assert_eq!(refused.left(at(second.into())), None);
            refused.failed(at(second.into()));
        }
        if !cfg!(feature = "failpoints") {
            assert_eq!(refused.left(at(2)), Some(Duration::from_secs(10)));
            assert_eq!(refused.left(at(12)), None);
            refused.failed(at(12));
            assert_eq!(refused.left(at(12)), Some(Duration::from_secs(20)));
            refused.failed(at(1000));
            assert_eq!(refused.left(at(1000)), None, "forgotten");
        }
    }
}

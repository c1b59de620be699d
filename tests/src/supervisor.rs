//! What stands in for systemd: starts a worker again when it has died, after a pause.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::appliance::{Appliance, Launcher};
use crate::clock::now_us;
use crate::cpu::Sched;
use crate::daemon::Daemon;
use crate::{Error, Result, wait};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// `RestartSec` of `lb-worker@.service`.
pub const RESTART: Duration = Duration::from_millis(20);

/// One life of a supervised worker. Units: microseconds of [`now_us`].
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Process id.
    pub pid: u32,
    /// When it was started.
    pub started_us: u64,
    /// When its `READY=1` was seen; 0: never.
    pub ready_us: u64,
    /// What its main thread had run and waited for a CPU by then.
    pub until_ready: Sched,
    /// When its end was seen; 0: it lives.
    pub ended_us: u64,
    /// How it ended, in words.
    pub end: String,
}

struct Unit {
    zone: u32,
    lane: char,
    daemon: Option<Daemon>,
    /// When it is to be started.
    due_us: Option<u64>,
    held: bool,
    lives: Vec<Life>,
}

struct State {
    units: BTreeMap<String, Unit>,
    pause: Duration,
    over: bool,
    /// What went wrong in starting one.
    wrong: Vec<String>,
}

/// Looks after the workers of an appliance until it is [ended](Self::end). Dropping it leaves the
/// workers to the janitor.
pub struct Supervisor {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Takes all running workers of `appliance` under its eye; one that dies is started again after
    /// `pause`, however often.
    #[must_use]
    pub fn watch(appliance: &mut Appliance, pause: Duration) -> Self {
        let mut units = BTreeMap::new();
        for (name, daemon) in std::mem::take(&mut appliance.workers) {
            let (zone, lane) = zone_and_lane(&name);
            let life = Life { pid: daemon.pid(), started_us: now_us(), ready_us: now_us(), ..Life::default() };
            let (daemon, lives) = (Some(daemon), vec![life]);
            units.insert(name, Unit { zone, lane, daemon, due_us: None, held: false, lives });
        }
        let state = Arc::new(Mutex::new(State { units, pause, over: false, wrong: Vec::new() }));
        let (shared, launcher) = (state.clone(), appliance.launcher());
        let thread = spawn(move || {
            while look(&mut lock(&shared), &launcher) {
                sleep(LOOK);
            }
        });
        Self { state, thread: Some(thread) }
    }

    /// Names of the units: zone and lane, e.g. `0a`.
    #[must_use]
    pub fn units(&self) -> Vec<String> {
        lock(&self.state).units.keys().cloned().collect()
    }

    /// From now on the pause before a start is this.
    pub fn set_pause(&self, pause: Duration) {
        lock(&self.state).pause = pause;
    }

    /// Keeps a unit from being started, or lets it be started (at once, if it is overdue).
    pub fn hold(&self, unit: &str, held: bool) {
        if let Some(unit) = lock(&self.state).units.get_mut(unit) {
            unit.held = held;
        }
    }

    /// Process id of the unit's present life.
    #[must_use]
    pub fn pid(&self, unit: &str) -> Option<u32> {
        lock(&self.state).units.get(unit)?.daemon.as_ref().map(Daemon::pid)
    }

    /// Sends a signal to the unit's present process, and says when.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, unit: &str, signal: Signal) -> Result<u64> {
        let pid = self.pid(unit).and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| Error::claim(format!("worker {unit} does not run")))?;
        let at_us = now_us();
        kill(Pid::from_raw(pid), signal).map_err(|e| Error::claim(format!("signal to worker {unit} ({pid}): {e}")))?;
        Ok(at_us)
    }

    /// All lives of a unit so far.
    #[must_use]
    pub fn lives(&self, unit: &str) -> Vec<Life> {
        lock(&self.state).units.get(unit).map_or_else(Vec::new, |u| u.lives.clone())
    }

    /// Waits until the unit is ready in a life begun after `after_us`, and gives that life.
    ///
    /// # Errors
    /// When it is not in time, with what was seen of its lives.
    pub fn wait_ready(&self, unit: &str, after_us: u64, limit: Duration) -> Result<Life> {
        let ready = |life: &Life| life.started_us > after_us && life.ready_us > 0 && life.ended_us == 0;
        let what = format!("worker {unit} ready again");
        wait::until(&what, limit, Duration::from_millis(2), || {
            Ok(self.lives(unit).into_iter().next_back().filter(ready))
        })
        .map_err(|error| {
            let lives = self.lives(unit);
            let last = &lives[lives.len().saturating_sub(3)..];
            let tail = lock(&self.state).units.get(unit).and_then(|u| u.daemon.as_ref().map(|d| d.log_tail(12)));
            Error::claim(format!("{error}; its last lives: {last:?}; its log ends:\n{}", tail.unwrap_or_default()))
        })
    }

    /// Gives the workers back to `appliance` as they are; nothing is started any more.
    ///
    /// # Errors
    /// What went wrong in starting them meanwhile.
    pub fn end(mut self, appliance: &mut Appliance) -> Result<()> {
        lock(&self.state).over = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut state = lock(&self.state);
        for (name, unit) in std::mem::take(&mut state.units) {
            if let Some(daemon) = unit.daemon {
                appliance.workers.insert(name, daemon);
            }
        }
        if state.wrong.is_empty() { Ok(()) } else { Err(Error::claim(state.wrong.join("\n"))) }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        lock(&self.state).over = true;
    }
}

/// One look at all units; false when it is over.
fn look(state: &mut State, launcher: &Launcher) -> bool {
    if state.over {
        return false;
    }
    let pause = u64::try_from(state.pause.as_micros()).unwrap_or(u64::MAX);
    for (name, unit) in &mut state.units {
        unit.watch(pause);
        if let Err(error) = unit.start_if_due(launcher) {
            state.wrong.push(format!("worker {name}: {error}"));
        }
    }
    true
}

impl Unit {
    /// Notes readiness and end of the present life.
    fn watch(&mut self, pause_us: u64) {
        let (Some(daemon), Some(life)) = (&mut self.daemon, self.lives.last_mut()) else { return };
        if life.ready_us == 0 && daemon.notified().ready {
            life.ready_us = now_us();
            life.until_ready = Sched::of_main(life.pid);
        }
        if let Ok(Some(status)) = daemon.ended() {
            life.ended_us = now_us();
            life.end = status.to_string();
            (self.daemon, self.due_us) = (None, Some(life.ended_us + pause_us));
        }
    }

    fn start_if_due(&mut self, launcher: &Launcher) -> Result<()> {
        if self.held || self.due_us.is_none_or(|due| due > now_us()) {
            return Ok(());
        }
        self.due_us = None;
        let started_us = now_us();
        let daemon = launcher.worker(self.zone, self.lane, &[])?;
        self.lives.push(Life { pid: daemon.pid(), started_us, ..Life::default() });
        self.daemon = Some(daemon);
        Ok(())
    }
}

fn zone_and_lane(name: &str) -> (u32, char) {
    let lane = name.chars().next_back().unwrap_or('a');
    (name.trim_end_matches(lane).parse().unwrap_or(0), lane)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Poisoned by a panicking test: the state is still what it was.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

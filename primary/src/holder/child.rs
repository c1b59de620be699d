//! Control, the holder's child: both ends of its life.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use links::messages::{ControlSays, HolderTells};
use links::pidfd::Peer;
use links::{Hello, Role};
use shm_layout::published::Published;

use super::error::HolderError;
use super::plan::{self, HolderPlan};
use super::preflight::Lock;
use crate::control::{ControlArgs, PortFacts, Prefer};

/// What the holder tells control, in the run directory.
pub const FACTS_FILE: &str = "control-facts.json";
/// Where the journal's folder is, in the run directory: a control that comes back asks no configuration file for it.
pub const STATE_DIR_FILE: &str = "state-dir";
/// First pause before a dead control is started again; doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A control that lived this long is started again after the first pause. (Tests kill it dozens of times.)
const SETTLED: Duration = Duration::from_secs(if cfg!(feature = "failpoints") { 0 } else { 10 });
/// Time for an ordered end.
const END_LIMIT: Duration = Duration::from_secs(3);
/// A control whose heartbeat is older is killed: its work is waiting, and another one can do it.
const SILENT_MS: u64 = 10_000;

/// Control, as the holder sees it.
#[derive(Debug)]
pub struct Control {
    command: ControlCommand,
    /// How it is started until a generation is in force.
    first: Prefer,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
    due: Option<Instant>,
}

#[derive(Debug)]
struct ControlCommand {
    program: PathBuf,
    config: PathBuf,
    facts: PathBuf,
}

impl Control {
    /// Writes the facts for control and starts it the first time.
    ///
    /// # Errors
    /// A file cannot be written, or no process started.
    pub fn start(plan: &HolderPlan, config: &Path, prefer: Prefer, facts: &[PortFacts]) -> Result<Self, HolderError> {
        let path = plan.run_dir.join(FACTS_FILE);
        super::write_whole(&path, &serde_json::to_vec(facts)?)?;
        super::write_whole(&plan.run_dir.join(STATE_DIR_FILE), plan.state_dir.as_os_str().as_bytes())?;
        // The path and not the open file: a control started later is the one that is installed then.
        let program = std::env::current_exe().map_err(HolderError::file("find", "the own program"))?;
        let command = ControlCommand { program, config: config.into(), facts: path };
        let mut control =
            Self { command, first: prefer, child: None, started: Instant::now(), pause: PAUSE, due: None };
        control.spawn(prefer)?;
        Ok(control)
    }

    fn spawn(&mut self, prefer: Prefer) -> Result<(), HolderError> {
        let ControlCommand { program, config, facts } = &self.command;
        let mut command = Command::new(program);
        command.arg("--config").arg(config).args(["--internal", "control", "--facts"]).arg(facts);
        match prefer {
            Prefer::Newer => {}
            Prefer::File => drop(command.arg("--from-file")),
            Prefer::Journal => drop(command.arg("--from-journal")),
        }
        // The service manager listens to the holder alone.
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").stdin(Stdio::null());
        plan::forget(&mut command);
        let child = command.spawn().map_err(HolderError::file("start", program))?;
        log::info!("control is process {}", child.id());
        (self.child, self.started, self.due) = (Some(child), Instant::now(), None);
        Ok(())
    }

    /// To be called often: notices its end (returned: the status) and plans the next start, which happens here too.
    pub fn tend(&mut self, published: &Published) -> Option<i32> {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            // Once a generation is in force, control goes on with it, whatever became of the file.
            let prefer = if published.current().is_some() { Prefer::Journal } else { self.first };
            if let Err(error) = self.spawn(prefer) {
                log::error!("{error}");
                self.due = Some(Instant::now() + PAUSE_MAX);
            }
        }
        let child = self.child.as_mut()?;
        let status = match child.try_wait() {
            Ok(Some(status)) => status,
            _ => {
                if self.started.elapsed() > SETTLED && silent(published, child.id()) {
                    log::error!("control (process {}) gives no sign of life for {SILENT_MS} ms: killed", child.id());
                    let _ = child.kill(); // It may have ended this moment.
                }
                return None;
            }
        };
        if self.started.elapsed() > SETTLED {
            self.pause = PAUSE;
        }
        log::error!("control (process {}) has ended with {status}; started again in {:?}", child.id(), self.pause);
        (self.child, self.due) = (None, Some(Instant::now() + self.pause));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Some(status.code().unwrap_or(-1))
    }

    /// Ends it in order, by force after a while.
    pub fn stop(&mut self) {
        self.due = None;
        let Some(mut child) = self.child.take() else { return };
        if let Ok(peer) = Peer::open(child.id()) {
            end(&peer, "control");
        }
        let _ = child.wait(); // Dead already: only to be buried.
    }
}

/// SIGTERM, a while, SIGKILL.
fn end(peer: &Peer, name: &str) {
    peer.terminate();
    if !peer.wait(Some(END_LIMIT)).unwrap_or(false) {
        log::warn!("{name} (process {}) does not end: killed", peer.pid());
        peer.kill();
        let _ = peer.wait(Some(END_LIMIT)); // The kernel ends it when it can.
    }
}

fn silent(published: &Published, pid: u32) -> bool {
    let root = &published.root;
    // Relaxed: a clock and a number, each true by itself.
    let own = root.control_pid.load(Ordering::Relaxed) == u64::from(pid);
    own && root.control_ms.load(Ordering::Relaxed) + SILENT_MS < shm_layout::clock::now_ms()
}

fn lock_path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.lock")
}

/// Ends the control of an earlier holder, which goes on when its holder dies.
pub fn end_orphan(run_dir: &Path) {
    if let Some(peer) = Lock::owner(&lock_path(run_dir)).and_then(|pid| Peer::open(pid).ok()) {
        log::info!("control of an earlier holder (process {}) is asked to end", peer.pid());
        end(&peer, "control of an earlier holder");
    }
}

/// Control's life: the lock, the link to the holder, then its own work.
pub fn main(config_path: PathBuf, prefer: Prefer, facts: Option<PathBuf>) -> ExitCode {
    match prepare(facts) {
        Ok(Prepared { ports, state_dir, _lock }) => {
            crate::control::run(ControlArgs { config_path, prefer, ports, state_dir })
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::from(error.status())
        }
    }
}

/// What control needs of the holder.
struct Prepared {
    ports: Vec<PortFacts>,
    /// Absent: the holder is of an earlier build.
    state_dir: Option<PathBuf>,
    _lock: Lock,
}

fn prepare(facts: Option<PathBuf>) -> Result<Prepared, HolderError> {
    crate::privileges::control()?;
    let path = facts.unwrap_or_default();
    let text = std::fs::read(&path).map_err(HolderError::file("read", &path))?;
    let ports = serde_json::from_slice(&text)?;
    let run_dir = path.parent().unwrap_or(Path::new("/")).to_owned();
    let state_dir = std::fs::read(run_dir.join(STATE_DIR_FILE)).ok();
    let state_dir = state_dir.map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
    let lock = Lock::take(&lock_path(&run_dir))?;
    let published = Published::open(&run_dir.join("huge/tables"), false)?;
    let link = move || {
        if let Err(error) = talk(&run_dir, &published) {
            log::warn!("control goes on without a link to the holder: {error}");
        }
    };
    let thread = std::thread::Builder::new().name("holder-link".into()).spawn(link);
    thread.map_err(HolderError::file("start", "a thread"))?;
    Ok(Prepared { ports, state_dir, _lock: lock })
}

/// Tells the holder when a generation is published, and ends this process when the holder says so.
fn talk(run_dir: &Path, published: &Published) -> Result<(), links::LinkError> {
    let hello = Hello::new(Role::Control, None);
    let limit = Duration::from_secs(10);
    let (link, inbox) = links::connect::<ControlSays, HolderTells>(&links::holder_socket(run_dir), &hello, limit)?;
    let own = u64::from(std::process::id());
    let mut told = false;
    loop {
        // Relaxed: the generation read after it has its own Acquire.
        if !told
            && published.root.control_pid.load(Ordering::Relaxed) == own
            && let Some(generation) = published.current()
        {
            link.send(ControlSays::Ready { generation: generation.number })?;
            told = true;
        }
        let pause = if told { Duration::from_secs(3600) } else { Duration::from_millis(5) };
        match inbox.recv_timeout(pause) {
            Ok(HolderTells::Stop) => {
                // Its own SIGTERM: there is one way to end.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGTERM);
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            // The holder has gone; control goes on.
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

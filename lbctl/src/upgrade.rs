//! `worker upgrade`: a successor beside the running worker, which hands its slots over and leaves.
//!
//! A worker that is a service unit is succeeded by the unit of the other lane; any other by a process of its own that
//! outlives us, with the old one's arguments, environment, folder, user and log.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control_api::method;
use control_api::views::Worker;
use serde::Serialize;
use shm_layout::owner::Process;

use crate::context::Context;
use crate::failure::Failure;

/// Attach, hand-over and trial take a few seconds; a machine short of CPU needs more.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of the successor's log that are shown when it fails.
const TOLD: usize = 5;

/// One side of an upgrade.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// Process id.
    pub pid: u32,
    /// Lane.
    pub lane: String,
    /// Version.
    pub version: String,
}

/// What `worker upgrade` did.
#[derive(Debug, Clone, Serialize)]
pub struct Upgraded {
    /// Zone.
    pub zone: u32,
    /// The relieved worker.
    pub from: Side,
    /// Its successor.
    pub to: Side,
    /// Slots handed over.
    pub slots: Vec<u32>,
    /// Time from the start of the successor to the end of the relieved one, ms; trial included.
    pub took_ms: u64,
}

/// Upgrades the worker of `zone`, to `binary` if given, else to what is installed now.
///
/// # Errors
/// No worker to relieve; the binary cannot be used; the successor failed, and the old one serves on.
pub fn run(context: &mut Context, zone: u32, binary: Option<&Path>) -> Result<Upgraded, Failure> {
    let old = living(context, zone)?.ok_or_else(|| {
        Failure::failed(
            format!("zone {zone} has no living worker to relieve"),
            format!("start one: systemctl start lb-worker@{zone}a"),
        )
    })?;
    let binary = binary.map(usable).transpose()?;
    let begin = Instant::now();
    let mut successor = match unit_of(old.pid) {
        Some(unit) => Successor::by_unit(&unit, binary.as_deref())?,
        None => Successor::by_process(old.pid, binary.as_deref())?,
    };
    let old_process = Process::living(old.pid).unwrap_or_default(); // A reused number is not it.
    let slots = old.slots.iter().map(|s| s.slot).collect();
    let mut new = None;
    while begin.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
        let workers: Vec<Worker> = context.get(method::WORKER_LIST)?;
        let others = || workers.iter().filter(|w| w.zone == zone && w.pid != old.pid && !w.slots.is_empty());
        let started = successor.pid();
        let ours = |w: &&Worker| w.state == "serving" && started.is_none_or(|pid| pid == w.pid);
        new = others().find(ours).cloned().or(new);
        match &new {
            Some(new) if !old_process.runs() && others().any(|w| w.pid == new.pid) => {
                let took_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Ok(Upgraded { zone, from: side(&old), to: side(new), slots, took_ms });
            }
            _ => {}
        }
        if let Some(how) = successor.ended() {
            let told = successor.told();
            successor.give_up();
            return Err(Failure::failed(
                format!("the successor ended with {how}; process {} serves on{told}", old.pid),
                "the old worker's log says more",
            ));
        }
    }
    if new.is_none() {
        successor.give_up();
    }
    Err(Failure::failed(
        format!("zone {zone} is not handed over after {PATIENCE:?}; process {} serves on", old.pid),
        "lbctl worker list",
    ))
}

fn side(worker: &Worker) -> Side {
    Side { pid: worker.pid, lane: worker.lane.clone(), version: worker.version.clone() }
}

fn living(context: &mut Context, zone: u32) -> Result<Option<Worker>, Failure> {
    let workers: Vec<Worker> = context.get(method::WORKER_LIST)?;
    let serves = |w: &Worker| w.zone == zone && w.state != "dead" && !w.slots.is_empty();
    Ok(workers.into_iter().find(serves))
}

/// An absolute path of a program that says what it is.
fn usable(path: &Path) -> Result<PathBuf, Failure> {
    let refuse = |why: &dyn std::fmt::Display| {
        Failure::failed(format!("{} cannot be used: {why}", path.display()), "--binary PATH names an lb-worker")
    };
    let path = fs::canonicalize(path).map_err(|e| refuse(&e))?;
    let told = Command::new(&path).arg("--version").stdin(Stdio::null()).output().map_err(|e| refuse(&e))?;
    let version = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    if !told.status.success() || !version.starts_with("lb-worker ") {
        return Err(refuse(&format!("its --version says {version:?}")));
    }
    Ok(path)
}

/// The unit a process belongs to: `lb-worker@0a.service`.
fn unit_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let unit = text.lines().filter_map(|line| line.rsplit('/').next()).find(|name| is_worker_unit(name))?;
    Some(unit.to_owned())
}

fn is_worker_unit(name: &str) -> bool {
    name.starts_with("lb-worker@") && name.ends_with(".service")
}

/// Where a unit's program is named until the next upgrade.
fn drop_in_of(unit: &str) -> PathBuf {
    PathBuf::from("/run/systemd/system").join(format!("{unit}.d")).join("binary.conf")
}

/// The unit of the same zone in the other lane.
fn other_lane(unit: &str) -> Option<String> {
    let stem = unit.strip_suffix(".service")?;
    let (zone, lane) = stem.split_at(stem.len().checked_sub(1)?);
    let other = match lane {
        "a" => "b",
        "b" => "a",
        _ => return None,
    };
    Some(format!("{zone}{other}.service"))
}

/// The new worker while it starts.
enum Successor {
    Unit(String),
    Process { child: Child, log: Option<(PathBuf, u64)> },
}

impl Successor {
    fn by_unit(old: &str, binary: Option<&Path>) -> Result<Self, Failure> {
        let unit = other_lane(old).ok_or_else(|| {
            Failure::failed(format!("unit {old} names no lane"), "units are called lb-worker@0a, lb-worker@0b")
        })?;
        let drop_in = drop_in_of(&unit);
        let folder = drop_in.parent().unwrap_or(Path::new("/"));
        let failed = |what: &str, error: &std::io::Error| {
            Failure::failed(format!("cannot {what} {}: {error}", drop_in.display()), "as root?")
        };
        match binary {
            Some(binary) => {
                fs::create_dir_all(folder).map_err(|e| failed("make the folder of", &e))?;
                let text = format!(
                    "# Until the next upgrade without --binary.\n[Service]\nEnvironment=LB_WORKER={}\n",
                    binary.display()
                );
                fs::write(&drop_in, text).map_err(|e| failed("write", &e))?;
            }
            None if drop_in.exists() => fs::remove_file(&drop_in).map_err(|e| failed("remove", &e))?,
            None => {}
        }
        systemctl(&["daemon-reload"])?;
        // Ends when the successor serves, or has failed.
        systemctl(&["start", &unit]).inspect_err(|_| Self::Unit(unit.clone()).give_up())?;
        Ok(Self::Unit(unit))
    }

    fn by_process(old: u32, binary: Option<&Path>) -> Result<Self, Failure> {
        let proc = PathBuf::from(format!("/proc/{old}"));
        let gone = |e: std::io::Error| Failure::failed(format!("process {old} has gone: {e}"), "lbctl worker list");
        let mut words = split(&fs::read(proc.join("cmdline")).map_err(gone)?);
        let arguments = words.split_off(1.min(words.len()));
        // The file it was started from, or what has been installed there since.
        let exe = fs::read_link(proc.join("exe")).map_err(gone)?;
        let installed = exe.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        let program = binary.map_or_else(|| PathBuf::from(installed), Path::to_owned);
        let mut command = Command::new("setsid"); // A session of its own: it outlives ours.
        if fs::read_link(proc.join("ns/net")).ok() != fs::read_link("/proc/self/ns/net").ok() {
            command = Command::new("nsenter");
            command.arg(format!("--net={}", proc.join("ns/net").display())).arg("setsid");
        }
        command.arg(&program).args(arguments.iter().filter(|word| *word != "--take-over")).arg("--take-over");
        command.env_clear().envs(environment(&fs::read(proc.join("environ")).map_err(gone)?));
        command
            .current_dir(fs::canonicalize(proc.join("cwd")).map_err(gone)?)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let owner = fs::metadata(&proc).map_err(gone)?;
        // The log: what it writes to, if it can be opened again (a pipe or a socket cannot) and is its own: whoever has the
        // worker must not choose what we write to.
        let path = fs::read_link(proc.join("fd/2")).ok().filter(|path| path.is_file());
        let file = path.as_ref().and_then(|path| File::options().append(true).open(path).ok());
        let file = file.filter(|file| file.metadata().is_ok_and(|m| m.uid() == owner.uid()));
        let log = path.zip(file.as_ref().and_then(|f| f.metadata().ok()).map(|m| m.len()));
        command.stderr(file.map_or_else(Stdio::null, Stdio::from));
        if owner.uid() != fs::metadata("/proc/self").map_err(gone)?.uid() {
            command.gid(owner.gid()).uid(owner.uid());
        }
        let child = command
            .spawn()
            .map_err(|e| Failure::failed(format!("cannot start {}: {e}", program.display()), "--binary PATH"))?;
        Ok(Self::Process { child, log })
    }

    /// Its process; `None`: not known.
    fn pid(&self) -> Option<u32> {
        match self {
            Self::Process { child, .. } => Some(child.id()), // setsid and nsenter keep the process.
            Self::Unit(unit) => {
                let told =
                    Command::new("systemctl").args(["show", "--property=MainPID", "--value", unit]).output().ok()?;
                String::from_utf8_lossy(&told.stdout).trim().parse().ok().filter(|pid| *pid != 0)
            }
        }
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Option<String> {
        match self {
            Self::Process { child, .. } => child.try_wait().ok()?.map(|status| status.to_string()),
            Self::Unit(unit) => {
                let state = Command::new("systemctl")
                    .args(["show", "--property=ActiveState,Result,NRestarts", unit.as_str()])
                    .output()
                    .ok()?;
                let text = String::from_utf8_lossy(&state.stdout).replace('\n', " ");
                // One that is started again has ended before.
                let over = ["ActiveState=failed", "ActiveState=inactive"].iter().any(|state| text.contains(state));
                (over || !text.contains("NRestarts=0")).then(|| text.trim().to_owned())
            }
        }
    }

    /// It failed: its unit is not to try again, nor the next upgrade to use its program.
    fn give_up(&mut self) {
        let unit = match self {
            Self::Unit(unit) => unit,
            Self::Process { child, .. } => {
                let _ = child.kill(); // It may have ended.
                return;
            }
        };
        // What cannot be undone shows in `systemctl status`; the failure itself is told anyway.
        let _ = systemctl(&["stop", unit]);
        let _ = fs::remove_file(drop_in_of(unit));
        let _ = systemctl(&["daemon-reload"]);
    }

    /// The last lines of its log.
    fn told(&self) -> String {
        let text = match self {
            Self::Process { log: Some((path, from)), .. } => read_from(path, *from).unwrap_or_default(),
            Self::Process { log: None, .. } => String::new(),
            Self::Unit(unit) => {
                let last = Command::new("journalctl")
                    .args(["--unit", unit, "--lines=5", "--output=cat", "--no-pager"])
                    .output();
                last.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
            }
        };
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TOLD)..];
        last.iter().map(|line| format!("\n  {line}")).collect()
    }
}

fn read_from(path: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn systemctl(arguments: &[&str]) -> Result<(), Failure> {
    let told = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output();
    let told = told.map_err(|e| Failure::failed(format!("cannot run systemctl: {e}"), "is systemd here?"))?;
    if told.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&told.stderr).trim().to_owned();
    Err(Failure::failed(
        format!("systemctl {}: {why}", arguments.join(" ")),
        "the old worker serves on; journalctl tells why",
    ))
}

/// Words of `/proc/PID/cmdline` and `environ`: each ends with a NUL.
fn split(bytes: &[u8]) -> Vec<OsString> {
    bytes.split(|b| *b == 0).filter(|word| !word.is_empty()).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// The old worker's environment, as far as it is ours to pass: neither what its service manager told it alone, nor what
/// makes a loader or a library do something else.
fn environment(bytes: &[u8]) -> BTreeMap<OsString, OsString> {
    const PASSED: &[&str] =
        &["RUST_LOG", "RUST_BACKTRACE", "PATH", "HOME", "LANG", "LC_ALL", "TZ", "RUNTIME_DIRECTORY", "TMPDIR"];
    let passed = |name: &OsString| PASSED.iter().any(|p| name == p) || name.to_string_lossy().starts_with("LB_");
    let pair = |word: OsString| {
        let bytes = word.into_vec();
        let at = bytes.iter().position(|b| *b == b'=')?;
        Some((OsString::from_vec(bytes[..at].to_vec()), OsString::from_vec(bytes[at + 1..].to_vec())))
    };
    split(bytes).into_iter().filter_map(pair).filter(|(name, _)| passed(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_lane_has_the_other_letter() {
        assert_eq!(other_lane("lb-worker@12a.service").as_deref(), Some("lb-worker@12b.service"));
        assert_eq!(other_lane("lb-worker@0b.service").as_deref(), Some("lb-worker@0a.service"));
        assert_eq!(other_lane("lb-worker@0.service"), None);
        assert!(is_worker_unit("lb-worker@0a.service") && !is_worker_unit("lb-primary.service"));
    }

    #[test]
    fn the_environment_passes_but_for_what_was_the_old_ones_own() {
        let passed = environment(b"RUST_LOG=debug\0NOTIFY_SOCKET=/run/x\0LD_PRELOAD=/x.so\0TMPDIR=/run/a=b\0");
        let expected = [("RUST_LOG", "debug"), ("TMPDIR", "/run/a=b")];
        assert_eq!(passed, expected.map(|(name, value)| (name.into(), value.into())).into());
    }
}

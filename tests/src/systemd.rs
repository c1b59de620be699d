//! A real systemd with the appliance's units, in namespaces of its own (`tests/systemd-box.sh`).
//!
//! Its network namespace is the rig's `app`, so that wires, taps, clients and servers are those of every other test. Files
//! are its own: programs at `/usr/bin`, the configuration at `/etc/containerlb`, users by `sysusers`, folders by `tmpfiles`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, tail};
use crate::janitor::beside_me;
use crate::lbctl::Lbctl;
use crate::netns::run;
use crate::rig::Rig;
use crate::{Error, Result, wait};

/// The unit it boots into: what services may rely on, nothing more.
const BOOT_UNIT: &str = "box.target";
/// Where that and the machine's own units stand.
const SKELETON: &str = "usr/lib/systemd/box";
/// Units of systemd itself that the appliance's services need (journal, users, folders).
const OF_SYSTEMD: &[&str] = &[
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup.service",
];
/// Targets that units refer to by name.
const TARGETS: &[&str] = &["basic", "multi-user", "network", "network-pre", "shutdown", "umount"];
/// The configuration's place.
const CONF: &str = "/etc/containerlb/containerlb.toml";
/// systemd's start takes half a second.
const BOOT_LIMIT: Duration = Duration::from_secs(20);

/// A booted systemd. It dies with the rig.
pub struct Systemd {
    console: Daemon,
    /// Process 1 of the box, by its number outside.
    init: u32,
    folder: PathBuf,
    ctl_log: PathBuf,
}

impl Systemd {
    /// Writes the rig's configuration and boots with the units installed and those of all zones (lane a) enabled; of the
    /// appliance nothing runs yet. The rig's `lbctl` is that of the box from now on.
    ///
    /// # Errors
    /// When it does not come up, with its console's last lines.
    pub fn boot(rig: &mut Rig) -> Result<Self> {
        let name = rig.appliance.conf.name.clone();
        rig.appliance.conf.run_dir = Path::new("/run/containerlb").join(&name);
        rig.appliance.conf.state_dir = Path::new("/var/lib/containerlb").join(&name);
        let folder = rig.folder.join("box");
        lay(&folder, &rig.appliance.conf.to_toml(), &name)?;
        rig.janitor().cgroup(&name);
        let mut command = rig.app.command("bash");
        command.arg(source("tests/systemd-box.sh")).arg(&folder);
        let console = Daemon::spawn("systemd", &rig.folder, command, false)?;
        let mut booted = Self { console, init: 0, folder, ctl_log: rig.folder.join("journal.log") };
        booted.await_running()?;
        let mut way = booted.way();
        way.push("--".into());
        rig.appliance.elsewhere = Some(Lbctl::new("/usr/bin/lbctl".into(), Path::new(CONF)).by(&way));
        let mut units = vec!["lb.target".into(), "lb-primary".into(), "lb-healthcheck".into()];
        units.extend((0..rig.appliance.conf.zones.len()).map(|zone| format!("lb-worker@{zone}a")));
        let mut enable = booted.command("systemctl");
        run(enable.args(["enable", "--quiet"]).args(units))?;
        Ok(booted)
    }

    fn await_running(&mut self) -> Result<()> {
        let start = Instant::now();
        let told = loop {
            self.console.expect_alive()?;
            if let [init] = self.console.children()[..] {
                self.init = init;
                let answer = self.command("systemctl").arg("is-system-running").output();
                let told = answer.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
                if told == "running" {
                    return Ok(());
                }
                if start.elapsed() > BOOT_LIMIT || told == "degraded" {
                    break told;
                }
            } else if start.elapsed() > BOOT_LIMIT {
                break "no first process".into();
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let failed = self.ctl(&["--failed", "--no-legend"]).unwrap_or_default();
        Err(Error::claim(format!(
            "systemd in its box is {told:?} after {:?}; failed: {failed}; its console ends:\n{}",
            start.elapsed(),
            self.console.log_tail(20)
        )))
    }

    /// `nsenter` and its options.
    fn way(&self) -> Vec<String> {
        let target = format!("--target={}", self.init);
        [&"nsenter".to_owned(), &target]
            .into_iter()
            .cloned()
            .chain(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"].map(String::from))
            .collect()
    }

    /// A command in the box, as root.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut words = self.way().into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("--").arg(program);
        command
    }

    /// `systemctl WORDS`, its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn ctl(&self, words: &[&str]) -> Result<String> {
        let output = run(self.command("systemctl").args(words))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub fn show(&self, unit: &str, property: &str) -> Result<String> {
        self.ctl(&["show", "--value", "--property", property, unit])
    }

    /// A unit's main process, by its number in the box; 0: none.
    ///
    /// # Errors
    /// As [`Self::show`].
    pub fn main_pid(&self, unit: &str) -> Result<u32> {
        let text = self.show(unit, "MainPID")?;
        text.parse().map_err(|_| Error::claim(format!("{unit} has the main process {text:?}")))
    }

    /// The number outside of a process of the box.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn outside_pid(&self, pid: u32) -> Result<u32> {
        let ours =
            fs::read_link(format!("/proc/{}/ns/pid", self.init)).map_err(Error::file("read", "/proc/PID/ns/pid"))?;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(number) = name.parse::<u32>() else { continue };
            if fs::read_link(entry.path().join("ns/pid")).is_ok_and(|ns| ns == ours) {
                let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
                let inner =
                    status.lines().find_map(|l| l.strip_prefix("NSpid:")?.split_whitespace().last()?.parse().ok());
                if inner == Some(pid) {
                    return Ok(number);
                }
            }
        }
        Err(Error::claim(format!("the box has no process {pid}")))
    }

    /// SIGKILL to a unit's main process, and only to that.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill(&self, unit: &str) -> Result<()> {
        self.ctl(&["kill", "--kill-whom=main", "--signal=SIGKILL", unit]).map(drop)
    }

    /// Waits until the unit is in `state` (`active`, `failed`, …), with a process other than `not` if it is active.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the unit's last log lines.
    pub fn wait_state(&self, unit: &str, state: &str, not: u32, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let waited = wait::until_ok(&format!("{unit} {state}"), limit, Duration::from_millis(10), || {
            // In one question: between two, the unit may change.
            let told = self.ctl(&["show", "--property=ActiveState,MainPID", unit])?;
            let of = |key: &str| told.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
            let (now, pid) = (of("ActiveState="), of("MainPID="));
            let anew = pid != "0" && pid != not.to_string();
            crate::error::ensure(now == state && (state != "active" || anew), || format!("{now}, process {pid}"))
        });
        waited.map_err(|error| Error::claim(format!("{error}\n{}", self.journal(unit, 15))))?;
        Ok(start.elapsed())
    }

    /// The unit's last lines in the journal; an empty name: everybody's.
    #[must_use]
    pub fn journal(&self, unit: &str, lines: u32) -> String {
        let mut command = self.command("journalctl");
        command.args(["--no-pager", "--quiet", "--output=short-precise", &format!("--lines={lines}")]);
        if !unit.is_empty() {
            command.args(["--unit", unit]);
        }
        command.output().map_or_else(|e| e.to_string(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
    }

    /// A path of the box, as it is reached from outside.
    #[must_use]
    pub fn outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// The last lines of systemd's own words.
    #[must_use]
    pub fn console(&self) -> String {
        tail(&self.folder.with_file_name("systemd.log"), 20)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // For whoever reads the logs of a failed test.
        let _ = fs::write(&self.ctl_log, self.journal("", 2000));
        let _ = self.console.kill();
    }
}

/// A file of the repository.
fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).join(path)
}

/// The folder that `systemd-box.sh` takes.
fn lay(folder: &Path, conf: &str, group: &str) -> Result<()> {
    let tree = folder.join("tree");
    let put = |path: &str, text: &str| {
        let path = tree.join(path);
        let parent = path.parent().unwrap_or(&tree);
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        fs::write(&path, text).map_err(Error::file("write", &path))
    };
    let copy_all = |from: &str, to: &str| {
        let from = source(from);
        for entry in fs::read_dir(&from).map_err(Error::file("list", &from))?.flatten() {
            let text = fs::read_to_string(entry.path()).map_err(Error::file("read", entry.path()))?;
            put(&format!("{to}/{}", entry.file_name().to_string_lossy()), &text)?;
        }
        Ok(())
    };
    // Not in the skeleton's folder but where an administrator's units stand: `systemctl enable` links them there.
    copy_all("systemd/system", "etc/systemd/system")?;
    copy_all("systemd/sysusers.d", "usr/lib/sysusers.d")?;
    copy_all("systemd/tmpfiles.d", "usr/lib/tmpfiles.d")?;
    let prepare = source("systemd/prepare");
    let text = fs::read_to_string(&prepare).map_err(Error::file("read", &prepare))?;
    put("usr/lib/containerlb/prepare", &text)?;
    let program = tree.join("usr/lib/containerlb/prepare");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(Error::file("chmod", &program))?;
    put(&CONF[1..], conf)?;

    let unit = |name: &str, more: &str| {
        put(&format!("{SKELETON}/{name}"), &format!("[Unit]\nDescription={name}\nDefaultDependencies=no\n{more}"))
    };
    TARGETS.iter().try_for_each(|name| unit(&format!("{name}.target"), ""))?;
    let all = OF_SYSTEMD.join(" ");
    unit("sysinit.target", &format!("Wants={all}\nAfter={all}\n"))?;
    unit(BOOT_UNIT, "Requires=sysinit.target basic.target\nAfter=sysinit.target basic.target\n")?;
    for name in OF_SYSTEMD {
        let link = tree.join(SKELETON).join(name);
        symlink(Path::new("/usr/lib/systemd/system").join(name), &link).map_err(Error::file("link", &link))?;
    }
    let mut programs = String::new();
    for name in ["lb-primary", "lb-worker", "lb-healthcheck", "lbctl"] {
        programs.push_str(&format!("{} /usr/bin/{name}\n", beside_me(name)?.display()));
    }
    for (name, text) in [("programs", programs.as_str()), ("unit", BOOT_UNIT), ("group", group)] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    Ok(())
}

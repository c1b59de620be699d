//! The appliance's processes: started, stopped and killed as an operator or a fault would.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::conf::Conf;
use crate::daemon::Daemon;
use crate::janitor::beside_me;
use crate::lbctl::Lbctl;
use crate::netns::Netns;
use crate::{Error, Result};

/// A start with EAL and hugepages to be cleared, on a machine shared with others.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// An orderly stop.
pub const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The health-checker's user: nobody; its group is that of the others (INTERFACE: board by group).
const HEALTHCHECK_UID: &str = "65534";

/// How the appliance's programs are started: for [`Appliance`], and for whoever starts one again on
/// a thread of its own.
#[derive(Debug, Clone)]
pub struct Launcher {
    ns: Netns,
    folder: PathBuf,
    conf_path: PathBuf,
    /// Other builds of programs, by the name of the one they stand in for.
    pub instead: BTreeMap<String, PathBuf>,
    /// Environment of all programs started.
    pub environment: Vec<(String, String)>,
}

impl Launcher {
    /// `program --config FILE ARGUMENTS` inside the namespace.
    ///
    /// # Errors
    /// When the program is not built.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let path = self.instead.get(program).map_or_else(|| beside_me(program), |path| Ok(path.clone()))?;
        let mut command = if program == "lb-worker" {
            // As its unit does. (nice keeps the process.)
            let mut command = self.ns.command("nice");
            command.arg("--adjustment=-10").arg(path);
            command
        } else {
            self.ns.command(path)
        };
        command.envs(self.environment.iter().cloned());
        command.arg("--config").arg(&self.conf_path).args(arguments);
        Ok(command)
    }

    /// Starts the worker of `zone` and does not wait for it; `lane` names its log and service.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn worker(&self, zone: u32, lane: char, arguments: &[&str]) -> Result<Daemon> {
        let zone_text = zone.to_string();
        let mut all = vec!["--zone", zone_text.as_str()];
        all.extend(arguments);
        Daemon::spawn(&format!("worker-{zone}{lane}"), &self.folder, self.command("lb-worker", &all)?, true)
    }
}

/// Programs, configuration file and what runs of it.
pub struct Appliance {
    /// The configuration as last written to [`Self::conf_path`].
    pub conf: Conf,
    /// The configuration file.
    pub conf_path: PathBuf,
    /// Holder and control.
    pub primary: Option<Daemon>,
    /// Workers by zone and lane, e.g. `0a`.
    pub workers: BTreeMap<String, Daemon>,
    /// The health-checker.
    pub healthcheck: Option<Daemon>,
    /// Other builds of programs, by the name of the one they stand in for.
    pub instead: BTreeMap<String, PathBuf>,
    /// Environment of all programs started.
    pub environment: Vec<(String, String)>,
    /// The admin command, where the appliance runs in a world of its own ([`crate::systemd`]).
    pub elsewhere: Option<Lbctl>,
    ns: Netns,
    folder: PathBuf,
}

impl Appliance {
    /// An appliance of which nothing runs yet, in namespace `ns`, its logs in `folder`.
    #[must_use]
    pub fn new(ns: Netns, folder: &Path, conf: Conf) -> Self {
        Self {
            conf,
            conf_path: folder.join("containerlb.toml"),
            primary: None,
            workers: BTreeMap::new(),
            healthcheck: None,
            instead: BTreeMap::new(),
            environment: Vec::new(),
            elsewhere: None,
            ns,
            folder: folder.into(),
        }
    }

    /// Writes the configuration file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_conf(&self) -> Result<()> {
        std::fs::write(&self.conf_path, self.conf.to_toml()).map_err(Error::file("write", &self.conf_path))
    }

    /// The admin command for this appliance.
    ///
    /// # Errors
    /// When it is not built.
    pub fn lbctl(&self) -> Result<Lbctl> {
        match &self.elsewhere {
            Some(lbctl) => Ok(lbctl.clone()),
            None => Ok(Lbctl::new(beside_me("lbctl")?, &self.conf_path)),
        }
    }

    /// What starts its programs.
    #[must_use]
    pub fn launcher(&self) -> Launcher {
        Launcher {
            ns: self.ns.clone(),
            folder: self.folder.clone(),
            conf_path: self.conf_path.clone(),
            instead: self.instead.clone(),
            environment: self.environment.clone(),
        }
    }

    /// `program --config FILE ARGUMENTS` inside the namespace, as it is started by the rig.
    ///
    /// # Errors
    /// When the program is not built.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        self.launcher().command(program, arguments)
    }

    /// Starts lb-primary and waits until it is ready. The caller has to plumb its tap next:
    /// [`crate::Rig::start_primary`] does both.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_primary(&mut self, arguments: &[&str]) -> Result<()> {
        let command = self.command("lb-primary", arguments)?;
        let mut daemon = Daemon::spawn("primary", &self.folder, command, true)?;
        let ready = daemon.wait_ready(START_LIMIT);
        self.primary = Some(daemon);
        ready
    }

    /// Starts the worker of `zone` and waits until it is ready; `lane` names its log and service.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_worker(&mut self, zone: u32, lane: char, arguments: &[&str]) -> Result<()> {
        let mut daemon = self.launcher().worker(zone, lane, arguments)?;
        let ready = daemon.wait_ready(START_LIMIT);
        self.workers.insert(format!("{zone}{lane}"), daemon);
        ready
    }

    /// Starts the workers of several zones at once, lane a, and waits until all are ready.
    ///
    /// # Errors
    /// When one does not become ready.
    pub fn start_workers(&mut self, zones: &[u32]) -> Result<()> {
        for zone in zones {
            let daemon = self.launcher().worker(*zone, 'a', &[])?;
            self.workers.insert(format!("{zone}a"), daemon);
        }
        self.workers.values_mut().try_for_each(|worker| worker.wait_ready(START_LIMIT))
    }

    /// Starts lb-healthcheck without any privilege and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_healthcheck(&mut self) -> Result<()> {
        let mut command = self.ns.command("setpriv");
        command.args(["--reuid", HEALTHCHECK_UID, "--regid", "0", "--clear-groups", "--no-new-privs"]);
        command.args(["--inh-caps=-all", "--bounding-set=-all"]);
        command.arg(beside_me("lb-healthcheck")?).arg("--config").arg(&self.conf_path);
        let mut daemon = Daemon::spawn("healthcheck", &self.folder, command, true)?;
        let ready = daemon.wait_ready(START_LIMIT);
        self.healthcheck = Some(daemon);
        ready
    }

    /// Stops all in order: a worker that polls a port its holder has closed would crash.
    ///
    /// # Errors
    /// When a program does not end, or not with status 0.
    pub fn stop(&mut self) -> Result<()> {
        let mut wrong = Vec::new();
        let mut end = |mut daemon: Daemon| match daemon.stop(STOP_LIMIT) {
            Ok(status) if status.success() => {}
            Ok(status) => {
                wrong.push(format!("{} ended with {status}:\n{}", daemon.name(), daemon.log_tail(15)));
            }
            Err(error) => wrong.push(error.to_string()),
        };
        self.healthcheck.take().map(&mut end);
        // All told before the first is waited for, as a service manager does.
        self.workers.values().for_each(|worker| worker.signal(Signal::SIGTERM));
        std::mem::take(&mut self.workers).into_values().for_each(&mut end);
        self.primary.take().map(&mut end);
        if wrong.is_empty() { Ok(()) } else { Err(Error::claim(wrong.join("\n"))) }
    }

    /// The one child process of lb-primary: control.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn control_pid(&self) -> Result<u32> {
        let primary = self.primary.as_ref().ok_or_else(|| Error::claim("lb-primary does not run"))?;
        match primary.children()[..] {
            [pid] => Ok(pid),
            ref all => Err(Error::claim(format!("lb-primary has the children {all:?}, not one"))),
        }
    }

    /// Fails when a program that was started and not stopped has ended.
    ///
    /// # Errors
    /// Naming it, with the end of its log.
    pub fn expect_alive(&mut self) -> Result<()> {
        let all = self.primary.iter_mut().chain(self.workers.values_mut()).chain(&mut self.healthcheck);
        for daemon in all {
            daemon.expect_alive()?;
        }
        Ok(())
    }
}

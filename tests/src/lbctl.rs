//! `lbctl` as a user runs it: exit status, text, JSON.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;

use crate::views::{Port, RealServer, Service, Session, SessionCount, Stats, Worker};
use crate::{Error, Result};

/// How an `lbctl` call ended.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Exit status (INTERFACE §2); -1 if killed by a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// The command, bound to one appliance's configuration.
#[derive(Debug, Clone)]
pub struct Lbctl {
    program: PathBuf,
    config: PathBuf,
    /// Words before the program: how one gets to where it runs.
    way: Vec<String>,
}

impl Lbctl {
    /// For the appliance configured by `config`.
    #[must_use]
    pub fn new(program: PathBuf, config: &Path) -> Self {
        Self { program, config: config.into(), way: Vec::new() }
    }

    /// The same, started by the command `way` (a program and its arguments, e.g. `nsenter`).
    #[must_use]
    pub fn by(self, way: &[String]) -> Self {
        Self { way: way.to_vec(), ..self }
    }

    /// How a user would call it.
    #[must_use]
    pub fn shown(&self) -> String {
        let way: String = self.way.iter().map(|word| format!("{word} ")).collect();
        format!("{way}{} --config {}", self.program.display(), self.config.display())
    }

    /// Runs it and takes whatever comes.
    ///
    /// # Errors
    /// Only when it cannot be started.
    pub fn call(&self, arguments: &[&str]) -> Result<Answer> {
        let program = || self.program.as_os_str().to_owned();
        let mut words = self.way.iter().map(Into::into).chain([program()]);
        let output = Command::new(words.next().unwrap_or_else(program))
            .args(words)
            .arg("--config")
            .arg(&self.config)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Spawn { program: self.program.display().to_string(), source })?;
        Ok(Answer {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it; anything but status 0 is an error.
    ///
    /// # Errors
    /// As said, with what it wrote to stderr.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let answer = self.call(arguments)?;
        if answer.code == 0 {
            return Ok(answer.out);
        }
        Err(Error::Command {
            command: format!("lbctl {}", arguments.join(" ")),
            status: format!("status {}", answer.code),
            stderr: answer.err.trim().into(),
        })
    }

    /// Runs it with `-o json` and reads the answer as `T`.
    ///
    /// # Errors
    /// When it fails, or its answer is not what INTERFACE §5 says.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let mut all = vec!["-o", "json"];
        all.extend(arguments);
        let text = self.ok(&all)?;
        serde_json::from_str(&text).map_err(|source| Error::Json {
            what: format!("lbctl {}", all.join(" ")),
            source,
            text: text.chars().take(400).collect(),
        })
    }

    /// `stats show`.
    ///
    /// # Errors
    /// As [`Self::json`], for this and the following.
    pub fn stats(&self) -> Result<Stats> {
        self.json(&["stats", "show"])
    }

    /// `service list`.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn services(&self) -> Result<Vec<Service>> {
        self.json(&["service", "list"])
    }

    /// `rs list`.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn real_servers(&self) -> Result<Vec<RealServer>> {
        self.json(&["rs", "list"])
    }

    /// The real server `address` of `service`.
    ///
    /// # Errors
    /// As [`Self::json`]; also when it is not listed.
    pub fn real_server(&self, service: &str, address: &str) -> Result<RealServer> {
        let mut all = self.real_servers()?;
        all.retain(|rs| rs.service == service && rs.address == address);
        all.pop().ok_or_else(|| Error::claim(format!("rs list has no {address} of {service}")))
    }

    /// `session list` with further options.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn sessions(&self, options: &[&str]) -> Result<Vec<Session>> {
        let mut all = vec!["session", "list"];
        all.extend(options);
        self.json(&all)
    }

    /// `session count`.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn session_count(&self) -> Result<SessionCount> {
        self.json(&["session", "count"])
    }

    /// `worker list`.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn workers(&self) -> Result<Vec<Worker>> {
        self.json(&["worker", "list"])
    }

    /// `port list`.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn ports(&self) -> Result<Vec<Port>> {
        self.json(&["port", "list"])
    }

    /// What the appliance lacks while it serves on; empty: nothing.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn degraded(&self) -> Result<String> {
        Ok(self.ports()?.into_iter().find_map(|port| port.degraded).unwrap_or_default())
    }
}

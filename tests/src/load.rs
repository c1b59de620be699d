//! Clients: what they are told, what they report, and how the rig runs them.
//!
//! The clients are programs of their own (`src/bin`), because each runs in the client's
//! namespace; they print one of the reports below as JSON.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::gaps::Gap;
use crate::janitor::beside_me;
use crate::netns::{Netns, words};
pub use crate::talk::TalkReport;
use crate::{Error, Result};

/// Report of `http-load` and `udp-load`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Requests begun.
    pub requested: u64,
    /// Requests answered rightly.
    pub ok: u64,
    /// The others.
    pub failed: u64,
    /// Right answers by the server named in them.
    pub by_server: BTreeMap<String, u64>,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    /// Duration in seconds.
    pub seconds: f64,
    /// Median time of an answer, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
    /// Longest, microseconds.
    pub max_us: u64,
    /// Answers that took at least `--slow-ms` (`http-load`), with their time.
    #[serde(default)]
    pub waits: Vec<Gap>,
}

impl LoadReport {
    /// Stores the percentiles of `times` (microseconds, any order).
    pub fn set_times(&mut self, mut times: Vec<u64>) {
        times.sort_unstable();
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
        self.p50_us = at(50).copied().unwrap_or(0);
        self.p99_us = at(99).copied().unwrap_or(0);
        self.max_us = times.last().copied().unwrap_or(0);
    }

    /// Failures by a reset, during the connection or instead of one.
    #[must_use]
    pub fn resets(&self) -> u64 {
        let reset = |kind: &str| kind.contains("reset") || kind.contains("refused");
        self.errors.iter().filter(|(kind, _)| reset(kind)).map(|(_, count)| count).sum()
    }

    /// Adds another thread's part.
    pub fn merge(&mut self, other: Self) {
        self.requested += other.requested;
        self.ok += other.ok;
        self.failed += other.failed;
        for (server, count) in other.by_server {
            *self.by_server.entry(server).or_default() += count;
        }
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.waits.extend(other.waits);
    }

    /// Counts a right answer.
    pub fn answered(&mut self, server: &str) {
        self.ok += 1;
        *self.by_server.entry(server.into()).or_default() += 1;
    }

    /// Counts a failure.
    pub fn failure(&mut self, kind: impl Into<String>) {
        self.failed += 1;
        *self.errors.entry(kind.into()).or_default() += 1;
    }
}

/// Report of `admin-storm`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StormReport {
    /// Silent connections made.
    pub silent: u64,
    /// Of these, cut off.
    pub cut: u64,
    /// Connections made by the crowd.
    pub crowd: u64,
    /// Bytes written without a newline.
    pub endless_bytes: u64,
    /// Connections that asked and did not read.
    pub unread: u64,
    /// Generated requests.
    pub fuzzed: u64,
    /// Of these, answered.
    pub answered: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Answers that are none.
    pub wrong: Vec<String>,
}

/// Report of `udp-pulse`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PulseReport {
    /// Questions.
    pub sent: u64,
    /// Answers.
    pub answered: u64,
    /// Longest time a socket heard nothing between two answers, milliseconds.
    pub max_gap_ms: u64,
}

impl PulseReport {
    /// Adds another socket's part.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.max_gap_ms = self.max_gap_ms.max(other.max_gap_ms);
    }
}

/// A load program at work.
pub struct Load {
    child: Child,
    text: String,
}

impl Load {
    /// Starts the load program `name` in `ns`.
    ///
    /// # Errors
    /// When it is not built or cannot start.
    pub fn start(ns: &Netns, name: &str, arguments: &[&str]) -> Result<Self> {
        let mut command: Command = ns.command(beside_me(name)?);
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts a command that prints a report as a load program does.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let text = words(&command);
        let child = command.spawn().map_err(|source| Error::Spawn { program: text.clone(), source })?;
        Ok(Self { child, text })
    }

    /// Tells a load without a number to end (closes its standard input) and takes its report.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub fn finish<T: DeserializeOwned>(mut self, limit: Duration) -> Result<T> {
        drop(self.child.stdin.take());
        self.report(limit)
    }

    /// Waits for the end and takes the report.
    ///
    /// # Errors
    /// When it does not end in time, fails, or prints something else.
    pub fn report<T: DeserializeOwned>(mut self, limit: Duration) -> Result<T> {
        let mut pipe = self.child.stdout.take();
        // A reader of its own: a report longer than the pipe must not stop the program.
        let reader = std::thread::spawn(move || {
            let mut out = String::new();
            if let Some(pipe) = &mut pipe {
                let _ = pipe.read_to_string(&mut out);
            }
            out
        });
        let ended = crate::wait::until(&self.text, limit, Duration::from_millis(5), || {
            self.child.try_wait().map_err(Error::file("wait for", &self.text))
        });
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let status = ended?;
        let out = reader.join().unwrap_or_default();
        if !status.success() {
            return Err(Error::Command { command: self.text, status: status.to_string(), stderr: out });
        }
        serde_json::from_str(&out).map_err(|source| Error::Json {
            what: self.text,
            source,
            text: out.chars().take(400).collect(),
        })
    }
}

/// Arguments of the load programs: `--key value` pairs after an optional leading word.
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// Takes the process's arguments; prints `usage` and exits 2 when they are no pairs.
    #[must_use]
    pub fn from_args(skip: usize, usage: &str) -> Self {
        let mut map = BTreeMap::new();
        let mut words = std::env::args().skip(1 + skip);
        while let Some(key) = words.next() {
            let (Some(key), Some(value)) = (key.strip_prefix("--").map(String::from), words.next()) else {
                eprintln!("usage: {usage}");
                std::process::exit(2);
            };
            map.insert(key, value);
        }
        Self(map)
    }

    /// The value of `--key`, or `default`; exits 2 when it does not parse.
    #[must_use]
    pub fn get<T: FromStr>(&self, key: &str, default: T) -> T {
        self.0.get(key).map_or(default, |text| {
            text.parse().unwrap_or_else(|_| {
                eprintln!("--{key}: cannot read {text:?}");
                std::process::exit(2);
            })
        })
    }
}

/// A flag that becomes true when standard input is closed: the rig's word to end.
#[must_use]
pub fn stdin_closed() -> std::sync::Arc<std::sync::atomic::AtomicBool> {
    let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = flag.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    flag
}

//! Long-lived TCP connections whose every byte is checked, thousands of them in one thread.

pub mod client;
mod frame;
pub mod server;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::gaps::Gap;

/// Report of `tcp-talk client`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TalkReport {
    /// Connections asked for.
    pub connections: u64,
    /// Connections established.
    pub opened: u64,
    /// What went wrong, one line per broken connection.
    pub broken: Vec<String>,
    /// Of the broken ones: ended by a reset, or refused.
    pub resets: u64,
    /// Of the broken ones: no answer in time.
    pub timeouts: u64,
    /// Messages answered in order, of all connections.
    pub rounds: u64,
    /// Times a server spoke first after the agreed silence.
    pub spoke_first: u64,
    /// Longest wait for an answer, milliseconds.
    pub max_gap_ms: u64,
    /// The connection that was answered last the longest ago: when that was. Every other one has had
    /// an answer since. 0: one never had any.
    pub oldest_answer_us: u64,
    /// Waits of at least `--slow-ms`, by connection.
    pub waits: Vec<Gap>,
}

impl TalkReport {
    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} TCP connections, {} rounds: {} broken ({} resets, {} timeouts), longest wait {} ms",
            self.opened,
            self.rounds,
            self.broken.len(),
            self.resets,
            self.timeouts,
            self.max_gap_ms
        )
    }
}

/// As many open files as the system allows: each connection is one.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Too low a limit shows as failing connections, with the system's own words.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.max(65_536), hard.max(65_536));
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

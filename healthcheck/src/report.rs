//! What the process says to its service manager, and a bound on what it logs.

use std::time::{Duration, Instant};

use links::service::{self, Watchdog};

/// Lines about single servers per second: when a data centre goes dark, the log must not hold up the probes.
const LINES: u32 = 50;

/// State to systemd, and a bound on lines about servers.
#[derive(Debug)]
pub struct Report {
    status: String,
    watchdog: Option<Watchdog>,
    lines: u32,
    second: Instant,
}

impl Report {
    /// A silent one.
    pub fn new(now: Instant) -> Self {
        Self { status: String::new(), watchdog: service::watchdog(), lines: 0, second: now }
    }

    /// `STATUS=`, when it changed.
    pub fn status(&mut self, status: String) {
        if status != self.status {
            service::status(&status);
            self.status = status;
        }
    }

    /// `WATCHDOG=1`, when it is time.
    pub fn alive(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.beat();
        }
    }

    /// May another line about a server be written this second?
    pub fn line(&mut self, now: Instant) -> bool {
        if now - self.second >= Duration::from_secs(1) {
            if self.lines > LINES {
                log::warn!("{} more changes of servers, not logged one by one; see lbctl rs list", self.lines - LINES);
            }
            (self.lines, self.second) = (0, now);
        }
        self.lines += 1;
        self.lines <= LINES
    }
}

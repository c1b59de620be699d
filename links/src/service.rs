//! What every daemon shares towards its service manager: log lines, readiness, watchdog.

use std::io::Write;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Starts logging to stderr: `RUST_LOG` (default `info`); under journald `<N>` priorities instead of time and level.
pub fn init_log() {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"));
    if journal {
        builder.format(|out, record| {
            let priority = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            // A priority counts for one line only.
            for line in record.args().to_string().lines() {
                writeln!(out, "<{priority}>{line}")?;
            }
            Ok(())
        });
    } else {
        builder.format_timestamp_millis();
    }
    let _ = builder.try_init(); // A second call (tests) keeps the first.
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("service manager: {error}");
    }
}

/// Ready, with a line for `systemctl status`.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A line for `systemctl status`.
pub fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// Stopping in order.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The service manager's watchdog.
#[derive(Debug)]
pub struct Watchdog {
    every: Duration,
    last: Instant,
}

/// The watchdog, if the service manager has one for this process.
#[must_use]
pub fn watchdog() -> Option<Watchdog> {
    let interval = sd_notify::watchdog_enabled()?;
    Some(Watchdog { every: interval / 3, last: Instant::now() })
}

impl Watchdog {
    /// Says "alive" when it is time to. Call it often, but only while the process does its work.
    pub fn beat(&mut self) {
        if self.last.elapsed() >= self.every {
            self.last = Instant::now();
            notify(&[NotifyState::Watchdog]);
        }
    }
}

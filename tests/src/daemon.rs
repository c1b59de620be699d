//! A long-running program under the rig's eye: its log, its notify socket, its end.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::words;
use crate::wait;
use crate::{Error, Result};

/// What a program told its service manager (sd_notify(3)).
#[derive(Debug, Default, Clone)]
pub struct Notified {
    /// `READY=1` was seen.
    pub ready: bool,
    /// `STOPPING=1` was seen.
    pub stopping: bool,
    /// The last `STATUS=`.
    pub status: String,
    /// Count of `WATCHDOG=1`.
    pub watchdogs: u64,
}

/// A running program.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    notified: Arc<Mutex<Notified>>,
}

impl Daemon {
    /// Starts `command`; stdout and stderr go to `folder/NAME.log` (appended, so that the log of
    /// a restarted program stands behind that of its predecessor). With `notify`, the program
    /// gets a `NOTIFY_SOCKET` of its own and a watchdog interval of 5 s to answer to.
    ///
    /// # Errors
    /// When the log, the socket or the program cannot be had.
    pub fn spawn(name: &str, folder: &Path, mut command: Command, notify: bool) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).map_err(Error::file("open", &log))?;
        let error_log = file.try_clone().map_err(Error::file("open", &log))?;
        command.stdin(Stdio::null()).stdout(file).stderr(error_log);
        let notified = Arc::new(Mutex::new(Notified::default()));
        if notify {
            let socket_path = folder.join(format!("{name}.notify"));
            let _ = std::fs::remove_file(&socket_path);
            let socket = UnixDatagram::bind(&socket_path).map_err(Error::file("bind", &socket_path))?;
            // The health-checker runs under another user.
            std::fs::set_permissions(&socket_path, Permissions::from_mode(0o666))
                .map_err(Error::file("chmod", &socket_path))?;
            command.env("NOTIFY_SOCKET", &socket_path).env("WATCHDOG_USEC", "5000000");
            listen(socket, &notified);
        }
        let child = command.spawn().map_err(|source| Error::Spawn { program: words(&command), source })?;
        Ok(Self { name: name.into(), child, log, notified })
    }

    /// Name given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id (of the program itself: `nsenter` and `setpriv` keep it).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program told so far.
    #[must_use]
    pub fn notified(&self) -> Notified {
        // A poisoned lock means the listener panicked: what it had stored is still right.
        self.notified.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Waits for `READY=1`.
    ///
    /// # Errors
    /// When the program ends before, or says nothing in time; both with the log's last lines.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while !self.notified().ready {
            if let Some(status) = self.ended()? {
                return Err(Error::claim(format!(
                    "{} ended with {status} before it was ready; its log ends:\n{}",
                    self.name,
                    self.log_tail(25)
                )));
            }
            if start.elapsed() > limit {
                let detail = format!("; its log ends:\n{}", self.log_tail(25));
                return Err(Error::Timeout { what: format!("READY of {}", self.name), after: limit, detail });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The exit status, if the program has ended.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::file("wait for", &self.log))
    }

    /// Fails if the program has ended, with its log's last lines.
    ///
    /// # Errors
    /// As said.
    pub fn expect_alive(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => {
                Err(Error::claim(format!("{} ended with {status}; its log ends:\n{}", self.name, self.log_tail(25))))
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.pid()) {
            // It may have ended meanwhile; the following wait tells.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it lives on.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, limit, Duration::from_millis(5), || self.ended())
    }

    /// SIGTERM, and the status it ended with.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it does not end.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        self.wait_end(limit)
    }

    /// SIGKILL and the wait for its end.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the kernel does not end it.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL);
        self.wait_end(Duration::from_secs(5)).map(drop)
    }

    /// Process ids of its direct children (for lb-primary: control).
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        let mut found = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(text.split_whitespace().filter_map(|w| w.parse::<u32>().ok()));
        }
        found
    }

    /// The last `lines` lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// The whole log.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log).map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into_owned())
    }
}

/// The last `lines` lines of a file, or why it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return format!("({}: {error})", path.display()),
    };
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Takes every datagram at once: at most `net.unix.max_dgram_qlen` (10) may wait before the
/// program's `send` would block. Ends when the last handle to the results is gone.
fn listen(socket: UnixDatagram, notified: &Arc<Mutex<Notified>>) {
    let weak = Arc::downgrade(notified);
    spawn(move || {
        // Without a time limit the thread would only outlive its daemon; nothing is lost by that.
        let _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
        let mut buffer = [0_u8; 4096];
        loop {
            let Some(shared) = weak.upgrade() else { return };
            let Ok(length) = socket.recv(&mut buffer) else { continue };
            let mut told = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for line in String::from_utf8_lossy(&buffer[..length]).lines() {
                match line.split_once('=') {
                    Some(("READY", "1")) => told.ready = true,
                    Some(("STOPPING", "1")) => told.stopping = true,
                    Some(("STATUS", text)) => told.status = text.into(),
                    Some(("WATCHDOG", "1")) => told.watchdogs += 1,
                    _ => {}
                }
            }
        }
    });
}

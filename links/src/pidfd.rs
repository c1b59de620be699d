//! Death of a process, seen by the kernel's own word (pidfd), not by silence.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shm_layout::owner::Process;

/// A process, held so that its number cannot come to mean another one.
#[derive(Debug)]
pub struct Peer {
    fd: OwnedFd,
    pid: u32,
}

impl Peer {
    /// Opens a living (or dead, not yet awaited) process.
    ///
    /// # Errors
    /// The kernel's; `ESRCH`: there is none of that number.
    pub fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { fd: pidfd_open(raw, PidfdFlags::empty())?, pid })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until all its threads have ended, at most `limit` (`None`: for ever). Returns whether they have.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        let end = limit.map(|l| Instant::now() + l);
        loop {
            let left = end.map(|e| e.saturating_duration_since(Instant::now()));
            let timeout = left.map(|l| Timespec {
                tv_sec: i64::try_from(l.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(l.subsec_nanos()),
            });
            let mut fds = [PollFd::from_borrowed_fd(self.fd.as_fd(), PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(n) => return Ok(n > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn dead(&self) -> bool {
        self.wait(Some(Duration::ZERO)).unwrap_or(false)
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let _ = pidfd_send_signal(&self.fd, Signal::TERM); // It may have ended meanwhile.
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.fd, Signal::KILL); // As above.
    }

    /// Calls `dead` from a thread of its own when the process has ended.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn watch(self, dead: impl FnOnce(u32) + Send + 'static) -> io::Result<()> {
        std::thread::Builder::new().name(format!("watch-{}", self.pid)).spawn(move || {
            // An error of poll is no death; it does not happen for an open descriptor.
            while !self.wait(None).unwrap_or(false) {
                std::thread::sleep(Duration::from_millis(100));
            }
            dead(self.pid);
        })?;
        Ok(())
    }
}

/// Whether a process lives: until its last thread is gone, which is later than its main thread's end (a killed process
/// whose leader is a zombie may still have a thread in the kernel).
#[must_use]
pub fn lives(process: Process) -> bool {
    if process == Process::NOBODY {
        return false;
    }
    // Opened before its start is read: what is read belongs to the process that is held. Only what says "dead" is
    // believed: out of descriptors or memory, nobody is taken for dead.
    let peer = match Peer::open(process.pid()) {
        Ok(peer) => peer,
        Err(error) => {
            let none = [Some(libc_esrch()), None].contains(&error.raw_os_error());
            return !none;
        }
    };
    !peer.dead() && start_time(process.pid()).is_none_or(|now| now == process)
}

/// There is no such process. (A number that no process can have is refused without a number of an error.)
fn libc_esrch() -> i32 {
    rustix::io::Errno::SRCH.raw_os_error()
}

/// The process of this number as of now, dead or alive (/proc/PID/stat, field 22).
fn start_time(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in brackets may contain spaces and brackets: count behind the last one.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    Some(Process::new(pid, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_child_is_seen_before_it_is_awaited() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (pid, process) = (child.id(), Process::living(child.id()).unwrap());
        let peer = Peer::open(pid).unwrap();
        assert!(!peer.dead() && lives(process) && !lives(Process::from_word(process.word() + 1)));
        peer.kill();
        assert!(peer.wait(Some(Duration::from_secs(5))).unwrap());
        assert!(!lives(process));
        child.wait().unwrap();
        assert!(Peer::open(pid).is_err());
    }
}

//! The admin socket: bounded clients, bounded frames, bounded memory, bounded patience; one thread, nothing blocks.
//!
//! A client is read only when its last answer has left, so that it cannot make us keep more than one answer for it. Of
//! the clients that wait, those of the user who took least of our time lately come first; a turn ends after 10 ms, so
//! that newcomers are seen. Who gets a place when all are taken: [`admission`].

mod admission;
mod client;

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use control_api::rpc::Response;
use control_api::{ApiError, Code, IDLE_SECONDS, MAX_CLIENTS};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::Value;

use super::core::Core;
use super::dispatch::Caller;
use super::targets::share;
use admission::yields;
use client::Client;

/// A client that takes nothing of its answer for so long is cut off.
const SLOW: Duration = Duration::from_secs(5);
/// A client that does not ask for so long after it came is cut off.
const FIRST: Duration = Duration::from_secs(5);
/// A request that is not whole for so long is given up, and its client cut off.
const FRAME: Duration = Duration::from_secs(5);
/// Read from one client at a turn, bytes.
const TURN: usize = 64 << 10;
/// Of a longer request than this, bytes, only one client of its kind (may change; may not) sends the rest at a time.
pub const SMALL: usize = 16 << 10;
/// Answers that clients without the right to change anything have not taken, bytes in all. Then the slowest is cut off.
const UNTAKEN: usize = 1 << 20;
/// Who takes nothing for so long is slow when others need the room.
const STALLED: Duration = Duration::from_millis(200);
/// Time for answers before newcomers are looked at again.
const BUDGET: Duration = Duration::from_millis(10);
/// Connections looked at in one turn: a crowd is turned away at once, since others stand behind it.
const NEWCOMERS: usize = 1024;

/// How long a client is borne with.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between two requests.
    pub idle: Duration,
    /// Taking nothing of an answer.
    pub slow: Duration,
    /// Before the first request.
    pub first: Duration,
    /// For a whole request.
    pub frame: Duration,
}

/// The socket and its clients.
#[derive(Debug)]
pub struct Admin {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
    own_uid: u32,
    patience: Patience,
    /// Time spent lately for each user, µs; halved every second.
    spent: HashMap<u32, u64>,
    halved: Instant,
    buffer: Box<[u8]>,
}

impl Admin {
    /// Listens on `path`, 0660 and of the run directory's group; a dead predecessor's socket is replaced.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(path: &Path) -> std::io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        if let Some(folder) = path.parent() {
            share(path, folder)?;
        }
        let idle = Duration::from_secs(IDLE_SECONDS);
        Ok(Self {
            listener,
            path: path.into(),
            clients: Vec::new(),
            own_uid: nix::unistd::geteuid().as_raw(),
            patience: Patience { idle, slow: SLOW, first: FIRST, frame: FRAME },
            spent: HashMap::new(),
            halved: Instant::now(),
            buffer: vec![0; TURN].into(),
        })
    }

    /// The same with other patience, for tests.
    #[cfg(test)]
    pub fn patience(mut self, idle: Duration, slow: Duration) -> Self {
        self.patience = Patience { idle, slow, first: FIRST.min(idle), frame: FRAME.min(idle) };
        self
    }

    /// Waits at most `wait` for something to do and does it.
    pub fn turn(&mut self, core: &mut Core, wait: Duration) {
        let waiting = self.clients.iter().any(Client::wants_answer);
        let wait = match (waiting, core.busy()) {
            (true, false) if self.crowded() => Duration::from_millis(5), // Until somebody takes an answer.
            (true, _) | (_, true) => Duration::ZERO,
            _ => wait,
        };
        let may_read_on = self.may_read_on();
        let ready = self.wait(wait, &may_read_on);
        let now = Instant::now();
        for (i, client) in self.clients.iter_mut().enumerate() {
            let (flags, may) = (ready.get(i + 1).copied(), may_read_on.get(i).copied());
            client.exchange(flags.unwrap_or(PollFlags::empty()), may.unwrap_or(false), &mut self.buffer, now);
        }
        self.answer(core, now);
        let patience = self.patience;
        // As of before the answers: while one is made, which may take seconds, nobody can take his.
        self.clients.retain(|c| c.stays(now, &patience));
        if ready.first().is_some_and(|flags| !flags.is_empty()) {
            self.accept();
        }
    }

    /// Answers, the users first that took least of our time lately, until the time of a turn is over.
    fn answer(&mut self, core: &mut Core, now: Instant) {
        if now.saturating_duration_since(self.halved) >= Duration::from_secs(1) {
            self.halved = now;
            self.spent.retain(|_, spent| {
                *spent /= 2;
                *spent > 0
            });
        }
        let mut order: Vec<usize> = (0..self.clients.len()).filter(|i| self.clients[*i].wants_answer()).collect();
        let spent = |c: &Client| self.spent.get(&c.caller.uid).copied().unwrap_or(0);
        order.sort_by_key(|i| (spent(&self.clients[*i]), std::cmp::Reverse(self.clients[*i].waits(now))));
        for i in order {
            if !self.clients[i].caller.writes && self.crowded() {
                self.cut_the_slowest(now);
                continue;
            }
            let begun = Instant::now();
            if begun.saturating_duration_since(now) >= BUDGET {
                return;
            }
            let client = &mut self.clients[i];
            client.answer(core, begun);
            let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            *self.spent.entry(client.caller.uid).or_default() += took.max(1);
        }
    }

    /// Have those who may only read left too much of their answers with us?
    fn crowded(&self) -> bool {
        let readers = self.clients.iter().filter(|c| !c.caller.writes);
        readers.map(|c| c.untaken().0).sum::<usize>() > UNTAKEN
    }

    fn cut_the_slowest(&mut self, now: Instant) {
        let stalled = |c: &Client| {
            let (bytes, since) = c.untaken();
            bytes > 0 && !c.caller.writes && now.saturating_duration_since(since) >= STALLED
        };
        let slow = self.clients.iter().enumerate().filter(|(_, c)| stalled(c));
        // Marked only: the others' places in this turn's order stay right.
        if let Some(at) = slow.min_by_key(|(_, c)| c.untaken().1).map(|(at, _)| at) {
            self.clients[at].give_up();
        }
    }

    /// Which clients may send more than the beginning of a long request: one that may change things, one that may not.
    fn may_read_on(&self) -> Vec<bool> {
        let first = |writes: bool| {
            let long = self.clients.iter().enumerate().filter(|(_, c)| c.caller.writes == writes);
            long.filter_map(|(i, c)| Some((c.long_since()?, i))).min().map(|(_, i)| i)
        };
        let first = [first(true), first(false)];
        let may = |(i, c): (usize, &Client)| c.long_since().is_none() || first.contains(&Some(i));
        self.clients.iter().enumerate().map(may).collect()
    }

    /// Which of listener and clients have something.
    fn wait(&self, wait: Duration, may_read_on: &[bool]) -> Vec<PollFlags> {
        let mut watched = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.clients.iter().zip(may_read_on).map(|(c, may)| PollFd::new(c.fd(), c.wanted(*may))));
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        // An interrupted wait is a wait that ends.
        let _ = poll(&mut watched, timeout);
        watched.iter().map(|p| p.revents().unwrap_or(PollFlags::empty())).collect()
    }

    fn accept(&mut self) {
        let full = ApiError::new(Code::Failed, format!("{MAX_CLIENTS} clients are connected already"));
        let full = full.code(control_api::error::FULL).hint("try again later");
        let line = Response::new(Value::Null, Err(full.clone())).line();
        // A user for whom there is no place now: this turn's others of him are turned away without a further look.
        let mut turned_away = None;
        for _ in 0..NEWCOMERS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            let Ok(peer) = getsockopt(&stream, PeerCredentials) else { continue };
            let uid = peer.uid();
            let writes = uid == 0 || uid == self.own_uid;
            if turned_away == Some(uid) || !self.room_for(uid, writes, &full) {
                turned_away = Some(uid);
                let _ = (&stream).write(&line); // Its buffer is empty: this does not block.
                continue;
            }
            if let Err(error) = stream.set_nonblocking(true) {
                log::warn!("a client did not come: {error}");
                continue;
            }
            let caller = Caller { uid, pid: peer.pid(), user: user(uid), writes, upload: String::new() };
            self.clients.push(Client::new(stream, caller, Instant::now()));
        }
    }

    /// Is there a place for a newcomer, or one that is given up for him?
    fn room_for(&mut self, uid: u32, writes: bool, why: &ApiError) -> bool {
        if self.clients.len() < MAX_CLIENTS {
            return true;
        }
        let now = Instant::now();
        let places: Vec<_> = self.clients.iter().map(|c| c.place(now)).collect();
        let yielded = yields(&places, uid, writes);
        if let Some(at) = yielded {
            self.clients.swap_remove(at).cut(why);
        }
        yielded.is_some()
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Name of a uid by `/etc/passwd` alone: a name service may be slow.
fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    };
    passwd.lines().find_map(name).unwrap_or_else(|| format!("uid {uid}"))
}

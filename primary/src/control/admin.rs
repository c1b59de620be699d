//! The admin socket: bounded clients, bounded frames, bounded patience; one thread, nothing blocks.
//!
//! A client is read only when its last answer has left, so that it cannot make us keep more than one answer for it.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use control_api::rpc::{Request, Response};
use control_api::{API_VERSION, ApiError, Code, IDLE_SECONDS, MAX_CLIENTS, MAX_FRAME};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::Value;

use super::core::Core;
use super::dispatch::{Caller, handle};
use super::targets::share;

/// A client that takes nothing of its answer for so long is cut off.
const SLOW: Duration = Duration::from_secs(10);
/// Read from one client at a turn, bytes.
const TURN: usize = 64 << 10;

/// The socket and its clients.
#[derive(Debug)]
pub struct Admin {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
    own_uid: u32,
    idle: Duration,
    slow: Duration,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    caller: Caller,
    input: Vec<u8>,
    /// Bytes of `input` known to hold no newline.
    searched: usize,
    output: Vec<u8>,
    sent: usize,
    /// When the last answer left, or the connection began; while an answer waits: when some of it left last.
    since: Instant,
    greeted: bool,
    /// Nothing more is read; closed when the answer has left.
    closing: bool,
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
        Ok(Self {
            listener,
            path: path.into(),
            clients: Vec::new(),
            own_uid: nix::unistd::geteuid().as_raw(),
            idle: Duration::from_secs(IDLE_SECONDS),
            slow: SLOW,
        })
    }

    /// The same with other patience, for tests.
    #[cfg(test)]
    pub fn patience(mut self, idle: Duration, slow: Duration) -> Self {
        (self.idle, self.slow) = (idle, slow);
        self
    }

    /// Waits at most `wait` for something to do and does it.
    pub fn turn(&mut self, core: &mut Core, wait: Duration) {
        let pending = self.clients.iter().any(|c| c.output.is_empty() && c.has_line());
        let wait = if pending { Duration::ZERO } else { wait };
        let ready = self.wait(wait);
        if ready.first().copied().unwrap_or(false) {
            self.accept();
        }
        let now = Instant::now();
        for (i, client) in self.clients.iter_mut().enumerate() {
            client.turn(core, ready.get(i + 1).copied().unwrap_or(false), now);
        }
        let (idle, slow) = (self.idle, self.slow);
        self.clients.retain(|c| c.stays(now, idle, slow));
    }

    /// Which of listener and clients have something.
    fn wait(&self, wait: Duration) -> Vec<bool> {
        let mut watched = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.clients.iter().map(|c| {
            let wanted = if c.output.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
            PollFd::new(c.stream.as_fd(), wanted)
        }));
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        // An interrupted wait is a wait that ends.
        let _ = poll(&mut watched, timeout);
        watched.iter().map(|p| p.any().unwrap_or(false)).collect()
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() >= MAX_CLIENTS {
                let full = format!("{MAX_CLIENTS} clients are connected already");
                let reply = Response::new(Value::Null, Err(ApiError::new(Code::Failed, full).hint("try again later")));
                let _ = stream.set_nonblocking(true).and_then(|()| (&stream).write(&reply.line()).map(drop));
                continue;
            }
            match Client::new(stream, self.own_uid) {
                Ok(client) => self.clients.push(client),
                Err(error) => log::warn!("a client did not come: {error}"),
            }
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Client {
    fn new(stream: UnixStream, own_uid: u32) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = getsockopt(&stream, PeerCredentials)?;
        let uid = peer.uid();
        let writes = uid == 0 || uid == own_uid;
        let caller = Caller { uid, pid: peer.pid(), user: user(uid), writes, upload: String::new() };
        Ok(Self {
            stream,
            caller,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            sent: 0,
            since: Instant::now(),
            greeted: false,
            closing: false,
        })
    }

    fn has_line(&self) -> bool {
        !self.closing && self.input[self.searched..].contains(&b'\n')
    }

    fn turn(&mut self, core: &mut Core, ready: bool, now: Instant) {
        if ready && !self.output.is_empty() {
            self.write(now);
        }
        if ready && self.output.is_empty() && !self.closing && !self.has_line() {
            self.read();
        }
        if self.output.is_empty() && !self.closing {
            self.answer(core);
            if !self.output.is_empty() {
                self.since = now;
                self.write(now);
            }
        }
    }

    fn read(&mut self) {
        let start = self.input.len();
        self.input.resize(start + TURN, 0);
        let read = self.stream.read(&mut self.input[start..]);
        self.input.truncate(start + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => self.closing = true,
            Err(error) if ![ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {
                self.closing = true
            }
            _ => {}
        }
    }

    /// Answers one request, if a whole one is there.
    fn answer(&mut self, core: &mut Core) {
        let Some(end) = self.input[self.searched..].iter().position(|b| *b == b'\n').map(|n| self.searched + n) else {
            self.searched = self.input.len();
            if self.input.len() >= MAX_FRAME {
                self.refuse_frame();
            }
            return;
        };
        if end >= MAX_FRAME {
            self.refuse_frame();
            return;
        }
        let line = &self.input[..end];
        let reply = if line.iter().all(u8::is_ascii_whitespace) {
            None
        } else {
            Some(match Request::parse(line) {
                Ok(request) => {
                    let outcome = handle(core, &mut self.caller, &request);
                    Response::new(request.id, outcome)
                }
                Err((id, error)) => Response::new(id, Err(error)),
            })
        };
        self.input.drain(..=end);
        self.searched = 0;
        if let Some(reply) = reply {
            self.reply(reply);
        }
    }

    fn refuse_frame(&mut self) {
        let error = ApiError::new(Code::Parse, format!("request is longer than {MAX_FRAME} bytes"));
        self.reply(Response::new(Value::Null, Err(error.hint("config.upload takes long files in pieces"))));
        (self.closing, self.searched) = (true, 0);
        self.input = Vec::new();
    }

    fn reply(&mut self, mut reply: Response) {
        if !self.greeted {
            reply.api_version = Some(API_VERSION);
            self.greeted = true;
        }
        (self.output, self.sent) = (reply.line(), 0);
    }

    fn write(&mut self, now: Instant) {
        match self.stream.write(&self.output[self.sent..]) {
            Ok(0) => self.closing = true,
            Ok(n) => {
                self.sent += n;
                self.since = now;
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(_) => {
                self.closing = true;
                self.sent = self.output.len();
            }
        }
        if self.sent >= self.output.len() {
            (self.output, self.sent) = (Vec::new(), 0);
        }
    }

    fn stays(&self, now: Instant, idle: Duration, slow: Duration) -> bool {
        let limit = if self.output.is_empty() { idle } else { slow };
        let patient = now.saturating_duration_since(self.since) < limit;
        patient && !(self.closing && self.output.is_empty())
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

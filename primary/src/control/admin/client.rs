//! One client: its bytes in, its answer out, what it may keep us waiting for.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use control_api::rpc::{Request, Response};
use control_api::{API_VERSION, ApiError, Code, MAX_FRAME};
use nix::poll::PollFlags;
use serde_json::Value;

use super::admission::Place;
use super::{Patience, SMALL};
use crate::control::core::Core;
use crate::control::dispatch::{Caller, handle};

/// A connected client.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// Who it is.
    pub caller: Caller,
    input: Vec<u8>,
    /// Bytes of `input` known to hold no newline.
    searched: usize,
    /// When the unfinished request began to come.
    begun: Option<Instant>,
    output: Vec<u8>,
    sent: usize,
    /// A request whose answer is being made, in pieces.
    later: Option<Request>,
    /// When the last answer left, or the connection began; while an answer waits: when some of it left last.
    since: Instant,
    asked: bool,
    greeted: bool,
    /// Nothing more is read; closed when the answer has left.
    closing: bool,
}

impl Client {
    /// A client that has just connected (non-blocking).
    pub fn new(stream: UnixStream, caller: Caller, now: Instant) -> Self {
        Self {
            stream,
            caller,
            input: Vec::new(),
            searched: 0,
            begun: None,
            output: Vec::new(),
            sent: 0,
            later: None,
            since: now,
            asked: false,
            greeted: false,
            closing: false,
        }
    }

    /// What to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What it is polled for. Nothing is read while an answer waits, so that nobody makes us keep more than one.
    pub fn wanted(&self, may_read_on: bool) -> PollFlags {
        match (self.output.is_empty(), self.wants_answer() || !may_read_on) {
            (false, _) => PollFlags::POLLOUT,
            (true, false) => PollFlags::POLLIN,
            (true, true) => PollFlags::empty(),
        }
    }

    /// Has it a whole request that can be answered?
    pub fn wants_answer(&self) -> bool {
        self.output.is_empty() && !self.closing && (self.later.is_some() || self.has_line())
    }

    fn has_line(&self) -> bool {
        self.input[self.searched..].contains(&b'\n')
    }

    /// Since when it has sent a request that is long and not whole.
    pub fn long_since(&self) -> Option<Instant> {
        self.begun.filter(|_| self.input.len() >= SMALL && !self.has_line())
    }

    /// Bytes of an answer that it has not taken yet, and since when it takes none.
    pub fn untaken(&self) -> (usize, Instant) {
        (self.output.len(), self.since)
    }

    /// The place it holds.
    pub fn place(&self, now: Instant) -> Place {
        let quiet = now.saturating_duration_since(self.since);
        Place {
            uid: self.caller.uid,
            privileged: self.caller.writes,
            asked: self.asked,
            busy: !self.output.is_empty() || self.wants_answer(),
            quiet_ms: u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Moves bytes, as the poll said. `may_read_on`: see [`Self::long_since`].
    pub fn exchange(&mut self, ready: PollFlags, may_read_on: bool, buffer: &mut [u8], now: Instant) {
        if !may_read_on && self.long_since().is_some() {
            self.begun = Some(now); // Its time begins when its turn comes.
        }
        if ready.is_empty() {
            return;
        }
        let wanted = self.wanted(may_read_on);
        if wanted.contains(PollFlags::POLLOUT) {
            self.write(now);
        } else if wanted.contains(PollFlags::POLLIN) {
            let most = if self.input.len() < SMALL { SMALL - self.input.len() } else { buffer.len() };
            let most = most.min(buffer.len());
            self.read(&mut buffer[..most], now);
        } else if ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.closing = true; // Gone, with a request that nobody waits for any more.
        }
    }

    fn read(&mut self, buffer: &mut [u8], now: Instant) {
        match self.stream.read(buffer) {
            Ok(0) => self.closing = true,
            Ok(n) => {
                self.begun.get_or_insert(now);
                self.input.extend_from_slice(&buffer[..n]);
            }
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(_) => self.closing = true,
        }
        if !self.has_line() {
            self.searched = self.input.len();
            if self.input.len() >= MAX_FRAME {
                self.refuse_frame();
            }
        }
    }

    /// Answers one request.
    pub fn answer(&mut self, core: &mut Core, now: Instant) {
        let request = match self.later.take() {
            Some(request) => Some(Ok(request)),
            None => self.next_line(now),
        };
        match request {
            None => {}
            Some(Err((id, error))) => self.reply(Response::new(id, Err(error))),
            Some(Ok(request)) => match handle(core, &mut self.caller, &request) {
                Ok(None) => self.later = Some(request),
                Ok(Some(value)) => self.reply(Response::new(request.id, Ok(value))),
                Err(error) => self.reply(Response::new(request.id, Err(error))),
            },
        }
        if !self.output.is_empty() {
            // Its patience begins with the answer: what it took to make it was our time.
            let now = Instant::now();
            self.since = now;
            self.write(now);
        }
    }

    /// Takes the next line; `None`: there is none, or a blank one.
    fn next_line(&mut self, now: Instant) -> Option<Result<Request, (Value, ApiError)>> {
        let end = self.searched + self.input[self.searched..].iter().position(|b| *b == b'\n')?;
        if end >= MAX_FRAME {
            self.refuse_frame();
            return None;
        }
        let line = &self.input[..end];
        let blank = line.iter().all(u8::is_ascii_whitespace);
        let request = (!blank).then(|| Request::parse(line));
        self.input.drain(..=end);
        self.searched = 0;
        self.begun = (!self.input.is_empty()).then_some(now);
        if self.input.is_empty() {
            self.input = Vec::new(); // A long request's memory is not kept.
        }
        self.asked |= !blank;
        request
    }

    fn refuse_frame(&mut self) {
        let error = ApiError::new(Code::Parse, format!("request is longer than {MAX_FRAME} bytes"));
        self.reply(Response::new(Value::Null, Err(error.hint("config.upload takes long files in pieces"))));
        (self.closing, self.searched, self.begun) = (true, 0, None);
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

    /// Its answer is dropped, and it goes.
    pub fn give_up(&mut self) {
        (self.closing, self.output, self.sent) = (true, Vec::new(), 0);
    }

    /// Gives up the place, with a word to who was only silent.
    pub fn cut(mut self, why: &ApiError) {
        if !self.asked && self.output.is_empty() {
            let _ = self.stream.write(&Response::new(Value::Null, Err(why.clone())).line());
        }
    }

    /// Is it still patiently borne with?
    pub fn stays(&self, now: Instant, patience: &Patience) -> bool {
        let limit = match (self.output.is_empty(), self.asked) {
            (false, _) => patience.slow,
            (true, false) => patience.first,
            (true, true) => patience.idle,
        };
        let since = |then: Instant| now.saturating_duration_since(then);
        let in_time = self.wants_answer() || since(self.since) < limit;
        let read = self.output.is_empty() && !self.wants_answer(); // Else the rest lies with the kernel, by our will.
        let whole = !read || self.begun.is_none_or(|begun| since(begun) < patience.frame);
        in_time && whole && !(self.closing && self.output.is_empty())
    }

    /// Time since it was served last, for the order of service.
    pub fn waits(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

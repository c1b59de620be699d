//! The asking end of the talk: K connections, one thread.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};

use super::frame::{ECHO, Frame, QUIET, SPEAK};
use super::{TalkReport, raise_file_limit};
use crate::clock::now_us;
use crate::gaps::Gap;

/// Longest sleep, ms: the closed standard input and the timeouts are looked at after it.
const LOOK: u16 = 5;
/// Microseconds between two looks for timeouts.
const SCAN_US: u64 = 100_000;

/// How to talk.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Connections.
    pub connections: u32,
    /// Pause of a connection between an answer and its next question.
    pub period: Duration,
    /// Ask the server to be silent so long and then to speak first; zero: ask for an echo.
    pub quiet: Duration,
    /// Longest wait for an answer, beyond `quiet`.
    pub timeout: Duration,
    /// Connections opened per second, so that the listen queue is not what is tested.
    pub open_rate: u64,
    /// Payload of a question, bytes.
    pub size: usize,
    /// Waits from here on are recorded.
    pub slow: Duration,
}

enum State {
    /// Since when.
    Connecting(u64),
    /// Since when an answer is awaited.
    Waiting(u64),
    Resting,
    Broken,
}

struct Connection {
    stream: TcpStream,
    state: State,
    expected: Frame,
    inbox: Vec<u8>,
    /// Rest of a question that the kernel did not take at once.
    outbox: Vec<u8>,
    rounds: u64,
    answered_us: u64,
}

/// Talks until `stop`, then awaits the answers under way.
///
/// # Errors
/// When there is no epoll.
pub fn run(target: SocketAddr, manner: Manner, stop: &AtomicBool) -> std::io::Result<TalkReport> {
    raise_file_limit();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let report = TalkReport { connections: manner.connections.into(), ..TalkReport::default() };
    let mut talk = Talk { epoll, target, manner, all: Vec::new(), resting: VecDeque::new(), report };
    let mut events = vec![EpollEvent::empty(); 512];
    let (begin, mut scanned) = (now_us(), now_us());
    loop {
        let stopping = stop.load(Relaxed);
        let now = now_us();
        if !stopping {
            let due = (now - begin) * manner.open_rate / 1_000_000 + 1;
            while (talk.all.len() as u64) < due.min(manner.connections.into()) {
                talk.open();
            }
            talk.ask(now);
        }
        if now - scanned > SCAN_US || stopping {
            scanned = now;
            talk.look_for_timeouts(now);
        }
        if stopping && !talk.all.iter().any(|c| matches!(c.state, State::Connecting(_) | State::Waiting(_))) {
            talk.report.oldest_answer_us = talk.all.iter().map(|c| c.answered_us).min().unwrap_or(0);
            return Ok(talk.report);
        }
        match talk.epoll.wait(&mut events, LOOK) {
            Ok(count) => {
                for event in &events[..count] {
                    talk.serve(usize::try_from(event.data()).unwrap_or(usize::MAX), event.events());
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

struct Talk {
    epoll: Epoll,
    target: SocketAddr,
    manner: Manner,
    all: Vec<Connection>,
    /// When its pause is over, and whose; all pauses are alike, so it is in order.
    resting: VecDeque<(u64, usize)>,
    report: TalkReport,
}

impl Talk {
    fn open(&mut self) {
        let number = self.all.len();
        match begin_connect(self.target) {
            Ok(stream) => {
                let flags = EpollFlags::EPOLLOUT;
                let added = self.epoll.add(&stream, EpollEvent::new(flags, number as u64));
                let expected = Frame { kind: ECHO, payload: 0, number: 0 };
                let (inbox, outbox) = (Vec::new(), Vec::new());
                let state = State::Connecting(now_us());
                self.all.push(Connection { stream, state, expected, inbox, outbox, rounds: 0, answered_us: 0 });
                if let Err(errno) = added {
                    self.broke(number, &errno.into());
                }
            }
            Err(error) => {
                // Not a connection of ours at all: not to be counted as one that broke on the way.
                self.report.broken.push(format!("connection {number} was not begun: {error}"));
                self.manner.connections = self.manner.connections.saturating_sub(1);
            }
        }
    }

    /// Sends the questions that are due.
    fn ask(&mut self, now: u64) {
        while let Some((due, number)) = self.resting.front().copied()
            && due <= now
        {
            self.resting.pop_front();
            if let Err(error) = self.question(number) {
                self.broke(number, &error);
            }
        }
    }

    fn question(&mut self, number: usize) -> std::io::Result<()> {
        let Some(connection) = self.all.get_mut(number) else { return Ok(()) };
        if matches!(connection.state, State::Broken) {
            return Ok(());
        }
        let quiet = u64::try_from(self.manner.quiet.as_millis()).unwrap_or(u64::MAX);
        let (asked, expected) = if quiet == 0 {
            let echo = Frame { kind: ECHO, payload: self.manner.size, number: connection.rounds };
            (echo, echo)
        } else {
            let ask = |kind| Frame { kind, payload: 0, number: quiet };
            (ask(QUIET), ask(SPEAK))
        };
        connection.expected = expected;
        asked.write(&mut connection.outbox);
        connection.state = State::Waiting(now_us());
        connection.flush(&self.epoll, number as u64)
    }

    fn serve(&mut self, number: usize, flags: EpollFlags) {
        let Some(connection) = self.all.get_mut(number) else { return };
        let done = match connection.state {
            State::Connecting(_) => self.established(number),
            State::Broken => Ok(()),
            State::Waiting(_) | State::Resting => {
                let flushed = if flags.contains(EpollFlags::EPOLLOUT) {
                    connection.flush(&self.epoll, number as u64)
                } else {
                    Ok(())
                };
                flushed.and_then(|()| self.hear(number))
            }
        };
        if let Err(error) = done {
            self.broke(number, &error);
        }
    }

    fn established(&mut self, number: usize) -> std::io::Result<()> {
        let connection = &mut self.all[number];
        if let Some(error) = connection.stream.take_error()? {
            return Err(error);
        }
        connection.stream.set_nodelay(true)?;
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        self.epoll.modify(&connection.stream, &mut event)?;
        connection.state = State::Resting;
        self.report.opened += 1;
        self.question(number)
    }

    fn hear(&mut self, number: usize) -> std::io::Result<()> {
        let connection = &mut self.all[number];
        let mut chunk = [0; 4096];
        loop {
            match connection.stream.read(&mut chunk) {
                Ok(0) => return Err(std::io::Error::other("closed by the other side")),
                Ok(length) => connection.inbox.extend(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if connection.inbox.is_empty() {
            return Ok(());
        }
        let State::Waiting(since) = connection.state else {
            return Err(std::io::Error::other(format!("{} bytes came unasked", connection.inbox.len())));
        };
        if connection.inbox.len() < connection.expected.length() {
            return Ok(());
        }
        if !connection.expected.is(&connection.inbox) {
            let start = &connection.inbox[..connection.inbox.len().min(48)];
            return Err(std::io::Error::other(format!("expected {:?}, got {start:02x?}", connection.expected)));
        }
        connection.inbox.clear();
        connection.state = State::Resting;
        connection.rounds += 1;
        self.answered(number, since);
        Ok(())
    }

    fn answered(&mut self, number: usize, since: u64) {
        let (now, quiet) = (now_us(), micros(self.manner.quiet));
        let gap_us = (now - since).saturating_sub(quiet);
        self.all[number].answered_us = now;
        self.report.rounds += 1;
        self.report.spoke_first += u64::from(quiet > 0);
        self.report.max_gap_ms = self.report.max_gap_ms.max(gap_us / 1000);
        if gap_us >= micros(self.manner.slow) {
            let lane = u32::try_from(number).unwrap_or(u32::MAX);
            self.report.waits.push(Gap { lane, end_us: now, gap_us, sent_us: 0 });
        }
        self.resting.push_back((now + micros(self.manner.period), number));
    }

    fn look_for_timeouts(&mut self, now: u64) {
        let (timeout, quiet) = (micros(self.manner.timeout), micros(self.manner.quiet));
        for number in 0..self.all.len() {
            let late = match self.all[number].state {
                State::Connecting(since) => now > since + timeout,
                State::Waiting(since) => now > since + timeout + quiet,
                State::Resting | State::Broken => false,
            };
            if late {
                self.broke(number, &std::io::Error::from(ErrorKind::TimedOut));
            }
        }
    }

    fn broke(&mut self, number: usize, error: &std::io::Error) {
        let Some(connection) = self.all.get_mut(number) else { return };
        let _ = self.epoll.delete(&connection.stream);
        let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        connection.state = State::Broken;
        let reset = [ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused, ErrorKind::BrokenPipe];
        self.report.resets += u64::from(reset.contains(&error.kind()));
        self.report.timeouts += u64::from(error.kind() == ErrorKind::TimedOut);
        let port = connection.stream.local_addr().map_or(0, |a| a.port());
        let at = Duration::from_micros(now_us());
        self.report.broken.push(format!(
            "connection {number} (port {port}) after {} rounds at {:.3} s: {error}",
            connection.rounds,
            at.as_secs_f64()
        ));
    }
}

impl Connection {
    fn flush(&mut self, epoll: &Epoll, name: u64) -> std::io::Result<()> {
        let mut done = 0;
        while done < self.outbox.len() {
            match self.stream.write(&self.outbox[done..]) {
                Ok(length) => done += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let more = done < self.outbox.len();
        self.outbox.drain(..done);
        let flags = if more { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        Ok(epoll.modify(&self.stream, &mut EpollEvent::new(flags, name))?)
    }
}

/// A connection under way.
fn begin_connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(TcpStream::from(socket)),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

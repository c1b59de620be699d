//! The echoing end of the talk.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{Backlog, listen};

use super::frame::{Frame, QUIET, SPEAK};
use super::raise_file_limit;
use crate::clock::now_us;

/// The listener's name among the events; connections count from 1.
const LISTENER: u64 = 0;
/// Read in one go.
const CHUNK: usize = 64 << 10;

struct Connection {
    stream: TcpStream,
    /// Received, of a frame that is not whole.
    inbox: Vec<u8>,
    /// To be sent when the peer takes it.
    outbox: Vec<u8>,
}

/// Serves until the process ends.
///
/// # Errors
/// When the address cannot be had.
pub fn run(address: SocketAddr) -> std::io::Result<()> {
    raise_file_limit();
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // Thousands come within a second; std's 128 are not enough.
    listen(&listener, Backlog::MAXALLOWABLE)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut server = Server {
        epoll,
        listener,
        connections: HashMap::new(),
        next: 1,
        silent: BinaryHeap::new(),
        chunk: vec![0; CHUNK],
    };
    let mut events = vec![EpollEvent::empty(); 256];
    loop {
        let count = match server.epoll.wait(&mut events, server.until_next_word()) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => server.accept(),
                name => server.serve(name, event.events()),
            }
        }
        server.speak();
    }
}

struct Server {
    epoll: Epoll,
    listener: TcpListener,
    connections: HashMap<u64, Connection>,
    next: u64,
    /// Those to whom we speak first: when, to whom, the number they gave.
    silent: BinaryHeap<Reverse<(u64, u64, u64)>>,
    chunk: Vec<u8>,
}

impl Server {
    fn until_next_word(&self) -> EpollTimeout {
        let Some(Reverse((due, ..))) = self.silent.peek() else { return EpollTimeout::NONE };
        let ms = due.saturating_sub(now_us()).div_ceil(1000);
        EpollTimeout::try_from(i32::try_from(ms).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::ZERO)
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let name = self.next;
            let ready = stream.set_nonblocking(true).is_ok()
                && stream.set_nodelay(true).is_ok()
                && self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, name)).is_ok();
            if ready {
                self.connections.insert(name, Connection { stream, inbox: Vec::new(), outbox: Vec::new() });
                self.next += 1;
            }
        }
    }

    fn serve(&mut self, name: u64, flags: EpollFlags) {
        let Some(connection) = self.connections.get_mut(&name) else { return };
        let mut words = Vec::new();
        let alive = (!flags.contains(EpollFlags::EPOLLOUT) || connection.flush(&self.epoll, name))
            && connection.hear(&mut self.chunk, &mut words)
            && connection.flush(&self.epoll, name);
        if !alive {
            self.connections.remove(&name); // Closing takes it out of the epoll set.
            return;
        }
        self.silent.extend(words.into_iter().map(|(due, number)| Reverse((due, name, number))));
    }

    /// Speaks to those whose silence is over.
    fn speak(&mut self) {
        let now = now_us();
        while let Some(Reverse((due, name, number))) = self.silent.peek().copied()
            && due <= now
        {
            self.silent.pop();
            if let Some(connection) = self.connections.get_mut(&name) {
                Frame { kind: SPEAK, payload: 0, number }.write(&mut connection.outbox);
                if !connection.flush(&self.epoll, name) {
                    self.connections.remove(&name);
                }
            }
        }
    }
}

impl Connection {
    /// Reads all there is and answers it; false when the peer has gone.
    fn hear(&mut self, chunk: &mut [u8], words: &mut Vec<(u64, u64)>) -> bool {
        loop {
            match self.stream.read(chunk) {
                Ok(0) => return false,
                Ok(length) => self.inbox.extend(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.answer(words),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn answer(&mut self, words: &mut Vec<(u64, u64)>) -> bool {
        let mut done = 0;
        loop {
            let rest = &self.inbox[done..];
            let frame = match Frame::read(rest) {
                Ok(Some(frame)) if frame.length() <= rest.len() => frame,
                Ok(_) => break,
                Err(_) => return false,
            };
            if frame.kind == QUIET {
                words.push((now_us() + frame.number * 1000, frame.number));
            } else {
                // As it came, not as it should be: the client checks every bit.
                self.outbox.extend(&rest[..frame.length()]);
            }
            done += frame.length();
        }
        self.inbox.drain(..done);
        true
    }

    /// Sends what the peer takes; false when it has gone.
    fn flush(&mut self, epoll: &Epoll, name: u64) -> bool {
        let mut done = 0;
        while done < self.outbox.len() {
            match self.stream.write(&self.outbox[done..]) {
                Ok(length) => done += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        let waited = done < self.outbox.len();
        self.outbox.drain(..done);
        let flags = if waited { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        // Only a connection that had to wait costs these calls.
        (!waited && done == 0) || epoll.modify(&self.stream, &mut EpollEvent::new(flags, name)).is_ok()
    }
}

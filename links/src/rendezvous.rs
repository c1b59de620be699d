//! How two processes find each other: a Unix socket per server, over which an `IpcOneShotServer` is named.
//!
//! `ipc-channel`'s servers take one connection each, so each link has one of its own. On the socket go three lines:
//! the peer asks, the server names its one-shot server, and, after the hello has come by that, gives its verdict. All of
//! it is JSON and has been since protocol 1: any version can refuse any other in words.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender, OpaqueIpcSender};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::LinkError;
use crate::hello::Hello;
use crate::link::{Link, read, spawn};

/// Time a peer has for each line.
const LINE_LIMIT: Duration = Duration::from_secs(5);
/// Longest line.
const LINE_BYTES: u64 = 8192;
/// Peers that may be between their question and their hello.
const HALF_OPEN: usize = 16;
/// Bytes `ipc-channel` adds to the folder: "/.tmpXXXXXX/socket".
const ONE_SHOT_NAME: usize = 18;
/// Bytes of a Unix socket's name, its end included.
const SOCKET_NAME: usize = 108;

/// First message on the one-shot server. Its shape never changes.
#[derive(Debug, Serialize, Deserialize)]
struct First {
    hello: String,
    back: OpaqueIpcSender,
}

#[derive(Serialize, Deserialize)]
struct Ask {
    ask: String,
}

#[derive(Serialize, Deserialize)]
struct Named {
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

fn write_line(stream: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn read_line<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

/// A server's socket and the thread that answers on it.
#[derive(Debug)]
pub struct Listener {
    /// Peers whose hello has come, in order of arrival.
    pub incoming: Receiver<Pending>,
    path: PathBuf,
}

impl Listener {
    /// Listens on `path`, in the folder of the links, where the one-shot servers are made too (mode 0770, in the
    /// folder's group). The path of a dead predecessor is replaced; that there is no living one is the caller's lock.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(path: &Path) -> Result<Self, LinkError> {
        let (tell, incoming) = mpsc::channel();
        Self::serve(path, move |pending| tell.send(pending).is_ok())?;
        Ok(Self { incoming, path: path.into() })
    }

    /// The same; each peer is given to `arrived` (from some thread), which returns whether more are wanted.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn serve(path: &Path, arrived: impl Fn(Pending) -> bool + Send + Sync + 'static) -> Result<(), LinkError> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let length = (folder.as_os_str().len() + ONE_SHOT_NAME).max(path.as_os_str().len()) + 1;
        if length > SOCKET_NAME {
            return Err(LinkError::PathTooLong { path: folder.into(), length: length - SOCKET_NAME });
        }
        let fail = |source| LinkError::Listen { path: path.into(), source };
        // Once per process; all links of a process are made in one folder.
        let _ = tempfile::env::override_temp_dir(folder);
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(fail)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(fail)?;
        let arrived = Arc::new(arrived);
        let half_open = Arc::new(AtomicUsize::new(0));
        spawn("links".into(), move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                // Relaxed: a count, not an order.
                if half_open.fetch_add(1, Ordering::Relaxed) >= HALF_OPEN {
                    half_open.fetch_sub(1, Ordering::Relaxed);
                    let refused = Some(format!("{HALF_OPEN} peers stand between question and hello already"));
                    let _ = write_line(&mut stream, &Named { server: None, refused });
                    continue;
                }
                let (count, arrived) = (Arc::clone(&half_open), Arc::clone(&arrived));
                let answer = move || {
                    match greet(stream) {
                        Ok(pending) => drop(arrived(pending)),
                        Err(error) => log::warn!("a peer that asked for a link did not come: {error}"),
                    }
                    count.fetch_sub(1, Ordering::Relaxed);
                };
                if let Err(error) = spawn("greet".into(), answer) {
                    log::error!("{error}");
                }
            }
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// One peer, from its question to its hello.
fn greet(mut stream: UnixStream) -> Result<Pending, LinkError> {
    let channel = |what: &'static str| move |e: io::Error| LinkError::Channel { what, why: e.to_string() };
    stream.set_read_timeout(Some(LINE_LIMIT)).map_err(channel("setting a time limit"))?;
    stream.set_write_timeout(Some(LINE_LIMIT)).map_err(channel("setting a time limit"))?;
    let credentials = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)
        .map_err(|e| LinkError::Channel { what: "asking the kernel who the peer is", why: e.to_string() })?;
    let pid = u32::try_from(credentials.pid()).unwrap_or(0);
    let _: Ask = read_line(&stream).map_err(channel("reading the question"))?;

    let (server, name) = IpcOneShotServer::<First>::new().map_err(channel("making a one-shot server"))?;
    let socket = PathBuf::from(&name);
    // The folder's setgid bit has given them the appliance's group; connecting needs the right to write.
    for path in [socket.parent().unwrap_or(&socket), &socket] {
        std::fs::set_permissions(path, Permissions::from_mode(0o770)).map_err(channel("opening it to the group"))?;
    }
    write_line(&mut stream, &Named { server: Some(name.clone()), refused: None }).map_err(channel("answering"))?;

    // `accept` knows no time limit: it waits in a thread, and is woken by a message of our own when the time is over.
    let (tell, came) = mpsc::channel();
    spawn("accept".into(), move || drop(tell.send(server.accept())))?;
    let late = || LinkError::Channel { what: "waiting for the hello", why: format!("process {pid} is silent") };
    let first = match came.recv_timeout(LINE_LIMIT) {
        Ok(first) => first,
        Err(_) => {
            if let (Ok(wake), Ok((back, _))) = (IpcSender::<First>::connect(name), ipc::channel::<()>()) {
                let _ = wake.send(First { hello: String::new(), back: back.to_opaque() });
            }
            return Err(late());
        }
    };
    let (receiver, First { hello, back }) =
        first.map_err(|e| LinkError::Channel { what: "reading the hello", why: e.to_string() })?;
    Ok(Pending { hello, pid, uid: credentials.uid(), stream, back, receiver })
}

/// A peer that waits for the verdict.
#[derive(Debug)]
pub struct Pending {
    hello: String,
    pid: u32,
    uid: u32,
    stream: UnixStream,
    back: OpaqueIpcSender,
    receiver: IpcReceiver<First>,
}

impl Pending {
    /// Its process id, by the kernel's word.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its hello, if it fits `own`.
    ///
    /// # Errors
    /// A sentence that names both sides: for [`Self::refuse`] and for the log.
    pub fn check(&self, own: &Hello) -> Result<Hello, String> {
        let hello = Hello::parse(&self.hello, own)?;
        if hello.pid != self.pid {
            return Err(format!("process {} calls itself {}; this is {}", self.pid, hello.who(), own.who()));
        }
        Ok(hello)
    }

    /// Says no, and why.
    pub fn refuse(mut self, why: &str) {
        // A peer that has gone needs no answer.
        let _ = write_line(&mut self.stream, &Verdict { welcome: None, refused: Some(why.to_owned()) });
    }

    /// Says yes; messages are given to `deliver` from a thread of the link, `None` once when the link is closed.
    ///
    /// # Errors
    /// The peer has gone.
    pub fn accept_with<Out, In>(
        mut self,
        own: &Hello,
        deliver: impl FnMut(Option<In>) + Send + 'static,
    ) -> Result<Link<Out>, LinkError>
    where
        Out: Serialize + DeserializeOwned + Send + 'static,
        In: Serialize + DeserializeOwned + Send + 'static,
    {
        let welcome = serde_json::to_string(own).ok();
        write_line(&mut self.stream, &Verdict { welcome, refused: None })
            .map_err(|_| LinkError::Closed { peer: self.pid })?;
        read(retype::<First, In>(self.receiver), self.pid, deliver)?;
        Link::start(self.back.to::<Out>(), self.pid)
    }

    /// Says yes.
    ///
    /// # Errors
    /// The peer has gone.
    pub fn accept<Out, In>(self, own: &Hello) -> Result<(Link<Out>, Receiver<In>), LinkError>
    where
        Out: Serialize + DeserializeOwned + Send + 'static,
        In: Serialize + DeserializeOwned + Send + 'static,
    {
        let (tell, inbox) = mpsc::channel();
        Ok((self.accept_with(own, into_inbox(tell))?, inbox))
    }
}

#[derive(Serialize, Deserialize)]
struct Verdict {
    #[serde(skip_serializing_if = "Option::is_none")]
    welcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// The inbox's sender is dropped with the closing word: the receiver then sees "disconnected".
fn into_inbox<In>(tell: Sender<In>) -> impl FnMut(Option<In>) {
    let mut tell = Some(tell);
    move |message| match message {
        Some(message) => {
            if let Some(tell) = &tell {
                let _ = tell.send(message); // Nobody listens any more: the messages go nowhere.
            }
        }
        None => tell = None,
    }
}

fn retype<A, B>(receiver: IpcReceiver<A>) -> IpcReceiver<B>
where
    A: Serialize + DeserializeOwned,
    B: Serialize + DeserializeOwned,
{
    receiver.to_opaque().to()
}

/// Connects to the server on `path` as `hello`; waits at most `limit` for its verdict.
///
/// # Errors
/// [`LinkError::Unreachable`], [`LinkError::Refused`] with the server's words, [`LinkError::NoAnswer`].
pub fn connect<Out, In>(path: &Path, hello: &Hello, limit: Duration) -> Result<(Link<Out>, Receiver<In>), LinkError>
where
    Out: Serialize + DeserializeOwned + Send + 'static,
    In: Serialize + DeserializeOwned + Send + 'static,
{
    let no_answer = |why: String| LinkError::NoAnswer { path: path.into(), why };
    let mut stream =
        UnixStream::connect(path).map_err(|source| LinkError::Unreachable { path: path.into(), source })?;
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)
        .map_or(0, |c| u32::try_from(c.pid()).unwrap_or(0));
    stream.set_read_timeout(Some(limit)).map_err(|e| no_answer(e.to_string()))?;
    write_line(&mut stream, &Ask { ask: "link".into() }).map_err(|e| no_answer(e.to_string()))?;
    let named: Named = read_line(&stream).map_err(|e| no_answer(e.to_string()))?;
    let name = named.server.ok_or_else(|| LinkError::Refused(named.refused.unwrap_or_default()))?;

    let (back, from_server) = ipc::channel::<In>().map_err(|e| no_answer(e.to_string()))?;
    let to_server = IpcSender::<First>::connect(name).map_err(|e| no_answer(e.to_string()))?;
    let text = serde_json::to_string(hello).map_err(|e| no_answer(e.to_string()))?;
    to_server.send(First { hello: text, back: back.to_opaque() }).map_err(|e| no_answer(e.to_string()))?;

    let verdict: Verdict = read_line(&stream).map_err(|e| no_answer(e.to_string()))?;
    if let Some(why) = verdict.refused {
        return Err(LinkError::Refused(why));
    }
    // The server has checked us; this is the check of the server.
    Hello::parse(&verdict.welcome.unwrap_or_default(), hello).map_err(LinkError::Refused)?;
    let (tell, inbox) = mpsc::channel();
    read(from_server, peer, into_inbox(tell))?;
    Ok((Link::start(to_server.to_opaque().to::<Out>(), peer)?, inbox))
}

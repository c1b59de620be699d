//! Links between real processes: this test binary starts itself as the peer.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "tests panic")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use links::messages::{Notice, PeerSays};
use links::{Hello, Link, LinkError, Listener, Pending, Role};

const MODE: &str = "LINKS_TEST_PEER";
const SOCKET: &str = "LINKS_TEST_SOCKET";
const LIMIT: Duration = Duration::from_secs(10);

/// One folder for all tests of this process: `ipc-channel` has one for its sockets.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path()
}

fn holder() -> Hello {
    Hello::new(Role::Holder, Some("DPDK 22.11.11".into()))
}

struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn_peer(mode: &str, socket: &Path) -> Peer {
    let me = std::env::current_exe().unwrap();
    let mut command = Command::new(me);
    command.args(["--exact", "peer_process", "--nocapture"]).env(MODE, mode).env(SOCKET, socket);
    Peer(command.spawn().unwrap())
}

/// Not a test of its own: what the started peer does.
#[test]
fn peer_process() {
    let (Ok(mode), Ok(socket)) = (std::env::var(MODE), std::env::var(SOCKET)) else { return };
    let mut hello = Hello::new(Role::Worker, Some("DPDK 22.11.11".into())).zone(1);
    match mode.as_str() {
        "foreign" => hello.layout += 0x1_0000,
        "other-dpdk" => hello.dpdk = Some("DPDK 23.11.0".into()),
        _ => {}
    }
    let result = links::connect::<PeerSays, Notice>(&PathBuf::from(socket), &hello, LIMIT);
    if mode == "foreign" || mode == "other-dpdk" {
        let Err(LinkError::Refused(why)) = result else { panic!("was not refused") };
        assert!(why.contains("worker of zone 1") && why.contains("holder"), "{why}");
        return;
    }
    let (link, inbox) = result.unwrap();
    link.send(PeerSays::Serving).unwrap();
    if mode == "echo" {
        for notice in inbox {
            match notice {
                Notice::Reload { generation } => link.send(PeerSays::Seen { generation }).unwrap(),
                Notice::Stop => return,
            }
        }
    }
    std::thread::sleep(Duration::from_secs(60));
}

fn arrived(listener: &Listener) -> Pending {
    listener.incoming.recv_timeout(LIMIT).unwrap()
}

fn link_to(mode: &str, socket: &str) -> (Peer, Link<Notice>, Receiver<PeerSays>) {
    let listener = Listener::bind(&folder().join(socket)).unwrap();
    let peer = spawn_peer(mode, listener.path());
    let pending = arrived(&listener);
    assert_eq!(pending.pid(), peer.0.id());
    let hello = pending.check(&holder()).unwrap();
    assert_eq!((hello.role, hello.zone, hello.pid), (Role::Worker, Some(1), peer.0.id()));
    let (link, inbox) = pending.accept::<Notice, PeerSays>(&holder()).unwrap();
    assert_eq!(inbox.recv_timeout(LIMIT).unwrap(), PeerSays::Serving);
    (peer, link, inbox)
}

#[test]
fn messages_go_both_ways_and_an_ordered_end_closes() {
    let (mut peer, link, inbox) = link_to("echo", "echo.sock");
    for generation in 1..100 {
        link.send(Notice::Reload { generation }).unwrap();
        assert_eq!(inbox.recv_timeout(LIMIT).unwrap(), PeerSays::Seen { generation });
    }
    link.send(Notice::Stop).unwrap();
    assert!(peer.0.wait().unwrap().success());
    assert_eq!(inbox.recv_timeout(LIMIT).unwrap_err(), std::sync::mpsc::RecvTimeoutError::Disconnected);
}

#[test]
fn a_foreign_version_is_refused_with_both_sides_named() {
    for mode in ["foreign", "other-dpdk"] {
        let listener = Listener::bind(&folder().join(format!("{mode}.sock"))).unwrap();
        let mut peer = spawn_peer(mode, listener.path());
        let pending = arrived(&listener);
        let why = pending.check(&holder()).unwrap_err();
        assert!(why.contains("worker of zone 1") && why.contains("holder"), "{why}");
        pending.refuse(&why);
        assert!(peer.0.wait().unwrap().success(), "the peer got the same words");
    }
}

#[test]
fn a_silent_peer_does_not_block() {
    let (_peer, link, _inbox) = link_to("silent", "silent.sock");
    let start = Instant::now();
    // The kernel's buffer takes some, the queue the rest; then the peer is considered hung.
    let hung = (0..1_000_000).find_map(|generation| link.send(Notice::Reload { generation }).err());
    assert!(matches!(hung, Some(LinkError::Hung { .. })), "{hung:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn half_a_greeting_does_not_block_others() {
    use std::io::Write;
    let listener = Listener::bind(&folder().join("half.sock")).unwrap();
    let mut half = std::os::unix::net::UnixStream::connect(listener.path()).unwrap();
    half.write_all(b"{\"ask\":\"link\"}\n").unwrap();
    let _peer = spawn_peer("echo", listener.path());
    assert!(arrived(&listener).check(&holder()).is_ok());
}

#[test]
fn kill_minus_9_is_seen() {
    let (mut peer, link, inbox) = link_to("echo", "kill.sock");
    let (tell, died) = std::sync::mpsc::channel();
    links::pidfd::Peer::open(peer.0.id()).unwrap().watch(move |pid| tell.send(pid).unwrap()).unwrap();
    assert!(died.try_recv().is_err());
    peer.0.kill().unwrap();
    assert_eq!(died.recv_timeout(LIMIT).unwrap(), peer.0.id());
    assert!(inbox.recv_timeout(LIMIT).is_err(), "the link closes");
    // The writer notices with its first message; then sending says so.
    let start = Instant::now();
    while link.send(Notice::Stop).is_ok() {
        assert!(start.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nobody_there_is_said() {
    let path = folder().join("nobody.sock");
    let error = links::connect::<PeerSays, Notice>(&path, &holder(), LIMIT).unwrap_err();
    assert!(error.to_string().contains("is lb-primary running"), "{error}");
    let long = PathBuf::from(format!("/tmp/{}/x.sock", "long".repeat(30)));
    assert!(matches!(Listener::bind(&long), Err(LinkError::PathTooLong { .. })));
}

//! A board, a configuration and a checker process of its own; all gone when it is dropped.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use shm_layout::board::{Board, Failure, Probed, check};
use shm_layout::neighbours::from_std;

/// nobody, nogroup.
const NOBODY: u32 = 65534;

/// A target as the test writes it.
#[derive(Clone, Copy)]
pub struct Checked {
    pub id: u32,
    pub tag: u32,
    pub address: SocketAddr,
    pub kind: u32,
    pub interval_ms: u32,
    pub fast_ms: u32,
    pub timeout_ms: u32,
    pub rise: u32,
    pub fall: u32,
    pub profile: u32,
}

impl Checked {
    pub fn tcp(id: u32, address: SocketAddr) -> Self {
        Self {
            id,
            tag: 1,
            address,
            kind: check::TCP,
            interval_ms: 200,
            fast_ms: 0,
            timeout_ms: 300,
            rise: 2,
            fall: 3,
            profile: 0,
        }
    }

    /// interval × fall + timeout.
    pub fn promise(&self) -> Duration {
        Duration::from_millis(u64::from(self.interval_ms * self.fall + self.timeout_ms))
    }
}

pub struct Rig {
    name: String,
    folder: PathBuf,
    board: Option<Board>,
    child: Option<Child>,
}

impl Rig {
    /// With a board for `servers`.
    pub fn new(name: &str, servers: u32) -> Self {
        let mut rig = Self::absent(name);
        rig.create(servers);
        rig
    }

    /// Without a board.
    pub fn absent(name: &str) -> Self {
        let name = format!("hc{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        let rig = Self { name, folder, board: None, child: None };
        rig.configure(&format!("[node]\nname = \"{}\"\nrun_dir = \"{}\"\n", rig.name, rig.folder.display()));
        rig
    }

    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    pub fn configure(&self, text: &str) {
        std::fs::write(self.folder.join("lb.toml"), text).unwrap();
    }

    pub fn board_name(&self) -> String {
        format!("/containerlb-{}-health", self.name)
    }

    /// Makes the board as control does: first 0600, then open to the group of the checker.
    pub fn create(&mut self, servers: u32) {
        self.board = Some(Board::create(&self.board_name(), servers.into(), 8).unwrap());
        if Uid::effective().is_root() {
            let path = Board::path(&self.board_name());
            chown(&path, None, Some(NOBODY)).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
        }
    }

    fn board(&self) -> &Board {
        self.board.as_ref().unwrap()
    }

    /// Publishes targets under the sequence lock.
    pub fn targets(&self, targets: &[Checked]) {
        let (board, r) = (self.board(), Ordering::Relaxed);
        board.head.targets_sequence.fetch_add(1, r);
        fence(Ordering::Release);
        for (row, target) in board.targets.iter().zip(targets) {
            let ip = from_std(target.address.ip());
            row.id.store(target.id, r);
            row.tag.store(target.tag, r);
            row.ip[0].store(ip[0], r);
            row.ip[1].store(ip[1], r);
            row.port.store(target.address.port().into(), r);
            row.kind.store(target.kind, r);
            row.interval_ms.store(target.interval_ms, r);
            row.fast_interval_ms.store(target.fast_ms, r);
            row.timeout_ms.store(target.timeout_ms, r);
            row.rise_fall.store(target.rise << 16 | target.fall, r);
            row.profile.store(target.profile, r);
        }
        board.head.targets.store(targets.len() as u64, r);
        board.head.targets_sequence.fetch_add(1, Ordering::Release);
    }

    pub fn profile(&self, row: usize, path: &str, host: &str, expect: &str) {
        let profile = &self.board().profiles[row];
        for (words, text) in [(&profile.path, path), (&profile.host, host), (&profile.expect, expect)] {
            put_text(words, text);
        }
    }

    pub fn state(&self, id: u32, tag: u32) -> Probed {
        self.board().cell(id).state(tag)
    }

    pub fn failure(&self, id: u32, tag: u32) -> Option<String> {
        Failure(self.board().failures[id as usize].load(Ordering::Relaxed)).text(tag)
    }

    /// Changes of results so far.
    pub fn epoch(&self) -> u64 {
        self.board().head.epoch.load(Ordering::Acquire)
    }

    fn command(&self, log: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lb-healthcheck"));
        command.arg("--config").arg(self.folder.join("lb.toml")).env_remove("JOURNAL_STREAM");
        command.stderr(File::create(self.folder.join(log)).unwrap());
        command
    }

    /// Starts the checker, if asked (and if we may) as nobody.
    pub fn start(&mut self, how: &[&str]) {
        let mut command = self.command("log");
        if how.contains(&"unprivileged") && Uid::effective().is_root() {
            // The build's folder may be closed to nobody: run a copy.
            let copy = self.folder.join("lb-healthcheck");
            std::fs::copy(env!("CARGO_BIN_EXE_lb-healthcheck"), &copy).unwrap();
            command = Command::new(copy);
            command.arg("--config").arg(self.folder.join("lb.toml")).env_remove("JOURNAL_STREAM");
            command.stderr(File::create(self.folder.join("log")).unwrap());
            command.uid(NOBODY).gid(NOBODY);
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Starts it as systemd does, which listens on `notify` in the folder.
    pub fn start_managed(&mut self) {
        let mut command = self.command("log");
        command.env("NOTIFY_SOCKET", self.folder.join("notify")).env("WATCHDOG_USEC", "600000");
        command.env("JOURNAL_STREAM", "8:1");
        self.child = Some(command.spawn().unwrap());
    }

    /// Runs it with these arguments: exit status and output.
    pub fn run_with(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_lb-healthcheck")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// Overwrites a result.
    pub fn scribble(&self, id: u32) {
        self.board().cells[id as usize].store(0x5a5a_5a5a_5a5a_5a5a, Ordering::Release);
    }

    /// Runs another one to its end: exit status and log.
    pub fn run_second(&self) -> (Option<i32>, String) {
        let status = self.command("second").status().unwrap();
        (status.code(), std::fs::read_to_string(self.folder.join("second")).unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
        if signal == Signal::SIGKILL {
            self.child.take().unwrap().wait().unwrap();
        }
    }

    /// Stops it; its exit status.
    pub fn stop(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.child.take().unwrap().wait().unwrap().code()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// CPU time used.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.pid())).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    /// A number of /proc/PID/status.
    pub fn status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of the checker:\n{}", self.log());
        }
        let _ = std::fs::remove_file(Board::path(&self.board_name()));
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn put_text(words: &[AtomicU64], text: &str) {
    let mut bytes = text.bytes().chain(std::iter::repeat(0));
    for word in words {
        word.store(u64::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap())), Ordering::Relaxed);
    }
}

/// Waits until `true`.
pub fn eventually(limit: Duration, what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !is() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Accepts and closes; its address.
pub fn listener(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4096).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    address
}

/// Answers every request with `text` after `delay`; its address.
pub fn http_server(text: &'static str, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 1024]);
                std::thread::sleep(delay);
                let _ = stream.write_all(text.as_bytes());
            });
        }
    });
    address
}

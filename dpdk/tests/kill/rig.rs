//! Namespaces, mounts and processes of the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shared::{DIR, IFACE};

pub struct Rig {
    pub holder: Holder,
}

impl Rig {
    pub fn build() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("it needs root (namespaces, /dev/net/tun): run the tests as root".into());
        }
        let free = free_hugepages()?;
        if free < 32 {
            return Err(format!(
                "it needs 32 free hugepages of 2 MiB, {free} are free: echo 512 > /proc/sys/vm/nr_hugepages"
            ));
        }
        let say = |what: &'static str| move |e: nix::Error| format!("{what}: {e}");
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(say("new namespaces"))?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(say("private mounts"))?;
        mount(Some("tmpfs"), DIR, Some("tmpfs"), MsFlags::empty(), none).map_err(say("tmpfs on /mnt"))?;
        let huge = Path::new(DIR).join("huge");
        std::fs::create_dir(&huge).map_err(|e| e.to_string())?;
        mount(Some("none"), &huge, Some("hugetlbfs"), MsFlags::empty(), Some("pagesize=2M"))
            .map_err(say("hugetlbfs"))?;

        let (process, ready) = Process::start(&["holder"]);
        println!("holder: {ready}");
        // No IPv6 chatter on the link.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{IFACE}/disable_ipv6"), "1");
        for line in [
            format!("addr add 10.77.0.1/24 dev {IFACE}"),
            format!("link set {IFACE} up"),
            format!("neigh add 10.77.0.2 lladdr 02:00:00:00:77:02 nud permanent dev {IFACE}"),
        ] {
            let done = Command::new("ip").args(line.split(' ')).status().map_err(|e| format!("ip (iproute2): {e}"))?;
            if !done.success() {
                return Err(format!("ip {line} failed"));
            }
        }
        Ok(Rig { holder: Holder { process } })
    }

    pub fn worker(&self, generation: usize) -> Worker {
        let (process, ready) = Process::start(&["worker", &generation.to_string()]);
        Worker { attach_ms: f64::from(numbers(&ready)["attach_us"]) / 1000.0, process }
    }

    pub fn stop(mut self) {
        println!("holder: {}", self.holder.process.ask("stop"));
        assert!(self.holder.process.child.wait().unwrap().success());
    }
}

fn free_hugepages() -> Result<u32, String> {
    let path = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    std::fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).ok_or(format!("cannot read {path}"))
}

/// A child that dies with us; killed when dropped.
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this binary in a role and waits for its READY line.
    fn start(args: &[&str]) -> (Self, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("RUNTIME_DIRECTORY", Path::new(DIR).join("run"));
        std::fs::create_dir_all(Path::new(DIR).join("run")).unwrap();
        // SAFETY: between fork and exec only an async-signal-safe call.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let mut p =
            Process { stdin: child.stdin.take().unwrap(), stdout: BufReader::new(child.stdout.take().unwrap()), child };
        let ready = p.line();
        assert!(ready.starts_with("READY"), "{args:?} did not start: {ready:?}");
        (p, ready)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.stdin, "{command}").unwrap();
        let line = self.line();
        assert!(!line.is_empty(), "the holder died on {command:?}");
        line
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Worker {
    pub attach_ms: f64,
    process: Process,
}

impl Worker {
    /// SIGKILL, and its death confirmed.
    pub fn kill(&mut self) {
        assert!(self.process.child.try_wait().unwrap().is_none(), "the worker died by itself");
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }
}

pub struct Holder {
    process: Process,
}

type Numbers = HashMap<String, u32>;

impl Holder {
    pub fn recover(&mut self, slot: usize) -> Numbers {
        numbers(&self.process.ask(&format!("recover {slot}")))
    }

    pub fn audit(&mut self, slot: usize) -> Numbers {
        numbers(&self.process.ask(&format!("audit {slot}")))
    }

    pub fn sleep(&mut self) -> Numbers {
        numbers(&self.process.ask("sleep"))
    }

    pub fn sleep_armed(&mut self) -> Numbers {
        numbers(&self.process.ask("sleep-armed"))
    }

    pub fn grow(&mut self) -> u32 {
        numbers(&self.process.ask("grow"))["ms"]
    }

    pub fn heap_free_kib(&mut self) -> u32 {
        let heap = numbers(&self.process.ask("heap"));
        assert!(heap["all_kib"] <= 32 << 10, "the primary has more memory than it was given: {heap:?}");
        heap["free_kib"]
    }

    pub fn stop_and_continue(&mut self, pause: Duration) {
        self.process.signal(Signal::SIGSTOP);
        std::thread::sleep(pause);
        self.process.signal(Signal::SIGCONT);
        assert_eq!(self.process.ask("ping"), "pong=1");
    }
}

/// The `key=number` words of a line.
fn numbers(line: &str) -> Numbers {
    line.split(' ').filter_map(|w| w.split_once('=')).filter_map(|(k, v)| Some((k.into(), v.parse().ok()?))).collect()
}

/// xorshift64*: repeatable from a seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}

pub fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::from(since.subsec_nanos()) << 20 | 1
}

pub fn median(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

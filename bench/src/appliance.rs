//! The appliance as it is shipped: `lb-primary` and one `lb-worker` as processes of their own, on a port whose other end is
//! ours. Within the sandbox: its processes end with us.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use packet::Mac;
use shm_layout::slot::Slot;

use crate::wire::Wire;
use crate::world;

/// Where all its files are: in the sandbox's `/run`.
pub const FOLDER: &str = "/run/bench";

/// `lb-primary` and a worker.
pub struct Appliance {
    /// The slot's tables, read-only.
    pub slot: Slot,
    /// The port's MAC.
    pub mac: Mac,
    primary: Child,
    worker: Child,
}

fn conf(device: &str, cpus: (u16, u16)) -> String {
    let mut text = format!(
        r#"[node]
name = "bench"
run_dir = "{FOLDER}/run"
state_dir = "{FOLDER}/state"
poll = "busy"
sessions = 65_536
dpdk_mb = 64

[primary]
cpu = {}

[[zone]]
id = 0
numa = 0
cpus = [{}]

[[port]]
name = "net0"
device = "{device}"
zones = [0]
slots = 1
addresses = ["10.0.0.2/16"]
gateways = ["10.0.0.1"]

[[laddr]]
port = "net0"
address = "10.0.0.200/30"

[[service]]
name = "dns"
vip = "10.0.0.100:80"
protocol = "udp"
mode = "fullnat"
scheduler = "rr"
health = {{ type = "none" }}
"#,
        cpus.1, cpus.0
    );
    for n in 0..world::SERVERS {
        let _infallible =
            write!(text, "\n  [[service.rs]]\n  address = \"10.0.1.{n}:{}\"\n  weight = 1\n", world::SERVER_PORT);
    }
    text
}

impl Appliance {
    /// Starts both, from the folders of their programs (the worker may be another build), on the CPUs (worker's, other).
    /// `meanwhile` is called while it waits: the wire must live.
    ///
    /// # Errors
    /// They do not begin within 20 s, with the log's end.
    pub fn start(programs: &Path, worker: &Path, device: &str, cpus: (u16, u16)) -> Result<Self, String> {
        let folder = PathBuf::from(FOLDER);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{FOLDER}: {error}"))?;
        let file = folder.join("bench.toml");
        std::fs::write(&file, conf(device, cpus)).map_err(|error| error.to_string())?;
        let mut primary = spawn(&programs.join("lb-primary"), &file, &[], "primary")?;
        let mac = match mac(programs, &file, &mut primary) {
            Ok(mac) => mac,
            Err(why) => {
                end(&mut primary);
                return Err(format!("{why}; its log ends:\n{}", tail("primary")));
            }
        };
        let mut worker = spawn(worker, &file, &["--zone", "0"], "worker")?;
        let slot = Slot::open(&folder.join("run/huge/tables"), 0, false).map_err(|error| error.to_string())?;
        let begin = Instant::now();
        while slot.owner.owner().pid() != worker.id() || slot.pulse.polls.load(Relaxed) == 0 {
            let ended = worker.try_wait().ok().flatten();
            if ended.is_some() || begin.elapsed() > Duration::from_secs(20) {
                end(&mut worker);
                end(&mut primary);
                return Err(format!("the worker does not serve ({ended:?}); its log ends:\n{}", tail("worker")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { slot, mac, primary, worker })
    }

    /// Time the worker's thread has been on a CPU, ns.
    #[must_use]
    pub fn worker_ns(&self) -> u64 {
        let path = format!("/proc/{}/task/{}/schedstat", self.worker.id(), self.slot.owner.tid.load(Relaxed));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// Sends slowly until all comes back: links, neighbours and sessions are there.
    ///
    /// # Errors
    /// It does not within 20 s.
    pub fn warm(&self, wire: &mut Wire, flows: u64, reflecting: bool) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let (mut back, before) = (0_u64, wire.sent);
            for _ in 0..2 * flows / 32 {
                wire.send(32, 0);
                wire.drain(&mut back);
            }
            let sessions = u64::from(self.slot.table.active.load(Relaxed));
            if wire.sent > before && back == wire.sent - before && (reflecting || sessions == flows) {
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(20) {
                let sent = wire.sent - before;
                return Err(format!(
                    "of {sent} frames {back} come back, {sessions} sessions, {} ARP answers",
                    wire.answered
                ));
            }
        }
    }

    /// Ends both.
    pub fn stop(mut self) {
        end(&mut self.worker);
        end(&mut self.primary);
    }
}

fn spawn(program: &Path, conf: &Path, arguments: &[&str], name: &str) -> Result<Child, String> {
    let log = std::fs::File::create(Path::new(FOLDER).join(name)).map_err(|error| error.to_string())?;
    let errors = log.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("--config").arg(conf).args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
    command.spawn().map_err(|error| format!("{}: {error}", program.display()))
}

fn tail(name: &str) -> String {
    let text = std::fs::read_to_string(Path::new(FOLDER).join(name)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// SIGTERM, and after 5 s SIGKILL.
fn end(child: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    let limit = Instant::now() + Duration::from_secs(5);
    while child.try_wait().ok().flatten().is_none() {
        if Instant::now() > limit {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The port's MAC, when control answers.
fn mac(programs: &Path, conf: &Path, primary: &mut Child) -> Result<Mac, String> {
    let begin = Instant::now();
    loop {
        let mut lbctl = Command::new(programs.join("lbctl"));
        lbctl.arg("--config").arg(conf).args(["-o", "json", "port", "list"]).stderr(Stdio::null());
        let output = lbctl.output().map_err(|error| format!("lbctl: {error}"))?;
        if output.status.success()
            && let Some(mac) =
                serde_json::from_slice::<serde_json::Value>(&output.stdout).ok().and_then(|v| read_mac(&v))
        {
            return Ok(mac);
        }
        if let Ok(Some(status)) = primary.try_wait() {
            return Err(format!("lb-primary ended with {status}"));
        }
        if begin.elapsed() > Duration::from_secs(20) {
            return Err("lb-primary does not answer".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn read_mac(ports: &serde_json::Value) -> Option<Mac> {
    let text = ports.get(0)?.get("mac")?.as_str()?;
    let bytes: Vec<u8> = text.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes.try_into().ok().map(Mac)
}

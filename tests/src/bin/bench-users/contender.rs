//! Who is measured: how each is started and stopped, and whose CPU time it takes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::bench::{cpu_seconds, machine_busy_seconds};
use tests::conf::VIP;
use tests::daemon::Daemon;
use tests::netns::{Netns, run};
use tests::rig::BRIDGE;
use tests::{Error, Result, wait};

use crate::network::{FAR_BRIDGE, Network, PEER};
use crate::wrk::{self, Kind};

/// Until it answers.
const START: Duration = Duration::from_secs(20);
/// nginx's module of Debian.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// No balancer.
    Direct,
    /// testpmd copies frames from one tap to another.
    Testpmd,
    /// Ours as it is delivered: sleeps when there is nothing to do.
    Ours,
    /// Ours with `poll = "busy"`, as testpmd polls.
    OursBusy,
    /// The kernel's packet filter: DNAT and masquerading.
    Nftables,
    /// HAProxy in TCP mode, one thread.
    Haproxy,
    /// nginx's stream proxy, one worker.
    NginxStream,
}

/// A contender that runs.
pub struct Running {
    contender: Contender,
    target: String,
    daemon: Option<Daemon>,
}

/// One measurement, with the CPU time it took.
pub struct Measured {
    /// What wrk said.
    pub answer: wrk::Answer,
    /// CPU time of the balancer's own processes, seconds.
    pub balancer: f64,
    /// Of them, wrk, the server and the kernel's threads for packets, seconds.
    pub all: f64,
    /// CPUs that the machine's others kept busy meanwhile.
    pub others: f64,
}

impl Contender {
    /// All, in the order of the table.
    pub const ALL: [Self; 7] =
        [Self::Direct, Self::Testpmd, Self::Ours, Self::OursBusy, Self::Nftables, Self::Haproxy, Self::NginxStream];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Testpmd => "testpmd",
            Self::Ours => "ours",
            Self::OursBusy => "ours-busy",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::NginxStream => "nginx-stream",
        }
    }

    /// Does it have to take part?
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursBusy)
    }

    /// What this machine lacks for it.
    pub fn missing(self) -> Option<String> {
        let program = match self {
            Self::Direct | Self::Ours | Self::OursBusy => "wrk",
            Self::Testpmd => "dpdk-testpmd",
            Self::Nftables => "nft",
            Self::Haproxy => "haproxy",
            Self::NginxStream => "nginx",
        };
        let folders = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let found = folders.split(':').any(|folder| Path::new(folder).join(program).is_file());
        let hint = "hint: cargo xtask setup";
        if !found {
            return Some(format!("there is no {program}; {hint}"));
        }
        let module = self == Self::NginxStream && !Path::new(STREAM_MODULE).exists();
        module.then(|| format!("there is no {STREAM_MODULE}; {hint}"))
    }

    /// Starts it and waits until a request is answered.
    pub fn start(self, network: &mut Network) -> Result<Running> {
        let (server, peer) = (network.server(), format!("{PEER}:80"));
        let (target, daemon) = match self {
            Self::Direct => (server, None),
            Self::Testpmd => (server, Some(testpmd(network)?)),
            Self::Ours | Self::OursBusy => {
                network.rig.appliance.conf.poll = if self == Self::Ours { "adaptive" } else { "busy" };
                network.rig.start()?;
                (format!("{VIP}:80"), None)
            }
            Self::Nftables => {
                nftables(
                    network,
                    &format!(
                        "table ip lb {{ chain pre {{ type nat hook prerouting priority -100; \
                     ip daddr {PEER} tcp dport 80 dnat to {server}; }}; \
                     chain post {{ type nat hook postrouting priority 100; masquerade; }}; }}"
                    ),
                )?;
                (peer, None)
            }
            Self::Haproxy => (peer, Some(haproxy(network)?)),
            Self::NginxStream => (peer, Some(nginx(network)?)),
        };
        let mut running = Running { contender: self, target, daemon };
        if let Some(daemon) = &mut running.daemon {
            std::thread::sleep(Duration::from_millis(200));
            daemon.expect_alive()?;
        }
        wait::until_ok("an answer", START, Duration::from_millis(50), || {
            let url = format!("http://{}/", running.target);
            run(running.client(network).command("curl").args(["-sf", "-m", "1", "-o", "/dev/null", &url])).map(drop)
        })?;
        Ok(running)
    }
}

impl Running {
    fn client<'a>(&self, network: &'a Network) -> &'a Netns {
        if self.contender == Contender::Testpmd { &network.far } else { &network.rig.client }
    }

    /// One measurement.
    pub fn measure(&mut self, network: &Network, kind: Kind, length: Duration) -> Result<Measured> {
        let (balancer, rest) = (self.balancer_seconds(network), others_seconds(network));
        let (busy, begun) = (machine_busy_seconds(), Instant::now());
        let answer = wrk::measure(self.client(network), &self.target, kind, length)?;
        let balancer = self.balancer_seconds(network) - balancer;
        let all = balancer + others_seconds(network) - rest + answer.cpu;
        if let Some(daemon) = &mut self.daemon {
            daemon.expect_alive()?;
        }
        let others = (machine_busy_seconds() - busy - all).max(0.0) / begun.elapsed().as_secs_f64();
        Ok(Measured { answer, balancer, all, others })
    }

    fn balancer_seconds(&self, network: &Network) -> f64 {
        let appliance = &network.rig.appliance;
        let ours = appliance.primary.iter().chain(appliance.workers.values()).chain(&appliance.healthcheck);
        ours.chain(&self.daemon).map(family_seconds).sum()
    }

    /// Stops it.
    pub fn stop(mut self, network: &mut Network) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            // testpmd ends by a signal as well as by a status.
            daemon.signal(Signal::SIGINT);
            daemon.stop(Duration::from_secs(10))?;
        }
        match self.contender {
            Contender::Nftables => nftables(network, "delete table ip lb"),
            c if c.is_ours() => {
                network.rig.appliance.expect_alive()?;
                network.rig.appliance.stop()
            }
            _ => Ok(()),
        }
    }
}

/// Of a daemon and its children, seconds.
fn family_seconds(daemon: &Daemon) -> f64 {
    cpu_seconds(daemon.pid()) + daemon.children().into_iter().map(cpu_seconds).sum::<f64>()
}

/// Of the server, and of the kernel's threads that process packets when nobody else does.
fn others_seconds(network: &Network) -> f64 {
    let server = network.rig.servers[0].nginx.as_ref().map_or(0.0, family_seconds);
    let kernel = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        name.starts_with("ksoftirqd/").then(|| cpu_seconds(pid))
    });
    server + kernel.sum::<f64>()
}

/// A balancer's program: before client and server, as our units put lb-worker.
fn balancer(ns: &Netns, program: &str) -> Command {
    let mut command = ns.command("nice");
    command.args(["--adjustment=-10", program]);
    command
}

fn testpmd(network: &Network) -> Result<Daemon> {
    let rig = &network.rig;
    // Line by line: its words are waited for.
    let mut command = balancer(&rig.app, "stdbuf");
    command.args(["-oL", "dpdk-testpmd", "--lcores", "0@0,1@1", "--no-pci", "--in-memory", "-m", "128"]);
    command.args(["--vdev=net_tap0,iface=fwd0", "--vdev=net_tap1,iface=fwd1", "--"]);
    command.args(["--forward-mode=io", "--nb-cores=1", "--total-num-mbufs=16384", "--stats-period=3600"]);
    // Its log is that of earlier rounds as well.
    let before = std::fs::metadata(rig.folder.join("testpmd.log")).map_or(0, |m| m.len());
    let before = usize::try_from(before).unwrap_or(0);
    let mut daemon = Daemon::spawn("testpmd", &rig.folder, command, false)?;
    // It sets the ports up through the kernel ends: they are moved when it has done so.
    wait::until("testpmd forwarding", START, Duration::from_millis(20), || {
        daemon.expect_alive()?;
        let said = daemon.log_text();
        Ok(said.get(before..).is_some_and(|new| new.contains("start packet forwarding")).then_some(()))
    })?;
    std::thread::sleep(Duration::from_millis(300));
    for (tap, bridge, mac) in [("fwd0", FAR_BRIDGE, "02:00:00:00:fe:10"), ("fwd1", BRIDGE, "02:00:00:00:fe:11")] {
        rig.app.ip(&[&format!("link set {tap} netns {}", rig.bridge.name())])?;
        rig.bridge.ip(&[
            &format!("link set {tap} address {mac}"),
            &format!("link set {tap} master {bridge}"),
            &format!("link set {tap} up"),
        ])?;
    }
    Ok(daemon)
}

fn nftables(network: &Network, rules: &str) -> Result<()> {
    run(network.peer.command("nft").arg(rules)).map(drop)
}

fn haproxy(network: &Network) -> Result<Daemon> {
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nfrontend front\n  bind {PEER}:80\n  default_backend back\nbackend back\n  \
         balance roundrobin\n  server s1 {}\n",
        network.server()
    );
    let conf = write(network, "haproxy.cfg", &text)?;
    let mut command = balancer(&network.peer, "haproxy");
    command.args(["-db", "-f"]).arg(conf);
    Daemon::spawn("haproxy", &network.rig.folder, command, false)
}

fn nginx(network: &Network) -> Result<Daemon> {
    let home = network.rig.folder.display();
    let text = format!(
        "load_module {STREAM_MODULE};\ndaemon off;\nuser root;\nworker_processes 1;\nworker_rlimit_nofile 32768;\n\
         pid {home}/stream.pid;\nerror_log {home}/stream-error.log warn;\nevents {{ worker_connections 16384; }}\n\
         stream {{\n  upstream back {{ server {}; }}\n  server {{ listen {PEER}:80 backlog=4096; proxy_pass back; }}\n}}\n",
        network.server()
    );
    let conf = write(network, "stream.conf", &text)?;
    let mut command = balancer(&network.peer, "nginx");
    command.arg("-c").arg(conf).arg("-e").arg(network.rig.folder.join("stream-error.log"));
    Daemon::spawn("nginx-stream", &network.rig.folder, command, false)
}

fn write(network: &Network, name: &str, text: &str) -> Result<std::path::PathBuf> {
    let path = network.rig.folder.join(name);
    std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    Ok(path)
}

//! A laid network with an appliance in it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::appliance::Appliance;
use crate::conf::{Conf, MANAGEMENT, PREFIX, Service, VIP};
use crate::janitor::Janitor;
use crate::lbctl::Lbctl;
use crate::load::Load;
use crate::netns::{LinkCounters, Netns, wire};
use crate::servers::{DNS_PORT, HTTP_PORT, STREAM_PORT, ServerHost, TALK_PORT};
use crate::wait;
use crate::{Error, Result};

/// Where rigs keep their files: short, because socket names have at most 107 bytes.
const HOME: &str = "/run/containerlb-rig";
/// The client's address.
pub const CLIENT: &str = "10.0.0.11";
/// The bridge of client, servers and the tap, in the bridge namespace.
pub const BRIDGE: &str = "br0";
/// The tap has the port's own MAC when it is made: the bridge would take every frame to the
/// appliance as its own.
const TAP_MAC: &str = "02:00:00:00:fe:01";

/// What a rig is made of.
#[derive(Debug, Clone)]
pub struct RigSpec {
    /// Short name, unique within the process: part of names of namespaces and files.
    pub name: String,
    /// Number of server hosts.
    pub servers: u8,
    /// Start nginx, the UDP server and the talker on each.
    pub run_servers: bool,
}

impl RigSpec {
    /// Three server hosts with all servers.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), servers: 3, run_servers: true }
    }
}

/// The network, the servers and the appliance. Dropping it stops and removes everything.
pub struct Rig {
    /// The appliance's processes and configuration.
    pub appliance: Appliance,
    /// The server hosts `s1`, `s2`, ….
    pub servers: Vec<ServerHost>,
    /// The client's namespace.
    pub client: Netns,
    /// The bridge's namespace, where the tap's kernel end lies.
    pub bridge: Netns,
    /// The appliance's namespace.
    pub app: Netns,
    /// Configuration, logs, run and state directory.
    pub folder: PathBuf,
    keep_logs: Option<PathBuf>,
    // Last: fields are dropped in order, and this one removes what the others used.
    janitor: Janitor,
}

impl Rig {
    /// Lays the network and starts the servers; of the appliance nothing runs yet, and its
    /// configuration (without services) may still be changed.
    ///
    /// # Errors
    /// When the machine lacks something (root, a program); the message names it.
    pub fn new(spec: &RigSpec) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::claim("the rig needs root (namespaces, hugepages); hint: run it with sudo"));
        }
        let base = format!("lb{}-{}", std::process::id(), spec.name);
        let folder = Path::new(HOME).join(&base[2..]);
        let janitor = Janitor::start()?;
        janitor.tree(&folder);
        // Shared by all rigs: it goes with the last.
        janitor.folder(Path::new(HOME));
        janitor.shm(&base);
        // EAL's own files, should a program have been started without RUNTIME_DIRECTORY.
        janitor.tree(&Path::new("/run/dpdk").join(format!("lb-{base}")));
        std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        let make = |part: &str| {
            let name = format!("{base}-{part}");
            janitor.netns(&name);
            Netns::create(&name)
        };
        let (app, bridge, client) = (make("app")?, make("net")?, make("cli")?);
        let mut servers = Vec::new();
        for number in 1..=spec.servers {
            let name = format!("s{number}");
            let ns = make(&name)?;
            servers.push(ServerHost::new(&name, ns, format!("10.0.0.{}", 20 + number)));
        }
        let appliance = Appliance::new(app.clone(), &folder, Conf::new(&base, &folder));
        let mut rig = Self { appliance, servers, client, bridge, app, folder, keep_logs: None, janitor };
        rig.lay()?;
        if spec.run_servers {
            for host in &mut rig.servers {
                host.start_nginx(&rig.folder)?;
                host.start_others(&rig.folder)?;
            }
        }
        Ok(rig)
    }

    /// What removes the rig's things when it ends.
    #[must_use]
    pub fn janitor(&self) -> &Janitor {
        &self.janitor
    }

    /// Copies the logs to `folder` when the rig ends.
    pub fn keep_logs(&mut self, folder: PathBuf) {
        self.keep_logs = Some(folder);
    }

    /// One bridge, silent: no spanning tree, no multicast querier, so that every frame the
    /// kernel counts is one that a test sent or an ARP.
    fn lay(&self) -> Result<()> {
        // With the machine's packet filter on bridges, the kernel would drop what the appliance is to drop.
        if Path::new("/proc/sys/net/bridge").exists() {
            self.bridge.sysctl(&["net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-arptables=0"])?;
        }
        self.bridge.ip(&[
            &format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
            &format!("link set {BRIDGE} up"),
        ])?;
        let client = format!("{CLIENT}/{PREFIX}");
        self.join(&self.client, "eth0", "cli", &client)?;
        // Every request its own connection: tens of thousands of ports in TIME_WAIT.
        self.client.sysctl(&["net.ipv4.ip_local_port_range=1024 65000"])?;
        self.join(&self.app, "mgmt0", "mgmt", &format!("{MANAGEMENT}/{PREFIX}"))?;
        for host in &self.servers {
            self.join(&host.ns, "eth0", &host.name, &format!("{}/{PREFIX}", host.address))?;
            // A SYN flood of our own making must not be answered with cookies.
            host.ns.sysctl(&["net.ipv4.tcp_max_syn_backlog=8192"])?;
        }
        Ok(())
    }

    /// A wire from `ns` to the bridge.
    fn join(&self, ns: &Netns, end: &str, bridge_end: &str, address: &str) -> Result<()> {
        wire(ns, end, &self.bridge, bridge_end)?;
        ns.ip(&[&format!("addr add {address} dev {end}")])?;
        self.bridge.ip(&[&format!("link set {bridge_end} master {BRIDGE}")])
    }

    /// Adds a service `name` of `protocol` on the VIP's `port`, with every host's `server_port`.
    pub fn add_service(&mut self, name: &str, protocol: &'static str, port: u16, server_port: u16) {
        let mut service = Service::new(name, format!("{VIP}:{port}"), protocol);
        for host in &self.servers {
            service = service.with(host.at(server_port), 1);
        }
        self.appliance.conf.services.push(service);
    }

    /// The usual three services: `web` (tcp 80), `dns` (udp 53), `talk` (tcp 9000).
    pub fn add_usual_services(&mut self) {
        self.add_service("web", "tcp", 80, HTTP_PORT);
        self.add_service("dns", "udp", 53, DNS_PORT);
        self.add_service("talk", "tcp", 9000, TALK_PORT);
    }

    /// `stream` (udp 7000): the echo of numbered datagrams.
    pub fn add_stream_service(&mut self) {
        self.add_service("stream", "udp", STREAM_PORT, STREAM_PORT);
    }

    /// Writes the configuration, starts primary, workers of all zones and health-checker, and
    /// waits until every checked real server is up.
    ///
    /// # Errors
    /// When one of these does not come.
    pub fn start(&mut self) -> Result<()> {
        self.start_primary(&[])?;
        for zone in 0..self.appliance.conf.zones.len() {
            let zone = u32::try_from(zone).map_err(|_| Error::claim("too many zones"))?;
            self.appliance.start_worker(zone, 'a', &[])?;
        }
        self.appliance.start_healthcheck()?;
        self.wait_all_up(Duration::from_secs(15))
    }

    /// Writes the configuration, starts lb-primary and plumbs its tap.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_primary(&mut self, arguments: &[&str]) -> Result<()> {
        self.appliance.write_conf()?;
        self.appliance.start_primary(arguments)?;
        self.plumb()
    }

    /// Moves the kernel end of the port's tap to the bridge. Needed after each start of
    /// lb-primary, which makes the tap; only when it is ready, because it sets the port's MAC
    /// through the kernel end.
    ///
    /// # Errors
    /// When the tap is not in the appliance's namespace.
    pub fn plumb(&self) -> Result<()> {
        let tap = self.tap();
        wait::until(&format!("tap {tap}"), Duration::from_secs(5), Duration::from_millis(5), || {
            Ok(self.app.has_link(&tap).then_some(()))
        })?;
        self.app.ip(&[&format!("link set {tap} netns {}", self.bridge.name())])?;
        self.bridge.ip(&[
            &format!("link set {tap} address {TAP_MAC}"),
            &format!("link set {tap} mtu {}", self.appliance.conf.mtu),
            &format!("link set {tap} up"),
        ])?;
        match self.appliance.conf.vlan {
            0 => self.bridge.ip(&[&format!("link set {tap} master {BRIDGE}")]),
            // What joins a tagged link to the bridge is the test's.
            _ => Ok(()),
        }
    }

    /// Waits until `rs list` shows no real server that is checked and not up.
    ///
    /// # Errors
    /// Naming those that are not.
    pub fn wait_all_up(&self, limit: Duration) -> Result<()> {
        let lbctl = self.lbctl()?;
        let checked: Vec<&str> = self
            .appliance
            .conf
            .services
            .iter()
            .filter(|s| !s.health.contains("\"none\""))
            .map(|s| s.name.as_str())
            .collect();
        wait::until_ok("all real servers up", limit, Duration::from_millis(100), || {
            let mut down = lbctl.real_servers()?;
            down.retain(|rs| checked.contains(&rs.service.as_str()) && rs.health != "up");
            let names: Vec<String> =
                down.iter().map(|rs| format!("{} {} {}", rs.service, rs.address, rs.health)).collect();
            crate::error::ensure(names.is_empty(), || names.join(", "))
        })
    }

    /// The admin command for this appliance.
    ///
    /// # Errors
    /// When it is not built.
    pub fn lbctl(&self) -> Result<Lbctl> {
        self.appliance.lbctl()
    }

    /// Starts a load program at the client.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn load(&self, program: &str, arguments: &[&str]) -> Result<Load> {
        Load::start(&self.client, program, arguments)
    }

    /// Name of the tap's kernel end.
    #[must_use]
    pub fn tap(&self) -> String {
        self.appliance.conf.tap()
    }

    /// The kernel's own counters of the port: `tx` is what the appliance was given, `rx` what it
    /// sent.
    ///
    /// # Errors
    /// When the tap is not plumbed.
    pub fn tap_counters(&self) -> Result<LinkCounters> {
        self.bridge.counters(&self.tap())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // In order and gently; what does not follow is killed by the janitor. A test that wants
        // to know the exit statuses calls `appliance.stop()` itself.
        let _ = self.appliance.stop();
        if let Some(target) = &self.keep_logs {
            let _ = std::fs::create_dir_all(target);
            for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let text = name.to_string_lossy();
                let wanted = [".log", ".toml"].iter().any(|end| text.ends_with(end));
                if wanted {
                    let _ = std::fs::copy(entry.path(), target.join(&name));
                }
            }
        }
    }
}

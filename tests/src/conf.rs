//! The configuration of a test appliance, written out as the TOML of INTERFACE §4.
//!
//! A model and not a text, so that a test can say "the same with one zone more" and apply it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Conf {
    /// `node.name`: tells appliances of one machine apart.
    pub name: String,
    /// `node.run_dir`.
    pub run_dir: PathBuf,
    /// `node.state_dir`.
    pub state_dir: PathBuf,
    /// `node.poll`.
    pub poll: &'static str,
    /// `node.sessions`, per slot.
    pub sessions: u32,
    /// `node.dpdk_mb`.
    pub dpdk_mb: u32,
    /// CPUs of each zone; the index is the zone's id.
    pub zones: Vec<Vec<u32>>,
    /// `port.slots`.
    pub slots: u32,
    /// `port.mtu`.
    pub mtu: u32,
    /// `port.vlan`, 0: none.
    pub vlan: u16,
    /// `port.kernel`.
    pub kernel: Option<String>,
    /// `port.addresses`, with their prefix lengths.
    pub addresses: Vec<String>,
    /// `port.gateways`.
    pub gateways: Vec<String>,
    /// `[limits]`: services, real servers; `None`: the defaults.
    pub limits: Option<(u32, u32)>,
    /// Local address ranges.
    pub laddrs: Vec<String>,
    /// Services.
    pub services: Vec<Service>,
    /// Further services, as TOML.
    pub services_toml: String,
}

/// One `[[service]]`.
#[derive(Debug, Clone)]
pub struct Service {
    /// `name`.
    pub name: String,
    /// `vip`.
    pub vip: String,
    /// `protocol`.
    pub protocol: &'static str,
    /// `mode`.
    pub mode: &'static str,
    /// `scheduler`.
    pub scheduler: &'static str,
    /// Further lines of the table, as TOML (e.g. `timeouts = {…}`).
    pub extra: Vec<String>,
    /// The whole right side of `health =`.
    pub health: String,
    /// Real servers.
    pub rs: Vec<RealServer>,
}

/// One `[[service.rs]]`.
#[derive(Debug, Clone)]
pub struct RealServer {
    /// `address`.
    pub address: String,
    /// `weight`.
    pub weight: u32,
}

/// The port's name in every test configuration.
pub const PORT: &str = "net0";
/// Address of the appliance on the port.
pub const APPLIANCE: &str = "10.0.0.2";
/// Address of the management leg, from which probes are sent.
pub const MANAGEMENT: &str = "10.0.0.3";
/// TCP and UDP address of the services.
pub const VIP: &str = "10.0.0.100";
/// Prefix length of the one network.
pub const PREFIX: u8 = 24;

impl Conf {
    /// One appliance `name` with its files below `folder`: two zones on the machine's two CPUs,
    /// one port of two slots, no service yet.
    #[must_use]
    pub fn new(name: &str, folder: &Path) -> Self {
        Self {
            name: name.into(),
            run_dir: folder.join("run"),
            state_dir: folder.join("state"),
            poll: "adaptive",
            sessions: 65_536,
            dpdk_mb: 128,
            zones: vec![vec![0], vec![1]],
            slots: 2,
            mtu: 1500,
            vlan: 0,
            kernel: None,
            addresses: vec![format!("{APPLIANCE}/{PREFIX}")],
            gateways: Vec::new(),
            limits: None,
            laddrs: vec!["10.0.0.128/30".into()],
            services: Vec::new(),
            services_toml: String::new(),
        }
    }

    /// Name of the tap's kernel end (at most 15 characters).
    #[must_use]
    pub fn tap(&self) -> String {
        // Its namespace holds no other, and the appliance's name may be too long for an interface.
        "lbtap0".into()
    }

    /// The service called `name`, to change it.
    ///
    /// # Panics
    /// When the test never added it.
    pub fn service(&mut self, name: &str) -> &mut Service {
        self.services.iter_mut().find(|s| s.name == name).expect("a service the test itself added")
    }

    /// As TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "[node]\nname = {:?}\npoll = {:?}", self.name, self.poll)?;
        writeln!(out, "run_dir = {:?}\nstate_dir = {:?}", self.run_dir, self.state_dir)?;
        writeln!(out, "dpdk_mb = {}\nsessions = {}\n", self.dpdk_mb, self.sessions)?;
        writeln!(out, "[primary]\ncpu = 0\n")?;
        for (id, cpus) in self.zones.iter().enumerate() {
            writeln!(out, "[[zone]]\nid = {id}\nnuma = 0\ncpus = {cpus:?}\n")?;
        }
        let zones: Vec<usize> = (0..self.zones.len()).collect();
        writeln!(out, "[[port]]\nname = {PORT:?}\ndevice = \"net_tap0,iface={}\"", self.tap())?;
        writeln!(out, "zones = {zones:?}\nslots = {}\nmtu = {}\nvlan = {}", self.slots, self.mtu, self.vlan)?;
        writeln!(out, "addresses = {:?}\ngateways = {:?}\n", self.addresses, self.gateways)?;
        if let Some(kernel) = &self.kernel {
            writeln!(out, "kernel = {kernel:?}\n")?;
        }
        if let Some((services, servers)) = self.limits {
            writeln!(out, "[limits]\nservices = {services}\nreal_servers = {servers}\n")?;
        }
        for range in &self.laddrs {
            writeln!(out, "[[laddr]]\nport = {PORT:?}\naddress = {range:?}\n")?;
        }
        for service in &self.services {
            service.write(out)?;
        }
        out.write_str(&self.services_toml)
    }
}

impl Service {
    /// A FullNAT service under round-robin, checked by TCP connects every 500 ms.
    #[must_use]
    pub fn new(name: &str, vip: String, protocol: &'static str) -> Self {
        let check = if protocol == "tcp" { "tcp" } else { "none" };
        Self {
            name: name.into(),
            vip,
            protocol,
            mode: "fullnat",
            scheduler: "rr",
            extra: Vec::new(),
            health: format!("{{ type = {check:?}, interval = \"500ms\", timeout = \"300ms\", rise = 2, fall = 3 }}"),
            rs: Vec::new(),
        }
    }

    /// With one more real server.
    #[must_use]
    pub fn with(mut self, address: String, weight: u32) -> Self {
        self.rs.push(RealServer { address, weight });
        self
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "[[service]]\nname = {:?}\nvip = {:?}", self.name, self.vip)?;
        writeln!(out, "protocol = {:?}\nmode = {:?}", self.protocol, self.mode)?;
        writeln!(out, "scheduler = {:?}\nhealth = {}", self.scheduler, self.health)?;
        for line in &self.extra {
            writeln!(out, "{line}")?;
        }
        for rs in &self.rs {
            writeln!(out, "\n  [[service.rs]]\n  address = {:?}\n  weight = {}", rs.address, rs.weight)?;
        }
        writeln!(out)
    }
}

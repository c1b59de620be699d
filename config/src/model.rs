//! The configuration as the programs use it: validated, complete (defaults filled in), comparable, and the same in
//! journal and JSON as in the file. Keys, names and meaning: INTERFACE §4.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::values::{
    Admin, Cidr, ClientAddress, Device, HealthKind, IfName, Mac, Millis, Mode, Name, OnPrimaryDeath, Panic, Poll,
    PortRange, Protocol, Scheduler, Tunnel,
};

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The instance.
    pub node: Node,
    /// CPUs of the holder.
    pub primary: Primary,
    /// One worker process each.
    pub zones: Vec<Zone>,
    /// Where packets come and go, in file order: the order of global slot ids.
    pub ports: Vec<Port>,
    /// What all checks share.
    pub healthcheck: Healthcheck,
    /// Sizes of the tables.
    pub limits: Limits,
    /// FullNAT source addresses.
    pub laddrs: Vec<Laddr>,
    /// Virtual services, in file order.
    pub services: Vec<Service>,
}

/// `[node]`: the instance. A change needs a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Names run directory, file prefix, mount and shared memory.
    pub name: Name,
    /// How workers wait.
    pub poll: Poll,
    /// EAL memory in MiB, all reserved at start.
    pub dpdk_mb: u32,
    /// Capacity for IPv4 sessions per slot.
    pub sessions: u32,
    /// The same for IPv6, NAT64, and tunnels of IPv4 to IPv6 servers. Read it by [`Node::sessions_ipv6`].
    #[serde(default)]
    pub sessions_ipv6: Option<u32>,
    /// Reaction to an unasked death of the holder.
    pub on_primary_death: OnPrimaryDeath,
    /// A heartbeat older than this, with run time consumed meanwhile, is hung.
    pub hang_after: Millis,
    /// Instead of `/run/containerlb/NAME`; the whole path. Read it by [`Node::run_dir`].
    pub run_dir: Option<PathBuf>,
    /// Instead of `/var/lib/containerlb/NAME`; the whole path. Read it by [`Node::state_dir`].
    pub state_dir: Option<PathBuf>,
}

/// `[primary]`: CPUs of the holder. A change needs a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Primary {
    /// CPU of the holder's own work.
    pub cpu: u16,
    /// CPUs that receive and transmit for ports workers cannot poll (pipeline mode).
    pub io_cpus: Vec<u16>,
}

/// `[[zone]]`: one worker process. A change needs a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// 0 to 7, named by `lb-worker --zone`.
    pub id: u8,
    /// NUMA node of its memory.
    pub numa: u8,
    /// One worker thread each.
    pub cpus: Vec<u16>,
}

/// `[[port]]`: a place where packets come and go. A change needs a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Referred to by local addresses.
    pub name: Name,
    /// What DPDK opens.
    pub device: Device,
    /// Whose threads serve its slots.
    pub zones: Vec<u8>,
    /// Queue pairs; `None`: the threads of its zones. Read it by [`Config::slots_of`].
    pub slots: Option<u16>,
    /// `None`: derived for vdevs, the NIC's own otherwise. Read it by [`Node::mac_for`].
    pub mac: Option<Mac>,
    /// Own addresses with their networks.
    pub addresses: Vec<Cidr>,
    /// Next hops for what lies outside those networks.
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// VLAN tag, 0 none.
    pub vlan: u16,
    /// Kernel interface for exception traffic.
    pub kernel: Option<IfName>,
}

/// `[healthcheck]`: what all checks share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Healthcheck {
    /// Address probes are sent from; `None`: the kernel chooses.
    pub source: Option<IpAddr>,
}

/// `[limits]`: sizes of the tables. A change needs a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Services.
    pub services: u32,
    /// Real servers of all services together.
    pub real_servers: u32,
    /// Next hops.
    pub neighbours: u32,
    /// Services that choose by hash: each has a table of its own.
    #[serde(default = "Limits::usual_hash_services")]
    pub hash_services: u32,
}

/// `[[laddr]]`: FullNAT source addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Laddr {
    /// Name of the port they are answered on.
    pub port: Name,
    /// All addresses of the block.
    pub address: Cidr,
    /// Ports used of each.
    pub ports: PortRange,
}

/// `[[service]]`: a virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// Address and port clients use.
    pub vip: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How packets reach the server.
    pub mode: Mode,
    /// Wrapping of mode tunnel; `None` elsewhere, and there IP in IP.
    pub tunnel: Option<Tunnel>,
    /// Who takes a new session.
    pub scheduler: Scheduler,
    /// How long a client address keeps its server; 0: not.
    pub persistence: Millis,
    /// Bits of the client's address that keep a server together; `None`: all.
    #[serde(default)]
    pub persistence_prefix: Option<u8>,
    /// Secret of the choices by hash, the same on all nodes of a cluster; `None`: everybody can tell who is chosen.
    #[serde(default)]
    pub hash_key: Option<String>,
    /// How the server learns the client's address.
    pub client_address: ClientAddress,
    /// Whether SYNs are answered by cookie.
    pub syn_proxy: bool,
    /// Most sessions at a time over all slots; 0: no limit.
    pub max_sessions: u32,
    /// Idle time after which a session ends, by state.
    pub timeouts: Timeouts,
    /// The panic rule.
    pub panic: Panic,
    /// How its servers are checked.
    pub health: Health,
    /// Its servers, in file order.
    pub rs: Vec<RealServer>,
}

/// `timeouts = { … }`: idle time after which a session ends, by TCP state, and for UDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// SYN seen, no answer.
    pub syn_sent: Millis,
    /// SYN+ACK seen, not yet acknowledged.
    pub syn_recv: Millis,
    /// Open.
    pub established: Millis,
    /// The server closed first and waits.
    pub fin_wait: Millis,
    /// The client closed first, the server has not.
    pub close_wait: Millis,
    /// Both closed, last acknowledgement outstanding.
    pub last_ack: Millis,
    /// Both closed and acknowledged.
    pub time_wait: Millis,
    /// Reset.
    pub close: Millis,
    /// UDP, since the last datagram.
    pub udp: Millis,
}

impl Default for Timeouts {
    /// Closing states are short, so that local ports come free soon.
    fn default() -> Self {
        Self {
            syn_sent: Millis::secs(5),
            syn_recv: Millis::secs(10),
            established: Millis::secs(90),
            fin_wait: Millis::secs(30),
            close_wait: Millis::secs(30),
            last_ack: Millis::secs(5),
            time_wait: Millis::secs(3),
            close: Millis::secs(1),
            udp: Millis::secs(30),
        }
    }
}

/// `health = { … }`: how a service's servers are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What a check does (`type`).
    #[serde(rename = "type")]
    pub kind: HealthKind,
    /// From one check to the next.
    pub interval: Millis,
    /// The same while the last results differ from the state.
    pub fast_interval: Millis,
    /// After this a check has failed.
    pub timeout: Millis,
    /// Good results in a row that bring a server up.
    pub rise: u8,
    /// Bad results in a row that take it down.
    pub fall: u8,
    /// HTTP path; `None`: `/`.
    pub path: Option<String>,
    /// HTTP host; `None`: the server's address.
    pub host: Option<String>,
    /// What the answer must be: for HTTP statuses (`"200-399"`, `"200,204"`), read by [`Health::statuses`].
    pub expect: Option<String>,
    /// What is sent (UDP).
    pub send: Option<String>,
    /// Port to check; `None`: the server's own.
    pub port: Option<u16>,
}

/// `[[service.rs]]`: a real server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServer {
    /// Address and port of the server.
    pub address: SocketAddr,
    /// Share among its peers; 0: no new sessions.
    pub weight: u16,
    /// What the operator wants of it.
    pub admin: Admin,
}

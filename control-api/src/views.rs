//! What is answered: the fields of `lbctl -o json` (INTERFACE §5), word for word. Numbers are numbers; addresses are texts
//! as in the configuration. More fields may come; those that stand here keep name and meaning.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A piece of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// `after` of the next request; `null`: this was the last.
    pub next: Option<u64>,
}

/// `version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// [`crate::API_VERSION`].
    pub api_version: u32,
    /// Version of lb-primary.
    pub version: String,
    /// Version of the tables' layout.
    pub layout: String,
    /// Name of the instance.
    pub node: String,
    /// Generation in force.
    pub generation: u64,
    /// Pid of control.
    pub pid: u32,
}

/// An element of `service list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Address and port.
    pub vip: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `fullnat`, …
    pub mode: String,
    /// `rr`, …
    pub scheduler: String,
    /// Deleted, and waiting for its last session.
    #[serde(default)]
    pub removed: bool,
    /// Sessions now.
    pub sessions: u64,
    /// Sessions begun.
    pub sessions_total: u64,
    /// New sessions refused.
    #[serde(default)]
    pub refused: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// IP bytes from clients.
    pub bytes_in: u64,
    /// IP bytes to clients.
    pub bytes_out: u64,
    /// Its real servers.
    pub rs: Vec<Rs>,
    /// What the appliance lacks while it serves on: "no health-checker"; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
}

/// Health of a real server as the schedulers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Answers.
    Up,
    /// Does not: takes no new sessions.
    Down,
    /// Not checked, or not yet: takes sessions.
    Unknown,
    /// Down by its checks, kept by the panic rule.
    Panic,
}

impl Health {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Panic => "panic",
        }
    }
}

/// RS, an element of `rs list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rs {
    /// Id: row of the tables.
    pub id: u32,
    /// Name of its service.
    pub service: String,
    /// Address and port.
    pub address: String,
    /// Share among its peers.
    pub weight: u16,
    /// `enabled`, `drain`, `disabled`.
    pub admin: String,
    /// Deleted, and waiting for its last session.
    #[serde(default)]
    pub removed: bool,
    /// Health.
    pub health: Health,
    /// Sessions now.
    pub sessions: u64,
    /// Sessions begun.
    pub sessions_total: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// IP bytes from clients.
    pub bytes_in: u64,
    /// IP bytes to clients.
    pub bytes_out: u64,
    /// Why the last check failed; `null` when it did not.
    pub last_check_error: Option<String>,
    /// What the appliance lacks while it serves on: "no health-checker"; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
}

/// An element of `session list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Client's address and port.
    pub client: String,
    /// Virtual address and port.
    pub vip: String,
    /// Local address and port; `null` outside fullnat.
    pub laddr: Option<String>,
    /// Real server's address and port.
    pub rs: String,
    /// State.
    pub state: String,
    /// Since the last packet.
    pub idle_ms: u64,
    /// Zone and lane of the worker that serves it, `0a`; `null`: nobody does at the moment.
    pub worker: Option<String>,
    /// Slot it lives in.
    #[serde(default)]
    pub slot: u32,
    /// Its service; `null`: an orphan, whose service or server is no longer configured.
    #[serde(default)]
    pub service: Option<String>,
}

/// `session count`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCount {
    /// Sessions now.
    pub active: u64,
    /// Records of all slots.
    pub capacity: u64,
    /// Begun since the tables were made.
    pub created_total: u64,
    /// Ended since.
    pub expired_total: u64,
}

/// An order that slots carry out at their next bursts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Slots told.
    pub slots: u32,
}

/// An element of `worker list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Zone.
    pub zone: u32,
    /// `a` or `b`.
    pub lane: String,
    /// Process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// `serving`, `attaching`, `draining`, `dead`, `hung`.
    pub state: String,
    /// Its slots.
    pub slots: Vec<WorkerSlot>,
    /// What the appliance lacks while it serves on: "no primary"; `null`: nothing.
    #[serde(default)]
    pub degraded: Option<String>,
}

/// A slot of [`Worker`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerSlot {
    /// Number.
    pub slot: u32,
    /// CPU of its thread.
    pub cpu: u32,
    /// Age of its heartbeat.
    pub heartbeat_ms: u64,
    /// Share of its time in loops that had work, 0 to 1.
    pub busy_ratio: f64,
    /// Sessions now.
    pub sessions: u64,
    /// Generation it works with; `null`: none.
    #[serde(default)]
    pub generation: Option<u64>,
    /// Records it found damaged.
    #[serde(default)]
    pub quarantined: u64,
    /// Deaths of its owners so far.
    #[serde(default)]
    pub deaths: u64,
    /// Packets that the last dead owner had in hand.
    #[serde(default)]
    pub last_packets: Vec<LastPacket>,
}

/// A packet that a dead worker had in hand: one of them may be what killed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPacket {
    /// Bytes on the wire.
    pub length: u32,
    /// The first of them, in hexadecimal.
    pub head: String,
}

/// The counters of the conservation law:
/// `rx + from_ring + from_kernel + originated = tx + to_ring + to_kernel + Σ drops + held`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Taken from the port.
    pub rx: u64,
    /// Handed to the port.
    pub tx: u64,
    /// Taken from another slot's ring.
    pub from_ring: u64,
    /// Copied to another slot's ring.
    pub to_ring: u64,
    /// Handed to the kernel interface.
    pub to_kernel: u64,
    /// Taken from the kernel interface.
    pub from_kernel: u64,
    /// Made here.
    pub originated: u64,
    /// Waiting.
    pub held: u64,
    /// Dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Bytes taken from the port.
    #[serde(default)]
    pub rx_bytes: u64,
    /// Bytes handed to the port.
    #[serde(default)]
    pub tx_bytes: u64,
    /// Sessions begun.
    #[serde(default)]
    pub sessions_created: u64,
    /// Sessions ended.
    #[serde(default)]
    pub sessions_ended: u64,
    /// New sessions refused.
    #[serde(default)]
    pub sessions_refused: u64,
}

impl Counters {
    /// Both sides of the law: what came in, what became of it.
    #[must_use]
    pub fn balance(&self) -> (u64, u64) {
        (
            self.rx + self.from_ring + self.from_kernel + self.originated,
            self.tx + self.to_ring + self.to_kernel + self.held + self.drops.values().sum::<u64>(),
        )
    }
}

/// An element of [`Stats::per_slot`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotCounters {
    /// Slot.
    pub slot: u32,
    /// Zone.
    pub zone: u32,
    /// Its counters.
    #[serde(flatten)]
    pub counters: Counters,
}

/// `stats show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Sum of the slots.
    #[serde(flatten)]
    pub sum: Counters,
    /// Each slot.
    pub per_slot: Vec<SlotCounters>,
}

/// An element of `port list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// What DPDK opened.
    pub device: String,
    /// Its MAC.
    pub mac: String,
    /// `up`, `down`, `unknown`.
    pub link: String,
    /// `rtc` (workers poll it) or `pipeline`.
    pub mode: String,
    /// `flow-rule`, `rss-port`, `redirect`, `driver`.
    pub steering: String,
    /// Queue pairs.
    pub queues: u32,
    /// Packets taken.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets the NIC had no descriptor for.
    pub rx_missed: u64,
    /// Packets the driver had no buffer for.
    pub rx_nombuf: u64,
    /// Free buffers of its queues.
    pub mbufs_free: u64,
    /// As in [`Worker`].
    #[serde(default)]
    pub degraded: Option<String>,
}

/// An element of `laddr list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Laddr {
    /// Address.
    pub address: String,
    /// Name of its port.
    pub port: String,
    /// Sessions that use it.
    pub used: u64,
    /// New sessions refused for want of a local port (counted for the appliance, not per address).
    pub misses: u64,
    /// The real server towards which the fewest ports are free; `null`: not used.
    pub tightest: Option<Tightest>,
    /// Removed, and waiting for its last session.
    #[serde(default)]
    pub removed: bool,
}

/// See [`Laddr::tightest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tightest {
    /// Real server's address and port.
    pub rs: String,
    /// Ports in use towards it.
    pub used: u64,
    /// Ports free towards it.
    pub free: u64,
}

/// An element of `neigh list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neigh {
    /// Address.
    pub address: String,
    /// Name of the port it is behind.
    pub port: String,
    /// MAC; `null`: none known.
    pub mac: Option<String>,
    /// `incomplete`, `reachable`, `probing`, `failed`.
    pub state: String,
    /// Since the last answer; `null`: none yet.
    pub confirmed_ms: Option<u64>,
    /// Row number, as sessions store it.
    pub row: u32,
}

/// A change carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Generation that has it.
    pub generation: u64,
    /// Id of the real server concerned, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Warnings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `config.upload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// Bytes so far.
    pub bytes: u64,
}

/// `config.check`: it is valid (else it is an error that lists everything).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChecked {
    /// Services.
    pub services: u64,
    /// Real servers.
    pub real_servers: u64,
    /// Hugepages of 2 MiB needed in all.
    pub hugepages: u64,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// A line of `config diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The key.
    pub path: String,
    /// In words.
    pub text: String,
    /// Only a restart of the appliance brings it about.
    pub needs_restart: bool,
}

/// `config.diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigDiff {
    /// What differs from the configuration in force; empty: nothing.
    pub changes: Vec<Change>,
}

/// `config.apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Generation in force afterwards.
    pub generation: u64,
    /// What changed, or would.
    pub changes: Vec<Change>,
    /// Nothing was changed because only that was asked for.
    pub dry_run: bool,
    /// Warnings.
    pub warnings: Vec<String>,
    /// The change on trial; `null`: none.
    #[serde(default)]
    pub unconfirmed: Option<Pending>,
}

/// A change that goes back by itself unless it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Generation that was applied.
    pub applied: u64,
    /// Generation whose configuration comes back.
    pub back_to: u64,
    /// When, RFC 3339, UTC.
    pub until: String,
    /// Time left.
    pub left_ms: u64,
}

/// `config.export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigExport {
    /// Generation it is.
    pub generation: u64,
    /// As a file.
    pub text: String,
}

/// An element of `config history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Generation.
    pub generation: u64,
    /// When, RFC 3339, UTC.
    pub time: String,
    /// Who.
    pub user: String,
    /// What.
    pub summary: String,
    /// On trial: it goes back then, RFC 3339, UTC, unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_until: Option<String>,
}

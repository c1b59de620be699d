//! What follows from a configuration: paths, names, addresses of ports, homes of slots, memory.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::model::{Config, Health, Limits, Node, Port, RealServer, Service, Timeouts};
use crate::values::{
    Admin, ClientAddress, HealthKind, Mac, Millis, Mode, Name, OnPrimaryDeath, Panic, Poll, Protocol, Scheduler,
};

/// Bytes of a huge page.
pub const HUGE_PAGE: u64 = 2 << 20;

impl Node {
    /// A node with every other key at its default.
    #[must_use]
    pub fn named(name: Name) -> Self {
        Self {
            name,
            poll: Poll::Adaptive,
            dpdk_mb: 192,
            sessions: 1_000_000,
            sessions_ipv6: None,
            on_primary_death: OnPrimaryDeath::Hold,
            hang_after: Millis::secs(1),
            run_dir: None,
            state_dir: None,
        }
    }

    /// Capacity for IPv6 sessions per slot: a tenth of IPv4's unless the file says otherwise; 0: no IPv6 services.
    #[must_use]
    pub fn sessions_ipv6(&self) -> u32 {
        self.sessions_ipv6.unwrap_or(self.sessions / 10)
    }

    /// `/run/containerlb/NAME`, or the key `run_dir`.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| PathBuf::from("/run/containerlb").join(self.name.as_str()))
    }

    /// `/var/lib/containerlb/NAME`, or the key `state_dir`: the journal.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| PathBuf::from("/var/lib/containerlb").join(self.name.as_str()))
    }

    /// The admin socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("control.sock")
    }

    /// The holder's own lock.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.run_dir().join("primary.lock")
    }

    /// Names and sockets of the links between processes.
    #[must_use]
    pub fn ipc_dir(&self) -> PathBuf {
        self.run_dir().join("ipc")
    }

    /// The instance's own hugetlbfs mount.
    #[must_use]
    pub fn huge_mount(&self) -> PathBuf {
        self.run_dir().join("huge")
    }

    /// EAL's half of the mount (`--huge-dir`).
    #[must_use]
    pub fn eal_huge_dir(&self) -> PathBuf {
        self.huge_mount().join("eal")
    }

    /// Our half of the mount.
    #[must_use]
    pub fn tables_dir(&self) -> PathBuf {
        self.huge_mount().join("tables")
    }

    /// EAL's `--file-prefix`.
    #[must_use]
    pub fn file_prefix(&self) -> String {
        format!("lb-{}", self.name)
    }

    /// POSIX shared-memory name of the health board, with the leading slash.
    #[must_use]
    pub fn board_name(&self) -> String {
        format!("/containerlb-{}-health", self.name)
    }

    /// The MAC a port gets: the configured one; for vdevs one derived from node and port name, the same after every
    /// restart (locally administered, one station); `None` for a PCI device that keeps its own.
    #[must_use]
    pub fn mac_for(&self, port: &Port) -> Option<Mac> {
        if port.mac.is_some() {
            return port.mac;
        }
        if port.device.is_pci() {
            return None;
        }
        let hash = mix64(fnv128(format!("{}\0{}", self.name, port.name).as_bytes()));
        let [a, b, c, d, e, f, ..] = hash.to_be_bytes();
        Some(Mac([(a & 0xfc) | 0x02, b, c, d, e, f]))
    }
}

/// 128-bit FNV-1a (draft-eastlake-fnv): stable over versions and machines; not for adversaries.
#[must_use]
pub fn fnv128(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

/// 128 bits folded and spread over 64 (the finaliser of MurmurHash3): FNV alone leaves the last letters of like names in
/// few bits.
fn mix64(hash: u128) -> u64 {
    let [low, high] = [hash & u128::from(u64::MAX), hash >> 64].map(|half| u64::try_from(half).unwrap_or(0));
    let mut h = low ^ high;
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// Where a slot lives as long as nobody else had to adopt it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SlotHome {
    /// Global slot id: ports in file order, then queues.
    pub slot: u16,
    /// Index into [`Config::ports`].
    pub port: u16,
    /// Queue pair of that port.
    pub queue: u16,
    /// Zone whose worker serves it.
    pub zone: u8,
    /// CPU of the thread that serves it.
    pub cpu: u16,
}

impl Config {
    /// Queue pairs of a port: as configured, else as many as its zones have threads.
    #[must_use]
    pub fn slots_of(&self, port: &Port) -> u16 {
        port.slots.unwrap_or_else(|| {
            let threads: usize = self.zones.iter().filter(|z| port.zones.contains(&z.id)).map(|z| z.cpus.len()).sum();
            u16::try_from(threads).unwrap_or(u16::MAX)
        })
    }

    /// Writes the number of slots of every port into the model: `slots` without a value means the threads at the *first*
    /// start, so the tables keep it when CPUs change later. Ports known to `earlier` take its number.
    pub fn fix_slots(&mut self, earlier: Option<&Self>) {
        for i in 0..self.ports.len() {
            let port = &self.ports[i];
            let before = earlier.and_then(|e| e.ports.iter().find(|p| p.name == port.name).map(|p| e.slots_of(p)));
            let slots = port.slots.or(before).unwrap_or_else(|| self.slots_of(port));
            self.ports[i].slots = Some(slots);
        }
    }

    /// Every slot with its home. Queue `i` of a port goes to `zones[i % zones]`, and there round-robin over the CPUs.
    #[must_use]
    pub fn slot_homes(&self) -> Vec<SlotHome> {
        let mut homes = Vec::new();
        for (index, port) in self.ports.iter().enumerate() {
            let zones: Vec<_> =
                port.zones.iter().filter_map(|id| self.zone(*id)).filter(|z| !z.cpus.is_empty()).collect();
            if zones.is_empty() {
                continue;
            }
            for queue in 0..self.slots_of(port) {
                let (turn, zone) = (usize::from(queue) / zones.len(), zones[usize::from(queue) % zones.len()]);
                homes.push(SlotHome {
                    slot: u16::try_from(homes.len()).unwrap_or(u16::MAX),
                    port: u16::try_from(index).unwrap_or(u16::MAX),
                    queue,
                    zone: zone.id,
                    cpu: zone.cpus[turn % zone.cpus.len()],
                });
            }
        }
        homes
    }

    /// The zone of an id.
    #[must_use]
    pub fn zone(&self, id: u8) -> Option<&crate::model::Zone> {
        self.zones.iter().find(|z| z.id == id)
    }

    /// The port of a name.
    #[must_use]
    pub fn port(&self, name: &Name) -> Option<&Port> {
        self.ports.iter().find(|p| p.name == *name)
    }

    /// The service of a name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|s| s.name.as_str() == name)
    }

    /// Index of the port on one of whose networks an address lies.
    #[must_use]
    pub fn connected(&self, address: IpAddr) -> Option<usize> {
        self.ports.iter().position(|p| p.addresses.iter().any(|net| net.contains(address)))
    }

    /// Whether any port is a PCI device (EAL then runs without `--no-pci`).
    #[must_use]
    pub fn uses_pci(&self) -> bool {
        self.ports.iter().any(|p| p.device.is_pci())
    }
}

impl Service {
    /// A service with every key at its default and no servers.
    #[must_use]
    pub fn new(name: Name, vip: std::net::SocketAddr, protocol: Protocol) -> Self {
        Self {
            name,
            vip,
            protocol,
            mode: Mode::FullNat,
            tunnel: None,
            scheduler: Scheduler::Rr,
            persistence: Millis::new(0),
            persistence_prefix: None,
            hash_key: None,
            client_address: ClientAddress::None,
            syn_proxy: false,
            max_sessions: 0,
            timeouts: Timeouts::default(),
            panic: Panic::On,
            health: Health::for_protocol(protocol),
            rs: Vec::new(),
        }
    }
}

impl Service {
    /// Does it choose by hash, always or to begin with?
    #[must_use]
    pub const fn hashes(&self) -> bool {
        let by_hash = matches!(self.scheduler, Scheduler::SourceIp | Scheduler::SourceIpPort | Scheduler::Maglev);
        by_hash || self.persistence.get() > 0
    }
}

impl RealServer {
    /// A server with weight 1, enabled.
    #[must_use]
    pub const fn new(address: std::net::SocketAddr) -> Self {
        Self { address, weight: 1, admin: Admin::Enabled }
    }
}

impl Health {
    /// Share of the interval by which checks are spread, so that thousands do not fall on one moment.
    pub const JITTER_PERCENT: u32 = 10;

    /// The default check: a TCP connection for TCP, none for UDP (nobody can tell what a datagram service answers).
    #[must_use]
    pub fn for_protocol(protocol: Protocol) -> Self {
        Self::of_kind(match protocol {
            Protocol::Tcp => HealthKind::Tcp,
            Protocol::Udp => HealthKind::None,
        })
    }

    /// A check of a kind with every other key at its default.
    #[must_use]
    pub const fn of_kind(kind: HealthKind) -> Self {
        Self {
            kind,
            interval: Millis::secs(2),
            fast_interval: Millis::secs(1),
            timeout: Millis::secs(1),
            rise: 2,
            fall: 3,
            path: None,
            host: None,
            expect: None,
            send: None,
            port: None,
        }
    }

    /// HTTP statuses that count as good, as closed ranges; 200–399 if `expect` is not given.
    ///
    /// # Errors
    /// `expect` is neither a status, a range nor a list of them.
    pub fn statuses(&self) -> Result<Vec<(u16, u16)>, crate::ValueError> {
        let Some(expect) = &self.expect else { return Ok(vec![(200, 399)]) };
        let wrong = || {
            crate::ValueError::new(format!("\"{expect}\" does not name HTTP statuses"))
                .hint("a status, a range or a list, such as \"200\", \"200-299\" or \"200,204,301\"")
        };
        let status = |s: &str| s.trim().parse::<u16>().ok().filter(|n| (100..=599).contains(n)).ok_or_else(wrong);
        expect
            .split(',')
            .map(|part| match part.split_once('-') {
                Some((a, b)) => Ok((status(a)?, status(b)?)),
                None => status(part).map(|n| (n, n)),
            })
            .map(|range| range.and_then(|(a, b)| if a <= b { Ok((a, b)) } else { Err(wrong()) }))
            .collect()
    }
}

impl Limits {
    /// Choice tables take 128 KiB each, and twice that while they change.
    pub(crate) const fn usual_hash_services() -> u32 {
        32
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { services: 1024, real_servers: 16384, neighbours: 4096, hash_services: Self::usual_hash_services() }
    }
}

/// What the sizes of our own tables depend on; their layout knows how many bytes that makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSizes {
    /// Slots in all.
    pub slots: u16,
    /// IPv4 sessions per slot.
    pub sessions: u32,
    /// IPv6 sessions per slot.
    pub sessions_ipv6: u32,
    /// Services.
    pub services: u32,
    /// Real servers.
    pub real_servers: u32,
    /// Next hops.
    pub neighbours: u32,
    /// Services that choose by hash.
    pub hash_services: u32,
    /// Ports.
    pub ports: u16,
}

/// Huge pages of 2 MiB an instance needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HugepagesNeeded {
    /// For EAL's memory (`dpdk_mb`).
    pub eal_pages: u64,
    /// For our tables.
    pub table_pages: u64,
}

impl HugepagesNeeded {
    /// Both together.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.eal_pages + self.table_pages
    }
}

impl TableSizes {
    /// The sizes a configuration asks for.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Self {
            slots: count(config.slot_homes().len()),
            sessions: config.node.sessions,
            sessions_ipv6: config.node.sessions_ipv6(),
            services: config.limits.services,
            real_servers: config.limits.real_servers,
            neighbours: config.limits.neighbours,
            hash_services: config.limits.hash_services,
            ports: count(config.ports.len()),
        }
    }
}

/// Huge pages a configuration needs; `table_bytes` tells the bytes of all table files (each already rounded to pages).
#[must_use]
pub fn hugepages_needed(config: &Config, table_bytes: impl FnOnce(TableSizes) -> u64) -> HugepagesNeeded {
    HugepagesNeeded {
        eal_pages: (u64::from(config.node.dpdk_mb) << 20).div_ceil(HUGE_PAGE),
        table_pages: table_bytes(TableSizes::of(config)).div_ceil(HUGE_PAGE),
    }
}

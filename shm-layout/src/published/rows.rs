//! The rows of the published tables, and what their bytes mean.

use crate::limits::{MAX_PORT_ADDRS, MAX_PORT_GATEWAYS, NAME_BYTES};
use crate::neighbours::Ip;
use crate::row;
use crate::session::TIMEOUTS;
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A name, NUL padded.
pub type Name = [AtomicU64; NAME_BYTES / 8];

/// Stores a name (cut at 32 bytes; config refuses longer ones).
pub fn store_name(to: &Name, name: &str) {
    for (i, word) in to.iter().enumerate() {
        let mut bytes = [0; 8];
        for (b, c) in bytes.iter_mut().zip(name.bytes().skip(i * 8)) {
            *b = c;
        }
        word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
}

/// Loads a name.
#[must_use]
pub fn load_name(from: &Name) -> String {
    let bytes: Vec<u8> = from.iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Shape: one line. Writer: control. Readers: all.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct RootRow {
    /// `generation << 8 | directory`; 0: nothing published yet.
    pub current: AtomicU64,
    /// Raised by 2 per publication, odd while node facts (ports, slots) are written: readers outside the quorum re-check.
    pub sequence: AtomicU64,
    /// Control's heartbeat, ms of CLOCK_BOOTTIME.
    pub control_ms: AtomicU64,
    /// Control's pid.
    pub control_pid: AtomicU64,
    /// Holder's heartbeat, ms. Holder writes.
    pub holder_ms: AtomicU64,
    /// Holder's pid. Holder writes.
    pub holder_pid: AtomicU64,
    reserved: [AtomicU64; 2],
}
row!(RootRow, size 64, align 64);

impl RootRow {
    /// `generation << 8 | directory` in force; 0: none.
    #[inline(always)]
    #[must_use]
    pub fn in_force(&self) -> u64 {
        // Pairs with the Release below: the directory and all rows it names are there.
        self.current.load(Ordering::Acquire)
    }

    /// Puts a generation in force. Control only.
    pub fn put_in_force(&self, number: u64, directory: usize) {
        self.current.store(number << 8 | directory as u64, Ordering::Release);
    }
}

/// An address with its prefix length (as if IPv6: an IPv4 /24 is 120).
#[repr(C)]
#[derive(Debug)]
pub struct AddressRow {
    /// See [`Ip`].
    pub ip: [AtomicU64; 2],
    /// Bits of the prefix, 0 = unused row.
    pub prefix: AtomicU64,
}
row!(AddressRow, size 24, align 8);

impl AddressRow {
    /// The address, or `None` in an unused row.
    #[must_use]
    pub fn get(&self) -> Option<(Ip, u8)> {
        let prefix = u8::try_from(self.prefix.load(Ordering::Relaxed)).ok().filter(|p| *p != 0)?;
        Some(([self.ip[0].load(Ordering::Relaxed), self.ip[1].load(Ordering::Relaxed)], prefix))
    }
    /// Is `ip` in this prefix?
    #[must_use]
    pub fn contains(&self, ip: Ip) -> bool {
        self.get().is_some_and(|(own, prefix)| {
            let (a, b) = (u128::from(own[0]) << 64 | u128::from(own[1]), u128::from(ip[0]) << 64 | u128::from(ip[1]));
            (a ^ b).leading_zeros() >= u32::from(prefix)
        })
    }
}

/// A port: facts that need a restart to change.
///
/// Shape: eight lines. Writer: control, before the first generation. Readers: workers, lbctl.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct PortRow {
    /// 1: in use.
    pub used: AtomicU32,
    /// DPDK's number of it.
    pub device: AtomicU32,
    /// First slot.
    pub first_slot: AtomicU32,
    /// Slots (queue pairs).
    pub slots: AtomicU32,
    /// MTU of IP packets, bytes.
    pub mtu: AtomicU32,
    /// VLAN tag, 0 none.
    pub vlan: AtomicU32,
    /// [`port_flag`] bits.
    pub flags: AtomicU32,
    /// Steering method shown to the user, see [`steering`].
    pub steering: AtomicU32,
    /// MAC, first octet lowest.
    pub mac: AtomicU64,
    /// Addresses of its own.
    pub addresses: [AddressRow; MAX_PORT_ADDRS],
    /// Gateways (prefix unused, 1 = present).
    pub gateways: [AddressRow; MAX_PORT_GATEWAYS],
    /// Name.
    pub name: Name,
    reserved: [AtomicU64; 6],
    reserved2: [AtomicU64; 8],
}
row!(PortRow, size 512, align 64);

/// Bits of [`PortRow::flags`].
pub mod port_flag {
    /// The port computes IPv4 header checksums on TX.
    pub const TX_IP_CHECKSUM: u32 = 1;
    /// The port computes TCP and UDP checksums on TX.
    pub const TX_L4_CHECKSUM: u32 = 2;
    /// Workers cannot poll it: I/O threads of the holder do.
    pub const PIPELINE: u32 = 4;
    /// Has a kernel interface.
    pub const KERNEL: u32 = 8;
}

/// Values of [`PortRow::steering`].
pub mod steering {
    /// The driver returns a flow to the queue that sent it (net_tap).
    pub const DRIVER: u32 = 0;
    /// A flow rule per local address.
    pub const FLOW_RULE: u32 = 1;
    /// Local ports chosen by RSS hash.
    pub const RSS_PORT: u32 = 2;
    /// Copying redirect alone.
    pub const REDIRECT: u32 = 3;
}

/// A slot: which queue, whose home.
///
/// Shape: half a line. Writer: control, before the first generation. Readers: workers, holder, lbctl.
#[repr(C, align(32))]
#[derive(Debug)]
pub struct SlotRow {
    /// 1: in use.
    pub used: AtomicU32,
    /// Port (our number).
    pub port: AtomicU32,
    /// Queue pair of that port.
    pub queue: AtomicU32,
    /// Zone whose worker serves it.
    pub zone: AtomicU32,
    /// CPU of the thread that serves it.
    pub cpu: AtomicU32,
    reserved: [AtomicU32; 3],
}
row!(SlotRow, size 32, align 32);

/// Forwarding modes, [`ServiceRow::mode`].
pub mod mode {
    /// Source and destination rewritten.
    pub const FULLNAT: u8 = 0;
    /// Destination rewritten; the servers reply by way of the appliance. From layout 1.1, as all that follow.
    pub const NAT: u8 = 1;
    /// Link addresses rewritten; the servers have the VIP and reply on their own.
    pub const DR: u8 = 2;
    /// Wrapped into packets to the servers, which have the VIP and reply on their own.
    pub const TUNNEL: u8 = 3;
}

/// Schedulers, [`ServiceRow::scheduler`].
pub mod scheduler {
    /// Round robin.
    pub const RR: u8 = 0;
    /// Weighted round robin, smooth.
    pub const WRR: u8 = 1;
    /// Least connections.
    pub const LC: u8 = 2;
    /// Least connections for its weight. From layout 1.1, as all that follow.
    pub const WLC: u8 = 3;
    /// By hash of the client's address.
    pub const SOURCE_IP: u8 = 4;
    /// By hash of the client's address and port.
    pub const SOURCE_IP_PORT: u8 = 5;
    /// By hash of the whole tuple.
    pub const MAGLEV: u8 = 6;
}

/// Administrative states, [`MemberRow::admin`].
pub mod admin {
    /// Takes sessions.
    pub const ENABLED: u8 = 0;
    /// Takes no new ones.
    pub const DRAIN: u8 = 1;
    /// Takes no new ones, old ones are ended.
    pub const DISABLED: u8 = 2;
    /// Removed: row stays until its last session is gone.
    pub const REMOVED: u8 = 3;
    /// Removed at once: old sessions are ended.
    pub const REMOVED_NOW: u8 = 4;
}

/// IP protocol numbers balanced.
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// A version of a service.
///
/// Shape: three lines. Writer: control, before the generation that names it. Readers: workers, lbctl. Units: ms.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ServiceRow {
    /// Id: never given again while a count for it is not 0.
    pub id: AtomicU32,
    /// Checksum of this row, its members and its sequence.
    pub checksum: AtomicU32,
    /// Virtual address.
    pub vip: [AtomicU64; 2],
    /// Virtual port.
    pub port: AtomicU16,
    /// [`protocol`].
    pub protocol: AtomicU8,
    /// [`mode`].
    pub mode: AtomicU8,
    /// [`scheduler`].
    pub scheduler: AtomicU8,
    /// [`service_flag`] bits.
    pub flags: AtomicU8,
    /// Reserved.
    pub reserved0: AtomicU16,
    /// First member row.
    pub first_member: AtomicU32,
    /// Members, removed ones included.
    pub members: AtomicU32,
    /// First place of the weighted sequence.
    pub first_step: AtomicU32,
    /// Places of the weighted sequence; 0 unless the scheduler needs one.
    pub steps: AtomicU32,
    /// Most sessions at once, 0 no limit.
    pub max_sessions: AtomicU32,
    /// Interval of the health check, ms: the window of the panic rule.
    pub check_interval_ms: AtomicU32,
    /// Timeout per state, ms.
    pub timeouts: [AtomicU32; TIMEOUTS],
    /// Choice table + 1; 0: none. From layout 1.1, as all but the name that follows.
    pub choice: AtomicU32,
    /// Checksum of the choice table.
    pub choice_sum: AtomicU32,
    /// How long a client's prefix keeps its server, ms; 0: it does not.
    pub persistence_ms: AtomicU32,
    /// Bits of the client's address that make its prefix (as if IPv6: an IPv4 /24 is 120).
    pub persistence_prefix: AtomicU32,
    /// Name.
    pub name: Name,
    /// Key of the choices by hash; 0: none.
    pub choice_key: [AtomicU64; 2],
    /// Reserved.
    pub reserved2: [AtomicU64; 4],
}
row!(ServiceRow, size 192, align 64, port @ 24, first_member @ 32, timeouts @ 56, choice @ 96, name @ 112,
    choice_key @ 144);

impl ServiceRow {
    /// The whole row but its checksum, for the checksum.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let own = [
            pair(&self.id, &self.first_member),
            bytes([&self.protocol, &self.mode, &self.scheduler, &self.flags]),
            halves([&self.port, &self.reserved0]),
            pair(&self.members, &self.first_step),
            pair(&self.steps, &self.max_sessions),
            u64::from(self.check_interval_ms.load(R)),
        ];
        let named = self.vip.iter().chain(&self.name);
        let longs = named.chain(&self.choice_key).chain(&self.reserved2).map(|w| w.load(R));
        let choices = [&self.choice, &self.choice_sum, &self.persistence_ms, &self.persistence_prefix];
        let shorts = self.timeouts.iter().chain(choices).map(|w| u64::from(w.load(R)));
        own.into_iter().chain(longs).chain(shorts)
    }
}

/// Bits of [`ServiceRow::flags`].
pub mod service_flag {
    /// Panic rule on.
    pub const PANIC: u8 = 1;
    /// Deleted: no new sessions, kept until the last session is gone.
    pub const REMOVED: u8 = 2;
    /// A client's prefix keeps its server. From layout 1.1.
    pub const PERSISTENT: u8 = 4;
    /// Every datagram is scheduled for itself, without a session (modes dr and tunnel). From layout 1.2; a worker that does not
    /// know it keeps sessions.
    pub const ONE_PACKET: u8 = 8;
}

/// A version of a real server within a service version.
///
/// Shape: one line. Writer: control, before the generation that names it. Readers: workers, lbctl.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct MemberRow {
    /// Id: row of the counts and of the health board.
    pub id: AtomicU32,
    /// Tag of the id's present use; the board's cell carries the same.
    pub tag: AtomicU32,
    /// Address.
    pub ip: [AtomicU64; 2],
    /// Port.
    pub port: AtomicU16,
    /// Weight.
    pub weight: AtomicU16,
    /// [`admin`].
    pub admin: AtomicU8,
    /// [`protocol`].
    pub protocol: AtomicU8,
    /// Reserved.
    pub reserved0: AtomicU16,
    /// Index of its service in the directory.
    pub service: AtomicU32,
    /// Reserved.
    pub reserved1: [AtomicU32; 7],
}
row!(MemberRow, size 64, align 64, port @ 24, service @ 32);

impl MemberRow {
    /// The whole row, for the checksum of its service.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let [a, b, c, d, e, f, g] = &self.reserved1;
        [
            pair(&self.id, &self.tag),
            self.ip[0].load(R),
            self.ip[1].load(R),
            halves([&self.port, &self.weight]),
            u64::from(self.reserved0.load(R)) << 16
                | u64::from(self.admin.load(R)) << 8
                | u64::from(self.protocol.load(R)),
            pair(&self.service, a),
            pair(b, c),
            pair(d, e),
            pair(f, g),
        ]
        .into_iter()
    }
}

/// A local address.
///
/// Shape: half a line. Writer: control. Readers: workers, lbctl.
#[repr(C, align(32))]
#[derive(Debug)]
pub struct LocalRow {
    /// Address.
    pub ip: [AtomicU64; 2],
    /// Port (ours) it is on.
    pub port: AtomicU32,
    /// First L4 port.
    pub low: AtomicU16,
    /// Last L4 port.
    pub high: AtomicU16,
    /// [`local_flag`] bits.
    pub flags: AtomicU32,
    reserved: AtomicU32,
}
row!(LocalRow, size 32, align 32);

impl LocalRow {
    /// The whole row, for the checksum of its directory.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let longs = self.ip.iter().map(|w| w.load(R));
        longs.chain([halves([&self.low, &self.high]), pair(&self.port, &self.flags), u64::from(self.reserved.load(R))])
    }
}

/// Bits of [`LocalRow::flags`].
pub mod local_flag {
    /// Removed from the configuration: no new sessions, still answered for while sessions use it.
    pub const REMOVED: u32 = 1;
}

/// Head of a directory.
///
/// Shape: one line. Writer: control. Readers: all.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct DirectoryRow {
    /// Generation; 0 while it is being written.
    pub generation: AtomicU64,
    /// Checksum over the head's counts and all arrays of the directory.
    pub checksum: AtomicU64,
    /// Places of `services` in use (holes are NONE).
    pub services: AtomicU32,
    /// Local addresses in use.
    pub locals: AtomicU32,
    /// Wall clock of the publication, seconds since 1970, for people.
    pub published_at: AtomicU64,
    /// [`directory_flag`] bits.
    pub flags: AtomicU64,
    reserved: [AtomicU64; 3],
}
row!(DirectoryRow, size 64, align 64);

impl DirectoryRow {
    /// The whole row but its checksum, for the checksum.
    pub(super) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let longs = [&self.generation, &self.published_at, &self.flags].into_iter().chain(&self.reserved);
        longs.map(|w| w.load(R)).chain([pair(&self.services, &self.locals)])
    }
}

/// Bits of [`DirectoryRow::flags`].
pub mod directory_flag {
    /// Some member is disabled or removed at once: slots sweep their sessions for it.
    pub const SWEEP: u64 = 1;
    /// Some service keeps its clients' addresses: a reply may be for any address. From layout 1.1.
    pub const NAT: u64 = 2;
}

/// Relaxed: sums are made of rows that nobody changes.
const R: Ordering = Ordering::Relaxed;

fn pair(high: &AtomicU32, low: &AtomicU32) -> u64 {
    u64::from(high.load(R)) << 32 | u64::from(low.load(R))
}

fn halves(words: [&AtomicU16; 2]) -> u64 {
    u64::from(words[0].load(R)) << 16 | u64::from(words[1].load(R))
}

fn bytes(words: [&AtomicU8; 4]) -> u64 {
    u64::from(u32::from_le_bytes(words.map(|w| w.load(R))))
}

//! The session record and the index bucket: one cache line each, settled byte by byte (docs/adr/0002-session-record.md);
//! the address line of those whose addresses do not fit in (docs/adr/0015-ipv6-sessions.md).

use crate::limits::BUCKET_KEYS;
use crate::row;
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A session. What is said of addresses here holds for IPv4; where [`flag::V6`] is set, see [`AddressLine`].
///
/// Shape: one cache line. Writer: the slot's owner. Readers: lbctl, other slots (read-only), successor.
/// Units: addresses and ports in host order; times in milliseconds of CLOCK_BOOTTIME, wrapping; sequence numbers as each
/// side's peer sees them *on the server's side of the ISN shift for the server, on the client's side for the client*.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct SessionRow {
    /// Client's address.
    pub client_ip: AtomicU32,
    /// Virtual address.
    pub vip: AtomicU32,
    /// Client's port.
    pub client_port: AtomicU16,
    /// Virtual port.
    pub vip_port: AtomicU16,
    /// Local address (FullNAT source towards the server).
    pub local_ip: AtomicU32,
    /// Real server's address.
    pub server_ip: AtomicU32,
    /// Local port.
    pub local_port: AtomicU16,
    /// Real server's port.
    pub server_port: AtomicU16,
    /// When a packet was last seen, ms.
    pub last_seen: AtomicU32,
    /// [`State`]; `FREE` when the record holds no session.
    pub state: AtomicU8,
    /// [`flag`] bits.
    pub flags: AtomicU8,
    /// Next hop towards the client, towards the server: rows of the neighbour table.
    pub hop: [AtomicU16; 2],
    /// Tags of these rows when they were taken: a recycled row is noticed.
    pub hop_tag: [AtomicU8; 2],
    /// Real server id.
    pub server_id: AtomicU32,
    /// Next record in the same wheel bucket or in the free list.
    pub link: AtomicU32,
    /// ISN shift added to what the client sends; the real server's address when [`flag::DIRECT`] is set.
    pub isn_shift: AtomicU32,
    /// Highest sequence end seen, client then server, in the sender's own numbers.
    pub end: [AtomicU32; 2],
    /// Highest ack sent, client then server, in the numbers of the peer it acknowledges, as that peer sent them. Begins at
    /// the peer's ISN + 1 as soon as that is known.
    pub ack: [AtomicU32; 2],
}
row!(SessionRow, size 64, align 64,
    client_ip @ 0, vip @ 4, client_port @ 8, vip_port @ 10, local_ip @ 12, server_ip @ 16, local_port @ 20,
    server_port @ 22, last_seen @ 24, state @ 28, flags @ 29, hop @ 30, hop_tag @ 34,
    server_id @ 36, link @ 40, isn_shift @ 44, end @ 48, ack @ 56);

impl SessionRow {
    fn is_direct(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & flag::DIRECT != 0 // Relaxed, here and below: see the row's writer.
    }

    /// What is added to the client's numbers; 0 where nothing is translated.
    #[inline]
    #[must_use]
    pub fn shift(&self) -> u32 {
        if self.is_direct() { 0 } else { self.isn_shift.load(Ordering::Relaxed) }
    }

    /// Whom the client's packets are sent to: the server side's address, but where that is the VIP ([`flag::DIRECT`]).
    #[inline]
    #[must_use]
    pub fn real_server(&self) -> u32 {
        if self.is_direct() { &self.isn_shift } else { &self.server_ip }.load(Ordering::Relaxed)
    }
}

/// Bits of [`SessionRow::flags`].
pub mod flag {
    /// UDP, else TCP.
    pub const UDP: u8 = 1;
    /// The client's side is IPv6, and the server's unless [`TUNNEL`] is set without [`DIRECT`] (NAT64). Of wide records only
    /// ([`AddressLine`](super::AddressLine)). From layout 1.2; before, the bit was kept for another use and never set.
    pub const V6: u8 = 2;
    /// Client has sent FIN.
    pub const CLIENT_FIN: u8 = 4;
    /// Server has sent FIN.
    pub const SERVER_FIN: u8 = 8;
    /// Keys are in the index. Clear: the record waits for the wheel to let go of it.
    pub const INDEXED: u8 = 16;
    /// Counted as active at its server.
    pub const COUNTED: u8 = 32;
    /// Only the client's packets come by, and only their link changes (mode dr). Local and server side are the client and the
    /// VIP once more, so that nothing is translated and both keys are the connection's own; the real server's address stands
    /// in `isn_shift`, its port is the VIP's. From layout 1.1.
    pub const DIRECT: u8 = 64;
    /// And they are wrapped into packets to the real server (mode tunnel). From layout 1.1. With [`V6`] and without [`DIRECT`]:
    /// the server's side is IPv4 (NAT64). From layout 1.2.
    pub const TUNNEL: u8 = 128;

    /// Flags of a NAT64 session, among [`V6`], [`DIRECT`] and [`TUNNEL`].
    pub const NAT64: u8 = V6 | TUNNEL;

    /// Is the client's side, is the server's side of a record with these flags IPv6?
    #[inline(always)]
    #[must_use]
    pub const fn sides_v6(flags: u8) -> [bool; 2] {
        let v6 = flags & V6 != 0;
        [v6, v6 && flags & (V6 | DIRECT | TUNNEL) != NAT64]
    }
}

/// The addresses of a wide record, whole: IPv4 ones as `::ffff:a.b.c.d` ([`Ip`](crate::neighbours::Ip)). From layout 1.2.
///
/// Wide are the records behind those for IPv4, `geometry.sessions..`: sessions of IPv6, of NAT64, and of IPv4 in a tunnel to an
/// IPv6 server. In their [`SessionRow`] the two address words of a side that is IPv6 hold a keyed hash of both its addresses,
/// in the order of the packets that side *sends*: `client_ip << 32 | vip` of (client, VIP), `server_ip << 32 | local_ip` of
/// (server, local), of a direct one (VIP, client). So keys, index and wheel need the row alone; whoever has found one by its key
/// compares the line.
///
/// Shape: one cache line. Writer: the slot's owner, before the record's keys are put in. Readers: as of the record.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct AddressLine {
    /// Client.
    pub client: [AtomicU64; 2],
    /// Virtual address.
    pub vip: [AtomicU64; 2],
    /// Local address; the client where its address is kept.
    pub local: [AtomicU64; 2],
    /// Real server: whom the client's packets are sent to, in every mode.
    pub server: [AtomicU64; 2],
}
row!(AddressLine, size 64, align 64, client @ 0, vip @ 16, local @ 32, server @ 48);

/// Heads of the wide records, as [`TableRow`](crate::slot::TableRow) has them of the others. From layout 1.2.
///
/// Shape: one line. Writer: owner. Readers: lbctl, successor. Record numbers are those of the whole table.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct WideHead {
    /// First free record that was used before, or NONE.
    pub free: AtomicU32,
    /// First record never used.
    pub fresh: AtomicU32,
    reserved: [AtomicU32; 14],
}
row!(WideHead, size 64, align 64);

/// Where a session stands. Order: index of [`ServiceRow::timeouts`](crate::published::ServiceRow::timeouts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// No session in the record.
    Free = 0,
    /// SYN forwarded.
    SynSent = 1,
    /// SYN-ACK forwarded.
    SynRecv = 2,
    /// Handshake complete.
    Established = 3,
    /// One side has sent FIN.
    FinWait = 4,
    /// The FIN is acknowledged, the other side may still send.
    CloseWait = 5,
    /// Both have sent FIN.
    LastAck = 6,
    /// Both FINs acknowledged.
    TimeWait = 7,
    /// Reset.
    Close = 8,
    /// UDP.
    Udp = 9,
}

impl State {
    /// All states that a live session may have.
    pub const ALL: [Self; 10] = [
        Self::Free,
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::Udp,
    ];
    /// Of a byte in a record; `None` when damaged.
    #[inline]
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
    /// Name in `session list`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::SynSent => "syn-sent",
            Self::SynRecv => "syn-recv",
            Self::Established => "established",
            Self::FinWait => "fin-wait",
            Self::CloseWait => "close-wait",
            Self::LastAck => "last-ack",
            Self::TimeWait => "time-wait",
            Self::Close => "close",
            Self::Udp => "udp",
        }
    }
}

/// Timeouts a service carries: one per [`State`].
pub const TIMEOUTS: usize = State::ALL.len();

/// A bucket of the session index.
///
/// Shape: one cache line. Writer: the slot's owner. Readers: owner, other slots (read-only). Tag 0 = empty place.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct BucketRow {
    /// High bits of the key's hash, never 0.
    pub tags: [AtomicU16; BUCKET_KEYS],
    /// Session record of each tag.
    pub records: [AtomicU32; BUCKET_KEYS],
    /// Keys whose first bucket this is and that lie in their second: 0 spares a lookup the second line.
    pub overflow: AtomicU32,
}
row!(BucketRow, size 64, align 64, tags @ 0, records @ 20, overflow @ 60);

/// Extension record, for SYN proxy, PROXY v2 and timestamp translation: its place is reserved, its words are settled
/// with the features that need it. Shape: one cache line. Writer: the slot's owner.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ExtensionRow {
    /// ISN shift of the session (its own word holds this record's index).
    pub isn_shift: AtomicU32,
    /// The session it belongs to, for recovery.
    pub session: AtomicU32,
    /// Next free extension record.
    pub link: AtomicU32,
    /// Reserved.
    pub reserved: [AtomicU32; 13],
}
row!(ExtensionRow, size 64, align 64);

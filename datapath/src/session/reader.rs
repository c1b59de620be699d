//! A slot's sessions as others see them: read-only, while the owner writes.
//!
//! A record is copied twice, flags first, with an Acquire fence between; two equal copies that are in the index are a
//! session that was there. (Tuples change only while the flags say "not in the index", and the owner stores in program
//! order.)

use arch::HashKey;
use shm_layout::neighbours::{Ip, ip4};
use shm_layout::session::{AddressLine, SessionRow, State, flag};
use shm_layout::slot::Slot;
use shm_layout::sync::{AtomicU32, Ordering, fence};

use super::index::Index;
use super::key::{Direction, Key, Wanted, ends_of, protocol_of_flags};

/// Copies of a record made at most.
const COPIES: usize = 4;
/// Searches for a key: a key on its way between its two buckets may be missed once.
const SEARCHES: usize = 2;

/// A session as it was at some instant. Addresses of either family; else units as in [`SessionRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Client's address.
    pub client_ip: Ip,
    /// Client's port.
    pub client_port: u16,
    /// Virtual address.
    pub vip: Ip,
    /// Virtual port.
    pub vip_port: u16,
    /// Local address.
    pub local_ip: Ip,
    /// Local port.
    pub local_port: u16,
    /// Real server's address.
    pub server_ip: Ip,
    /// Real server's port.
    pub server_port: u16,
    /// Whom the client's packets are sent to: `server_ip`, but where that is the VIP ([`flag::DIRECT`]).
    pub real_ip: Ip,
    /// IP protocol.
    pub protocol: u8,
    /// State.
    pub state: State,
    /// [`flag`] bits.
    pub flags: u8,
    /// When a packet was last seen, ms, wrapping.
    pub last_seen: u32,
    /// Real server id.
    pub server_id: u32,
    /// What its client sends, what its server sends.
    keys: [Key; 2],
}

impl Session {
    fn copy(row: &SessionRow, line: Option<&AddressLine>) -> Option<Self> {
        // Acquire: flags that say "in the index" come with the tuples that were put in.
        let flags = row.flags.load(Ordering::Acquire);
        let r = Ordering::Relaxed; // Relaxed: the copies are compared, with a fence between.
        let direct = flags & flag::DIRECT != 0;
        let word = |word: &AtomicU32| ip4(word.load(r));
        let (client, server, real_ip) = match line {
            None => {
                let real = if direct { &row.isn_shift } else { &row.server_ip };
                ([word(&row.client_ip), word(&row.vip)], [word(&row.server_ip), word(&row.local_ip)], word(real))
            }
            Some(line) => {
                let [client, server] = [Direction::Client, Direction::Server].map(|side| ends_of(line, direct, side));
                (client, server, line.server.each_ref().map(|word| word.load(r)))
            }
        };
        Some(Self {
            real_ip,
            client_ip: client[0],
            client_port: row.client_port.load(r),
            vip: client[1],
            vip_port: row.vip_port.load(r),
            local_ip: server[1],
            local_port: row.local_port.load(r),
            server_ip: server[0],
            keys: [Key::client_of(row), Key::server_of(row)],
            server_port: row.server_port.load(r),
            protocol: protocol_of_flags(flags),
            state: State::of(row.state.load(r)).filter(|state| *state != State::Free)?,
            flags,
            last_seen: row.last_seen.load(r),
            server_id: row.server_id.load(r),
        })
    }

    /// Milliseconds without a packet.
    #[must_use]
    pub const fn idle_ms(&self, now_ms: u64) -> u32 {
        super::wheel::idle(self.last_seen, now_ms)
    }

    /// What its client sends, what its server sends.
    #[must_use]
    pub const fn keys(&self) -> [Key; 2] {
        self.keys
    }

    /// From, to, of what its client sends, of what its server sends.
    const fn ends(&self) -> [[Ip; 2]; 2] {
        [[self.client_ip, self.vip], [self.server_ip, self.local_ip]]
    }

    /// Who sends such packets.
    #[must_use]
    pub fn side(&self, wanted: impl Wanted) -> Option<Direction> {
        let sides = [Direction::Client, Direction::Server].into_iter().zip(self.keys).zip(self.ends());
        let is = |key, ends| key == wanted.key() && wanted.ends().is_none_or(|wanted| wanted == ends);
        sides.into_iter().find_map(|((side, key), ends)| is(key, ends).then_some(side))
    }
}

/// Read-only view of any slot's sessions. Writes nothing, so a read-only mapping will do.
#[derive(Clone, Debug)]
pub struct SessionReader {
    pub(super) slot: Slot,
    pub(super) index: Index,
}

impl SessionReader {
    /// A view of `slot`; the key is the appliance's ([`SecretsRow::hash_key`](shm_layout::secrets::SecretsRow::hash_key)).
    #[must_use]
    pub fn new(slot: Slot, key: HashKey) -> Self {
        let index = Index::new(&slot, key);
        Self { slot, index }
    }

    /// The slot's tables.
    #[must_use]
    pub const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The session of a key and who sends it.
    #[must_use]
    pub fn find(&self, wanted: impl Wanted) -> Option<(u32, Direction, Session)> {
        let hash = self.index.hash(wanted.key());
        (0..SEARCHES).find_map(|_| {
            fence(Ordering::Acquire); // Pairs with the owner's Release stores: a second search reads anew.
            let found = self.index.search(wanted, hash, |_, _| ())?;
            let session = self.get(found.record)?;
            session.side(wanted).map(|direction| (found.record, direction, session))
        })
    }

    /// A record's session; `None`: none in the index, or it changed all the while.
    #[must_use]
    pub fn get(&self, record: u32) -> Option<Session> {
        let row = self.slot.sessions.get(record as usize)?;
        let line = self.slot.line(record);
        let mut seen = Session::copy(row, line);
        for _ in 1..COPIES {
            fence(Ordering::Acquire); // Pairs with the owner's Release stores.
            let again = Session::copy(row, line);
            match (seen, again) {
                (Some(a), Some(b)) if a.settled() == b.settled() => return Some(b).filter(Self::indexed),
                (None, None) => return None,
                _ => seen = again,
            }
        }
        None
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "shape of a filter")]
    const fn indexed(session: &Session) -> bool {
        session.flags & flag::INDEXED != 0
    }

    /// All sessions, each record once; sessions that begin or end meanwhile may or may not be among them.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Session)> + '_ {
        self.slot.used().into_iter().flatten().filter_map(|record| Some((record, self.get(record)?)))
    }
}

impl Session {
    /// What may not change between two copies: all but what each packet stores.
    const fn settled(&self) -> ([Key; 2], [[Ip; 2]; 2], Ip, u8, u32) {
        (self.keys, self.ends(), self.real_ip, self.flags & flag::INDEXED, self.server_id)
    }
}

//! A slot's sessions as others see them: read-only, while the owner writes.
//!
//! A record is copied twice, flags first, with an Acquire fence between; two equal copies that are in the index are a
//! session that was there. (Tuples change only while the flags say "not in the index", and the owner stores in program
//! order.)

use arch::HashKey;
use shm_layout::session::{SessionRow, State, flag};
use shm_layout::slot::Slot;
use shm_layout::sync::{Ordering, fence};

use super::index::Index;
use super::key::{Direction, Key, protocol_of_flags};

/// Copies of a record made at most.
const COPIES: usize = 4;
/// Searches for a key: a key on its way between its two buckets may be missed once.
const SEARCHES: usize = 2;

/// A session as it was at some instant. Units as in [`SessionRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Client's address.
    pub client_ip: u32,
    /// Client's port.
    pub client_port: u16,
    /// Virtual address.
    pub vip: u32,
    /// Virtual port.
    pub vip_port: u16,
    /// Local address.
    pub local_ip: u32,
    /// Local port.
    pub local_port: u16,
    /// Real server's address.
    pub server_ip: u32,
    /// Real server's port.
    pub server_port: u16,
    /// Whom the client's packets are sent to: `server_ip`, but where that is the VIP ([`flag::DIRECT`]).
    pub real_ip: u32,
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
}

impl Session {
    fn copy(row: &SessionRow) -> Option<Self> {
        // Acquire: flags that say "in the index" come with the tuples that were put in.
        let flags = row.flags.load(Ordering::Acquire);
        let r = Ordering::Relaxed; // Relaxed: the copies are compared, with a fence between.
        let real_ip = if flags & flag::DIRECT == 0 { &row.server_ip } else { &row.isn_shift };
        Some(Self {
            real_ip: real_ip.load(r),
            client_ip: row.client_ip.load(r),
            client_port: row.client_port.load(r),
            vip: row.vip.load(r),
            vip_port: row.vip_port.load(r),
            local_ip: row.local_ip.load(r),
            local_port: row.local_port.load(r),
            server_ip: row.server_ip.load(r),
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
        [
            Key::new(self.client_ip, self.client_port, self.vip, self.vip_port, self.protocol),
            Key::new(self.server_ip, self.server_port, self.local_ip, self.local_port, self.protocol),
        ]
    }

    /// Who sends packets of this key.
    #[must_use]
    pub fn side(&self, key: Key) -> Option<Direction> {
        let [client, server] = self.keys();
        if key == client { Some(Direction::Client) } else { (key == server).then_some(Direction::Server) }
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
    pub fn find(&self, key: Key) -> Option<(u32, Direction, Session)> {
        let hash = self.index.hash(key);
        (0..SEARCHES).find_map(|_| {
            fence(Ordering::Acquire); // Pairs with the owner's Release stores: a second search reads anew.
            let found = self.index.search(key, hash, |_, _| ())?;
            let session = self.get(found.record)?;
            session.side(key).map(|direction| (found.record, direction, session))
        })
    }

    /// A record's session; `None`: none in the index, or it changed all the while.
    #[must_use]
    pub fn get(&self, record: u32) -> Option<Session> {
        let row = self.slot.sessions.get(record as usize)?;
        let mut seen = Session::copy(row);
        for _ in 1..COPIES {
            fence(Ordering::Acquire); // Pairs with the owner's Release stores.
            let again = Session::copy(row);
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
        let fresh = self.slot.table.fresh.load(Ordering::Relaxed) as usize; // Relaxed: a bound, checked below.
        let end = u32::try_from(fresh.min(self.slot.sessions.len())).unwrap_or(0);
        (0..end).filter_map(|record| Some((record, self.get(record)?)))
    }
}

impl Session {
    /// What may not change between two copies: all but what each packet stores.
    const fn settled(&self) -> ([Key; 2], u8, u32) {
        (self.keys(), self.flags & flag::INDEXED, self.server_id)
    }
}

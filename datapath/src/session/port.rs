//! Local ports without a port table: one is free for a server iff the reply key is not in the index.
//!
//! The key is the server's address, port and protocol, whatever the service: a port serves as many servers as there are.
//! Candidates come from a keyed generator, so the next port cannot be foretold (RFC 6056 asks for that).

use std::sync::atomic::Ordering;

use arch::HashKey;
use shm_layout::failpoint::Op;
use shm_layout::neighbours::Ip;
use shm_layout::published::owner_slot;

use super::SessionTable;
use super::key::{Key, Tuple, Wanted};
use super::store::failpoint;

/// Random candidates before neighbours are tried in order.
const RANDOM_TRIES: u64 = 32;
/// Candidates in order after them: finds the last free ports of a nearly exhausted range.
const LINEAR_TRIES: u64 = 224;
/// Candidates whose buckets are asked for at once.
const GROUP: usize = 8;

/// An address that packets are looked up by: IPv4 as `u32`, IPv6 as [`Ip`].
pub trait Address: Copy {
    /// What a packet between two of them is looked up by.
    type Wanted: Wanted;
    /// Of source and destination with their ports.
    fn wanted(source: (Self, u16), destination: (Self, u16), protocol: u8, key: &HashKey) -> Self::Wanted;
    /// Some bits of it.
    fn salt(self) -> u64;
}

impl Address for u32 {
    type Wanted = Key;
    #[inline(always)]
    fn wanted(source: (Self, u16), destination: (Self, u16), protocol: u8, _key: &HashKey) -> Key {
        Key::new(source.0, source.1, destination.0, destination.1, protocol)
    }
    fn salt(self) -> u64 {
        self.into()
    }
}

impl Address for Ip {
    type Wanted = Tuple;
    fn wanted(source: (Self, u16), destination: (Self, u16), protocol: u8, key: &HashKey) -> Tuple {
        Tuple::new([source.0, destination.0], source.1, destination.1, protocol, key)
    }
    fn salt(self) -> u64 {
        self[0].rotate_left(32) ^ self[1]
    }
}

/// Ports of a local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRange<A = u32> {
    /// Address.
    pub ip: A,
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
}

/// A local address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local<A = u32> {
    /// Address.
    pub ip: A,
    /// Port.
    pub port: u16,
    /// Hash of the reply key.
    pub hash: u64,
}

/// The slot's part of some address's ports: `start, start + step, …`.
#[derive(Clone, Copy, Debug)]
struct Part<A> {
    ip: A,
    start: u16,
    /// Candidates of all parts before this one.
    before: u64,
}

/// All candidates of one slot, numbered from 0. Made once per generation; drawing allocates nothing.
#[derive(Clone, Debug)]
pub struct LocalPool<A = u32> {
    parts: Vec<Part<A>>,
    len: u64,
    slots: u32,
}

impl<A: Copy> LocalPool<A> {
    /// The ports of `ranges` that belong to `slot` of `slots` ([`owner_slot`]).
    #[must_use]
    pub fn new(ranges: &[LocalRange<A>], slot: u32, slots: u32) -> Self {
        let slots = slots.max(1);
        let mut pool = Self { parts: Vec::with_capacity(ranges.len()), len: 0, slots };
        for range in ranges {
            let first = (range.low..=range.high).take(slots as usize).find(|port| owner_slot(*port, slots) == slot);
            if let Some(start) = first {
                pool.parts.push(Part { ip: range.ip, start, before: pool.len });
                pool.len += u64::from((range.high - start) / u16::try_from(slots).unwrap_or(u16::MAX)) + 1;
            }
        }
        pool
    }

    /// Candidates.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// No candidate at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The candidate of a number below [`len`](Self::len): address and port.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<(A, u16)> {
        if number >= self.len {
            return None;
        }
        let part = self.parts.get(self.parts.partition_point(|part| part.before <= number).checked_sub(1)?)?;
        let port = u64::from(part.start) + (number - part.before) * u64::from(self.slots);
        Some((part.ip, u16::try_from(port).ok()?))
    }
}

impl SessionTable {
    /// A local address and port free for sessions with a server: 32 random candidates, then 224 in order from a random one.
    /// `None`: none of them free (`no_port`).
    pub fn pick_port<A: Address>(
        &mut self,
        pool: &LocalPool<A>,
        server_ip: A,
        server_port: u16,
        protocol: u8,
    ) -> Option<Local<A>> {
        if pool.is_empty() {
            return None;
        }
        let _op = failpoint::enter(Op::Port);
        let server = server_ip.salt() << 16 | u64::from(server_port);
        let reply = |number: u64| {
            let (ip, port) = pool.get(number)?;
            let wanted = A::wanted((server_ip, server_port), (ip, port), protocol, &self.index.key);
            Some((wanted, Local { ip, port, hash: self.index.hash(wanted.key()) }))
        };
        // The first candidate is nearly always free: it goes alone.
        let (key, local) = reply(self.draw(server, pool.len))?;
        if self.find_hashed(key, local.hash).is_none() {
            return Some(local);
        }
        let random = (1..RANDOM_TRIES).map(|_| self.draw(server, pool.len));
        let start = self.draw(server, pool.len);
        let linear = (0..LINEAR_TRIES.min(pool.len)).map(|step| (start + step) % pool.len);
        let mut numbers = random.chain(linear);
        loop {
            let mut group = [None; GROUP];
            for (to, number) in group.iter_mut().zip(&mut numbers) {
                *to = reply(number);
                if let Some((_, local)) = to {
                    self.prefetch_bucket(local.hash);
                }
            }
            group[0]?;
            let mut candidates = group.into_iter().flatten();
            if let Some((_, local)) = candidates.find(|(key, local)| self.find_hashed(*key, local.hash).is_none()) {
                return Some(local);
            }
        }
    }

    /// The next random number below `n`. The state is a counter; what comes out is the counter under the secret port key.
    fn draw(&self, salt: u64, n: u64) -> u64 {
        let state = &self.slot.table.random;
        let next = state.load(Ordering::Relaxed).wrapping_add(1); // Relaxed: own data, any value will do after a crash.
        state.store(next, Ordering::Relaxed);
        failpoint::store();
        let random = arch::keyed_hash(next, salt, &self.port_key);
        let product = u128::from(random) * u128::from(n);
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

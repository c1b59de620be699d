//! Sessions begin and end.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arch::HashKey;
use shm_layout::failpoint::Op;
use shm_layout::limits::NONE;
use shm_layout::neighbours::{Ip, as_v4};
use shm_layout::published::protocol;
use shm_layout::session::{AddressLine, SessionRow, State, flag};

use super::intent::{Counts, Place, Plan};
use super::key::{Direction, IPV6, Key, Own, Tuple, hash_of_ends, tag};
use super::store::{Put, failpoint};
use super::{SessionTable, some, wrapped};

/// Everything a new session's record holds. Units as in [`SessionRow`].
#[derive(Clone, Copy, Debug)]
pub struct New {
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
    /// UDP, else TCP.
    pub udp: bool,
    /// What the client sends is wrapped ([`flag::TUNNEL`]).
    pub tunnel: bool,
    /// First state, not `Free`.
    pub state: State,
    /// Next hop towards the client, and its tag.
    pub client_hop: u16,
    /// See above.
    pub client_hop_tag: u8,
    /// Next hop towards the server, and its tag.
    pub server_hop: u16,
    /// See above.
    pub server_hop_tag: u8,
    /// Real server id: the row it is counted in; NONE: counted nowhere.
    pub server_id: u32,
    /// Tag of that id's present use.
    pub server_tag: u32,
    /// Service index (place in the directory) it is counted in.
    pub service: u32,
    /// Id of that service.
    pub service_id: u32,
    /// ISN shift; of a direct session the real server's address.
    pub isn_shift: u32,
    /// Highest sequence end: client, server.
    pub end: [u32; 2],
    /// Highest ack: client, server.
    pub ack: [u32; 2],
    /// Now, ms.
    pub now_ms: u64,
    /// Timeout of the first state, ms.
    pub timeout_ms: u32,
    /// Of a wide record: what does not fit into the row.
    pub wide: Option<Wide>,
}

/// What a wide record has in its line ([`AddressLine`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    /// Client's address.
    pub client: Ip,
    /// Virtual address.
    pub vip: Ip,
    /// Local address; the client where its address is kept.
    pub local: Ip,
    /// Whom the client's packets are sent to.
    pub server: Ip,
    /// Nothing is translated ([`flag::DIRECT`]).
    pub direct: bool,
}

impl Wide {
    /// What its client, what its server sends: from, to.
    #[must_use]
    pub const fn ends(&self) -> [[Ip; 2]; 2] {
        let back = if self.direct { [self.vip, self.client] } else { [self.server, self.local] };
        [[self.client, self.vip], back]
    }

    /// The row's address words: client, VIP, local, server.
    #[must_use]
    pub fn words(&self, hash: &HashKey) -> [u32; 4] {
        let [[client, vip], [server, local]] = self.ends().map(|ends| match ends.map(as_v4) {
            [Some(source), Some(destination)] => [source, destination],
            _ => {
                let hash = hash_of_ends(ends, hash);
                #[allow(clippy::cast_possible_truncation, reason = "its halves")]
                [(hash >> 32) as u32, hash as u32]
            }
        });
        [client, vip, local, server]
    }

    /// [`flag::V6`], [`flag::DIRECT`], and what says NAT64.
    const fn flags(&self) -> u8 {
        let direct = if self.direct { flag::DIRECT } else { 0 };
        match (as_v4(self.client), as_v4(self.server), self.direct) {
            (Some(_), ..) => direct,
            (None, Some(_), false) => flag::NAT64,
            _ => flag::V6 | direct,
        }
    }
}

impl New {
    /// IP protocol.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        if self.udp { protocol::UDP } else { protocol::TCP }
    }

    /// Nothing is translated ([`flag::DIRECT`]): the server side is the VIP itself, which is no server's address otherwise.
    #[must_use]
    pub const fn direct(&self) -> bool {
        match self.wide {
            Some(wide) => wide.direct,
            None => self.server_ip == self.vip && self.server_port == self.vip_port,
        }
    }

    /// Flags that do not change.
    const fn flags(&self) -> u8 {
        let udp = if self.udp { flag::UDP } else { 0 };
        let tunnel = if self.tunnel { flag::TUNNEL } else { 0 };
        let kind = match self.wide {
            Some(wide) => wide.flags(),
            None if self.direct() => flag::DIRECT,
            None => 0,
        };
        udp | tunnel | kind
    }

    /// What the client sends.
    #[must_use]
    pub const fn client_key(&self) -> Key {
        let key = Key::new(self.client_ip, self.client_port, self.vip, self.vip_port, self.protocol());
        Key { b: key.b | if flag::sides_v6(self.flags())[0] { IPV6 } else { 0 }, ..key }
    }

    /// What the server sends.
    #[must_use]
    pub const fn server_key(&self) -> Key {
        let key = Key::new(self.server_ip, self.server_port, self.local_ip, self.local_port, self.protocol());
        Key { b: key.b | if flag::sides_v6(self.flags())[1] { IPV6 } else { 0 }, ..key }
    }
}

/// Why a session cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// No free record.
    #[error(
        "all {0} session records of the slot are in use: raise `sessions` (of IPv6: `sessions_ipv6`) or shorten the timeouts"
    )]
    TableFull(u32),
    /// No room for a key within the bounded search.
    #[error("no room for a key in the session index: it is loaded beyond what it was sized for")]
    IndexFull,
    /// One of its keys belongs to a living session.
    #[error("a session with this tuple exists")]
    Exists,
}

/// A record about to be used.
struct Fresh {
    record: u32,
    /// Head of the free list afterwards.
    free: u32,
    /// Never used before: the mark of fresh records moves on instead.
    fresh: bool,
}

impl SessionTable {
    /// Begins a session: record, both keys, wheel, counters.
    ///
    /// The record is visited by the wheel after at most 2 s, so that what ends at once does not hold its record long.
    ///
    /// # Errors
    /// See [`CreateError`]; nothing has changed that could be seen.
    pub fn create(&mut self, new: &New) -> Result<u32, CreateError> {
        let _op = failpoint::enter(Op::Create);
        let keys = [new.client_key(), new.server_key()];
        let hashes = keys.map(|key| self.index.hash(key));
        self.prefetch_bucket(hashes[1]);
        let known = match &new.wide {
            None => self.find_hashed(keys[0], hashes[0]).or_else(|| self.find_hashed(keys[1], hashes[1])),
            Some(wide) => self.find_wide(wide, keys, hashes),
        };
        if known.is_some() || keys[0] == keys[1] {
            return Err(CreateError::Exists);
        }
        let Fresh { record, free, fresh } = self.next_record(new.wide.is_some())?;
        if !self.index.distinct(hashes) {
            return Err(CreateError::IndexFull);
        }
        let client = self.make_room(hashes[0], NONE).ok_or(CreateError::IndexFull)?;
        let server = self.make_room(hashes[1], client.at).ok_or(CreateError::IndexFull)?;
        let slot = &self.slot;
        let row = slot.sessions.get(record as usize).ok_or(CreateError::IndexFull)?;
        new.write(row);
        if let Some(wide) = &new.wide {
            wide.write(slot.line(record).ok_or(CreateError::IndexFull)?);
        }
        self.claim_counts((new.server_id, new.server_tag), (new.service, new.service_id));

        let wheel = self.first_visit(new.now_ms, new.timeout_ms);
        let link = slot.wheel.get(wheel as usize).map_or(NONE, |head| head.load(Ordering::Relaxed));
        let counted = if new.server_id == NONE { 0 } else { flag::COUNTED };
        let service = if new.server_id == NONE { NONE } else { self.service_of(new.server_id) };
        let (places, tags) = ([client, server], hashes.map(tag));
        let mut counts = self.counts(places, new.server_id, service);
        for (i, place) in places.iter().enumerate().filter(|(_, place)| place.over != NONE) {
            counts.over[i] = counts.over[i].wrapping_add(1);
            if i == 0 && server.over == place.over {
                counts.over[1] = counts.over[0]; // Both keys overflow from one bucket: the second counts on from here.
            }
        }
        for count in [
            &mut counts.server_active,
            &mut counts.server_total,
            &mut counts.service_active,
            &mut counts.service_total,
            &mut counts.active,
            &mut counts.records,
            &mut counts.created,
        ] {
            *count = count.wrapping_add(1);
        }
        let (state, flags) = (new.state as u8, new.flags() | counted | flag::INDEXED);
        let plan =
            Plan::create(record, places, tags, wheel, link, free, fresh, state, flags, new.server_id, service, counts);
        if !plan.run(slot) {
            return Err(CreateError::IndexFull); // Cannot be: every number in it came from a bounded lookup above.
        }
        Ok(record)
    }

    /// Ends a session: its keys leave the index at once (the local port is free again), its counters go down. The record
    /// stays until the wheel lets go of it. `false`: it had ended before.
    pub fn close(&mut self, record: u32) -> bool {
        let _op = failpoint::enter(Op::Close);
        let Some(row) = self.slot.sessions.get(record as usize) else { return false };
        let flags = row.flags.load(Ordering::Relaxed); // Relaxed, here and below: own data.
        if flags & flag::INDEXED == 0 {
            return false;
        }
        let places = [Key::client_of(row), Key::server_of(row)].map(|key| {
            let found = self.index.search(Own { key, record }, self.index.hash(key), |_, _| self.quarantined());
            found.map_or_else(
                || {
                    self.quarantined(); // Its record or its place is damaged; the rest of it still ends in order.
                    Place::NOWHERE
                },
                |found| found.place,
            )
        });
        let counted = flags & flag::COUNTED != 0;
        let server = if counted { row.server_id.load(Ordering::Relaxed) } else { NONE };
        let service = if counted { self.service_of(server) } else { NONE };
        let mut counts = self.counts(places, server, service);
        for (i, place) in places.iter().enumerate().filter(|(_, place)| place.over != NONE) {
            counts.over[i] = counts.over[i].wrapping_sub(1);
            if i == 0 && places[1].over == place.over {
                counts.over[1] = counts.over[0];
            }
        }
        let servers = self.slot.servers.get(server as usize).map(|row| &row.active);
        let services = self.slot.services.get(service as usize).map(|row| &row.active);
        let active = [servers, services, Some(&self.slot.table.active)];
        let lows = [&mut counts.server_active, &mut counts.service_active, &mut counts.active];
        for (word, low) in active.into_iter().zip(lows) {
            match word.map(|word| word.load(Ordering::Relaxed)) {
                Some(0) => self.quarantined(), // A damaged count stays 0 instead of becoming 4 billion.
                _ => *low = low.wrapping_sub(1),
            }
        }
        counts.ended = counts.ended.wrapping_add(1);
        let state = row.state.load(Ordering::Relaxed);
        let flags = flags & !(flag::INDEXED | flag::COUNTED);
        Plan::close(record, places, state, flags, server, service, counts).run(&self.slot)
    }

    /// Ends a session whose record, found by its key, says that it is not indexed: only damage does both. It leaves like any
    /// other, keys and counts included. `true`: it was damaged.
    pub fn end_damaged(&mut self, record: u32) -> bool {
        let Some(row) = self.slot.sessions.get(record as usize) else { return false };
        let flags = row.flags.load(Ordering::Relaxed); // Relaxed: own data.
        if flags & flag::INDEXED != 0 {
            return false;
        }
        self.quarantined();
        row.flags.put(flags | flag::INDEXED);
        self.close(record)
    }

    /// First record of the free list, else the first never used.
    fn next_record(&self, wide: bool) -> Result<Fresh, CreateError> {
        let ((free, fresh), range) = (self.slot.heads(wide), self.slot.records(wide));
        let fresh = fresh.load(Ordering::Relaxed);
        if range.is_empty() {
            return Err(CreateError::TableFull(0));
        }
        if let Some(record) = some(free.load(Ordering::Relaxed)) {
            let row = self.slot.sessions.get(record as usize).filter(|_| (range.start..fresh).contains(&record));
            if let Some(row) = row.filter(|row| row.state.load(Ordering::Relaxed) == State::Free as u8) {
                return Ok(Fresh { record, free: row.link.load(Ordering::Relaxed), fresh: false });
            }
            // A damaged free list is given up: better its records lost than one of them used twice.
            self.quarantined();
            free.put(NONE);
        }
        if range.contains(&fresh) {
            return Ok(Fresh { record: fresh, free: NONE, fresh: true });
        }
        Err(CreateError::TableFull(range.end - range.start))
    }

    /// The session that has one of these tuples.
    fn find_wide(&self, wide: &Wide, keys: [Key; 2], hashes: [u64; 2]) -> Option<(u32, Direction)> {
        let tuples = keys.into_iter().zip(wide.ends()).map(|(key, ends)| Tuple { key, ends });
        tuples.zip(hashes).find_map(|(tuple, hash)| self.find_hashed(tuple, hash))
    }

    /// Present low bytes of all counters a plan names.
    fn counts(&self, places: [Place; 2], server: u32, service: u32) -> Counts {
        let low32 = |word: &AtomicU32| word.load(Ordering::Relaxed).to_le_bytes()[0];
        let low64 = |word: &AtomicU64| word.load(Ordering::Relaxed).to_le_bytes()[0];
        let (table, slot) = (&self.slot.table, &self.slot);
        let server = slot.servers.get(server as usize);
        let service = slot.services.get(service as usize);
        Counts {
            over: places.map(|place| slot.buckets.get(place.over as usize).map_or(0, |b| low32(&b.overflow))),
            server_active: server.map_or(0, |row| low32(&row.active)),
            server_total: server.map_or(0, |row| low64(&row.total)),
            service_active: service.map_or(0, |row| low32(&row.active)),
            service_total: service.map_or(0, |row| low64(&row.total)),
            active: low32(&table.active),
            records: low32(&table.records),
            created: low64(&table.created),
            ended: low64(&table.ended),
        }
    }

    /// Service index a server's sessions are counted in.
    fn service_of(&self, server: u32) -> u32 {
        self.slot.servers.get(server as usize).map_or(NONE, |row| row.service.load(Ordering::Relaxed))
    }

    /// Count rows whose id got a new use start from 0. Ids are given again only when every slot counts 0 for them, so a
    /// row that still counts keeps its old use until its last session is gone.
    pub(crate) fn claim_counts(&self, (server_id, server_tag): (u32, u32), (service, service_id): (u32, u32)) {
        let r = Ordering::Relaxed; // Relaxed: own data; readers take the tag as a hint which use the counts belong to.
        if let Some(row) = self.slot.servers.get(server_id as usize) {
            let stale = row.tag.load(r) != server_tag || row.service.load(r) != service;
            if stale && row.active.load(r) == 0 {
                for word in [&row.total, &row.packets_in, &row.packets_out, &row.bytes_in, &row.bytes_out] {
                    word.put(0);
                }
                row.service.put(service);
                row.tag.put(server_tag); // Last: a kill before repeats all of it.
            }
        }
        if let Some(row) = self.slot.services.get(service as usize)
            && row.id.load(r) != service_id
            && row.active.load(r) == 0
        {
            row.total.put(0);
            row.refused.put(0);
            row.id.put(service_id);
        }
    }
}

impl Wide {
    /// Writes the line of a free record.
    fn write(&self, line: &AddressLine) {
        let sides = [
            (&line.client, self.client),
            (&line.vip, self.vip),
            (&line.local, self.local),
            (&line.server, self.server),
        ];
        for (words, ip) in sides {
            words.iter().zip(ip).for_each(|(word, value)| word.put(value));
        }
    }
}

impl New {
    /// Writes all of a free record but state, flags and link, which the plan stores: until then nobody can reach it.
    fn write(&self, row: &SessionRow) {
        row.client_ip.put(self.client_ip);
        row.vip.put(self.vip);
        row.client_port.put(self.client_port);
        row.vip_port.put(self.vip_port);
        row.local_ip.put(self.local_ip);
        row.server_ip.put(self.server_ip);
        row.local_port.put(self.local_port);
        row.server_port.put(self.server_port);
        row.last_seen.put(wrapped(self.now_ms));
        row.hop[0].put(self.client_hop);
        row.hop[1].put(self.server_hop);
        row.hop_tag[0].put(self.client_hop_tag);
        row.hop_tag[1].put(self.server_hop_tag);
        row.server_id.put(self.server_id);
        row.isn_shift.put(self.isn_shift);
        for side in 0..2 {
            row.end[side].put(self.end[side]);
            row.ack[side].put(self.ack[side]);
        }
    }
}

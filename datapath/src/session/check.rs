//! The invariants of one table, counted anew. For tests, and for lbctl on a table at rest: O(table). Reads only, so a
//! read-only mapping will do. Those of the whole appliance: [`crate::check`].

use std::sync::atomic::Ordering;

use shm_layout::limits::BUCKET_KEYS;
use shm_layout::session::{SessionRow, State, flag};
use shm_layout::slot::Slot;

use super::index::Index;
use super::key::Direction;
use super::{SessionReader, SessionTable, some};

/// The table counted anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recount {
    /// Sessions in the index.
    pub active: u32,
    /// Ended ones that wait for the wheel.
    pub waiting: u32,
    /// Records in the free list.
    pub free: u32,
    /// Records ever used.
    pub used: u32,
    /// Keys in the index.
    pub keys: u64,
    /// Keys in their second bucket.
    pub second: u64,
}

/// Where a record was met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    /// Never used: not to be met.
    Unused,
    Nowhere,
    Free,
    Wheel,
}

impl SessionTable {
    /// The laws of [`SessionReader::check`].
    ///
    /// # Errors
    /// The first law broken, with the numbers.
    pub fn check(&self) -> Result<Recount, String> {
        Table { slot: &self.slot, index: &self.index }.check()
    }
}

impl SessionReader {
    /// Checks that:
    /// every record ever used is in the free list or in the wheel, exactly once (so neither has a cycle), and none else;
    /// each session in the index has both its keys exactly once, each found from its side, and no key leads elsewhere;
    /// overflow counts, active counts of servers and services, and the table's counts equal what is there;
    /// no change is in progress.
    ///
    /// # Errors
    /// The first law broken, with the numbers.
    pub fn check(&self) -> Result<Recount, String> {
        Table { slot: &self.slot, index: &self.index }.check()
    }
}

/// A table to be checked.
struct Table<'a> {
    slot: &'a Slot,
    index: &'a Index,
}

impl Table<'_> {
    fn check(&self) -> Result<Recount, String> {
        if self.slot.intent.op.load(Ordering::Relaxed) != 0 {
            return Err("a change is in progress: recover first".into());
        }
        let mut count = Recount::default();
        let met = self.check_lists(&mut count)?;
        self.check_index(&met, &mut count)?;
        self.check_counts(&met, &mut count)?;
        Ok(count)
    }

    fn record(&self, record: u32) -> Result<&SessionRow, String> {
        self.slot.sessions.get(record as usize).ok_or_else(|| format!("record {record} is outside the table"))
    }

    fn check_lists(&self, count: &mut Recount) -> Result<Vec<Met>, String> {
        let used = self.slot.used();
        for (wide, used) in [false, true].into_iter().zip(&used).take(1 + self.slot.wide.len()) {
            let fresh = self.slot.heads(wide).1.load(Ordering::Relaxed);
            if fresh != used.end {
                return Err(format!("the first record never used is {fresh}, outside the table (wide: {wide})"));
            }
        }
        let mut met = vec![Met::Unused; self.slot.sessions.len()];
        for used in used {
            count.used += used.end - used.start;
            met[used.start as usize..used.end as usize].fill(Met::Nowhere);
        }
        let mut meet = |record: u32, place: Met, where_: &str| match met.get_mut(record as usize) {
            Some(old @ Met::Nowhere) => {
                *old = place;
                Ok(())
            }
            Some(Met::Unused) | None => Err(format!("record {record} in {where_} was never used")),
            Some(_) => Err(format!("record {record} is met twice, now in {where_}")),
        };
        for wide in [false, true].into_iter().take(1 + self.slot.wide.len()) {
            let ((free, _), range) = (self.slot.heads(wide), self.slot.records(wide));
            let mut next = free.load(Ordering::Relaxed);
            while let Some(record) = some(next) {
                meet(record, Met::Free, "the free list")?;
                let row = self.record(record)?;
                if row.state.load(Ordering::Relaxed) != State::Free as u8 || row.flags.load(Ordering::Relaxed) != 0 {
                    return Err(format!("record {record} is in the free list, but its state is not free"));
                }
                if !range.contains(&record) {
                    return Err(format!("record {record} is in the free list of the other kind (wide: {wide})"));
                }
                count.free += 1;
                next = row.link.load(Ordering::Relaxed);
            }
        }
        for (bucket, head) in self.slot.wheel.iter().enumerate() {
            let mut next = head.load(Ordering::Relaxed);
            while let Some(record) = some(next) {
                meet(record, Met::Wheel, &format!("wheel bucket {bucket}"))?;
                next = self.record(record)?.link.load(Ordering::Relaxed);
            }
        }
        match met.iter().position(|met| *met == Met::Nowhere) {
            Some(record) => Err(format!("record {record} was used and is neither free nor in the wheel")),
            None => Ok(met),
        }
    }

    fn check_index(&self, met: &[Met], count: &mut Recount) -> Result<(), String> {
        let mut keys = vec![0_u8; self.slot.sessions.len()];
        let mut overflow = vec![0_u32; self.slot.buckets.len()];
        for (number, bucket) in (0..).zip(self.slot.buckets.iter()) {
            for place in (0..BUCKET_KEYS).filter(|place| bucket.tags[*place].load(Ordering::Relaxed) != 0) {
                let key = self.index.key_at(number, place).ok_or_else(|| {
                    let record = bucket.records[place].load(Ordering::Relaxed);
                    format!("place {place} of bucket {number} names record {record}, which has no such key")
                })?;
                let bit = if key.direction == Direction::Client { 1 } else { 2 };
                let seen = keys.get_mut(key.record as usize).filter(|_| met[key.record as usize] != Met::Unused);
                let seen = seen.ok_or_else(|| format!("key of unused {}", key.record))?;
                if *seen & bit != 0 {
                    return Err(format!("the {:?} key of record {} is in the index twice", key.direction, key.record));
                }
                *seen |= bit;
                count.keys += 1;
                if key.buckets[0] != number {
                    count.second += 1;
                    overflow[key.buckets[0] as usize] += 1;
                }
            }
        }
        for (number, (bucket, expected)) in self.slot.buckets.iter().zip(overflow).enumerate() {
            same("overflow of bucket", number, bucket.overflow.load(Ordering::Relaxed), expected)?;
        }
        for (record, keys) in (0..).zip(keys).filter(|(record, _)| met[*record as usize] != Met::Unused) {
            let row = self.record(record)?;
            let indexed = row.flags.load(Ordering::Relaxed) & flag::INDEXED != 0;
            same("keys (bits) of record", record, keys, if indexed { 3 } else { 0 })?;
            if !indexed {
                continue;
            }
            let tuples =
                self.index.tuples(record).ok_or_else(|| format!("record {record} contradicts its address line"))?;
            for (tuple, side) in tuples.into_iter().zip([Direction::Client, Direction::Server]) {
                let found = self.index.search(tuple, self.index.hash(tuple.key), |_, _| ());
                let found = found.map(|f| (f.record, f.direction));
                if found != Some((record, side)) {
                    return Err(format!("{side:?} key of record {record} leads to {found:?}"));
                }
            }
        }
        Ok(())
    }

    fn check_counts(&self, met: &[Met], count: &mut Recount) -> Result<(), String> {
        let mut servers = vec![0_u32; self.slot.servers.len()];
        let mut services = vec![0_u32; self.slot.services.len()];
        for (record, met) in (0..).zip(met).filter(|(_, met)| **met != Met::Unused) {
            let row = self.record(record)?;
            let flags = row.flags.load(Ordering::Relaxed);
            match (met, flags & flag::INDEXED != 0) {
                (Met::Wheel, true) => count.active += 1,
                (Met::Wheel, false) => count.waiting += 1,
                (_, true) => return Err(format!("record {record} is indexed, but not in the wheel")),
                _ => {}
            }
            let state = State::of(row.state.load(Ordering::Relaxed));
            if *met == Met::Wheel && matches!(state, None | Some(State::Free)) {
                return Err(format!("record {record} is in the wheel with state {state:?}"));
            }
            if flags & flag::COUNTED != 0 {
                let server = row.server_id.load(Ordering::Relaxed) as usize;
                let counts = self.slot.servers.get(server).ok_or_else(|| format!("server {server} has no counts"))?;
                servers[server] += 1;
                if let Some(service) = services.get_mut(counts.service.load(Ordering::Relaxed) as usize) {
                    *service += 1;
                }
            }
        }
        for (id, (row, expected)) in self.slot.servers.iter().zip(servers).enumerate() {
            same("active sessions of server", id, row.active.load(Ordering::Relaxed), expected)?;
        }
        for (index, (row, expected)) in self.slot.services.iter().zip(services).enumerate() {
            same("active sessions of service", index, row.active.load(Ordering::Relaxed), expected)?;
        }
        let table = &self.slot.table;
        same("active sessions of table", 0, table.active.load(Ordering::Relaxed), count.active)?;
        same("records in use of table", 0, table.records.load(Ordering::Relaxed), count.active + count.waiting)?;
        let (created, ended) = (table.created.load(Ordering::Relaxed), table.ended.load(Ordering::Relaxed));
        same("sessions begun less ended of table", 0, created.wrapping_sub(ended), u64::from(count.active))
    }
}

fn same<T: PartialEq + std::fmt::Display>(
    what: &str,
    which: impl std::fmt::Display,
    stored: T,
    counted: T,
) -> Result<(), String> {
    if stored == counted { Ok(()) } else { Err(format!("{what} {which}: stored {stored}, counted {counted}")) }
}

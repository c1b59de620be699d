//! Changes of the table as plans: written to the intent line, then carried out, store by store.
//!
//! A plan is made with reads alone and holds *values to store*, never differences, so carrying it out twice, or a part of
//! it and then the whole, ends in the same state. A killed owner leaves either no plan (nothing has happened that anyone
//! can reach) or a whole one, which its successor carries out again. That is all of recovery: constant time, idempotent,
//! and the code is the one that runs all day.

use std::sync::atomic::Ordering;

use shm_layout::failpoint::Bug;
use shm_layout::limits::{BUCKET_KEYS, NONE};
use shm_layout::session::BucketRow;
use shm_layout::slot::{IntentRow, Slot};

use super::store::{Put, failpoint, settle32, settle64};

/// Values of [`IntentRow::op`].
pub mod op {
    /// No change in progress.
    pub const NONE: u32 = 0;
    /// Record taken, linked into the wheel, both keys put in, counters up.
    pub const CREATE: u32 = 1;
    /// Both keys taken out, counters down; the record stays with the wheel.
    pub const CLOSE: u32 = 2;
    /// Record from the head of a wheel bucket to the free list.
    pub const FREE: u32 = 3;
    /// Record from the head of a wheel bucket to the head of another.
    pub const RELINK: u32 = 4;
    /// Key from one of its buckets to the other.
    pub const MOVE: u32 = 5;
}

/// Places in [`Plan::value`].
mod at {
    /// CREATE: link of the record (old head of its wheel bucket). FREE, RELINK: new head of the bucket it leaves.
    pub const LINK: usize = 0;
    /// CREATE: head of the free list afterwards. FREE: link of the record (old head). RELINK: bucket it goes to.
    pub const FREE: usize = 1;
    /// CREATE, CLOSE: `state | flags << 8`, CREATE also `fresh << 16`. RELINK: link of the record (old head there).
    pub const STATE: usize = 2;
    /// CREATE, MOVE: tags of the first and (`<< 16`) second key.
    pub const TAGS: usize = 3;
    /// Buckets whose overflow counts change, or NONE: two words.
    pub const OVER: usize = 4;
    /// Low bytes of the counters afterwards: three words, see [`Counts`](super::Counts).
    pub const COUNTS: usize = 6;
}

/// Low bytes of the counters after the change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub over: [u8; 2],
    pub server_active: u8,
    pub server_total: u8,
    pub service_active: u8,
    pub service_total: u8,
    pub active: u8,
    pub records: u8,
    pub created: u8,
    pub ended: u8,
}

impl Counts {
    const fn to_words(self) -> [u32; 3] {
        [
            u32::from_le_bytes([self.over[0], self.over[1], self.server_active, self.server_total]),
            u32::from_le_bytes([self.service_active, self.service_total, self.active, self.records]),
            u32::from_le_bytes([self.created, self.ended, 0, 0]),
        ]
    }

    const fn of_words(words: [u32; 3]) -> Self {
        let [a, b, c] = [words[0].to_le_bytes(), words[1].to_le_bytes(), words[2].to_le_bytes()];
        Self {
            over: [a[0], a[1]],
            server_active: a[2],
            server_total: a[3],
            service_active: b[0],
            service_total: b[1],
            active: b[2],
            records: b[3],
            created: c[0],
            ended: c[1],
        }
    }
}

/// A planned change; the words of the intent line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    op: u32,
    record: u32,
    place: [u32; 2],
    wheel: u32,
    server: u32,
    service: u32,
    value: [u32; 9],
}

/// A key's place in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `bucket * 16 + place`, or NONE.
    pub at: u32,
    /// The key's first bucket when it lies in its second, else NONE.
    pub over: u32,
}

impl Place {
    /// No place.
    pub const NOWHERE: Self = Self { at: NONE, over: NONE };
}

impl Plan {
    /// Keys in (`tags` not 0; `link`: old wheel head, `free`: next free record, `fresh`: the record was never used).
    #[allow(clippy::too_many_arguments, reason = "one word of the line each")]
    pub fn create(
        record: u32,
        places: [Place; 2],
        tags: [u16; 2],
        wheel: u32,
        link: u32,
        free: u32,
        fresh: bool,
        state: u8,
        flags: u8,
        server: u32,
        service: u32,
        counts: Counts,
    ) -> Self {
        let word = u32::from(state) | u32::from(flags) << 8 | u32::from(fresh) << 16;
        let tags = u32::from(tags[0]) | u32::from(tags[1]) << 16;
        Self::new(op::CREATE, record, [places[0].at, places[1].at], wheel).counted(server, service, counts).values(&[
            link,
            free,
            word,
            tags,
            places[0].over,
            places[1].over,
        ])
    }

    /// Keys out.
    pub fn close(
        record: u32,
        places: [Place; 2],
        state: u8,
        flags: u8,
        server: u32,
        service: u32,
        counts: Counts,
    ) -> Self {
        let word = u32::from(state) | u32::from(flags) << 8;
        Self::new(op::CLOSE, record, [places[0].at, places[1].at], NONE).counted(server, service, counts).values(&[
            NONE,
            NONE,
            word,
            0,
            places[0].over,
            places[1].over,
        ])
    }

    /// Record (head of wheel bucket `wheel`, its link is `next`) to the free list, whose head is `free`.
    pub fn free(record: u32, wheel: u32, next: u32, free: u32, counts: Counts) -> Self {
        Self::new(op::FREE, record, [NONE; 2], wheel).counted(NONE, NONE, counts).values(&[next, free])
    }

    /// Record (head of wheel bucket `wheel`, its link is `next`) to bucket `to`, whose head is `head`.
    pub fn relink(record: u32, wheel: u32, next: u32, to: u32, head: u32) -> Self {
        Self::new(op::RELINK, record, [NONE; 2], wheel).values(&[next, to, head])
    }

    /// Key `tag` of `record` from a place to another; the count of bucket `over` becomes `count` (low byte).
    pub fn displace(record: u32, from: u32, to: u32, tag: u16, over: u32, count: u8) -> Self {
        let counts = Counts { over: [count, 0], ..Counts::default() };
        Self::new(op::MOVE, record, [from, to], NONE).counted(NONE, NONE, counts).values(&[
            NONE,
            NONE,
            0,
            u32::from(tag),
            over,
            NONE,
        ])
    }

    const fn new(op: u32, record: u32, place: [u32; 2], wheel: u32) -> Self {
        Self { op, record, place, wheel, server: NONE, service: NONE, value: [0; 9] }
    }

    fn counted(mut self, server: u32, service: u32, counts: Counts) -> Self {
        (self.server, self.service) = (server, service);
        self.value[at::COUNTS..].copy_from_slice(&counts.to_words());
        self
    }

    fn values(mut self, values: &[u32]) -> Self {
        self.value[..values.len()].copy_from_slice(values);
        self
    }

    /// Reads the line; `None`: no change in progress.
    pub fn read(line: &IntentRow) -> Option<Self> {
        let r = Ordering::Relaxed; // Relaxed: the take-over ordered the dead owner's stores before our loads.
        let op = line.op.load(r);
        (op != op::NONE).then(|| Self {
            op,
            record: line.record.load(r),
            place: [line.place[0].load(r), line.place[1].load(r)],
            wheel: line.wheel.load(r),
            server: line.server.load(r),
            service: line.service.load(r),
            value: std::array::from_fn(|i| line.value[i].load(r)),
        })
    }

    /// Writes the line, carries the plan out, clears the line. `false`: the plan left the tables, nothing was stored.
    #[inline]
    pub fn run(&self, slot: &Slot) -> bool {
        let line = &*slot.intent;
        if failpoint::planted(Bug::IntentTooEarly) {
            line.op.put(self.op);
        }
        line.record.put(self.record);
        line.place[0].put(self.place[0]);
        line.place[1].put(self.place[1]);
        line.wheel.put(self.wheel);
        line.server.put(self.server);
        line.service.put(self.service);
        for (word, value) in line.value.iter().zip(self.value) {
            word.put(value);
        }
        if !failpoint::planted(Bug::NoIntent) {
            line.op.put(self.op); // Last: from here on the change happens.
        }
        let done = self.carry_out(slot);
        line.op.put(op::NONE); // First of clearing, and all of it: the rest of the line means nothing without it.
        done
    }

    /// Stores everything the plan says; also what was stored already. `false`: a number in it leaves the tables (a
    /// damaged line), nothing was stored.
    #[inline]
    pub fn carry_out(&self, slot: &Slot) -> bool {
        match self.op {
            op::CREATE | op::CLOSE => self.keys(slot).is_some(),
            op::FREE => self.unlink(slot).is_some(),
            op::RELINK => self.rewheel(slot).is_some(),
            op::MOVE => self.move_key(slot).is_some(),
            _ => false,
        }
    }

    #[inline]
    fn keys(&self, slot: &Slot) -> Option<()> {
        // All lookups first: a damaged plan stores nothing.
        let row = slot.sessions.get(self.record as usize)?;
        let entries = [entry(slot, self.place[0])?, entry(slot, self.place[1])?];
        let overs = [overflow(slot, self.value[at::OVER])?, overflow(slot, self.value[at::OVER + 1])?];
        let head = if self.op == op::CREATE { Some(slot.wheel.get(self.wheel as usize)?) } else { None };
        let [state, flags, fresh, _] = self.value[at::STATE].to_le_bytes();
        let counts = self.counts();

        if let Some(head) = head {
            let (free, mark) = slot.heads_of(self.record);
            if fresh == 0 {
                free.put(self.value[at::FREE]);
            } else {
                mark.put(self.record + 1);
            }
            row.link.put(self.value[at::LINK]);
            head.put(self.record);
        }
        // Before the keys go in, and before they go out: a reader that comes by a key finds flags that say the truth.
        row.state.put(state);
        row.flags.put(flags);
        for (over, count) in overs.into_iter().zip(counts.over) {
            if let Some(bucket) = over {
                settle32(&bucket.overflow, count);
            }
        }
        let tags = self.value[at::TAGS];
        for (entry, tag) in entries.into_iter().zip([tags & 0xffff, tags >> 16]) {
            if let Some((bucket, place)) = entry {
                put_entry(bucket, place, self.record, u16::try_from(tag).unwrap_or(0));
            }
        }
        if let Some(server) = slot.servers.get(self.server as usize) {
            settle32(&server.active, counts.server_active);
            settle64(&server.total, counts.server_total);
        }
        if let Some(service) = slot.services.get(self.service as usize) {
            settle32(&service.active, counts.service_active);
            settle64(&service.total, counts.service_total);
        }
        if failpoint::planted(Bug::IntentGoneTooEarly) {
            slot.intent.op.put(op::NONE);
        }
        settle32(&slot.table.active, counts.active);
        settle32(&slot.table.records, counts.records);
        settle64(&slot.table.created, counts.created);
        settle64(&slot.table.ended, counts.ended);
        Some(())
    }

    #[inline]
    fn unlink(&self, slot: &Slot) -> Option<()> {
        let row = slot.sessions.get(self.record as usize)?;
        let head = slot.wheel.get(self.wheel as usize)?;
        head.put(self.value[at::LINK]);
        row.state.put(0); // State::Free
        row.flags.put(0);
        row.link.put(self.value[at::FREE]);
        slot.heads_of(self.record).0.put(self.record);
        settle32(&slot.table.records, self.counts().records);
        Some(())
    }

    #[inline]
    fn rewheel(&self, slot: &Slot) -> Option<()> {
        let row = slot.sessions.get(self.record as usize)?;
        let (from, to) = (slot.wheel.get(self.wheel as usize)?, slot.wheel.get(self.value[at::FREE] as usize)?);
        from.put(self.value[at::LINK]);
        row.link.put(self.value[at::STATE]);
        to.put(self.record);
        Some(())
    }

    #[inline]
    fn move_key(&self, slot: &Slot) -> Option<()> {
        let ((from, old), (to, new)) = (entry(slot, self.place[0])??, entry(slot, self.place[1])??);
        let over = overflow(slot, self.value[at::OVER])??;
        // There, then no longer here: a reader in between finds it in one of the two.
        put_entry(to, new, self.record, u16::try_from(self.value[at::TAGS]).unwrap_or(0));
        settle32(&over.overflow, self.counts().over[0]);
        from.tags.get(old)?.put(0);
        Some(())
    }

    fn counts(&self) -> Counts {
        Counts::of_words([self.value[at::COUNTS], self.value[at::COUNTS + 1], self.value[at::COUNTS + 2]])
    }
}

/// Bucket and place of a packed place: `Some(None)` for NONE, `None` when it leaves the index.
#[inline(always)]
fn entry(slot: &Slot, at: u32) -> Option<Option<(&BucketRow, usize)>> {
    if at == NONE {
        return Some(None);
    }
    let place = (at & 15) as usize;
    let bucket = slot.buckets.get((at >> 4) as usize)?;
    (place < BUCKET_KEYS).then_some(Some((bucket, place)))
}

/// Bucket of an overflow word, as [`entry`].
#[inline(always)]
fn overflow(slot: &Slot, at: u32) -> Option<Option<&BucketRow>> {
    if at == NONE { Some(None) } else { slot.buckets.get(at as usize).map(Some) }
}

/// Record, then tag: a tag never stands over another key's record. Tag 0 clears the place.
#[inline(always)]
pub(super) fn put_entry(bucket: &BucketRow, place: usize, record: u32, tag: u16) {
    if let (Some(to), Some(tags)) = (bucket.records.get(place), bucket.tags.get(place)) {
        if tag != 0 {
            to.put(record);
        }
        tags.put(tag);
    }
}

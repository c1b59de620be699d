//! Making room in a full index: keys move to their other bucket, at most two deep.

use std::sync::atomic::Ordering;

use shm_layout::failpoint::Op;
use shm_layout::limits::{BUCKET_KEYS, NONE};

use super::SessionTable;
use super::index::KeyAt;
use super::intent::{Place, Plan};
use super::store::failpoint;

/// Records read at most in search of room for one key: all keys of both buckets, then of some of their other buckets.
const READS: usize = 128;

/// A key that could move: where it lies, what it is, the bucket it could go to.
#[derive(Clone, Copy)]
struct Step {
    from: u32,
    key: KeyAt,
    to: u32,
}

impl SessionTable {
    /// A place for a key of this hash: in its first bucket, else its second, else where a key made way. `taken`: a place
    /// promised already. `None`: no room within the bound.
    pub(super) fn make_room(&mut self, hash: u64, taken: u32) -> Option<Place> {
        let buckets = self.index.buckets_of(hash);
        if let Some(at) = self.index.vacancy(buckets[0], taken) {
            return Some(Place { at, over: NONE });
        }
        let at = match self.index.vacancy(buckets[1], taken) {
            Some(at) => return Some(Place { at, over: buckets[0] }),
            None => self.displace(buckets, taken)?,
        };
        Some(Place { at, over: if at >> 4 == buckets[0] { NONE } else { buckets[0] } })
    }

    /// Breadth first: one move if any will do, else two. Each move is a whole change of its own, so a kill between two
    /// leaves nothing to repair.
    #[cold]
    fn displace(&mut self, buckets: [u32; 2], taken: u32) -> Option<u32> {
        let mut near: [Option<Step>; 2 * BUCKET_KEYS] = [None; 2 * BUCKET_KEYS];
        for (bucket, steps) in buckets.into_iter().zip(near.chunks_mut(BUCKET_KEYS)) {
            self.steps(bucket, taken, steps);
        }
        for step in near.iter().flatten() {
            if let Some(room) = self.index.vacancy(step.to, taken) {
                return self.shift(step, room).then_some(step.from);
            }
        }
        let mut reads = 2 * BUCKET_KEYS;
        for step in near.iter().flatten() {
            if reads + BUCKET_KEYS > READS {
                return None;
            }
            reads += BUCKET_KEYS;
            let mut far: [Option<Step>; BUCKET_KEYS] = [None; BUCKET_KEYS];
            self.steps(step.to, taken, &mut far);
            for second in far.iter().flatten() {
                if let Some(room) = self.index.vacancy(second.to, taken) {
                    return (self.shift(second, room) && self.shift(step, second.from)).then_some(step.from);
                }
            }
        }
        None
    }

    /// The keys of a bucket and their other buckets, asked for ahead. A place that holds no key of its record is
    /// damaged: it is emptied, counted, and free for the next round.
    fn steps(&mut self, bucket: u32, taken: u32, steps: &mut [Option<Step>]) {
        let Some(row) = self.slot.buckets.get(bucket as usize) else { return };
        for record in &row.records {
            self.index.prefetch_session(record.load(Ordering::Relaxed)); // Relaxed: own data.
        }
        for (place, step) in steps.iter_mut().enumerate() {
            let at = bucket << 4 | u32::try_from(place).unwrap_or(0);
            if at == taken {
                continue;
            }
            let Some(key) = self.index.key_at(bucket, place) else {
                if let Some(row) = self.slot.buckets.get(bucket as usize) {
                    self.quarantine_place(row, place);
                }
                continue;
            };
            let to = if key.buckets[0] == bucket { key.buckets[1] } else { key.buckets[0] };
            self.index.prefetch_bucket(to);
            *step = Some(Step { from: at, key, to });
        }
    }

    /// Moves a key to a free place of its other bucket.
    fn shift(&mut self, step: &Step, room: u32) -> bool {
        let _op = failpoint::enter(Op::Displace);
        let over = step.key.buckets[0];
        let Some(first) = self.slot.buckets.get(over as usize) else { return false };
        let count = first.overflow.load(Ordering::Relaxed).to_le_bytes()[0]; // Relaxed: own data.
        let count = if step.to == over { count.wrapping_sub(1) } else { count.wrapping_add(1) };
        Plan::displace(step.key.record, step.from, room, step.key.tag, over, count).run(&self.slot)
    }
}

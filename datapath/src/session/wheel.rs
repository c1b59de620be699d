//! The lazy timer wheel: buckets of records, one per tick; and the sweep over all records.
//!
//! A packet only stores "last seen". When the wheel comes by a record, it is relinked to where its time may be up, let go
//! of, or freed if closed meanwhile. Only heads of buckets are ever taken, so single links do.
//!
//! - A visit too early is harmless (the record is relinked); a stride is at most one lap less a tick, so no record is
//!   relinked into the bucket being emptied.
//! - Expiry comes in the tick after `last_seen + timeout`; when the timeout itself became shorter since the last visit,
//!   up to a stride (15.8 s) later: close what must go at once.
//! - After a long pause the wheel is put forward by whole laps until one to two are left: every record is visited in it,
//!   in the same order, at most `budget` per call.

use std::sync::atomic::Ordering;

use shm_layout::failpoint::Op;
use shm_layout::limits::{NONE, WHEEL_BUCKETS, WHEEL_TICK_MS};
use shm_layout::session::{SessionRow, State, flag};

use super::intent::{Counts, Plan};
use super::store::{Put, failpoint};
use super::{SessionTable, some, wrapped};

/// Buckets, as ticks count.
#[allow(clippy::cast_possible_truncation, reason = "a small constant")]
const LAP: u32 = WHEEL_BUCKETS as u32;
/// A new session is first visited after this, ms.
const FIRST_VISIT_MS: u32 = 2000;
/// How far the clock may seem to stand back, in ticks, before it counts as having gone forward a long way.
const BACK: u32 = 16;

/// What a call of [`SessionTable::sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records looked at.
    pub visited: usize,
    /// Sessions ended.
    pub closed: usize,
    /// The whole table has been looked at.
    pub done: bool,
}

/// First tick at or after a time.
const fn tick_after(ms: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "ticks wrap; 2^32 is a whole number of laps")]
    {
        ms.div_ceil(WHEEL_TICK_MS as u64) as u32
    }
}

/// Tick of a time.
const fn tick_of(ms: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "as above")]
    {
        (ms / WHEEL_TICK_MS as u64) as u32
    }
}

/// Time since `last_seen`, ms; 0 when it lies ahead (by less than half the range: 24 days).
pub(super) const fn idle(row_last_seen: u32, now_ms: u64) -> u32 {
    let idle = wrapped(now_ms).wrapping_sub(row_last_seen);
    if idle > i32::MAX.cast_unsigned() { 0 } else { idle }
}

/// Steps in which what a record's timeout is read from is asked for: the last is 0.
const STEPS: usize = 3;
/// Records between two steps.
const STRIDE: usize = 4;

/// Goes along a bucket's chain before its records are visited. What it reads are hints.
#[derive(Default)]
struct Scout {
    /// The last records it came by, by their number.
    seen: [u32; (STEPS * STRIDE).next_power_of_two()],
    /// How many it came by, how many were visited.
    came: usize,
    visited: usize,
}

impl Scout {
    /// To be called before each visit of the bucket's head. `left`: visits that may follow.
    fn go_on(&mut self, table: &SessionTable, head: u32, left: usize, foresee: &impl Fn(&SessionRow, usize)) {
        const SEEN: usize = (STEPS * STRIDE).next_power_of_two();
        let after = |record: u32| table.row(record).map_or(NONE, |row| row.link.load(Ordering::Relaxed));
        if self.came == 0 && after(head) == NONE {
            return; // Alone.
        }
        let end = self.visited + SEEN.min(left + 1);
        self.visited += 1;
        while self.came < end {
            let next = if self.came == 0 { head } else { after(self.seen[(self.came - 1) % SEEN]) };
            table.index.prefetch_session(next);
            self.seen[self.came % SEEN] = next;
            for (step, before) in (0..STEPS).rev().zip((0..).step_by(STRIDE)) {
                // Behind the first step, which reads what has just been asked for: the record before it.
                let at = self.came.checked_sub(before + 1);
                if let Some(row) = at.and_then(|at| table.row(self.seen[at % SEEN])) {
                    foresee(row, step);
                }
            }
            self.came += 1;
        }
    }
}

impl SessionTable {
    /// Wheel bucket of a new session.
    pub(super) fn first_visit(&self, now_ms: u64, timeout_ms: u32) -> u32 {
        let soon = if timeout_ms < FIRST_VISIT_MS { timeout_ms } else { FIRST_VISIT_MS };
        let (target, next) = (tick_after(now_ms + u64::from(soon)), tick_of(now_ms).wrapping_add(1));
        (if target == tick_of(now_ms) { next } else { target }) % LAP
    }

    /// Lets go of what has timed out: visits at most `budget` records, those whose time may be up. `timeout_of`: ms, by
    /// the record's state; `on_expired` sees each session before it ends. Returns how many ended.
    pub fn expire(
        &mut self,
        now_ms: u64,
        budget: usize,
        timeout_of: impl Fn(&SessionRow) -> u32,
        on_expired: impl FnMut(u32, &SessionRow),
    ) -> usize {
        self.turn::<false>(now_ms, budget, timeout_of, |_, _| (), on_expired)
    }

    /// The same. `foresee` asks for what `timeout_of` reads, in three steps some records apart: 2, 1, 0.
    pub fn expire_ahead(
        &mut self,
        now_ms: u64,
        budget: usize,
        timeout_of: impl Fn(&SessionRow) -> u32,
        foresee: impl Fn(&SessionRow, usize),
        on_expired: impl FnMut(u32, &SessionRow),
    ) -> usize {
        self.turn::<true>(now_ms, budget, timeout_of, foresee, on_expired)
    }

    fn turn<const AHEAD: bool>(
        &mut self,
        now_ms: u64,
        budget: usize,
        timeout_of: impl Fn(&SessionRow) -> u32,
        foresee: impl Fn(&SessionRow, usize),
        mut on_expired: impl FnMut(u32, &SessionRow),
    ) -> usize {
        let now = tick_of(now_ms);
        let mut tick = self.slot.table.tick.load(Ordering::Relaxed); // Relaxed, here and below: own data.
        let lag = now.wrapping_sub(tick);
        if lag > u32::MAX - BACK {
            return 0;
        }
        if lag >= 2 * LAP {
            tick = tick.wrapping_add((lag / LAP - 1) * LAP);
            self.turn_to(tick);
        }
        let (mut left, mut expired) = (budget, 0);
        while now.wrapping_sub(tick) < 2 * LAP {
            let bucket = tick % LAP;
            let mut scout = Scout::default();
            while let Some(record) = self.head(bucket) {
                if left == 0 {
                    return expired;
                }
                left -= 1;
                if AHEAD {
                    scout.go_on(self, record, left, &foresee);
                }
                expired += usize::from(self.visit(record, bucket, tick, now_ms, &timeout_of, &mut on_expired));
            }
            tick = tick.wrapping_add(1);
            self.turn_to(tick);
        }
        expired
    }

    fn turn_to(&self, tick: u32) {
        let _op = failpoint::enter(Op::Tick); // Not around the calls that store nothing, which are most.
        self.slot.table.tick.put(tick);
    }

    fn head(&self, bucket: u32) -> Option<u32> {
        some(self.slot.wheel.get(bucket as usize)?.load(Ordering::Relaxed))
    }

    /// Visits the record at the head of a bucket; it is elsewhere afterwards. `true`: a session ended.
    fn visit(
        &mut self,
        record: u32,
        bucket: u32,
        tick: u32,
        now_ms: u64,
        timeout_of: &impl Fn(&SessionRow) -> u32,
        on_expired: &mut impl FnMut(u32, &SessionRow),
    ) -> bool {
        let Some(row) = self.slot.sessions.get(record as usize) else {
            self.cut(bucket, NONE); // The chain leads out of the table: the rest of it is lost, the wheel goes on.
            return false;
        };
        let next = row.link.load(Ordering::Relaxed);
        self.index.prefetch_session(next);
        let flags = row.flags.load(Ordering::Relaxed);
        let state = State::of(row.state.load(Ordering::Relaxed));
        if state == Some(State::Free) {
            self.cut(bucket, next); // A free record in the wheel would be freed twice.
            return false;
        }
        let indexed = flags & flag::INDEXED != 0;
        if indexed && state.is_some() {
            let (timeout, idle) = (timeout_of(row), idle(row.last_seen.load(Ordering::Relaxed), now_ms));
            if idle < timeout {
                let due = tick_after(now_ms + u64::from(timeout - idle));
                let ahead = due.wrapping_sub(tick).clamp(1, LAP - 1);
                let to = tick.wrapping_add(ahead) % LAP;
                let head = self.head(to).unwrap_or(NONE);
                let _op = failpoint::enter(Op::Relink);
                Plan::relink(record, bucket, next, to, head).run(&self.slot);
                return false;
            }
        }
        if indexed {
            if state.is_none() {
                self.quarantined();
            }
            on_expired(record, row);
            self.close(record);
        }
        let _op = failpoint::enter(Op::Free);
        let table = &self.slot.table;
        let records = table.records.load(Ordering::Relaxed).to_le_bytes()[0].wrapping_sub(1);
        let counts = Counts { records, ..Counts::default() };
        let (free, _) = self.slot.heads_of(record);
        Plan::free(record, bucket, next, free.load(Ordering::Relaxed), counts).run(&self.slot);
        indexed
    }

    /// Takes the head off a bucket without giving the record to anyone.
    #[cold]
    fn cut(&self, bucket: u32, next: u32) {
        if let Some(head) = self.slot.wheel.get(bucket as usize) {
            head.put(next);
        }
        self.quarantined();
    }

    /// Begins a sweep over the whole table, from the start if one was under way.
    pub fn sweep_start(&mut self) {
        self.slot.table.sweep.put(0);
    }

    /// Is a sweep under way (also one a dead owner began)?
    #[must_use]
    pub fn sweeping(&self) -> bool {
        self.slot.table.sweep.load(Ordering::Relaxed) != NONE
    }

    /// Looks at the next `budget` records: each session that `matches` is shown to `on_match`, then ended.
    ///
    /// A session that begins during the sweep in a record already passed is not seen: refuse new ones first.
    pub fn sweep(
        &mut self,
        budget: usize,
        mut matches: impl FnMut(u32, &SessionRow) -> bool,
        mut on_match: impl FnMut(u32, &SessionRow),
    ) -> Swept {
        let _op = failpoint::enter(Op::Sweep);
        let mut swept = Swept::default();
        let Some(mut record) = some(self.slot.table.sweep.load(Ordering::Relaxed)) else {
            return Swept { done: true, ..swept };
        };
        let [narrow, wide] = self.slot.used();
        while swept.visited < budget && record < wide.end {
            if !narrow.contains(&record) && record < wide.start {
                record = wide.start; // Over those never used.
                continue;
            }
            let Some(row) = self.slot.sessions.get(record as usize) else { break };
            self.index.prefetch_session(record.wrapping_add(8));
            swept.visited += 1;
            if row.flags.load(Ordering::Relaxed) & flag::INDEXED != 0 && matches(record, row) {
                on_match(record, row);
                swept.closed += usize::from(self.close(record));
            }
            record += 1;
        }
        swept.done = record >= wide.end || record >= narrow.end && wide.is_empty();
        self.slot.table.sweep.put(if swept.done { NONE } else { record });
        swept
    }
}

//! The live tables of one slot: ownership, intent, counters, ledger, rings, sessions, index, wheel.
//!
//! A slot is a queue pair with its buffer pool, session table and port partition; it is fixed for the life of the
//! tables. The thread that owns it changes; everything here passes with it.

mod rows;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::counters::CounterBlock;
use crate::error::SegmentError;
use crate::header::{self, Kind, PARAMS};
use crate::limits::{CONTROL_RING_BYTES, MAX_SLOTS, NEIGH_WAIT, WHEEL_BUCKETS, index_buckets, ring_bytes};
use crate::owner::{AutopsyRow, OwnerRow};
use crate::ring::Ring;
use crate::segment::{Cursor, Mapping, One, Rows};
use crate::session::{AddressLine, BucketRow, ExtensionRow, SessionRow, WideHead};

pub use rows::*;

/// Sizes of a slot's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotGeometry {
    /// This slot's number.
    pub slot: u32,
    /// Slots of the appliance.
    pub slots: u32,
    /// Session records of one line: IPv4.
    pub sessions: u64,
    /// Wide ones behind them ([`AddressLine`]): IPv6. 0 in tables of layouts before 1.2.
    pub wide_sessions: u64,
    /// Real servers (ids).
    pub servers: u64,
    /// Services.
    pub services: u64,
    /// Extension records.
    pub extensions: u64,
}

/// Offsets of the parts, and the whole size.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    owner: u64,
    pulse: u64,
    intent: u64,
    table: u64,
    counters: u64,
    ledger: u64,
    waits: u64,
    autopsy: u64,
    wheel: u64,
    to_control: u64,
    from_control: u64,
    rings: u64,
    servers: u64,
    services: u64,
    buckets: u64,
    sessions: u64,
    extensions: u64,
    wide: u64,
    lines: u64,
    bytes: u64,
}

impl SlotGeometry {
    /// Index buckets.
    #[must_use]
    pub const fn buckets(&self) -> u64 {
        index_buckets(self.records())
    }

    /// Session records, wide ones included.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.sessions + self.wide_sessions
    }

    /// Heads of the wide records: there if they are.
    const fn wide_heads(&self) -> u64 {
        if self.wide_sessions == 0 { 0 } else { 1 }
    }

    fn ring_bytes(&self) -> usize {
        ring_bytes(self.slots as usize)
    }

    fn offsets(&self) -> Offsets {
        let mut at = Cursor::after_header();
        let owner = at.take::<OwnerRow>(1);
        let pulse = at.take::<PulseRow>(1);
        let intent = at.take::<IntentRow>(1);
        let table = at.take::<TableRow>(1);
        let counters = at.take::<CounterBlock>(1);
        let ledger = at.take::<LedgerRow>(1);
        let waits = at.take::<WaitRow>(NEIGH_WAIT as u64);
        let autopsy = at.take::<AutopsyRow>(1);
        let wheel = at.take::<AtomicU32>(WHEEL_BUCKETS as u64);
        let to_control = at.take::<u8>(Ring::segment_bytes(CONTROL_RING_BYTES));
        let from_control = at.take::<u8>(Ring::segment_bytes(CONTROL_RING_BYTES));
        let rings = at.take::<u8>(u64::from(self.slots) * Ring::segment_bytes(self.ring_bytes()));
        let servers = at.take::<ServerCountRow>(self.servers);
        let services = at.take::<ServiceCountRow>(self.services);
        let buckets = at.take::<BucketRow>(self.buckets());
        let sessions = at.take::<SessionRow>(self.records());
        let extensions = at.take::<ExtensionRow>(self.extensions);
        let wide = at.take::<WideHead>(self.wide_heads());
        let lines = at.take::<AddressLine>(self.wide_sessions);
        Offsets {
            owner,
            pulse,
            intent,
            table,
            counters,
            ledger,
            waits,
            autopsy,
            wheel,
            to_control,
            from_control,
            rings,
            servers,
            services,
            buckets,
            sessions,
            extensions,
            wide,
            lines,
            bytes: at.bytes(),
        }
    }

    /// Bytes of the whole segment.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.offsets().bytes
    }

    fn params(&self) -> [u64; PARAMS] {
        let mut params = [0; PARAMS];
        params[..7].copy_from_slice(&[
            u64::from(self.slot),
            u64::from(self.slots),
            self.sessions,
            self.servers,
            self.services,
            self.extensions,
            self.wide_sessions,
        ]);
        params
    }

    fn from_params(params: &[u64; PARAMS]) -> Option<Self> {
        let geometry = Self {
            slot: u32::try_from(params[0]).ok()?,
            slots: u32::try_from(params[1]).ok()?,
            sessions: params[2],
            servers: params[3],
            services: params[4],
            extensions: params[5],
            wide_sessions: params[6],
        };
        (geometry.slot < geometry.slots && geometry.slots as usize <= MAX_SLOTS).then_some(geometry)
    }
}

/// All tables of one slot.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Sizes.
    pub geometry: SlotGeometry,
    /// Whose it is.
    pub owner: One<OwnerRow>,
    /// Heartbeat and generation.
    pub pulse: One<PulseRow>,
    /// Change in progress.
    pub intent: One<IntentRow>,
    /// Heads of the session table.
    pub table: One<TableRow>,
    /// Counters.
    pub counters: One<CounterBlock>,
    /// Buffers held.
    pub ledger: One<LedgerRow>,
    /// What the buffers in the ledger's `wait` wait for.
    pub waits: Rows<WaitRow>,
    /// What the last dead owner had in hand.
    pub autopsy: One<AutopsyRow>,
    /// Heads of the timer wheel.
    pub wheel: Rows<AtomicU32>,
    /// Frames and requests to control. Producer: owner.
    pub to_control: Ring,
    /// Frames and orders from control. Consumer: owner.
    pub from_control: Ring,
    /// Ring from each other slot (own place unused). Consumer: owner.
    pub inbound: Vec<Ring>,
    /// Counts by server id.
    pub servers: Rows<ServerCountRow>,
    /// Counts by service index.
    pub services: Rows<ServiceCountRow>,
    /// Session index.
    pub buckets: Rows<BucketRow>,
    /// Session records, the wide ones behind the others.
    pub sessions: Rows<SessionRow>,
    /// Extension records.
    pub extensions: Rows<ExtensionRow>,
    /// Heads of the wide records: one row if there are any.
    pub wide: Rows<WideHead>,
    /// Address lines of the wide records, in their order.
    pub lines: Rows<AddressLine>,
    first_wide: u32,
}

impl Slot {
    /// Makes the tables of a fresh slot in `map` (zeroed) and writes its header.
    ///
    /// # Errors
    /// The mapping is too small.
    pub fn format(map: &Arc<Mapping>, geometry: SlotGeometry) -> Result<Self, SegmentError> {
        let slot = Self::view(map, geometry)?;
        slot.pulse.seen_generation.store(SEEN_IDLE, Ordering::Relaxed); // Relaxed: published by the header's checksum.
        slot.table.free.store(crate::limits::NONE, Ordering::Relaxed);
        slot.table.sweep.store(crate::limits::NONE, Ordering::Relaxed);
        slot.table.extension_free.store(crate::limits::NONE, Ordering::Relaxed);
        if let Some(head) = slot.wide.first() {
            head.free.store(crate::limits::NONE, Ordering::Relaxed);
            head.fresh.store(slot.first_wide, Ordering::Relaxed);
        }
        for head in slot.wheel.iter() {
            head.store(crate::limits::NONE, Ordering::Relaxed);
        }
        header::write(map, Kind::Slot, &geometry.params())?;
        Ok(slot)
    }

    /// A slot in anonymous memory, for tests and benchmarks.
    ///
    /// # Errors
    /// Memory.
    pub fn anonymous(geometry: SlotGeometry, huge: bool) -> Result<Self, SegmentError> {
        Self::format(&Mapping::anonymous(geometry.bytes(), huge)?, geometry)
    }

    /// Opens `slot-N` below `tables`, header checked.
    ///
    /// # Errors
    /// Missing, foreign or damaged.
    pub fn open(tables: &Path, slot: u32, writable: bool) -> Result<Self, SegmentError> {
        let map = Mapping::open(&tables.join(file_name(slot)), writable)?;
        let params = header::check(&map, Kind::Slot)?;
        let foreign = || SegmentError::Foreign {
            path: map.path().into(),
            field: "geometry",
            found: format!("{params:?}"),
            expected: format!("slot {slot} of at most {MAX_SLOTS}"),
            hint: "",
        };
        let geometry = SlotGeometry::from_params(&params).filter(|g| g.slot == slot).ok_or_else(foreign)?;
        Self::view(&map, geometry)
    }

    fn view(map: &Arc<Mapping>, geometry: SlotGeometry) -> Result<Self, SegmentError> {
        let at = geometry.offsets();
        let ring = geometry.ring_bytes();
        let inbound = (0..u64::from(geometry.slots))
            .map(|from| Ring::at(map, at.rings + from * Ring::segment_bytes(ring), ring))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            geometry,
            owner: map.one(at.owner)?,
            pulse: map.one(at.pulse)?,
            intent: map.one(at.intent)?,
            table: map.one(at.table)?,
            counters: map.one(at.counters)?,
            ledger: map.one(at.ledger)?,
            waits: map.rows(at.waits, NEIGH_WAIT as u64)?,
            autopsy: map.one(at.autopsy)?,
            wheel: map.rows(at.wheel, WHEEL_BUCKETS as u64)?,
            to_control: Ring::at(map, at.to_control, CONTROL_RING_BYTES)?,
            from_control: Ring::at(map, at.from_control, CONTROL_RING_BYTES)?,
            inbound,
            servers: map.rows(at.servers, geometry.servers)?,
            services: map.rows(at.services, geometry.services)?,
            buckets: map.rows(at.buckets, geometry.buckets())?,
            sessions: map.rows(at.sessions, geometry.records())?,
            extensions: map.rows(at.extensions, geometry.extensions)?,
            wide: map.rows(at.wide, geometry.wide_heads())?,
            lines: map.rows(at.lines, geometry.wide_sessions)?,
            first_wide: u32::try_from(geometry.sessions).unwrap_or(crate::limits::NONE),
        })
    }

    /// Number of the first wide record; those before have no address line.
    #[inline(always)]
    #[must_use]
    pub const fn first_wide(&self) -> u32 {
        self.first_wide
    }

    /// Heads of the free records of a kind: first free, first never used. (Without wide records there are no heads of them:
    /// the others'.)
    #[inline(always)]
    #[must_use]
    pub fn heads(&self, wide: bool) -> (&AtomicU32, &AtomicU32) {
        match self.wide.first() {
            Some(head) if wide => (&head.free, &head.fresh),
            _ => (&self.table.free, &self.table.fresh),
        }
    }

    /// The heads of a record's kind.
    #[inline(always)]
    #[must_use]
    pub fn heads_of(&self, record: u32) -> (&AtomicU32, &AtomicU32) {
        self.heads(record >= self.first_wide)
    }

    /// Numbers of the records of a kind.
    #[inline]
    #[must_use]
    pub fn records(&self, wide: bool) -> Range<u32> {
        let end = u32::try_from(self.sessions.len()).unwrap_or(crate::limits::NONE);
        if wide { self.first_wide..end } else { 0..self.first_wide }
    }

    /// The records ever used, of both kinds.
    #[must_use]
    pub fn used(&self) -> [Range<u32>; 2] {
        [false, true].map(|wide| {
            let Range { start, end } = self.records(wide);
            // Relaxed: a bound, and kept within the table. Without wide records both kinds have the same heads.
            let fresh = self.heads(wide).1.load(Ordering::Relaxed);
            start..fresh.clamp(start, end)
        })
    }

    /// Address line of a record; `None`: it is not wide (or not there).
    #[inline(always)]
    #[must_use]
    pub fn line(&self, record: u32) -> Option<&AddressLine> {
        self.lines.get(record.checked_sub(self.first_wide)? as usize)
    }
}

/// Name of a slot's file below `tables/`. No name there contains `map_`: DPDK unlinks such files.
#[must_use]
pub fn file_name(slot: u32) -> String {
    format!("slot-{slot}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_per_session_stay_below_the_promise() {
        let small = SlotGeometry {
            slot: 0,
            slots: 4,
            sessions: 0,
            wide_sessions: 0,
            servers: 1024,
            services: 64,
            extensions: 0,
        };
        let large = SlotGeometry { sessions: 10_000_000, ..small };
        let per = (large.bytes() - small.bytes()) as f64 / 10e6;
        println!("bytes per session with index: {per:.2}");
        assert!(per <= 96.0);
        assert!(large.bytes() <= 1 << 30);
        let wide = SlotGeometry { wide_sessions: 10_000_000, ..small };
        let per = (wide.bytes() - small.bytes()) as f64 / 10e6;
        println!("bytes per wide session with index: {per:.2}");
        assert!(per <= 160.0);
    }
}

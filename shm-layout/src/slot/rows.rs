//! The rows of a slot.

use crate::limits::{NEIGH_WAIT, RX_BURST, TX_HELD};
use crate::row;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// What the owner tells once per loop.
///
/// Shape: one line. Writer: owner. Readers: holder, control, lbctl. Units: milliseconds of CLOCK_BOOTTIME, nanoseconds.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct PulseRow {
    /// Last loop, ms.
    pub heartbeat_ms: AtomicU64,
    /// Generation in use; [`SEEN_IDLE`]: reads nothing; [`SEEN_JOINING`]: about to read, reclaims nothing.
    pub seen_generation: AtomicU64,
    /// Time spent in loops that had work, ns.
    pub busy_ns: AtomicU64,
    /// Time since the slot was taken, ns.
    pub total_ns: AtomicU64,
    /// Loops.
    pub polls: AtomicU64,
    /// Loops with work.
    pub busy_polls: AtomicU64,
    /// Records quarantined.
    pub quarantined: AtomicU64,
    reserved: AtomicU64,
}
row!(PulseRow, size 64, align 64);

impl PulseRow {
    /// Joins the readers: says so first, so that nothing is reclaimed between reading the root and announcing what was read
    /// there. Read the root after this and tell it by [`see`](Self::see). Owner only.
    pub fn join(&self) {
        self.seen_generation.store(SEEN_JOINING, Ordering::Release); // Release: after the claim of the slot.
        // With the publisher's fence between its store of the root and its look at the slots: either it sees us, or we see
        // its root.
        fence(Ordering::SeqCst);
    }

    /// Every read of generations before `number` is over. Owner only, at a burst boundary.
    #[inline]
    pub fn see(&self, number: u64) {
        self.seen_generation.store(number, Ordering::Release); // Pairs with the publisher's Acquire.
    }

    /// Every read is over. Owner only.
    pub fn leave(&self) {
        self.see(SEEN_IDLE);
    }
}

/// [`PulseRow::seen_generation`] of a slot that nobody serves.
pub const SEEN_IDLE: u64 = u64::MAX;
/// [`PulseRow::seen_generation`] while a reader joins.
pub const SEEN_JOINING: u64 = 0;

/// The change in progress: enough to finish it in constant time (redo: a change is planned with reads alone, written
/// here whole, then carried out; whoever finds it set carries it out again, which gives the same result).
///
/// Shape: one line. Writer: owner. Reader: the next owner. `op` is stored last when an intent is set, first when it is
/// cleared. Meaning of the words by operation: `datapath::session::intent`.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct IntentRow {
    /// Operation; 0: none.
    pub op: AtomicU32,
    /// Session record.
    pub record: AtomicU32,
    /// Index places touched: `bucket * 16 + place`.
    pub place: [AtomicU32; 2],
    /// Wheel bucket.
    pub wheel: AtomicU32,
    /// Real server id.
    pub server: AtomicU32,
    /// Service index.
    pub service: AtomicU32,
    /// Values to store, by operation.
    pub value: [AtomicU32; 9],
}
row!(IntentRow, size 64, align 64);

/// Words of the session table that are not per record.
///
/// Shape: one line. Writer: owner. Readers: lbctl, successor.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct TableRow {
    /// First free record that was used before, or NONE.
    pub free: AtomicU32,
    /// First record never used.
    pub fresh: AtomicU32,
    /// Sessions in the index.
    pub active: AtomicU32,
    /// Records in use: active ones and those the wheel still holds.
    pub records: AtomicU32,
    /// Tick the wheel has reached.
    pub tick: AtomicU32,
    /// Record a sweep has reached, or NONE.
    pub sweep: AtomicU32,
    /// Extension records: first free, first never used.
    pub extension_free: AtomicU32,
    /// See above.
    pub extension_fresh: AtomicU32,
    /// Random state of the port picker.
    pub random: AtomicU64,
    /// Sessions begun since the tables were made.
    pub created: AtomicU64,
    /// Sessions ended.
    pub ended: AtomicU64,
    /// Not 0 while the table is made anew from its records.
    pub rebuilding: AtomicU64,
}
row!(TableRow, size 64, align 64);

/// What one slot counts for one real server.
///
/// Shape: one line. Writer: owner. Readers: all slots (least-connection), control, lbctl. Units: sessions, packets, bytes.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ServerCountRow {
    /// Live sessions.
    pub active: AtomicU32,
    /// Tag of the server the counts belong to.
    pub tag: AtomicU32,
    /// Sessions begun.
    pub total: AtomicU64,
    /// From clients.
    pub packets_in: AtomicU64,
    /// To clients.
    pub packets_out: AtomicU64,
    /// From clients, IP bytes.
    pub bytes_in: AtomicU64,
    /// To clients, IP bytes.
    pub bytes_out: AtomicU64,
    /// Service index the server belongs to: a session is counted out where it was counted in, also when its server's
    /// published row is gone.
    pub service: AtomicU32,
    reserved0: AtomicU32,
    reserved: AtomicU64,
}
row!(ServerCountRow, size 64, align 64);

/// What one slot counts for one service.
///
/// Shape: one line. Writer: owner. Readers: all slots (`max_sessions`), control, lbctl.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ServiceCountRow {
    /// Live sessions.
    pub active: AtomicU32,
    /// Id of the service the counts belong to.
    pub id: AtomicU32,
    /// Sessions begun.
    pub total: AtomicU64,
    /// New sessions refused.
    pub refused: AtomicU64,
    reserved: [AtomicU64; 5],
}
row!(ServiceCountRow, size 64, align 64);

/// Addresses of the packet buffers the owner holds: the arrays handed to DPDK themselves, so that the ledger of what a
/// dead owner held costs nothing. 0 = none.
///
/// Shape: lines. Writer: owner. Reader: the next owner. Units: virtual addresses, alike in all EAL processes.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct LedgerRow {
    /// Burst taken.
    pub rx: [AtomicU64; RX_BURST],
    /// Packets to send, unsent rest first.
    pub tx: [AtomicU64; TX_HELD],
    /// Packets waiting for a neighbour.
    pub wait: [AtomicU64; NEIGH_WAIT],
}
row!(LedgerRow, size 8 * (RX_BURST + TX_HELD + NEIGH_WAIT), align 64);

/// What the packet in the same place of [`LedgerRow::wait`] waits for.
///
/// Shape: half a line. Writer: owner. Reader: the next owner, after a hand-over. Units: milliseconds of CLOCK_BOOTTIME.
#[repr(C)]
#[derive(Debug)]
pub struct WaitRow {
    /// Address of the neighbour.
    pub neighbour: [AtomicU64; 2],
    /// When it has waited too long, ms; 0: the place is free.
    pub until_ms: AtomicU64,
    /// Our number of the port.
    pub port: AtomicU32,
    reserved: AtomicU32,
}
row!(WaitRow, size 32, align 8);

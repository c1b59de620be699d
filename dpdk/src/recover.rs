//! What a killed owner left: audit and repair of a pool.
//!
//! A ring of one producer and one consumer moves a *head*, copies, then moves the *tail*. Whatever
//! instruction the owner died at, the objects between the tails are intact, so setting both heads back to
//! their tails makes the ring whole again. What is not in the ring was held by the driver, by the owner's
//! ledger, or (at most one or two) by a register.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys as sys;

use crate::Pool;
use crate::mbuf::Raw;

/// A pool's contents, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Packets the pool has in all.
    pub count: u32,
    /// Distinct packets that lie in the pool.
    pub in_ring: u32,
    /// Packets that do not: held by the driver, a ledger, or lost.
    pub missing: u32,
    /// Times a packet lies in the pool once too often. Must be 0.
    pub duplicates: u32,
    /// Entries of the ring that are no packet of this pool. Must be 0.
    pub foreign: u32,
}

/// What [`Pool::recover`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoverReport {
    /// Packets named by the ledger that went back to the pool.
    pub given_back: u32,
    /// Packets named by the ledger that the pool already had: the owner died between giving and striking out.
    pub already_in_ring: u32,
    /// Ledger words that repeat another one: the owner died while moving a packet.
    pub repeated: u32,
    /// Ledger words that name no packet of this pool; left alone.
    pub foreign: u32,
    /// Packets not in the pool afterwards: what the driver holds, and what is lost.
    pub missing: u32,
    /// Packets in the pool more than once. Must be 0.
    pub duplicates: u32,
}

/// The ring of a pool: fields at the offsets of `shim.h`.
#[derive(Clone, Copy)]
pub(crate) struct Ring(pub(crate) NonNull<sys::rte_ring>);

impl Ring {
    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: a live ring of a pool; the field is an aligned u32 there (asserted in shim.c), shared between
        // processes and therefore only touched atomically here.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().byte_add(offset as usize).cast()) }
    }

    /// Sets both heads back to their tails. Idempotent.
    fn settle(&self) {
        for (head, tail) in
            [(sys::LB_RING_CONS_HEAD, sys::LB_RING_CONS_TAIL), (sys::LB_RING_PROD_HEAD, sys::LB_RING_PROD_TAIL)]
        {
            let tail = self.word(tail).load(Ordering::Acquire);
            self.word(head).store(tail, Ordering::Release);
        }
    }

    /// The objects between the tails.
    fn objects(&self) -> impl Iterator<Item = u64> + '_ {
        let mask = self.word(sys::LB_RING_MASK).load(Ordering::Relaxed);
        let from = self.word(sys::LB_RING_CONS_TAIL).load(Ordering::Acquire);
        let to = self.word(sys::LB_RING_PROD_TAIL).load(Ordering::Acquire);
        // Never more than the table holds, whatever the counters say.
        let n = to.wrapping_sub(from).min(mask);
        (0..n).map(move |i| {
            let at = sys::LB_RING_TABLE as usize + (from.wrapping_add(i) & mask) as usize * 8;
            // SAFETY: the table has mask + 1 entries of 8 bytes behind the struct.
            unsafe { self.0.as_ptr().byte_add(at).cast::<u64>().read_volatile() }
        })
    }
}

impl Pool {
    /// Counts what lies in the pool. Exact only while nobody uses it; O(count).
    pub fn audit(&self) -> AuditReport {
        self.walk().0
    }

    fn walk(&self) -> (AuditReport, Vec<bool>) {
        let mut seen = vec![false; self.count() as usize];
        let mut report = AuditReport { count: self.count(), ..AuditReport::default() };
        for addr in self.ring().objects() {
            match self.index(addr) {
                None => report.foreign += 1,
                Some(i) if std::mem::replace(&mut seen[i as usize], true) => report.duplicates += 1,
                Some(_) => report.in_ring += 1,
            }
        }
        report.missing = report.count - report.in_ring;
        (report, seen)
    }

    /// Repairs the pool of a slot whose owner's death is **confirmed** (pidfd), given all words of its ledger
    /// (0 = empty). May be repeated, also after being killed itself; clear the ledger only afterwards.
    ///
    /// On a NIC with descriptor rings restart the queue pair first
    /// ([`Port::restart_queues`](crate::Port::restart_queues)), with one `recover(&[])` before it, so that the
    /// driver gives its packets back to a whole ring; then packets that lie in the ledger *and* in a
    /// descriptor are found in the ring here and not given twice. net_tap needs no restart.
    pub fn recover(&self, ledger: &[u64]) -> RecoverReport {
        self.ring().settle();
        let (before, mut seen) = self.walk();
        let in_ring = seen.clone();
        let mut report = RecoverReport { duplicates: before.duplicates, ..RecoverReport::default() };
        let mut back = Vec::new();
        for &addr in ledger.iter().filter(|&&addr| addr != 0) {
            let (Some(i), Some(raw)) = (self.index(addr), Raw::from_addr(addr)) else {
                report.foreign += 1;
                continue;
            };
            if in_ring[i as usize] {
                report.already_in_ring += 1;
            } else if std::mem::replace(&mut seen[i as usize], true) {
                report.repeated += 1;
            } else {
                // SAFETY: a packet of this pool (`index`), not in the ring, and its holder is dead.
                unsafe { raw.reset() };
                back.push(raw.0.as_ptr().cast::<std::ffi::c_void>());
            }
        }
        let n = u32::try_from(back.len()).expect("at most the pool's count");
        // SAFETY: distinct objects of this pool that are not in it; nobody else uses the pool now.
        if n > 0 && unsafe { sys::lb_pool_put(self.as_ptr(), back.as_ptr(), n) } == 0 {
            report.given_back = n;
        }
        report.missing = before.missing - report.given_back;
        report
    }
}

//! Kill-safe mbuf pools.
//!
//! One pool per RX queue: a single-producer, single-consumer ring and **no lcore cache**. Only the slot's
//! owner takes and gives. With stock shared pools 48 of 60 kills hang the next user for ever, with caches
//! about half the kills leave an mbuf twice in the pool; with this kind and [`Pool::recover`] neither happens.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use dpdk_sys as sys;

use crate::mbuf::{HEADROOM, Mbuf, Raw};
use crate::{rte_errno, strerror};

/// The ring behind the pool: one producer, one consumer.
const OPS: &CStr = c"ring_sp_sc";

/// Why a pool was not made or found.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Not a name DPDK takes.
    #[error("pool name {0:?} is not valid: 1 to {max} bytes without NUL", max = sys::LB_MEMPOOL_NAMESIZE - 1)]
    Name(String),
    /// DPDK refused.
    #[error("pool {name} of {count} packets of {room} bytes was not made: {reason}; give the EAL more memory?")]
    Create {
        /// The pool's name.
        name: String,
        /// Packets asked for.
        count: u32,
        /// Bytes each.
        room: u16,
        /// DPDK's text.
        reason: String,
    },
    /// There is none of that name (or the primary has not made it yet).
    #[error("pool {0} does not exist in this EAL: another file prefix, or the primary has not made it yet")]
    Missing(String),
    /// It exists but a kill could break it.
    #[error("pool {0} is not single-producer, single-consumer without a cache: made by another program?")]
    NotKillSafe(String),
}

/// A pool. A handle: dropping it frees nothing; pools live as long as the primary's EAL.
///
/// `Send` but not `Sync`: one thread at a time. That no other *process* takes or gives is the caller's
/// business (slot ownership).
pub struct Pool {
    name: String,
    ptr: NonNull<sys::rte_mempool>,
    objects: Objects,
    not_sync: PhantomData<Cell<()>>,
}

// SAFETY: the pool has no tie to a thread: no lcore cache, and its ring only wants one user at a time, which
// `!Sync` gives within the process.
unsafe impl Send for Pool {}

impl Pool {
    /// Makes a pool of `count` packets with `data_room` bytes each behind the headroom (primary only).
    ///
    /// `socket` is the NUMA node, `None` any. Memory: about `count × (data_room + 384)` bytes.
    pub fn create(name: &str, count: u32, data_room: u16, socket: Option<i32>) -> Result<Pool, PoolError> {
        let c_name = pool_name(name)?;
        let room = data_room.saturating_add(HEADROOM);
        let socket = socket.unwrap_or(-1); // SOCKET_ID_ANY
        // SAFETY: NUL-terminated names; cache 0, private size 0; EAL is started (else DPDK returns NULL).
        let ptr =
            unsafe { sys::rte_pktmbuf_pool_create_by_ops(c_name.as_ptr(), count, 0, 0, room, socket, OPS.as_ptr()) };
        match NonNull::new(ptr) {
            Some(ptr) => Self::from_ptr(name, ptr),
            None => {
                let reason = strerror(rte_errno());
                Err(PoolError::Create { name: name.to_owned(), count, room, reason })
            }
        }
    }

    /// Finds the pool of this name (primary and secondary).
    pub fn lookup(name: &str) -> Result<Pool, PoolError> {
        let c_name = pool_name(name)?;
        // SAFETY: a NUL-terminated name.
        let ptr = unsafe { sys::rte_mempool_lookup(c_name.as_ptr()) };
        Self::from_ptr(name, NonNull::new(ptr).ok_or_else(|| PoolError::Missing(name.to_owned()))?)
    }

    fn from_ptr(name: &str, ptr: NonNull<sys::rte_mempool>) -> Result<Pool, PoolError> {
        let pool = Pool { name: name.to_owned(), ptr, objects: Objects::of(ptr), not_sync: PhantomData };
        // SAFETY: a live pool; the field is a u32 at that place.
        let cache: u32 = unsafe { ptr.as_ptr().byte_add(sys::LB_POOL_CACHE_SIZE as usize).cast::<u32>().read() };
        // The handler decides how the ring is used; the ring's own flags say nothing (DPDK leaves them at multi).
        // SAFETY: a live pool; the name is static and NUL-terminated.
        let ops = unsafe { CStr::from_ptr(sys::lb_pool_ops(ptr.as_ptr())) };
        if cache != 0 || ops != OPS {
            return Err(PoolError::NotKillSafe(name.to_owned()));
        }
        Ok(pool)
    }

    /// Another handle to it, without a look into EAL's tables (whose lock a death would leave taken).
    pub fn again(&self) -> Pool {
        Pool { name: self.name.clone(), ptr: self.ptr, objects: self.objects.clone(), not_sync: PhantomData }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Packets in all.
    pub fn count(&self) -> u32 {
        self.objects.count
    }

    /// Packets that lie in the pool now.
    pub fn available(&self) -> u32 {
        // SAFETY: a live pool.
        unsafe { sys::rte_mempool_avail_count(self.as_ptr()) }
    }

    /// Bytes a packet of this pool can have, behind the headroom.
    pub fn data_room(&self) -> u16 {
        // SAFETY: a live pool of mbufs.
        unsafe { sys::lb_data_room(self.as_ptr()) }.saturating_sub(HEADROOM)
    }

    /// Takes one packet, empty. `None`: the pool is empty. See [`Ledger::alloc`](crate::Ledger::alloc) for one
    /// that a crash gives back.
    pub fn alloc(&self) -> Option<Mbuf> {
        let mut m = std::ptr::null_mut();
        // SAFETY: a live pool and room for one pointer; one thread (`!Sync`).
        if unsafe { sys::lb_alloc_bulk(self.as_ptr(), &raw mut m, 1) } != 0 {
            return None;
        }
        // SAFETY: fresh from the pool, named by nobody.
        NonNull::new(m).map(|m| unsafe { Mbuf::from_raw(Raw(m)) })
    }

    /// Gives a packet back; the same as dropping it.
    pub fn free(&self, packet: Mbuf) {
        drop(packet);
    }

    /// Whether `addr` is the address of one of this pool's mbufs. A few cycles: every access through a ledger
    /// asks.
    #[inline(always)]
    pub fn owns(&self, addr: u64) -> bool {
        self.objects.index(addr).is_some()
    }

    /// Which of the pool's mbufs lies at `addr`, from 0.
    #[inline(always)]
    pub(crate) fn index(&self, addr: u64) -> Option<u32> {
        self.objects.index(addr)
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.ptr.as_ptr()
    }

    pub(crate) fn ring(&self) -> crate::recover::Ring {
        // SAFETY: a live pool; `pool_data` is its ring (its handler was checked on construction).
        let ring = unsafe { self.as_ptr().byte_add(sys::LB_POOL_RING as usize).cast::<*mut sys::rte_ring>().read() };
        crate::recover::Ring(NonNull::new(ring).expect("a pool of ring_sp_sc has a ring"))
    }
}

fn pool_name(name: &str) -> Result<CString, PoolError> {
    let fits = !name.is_empty() && name.len() < sys::LB_MEMPOOL_NAMESIZE as usize;
    CString::new(name).ok().filter(|_| fits).ok_or_else(|| PoolError::Name(name.to_owned()))
}

/// Where a pool's mbufs lie. DPDK lets no object cross a hugepage, so a pool of several pages has a gap before each border,
/// as wide as what was left of the page: the places are told page by page.
#[derive(Clone)]
struct Objects {
    count: u32,
    /// Start of the first page.
    base: u64,
    /// ⌈2⁶⁴ / step⌉, 0 if the places are irregular. (Lemire, Kaser, Kurz 2019: exact for 32-bit dividends.)
    reciprocal: u64,
    /// By page: `first`, `first + step`, … `first + span`.
    pages: Vec<Run>,
    /// All places, sorted, if they follow no such rule.
    irregular: Vec<u64>,
}

/// Objects at even distances.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    /// Bytes from the first to the last.
    span: u64,
    /// Number of the first, in all of the pool.
    index: u32,
}

impl Run {
    /// No address lies in it: the offset of any other is above its span, and no object lies at this one.
    const EMPTY: Self = Self { first: u64::MAX, span: 0, index: 0 };
}

/// log₂ of the smallest hugepage's bytes; of larger ones each such part is a page here.
const PAGE_SHIFT: u32 = 21;

impl Objects {
    fn of(pool: NonNull<sys::rte_mempool>) -> Self {
        unsafe extern "C" fn each(_: *mut sys::rte_mempool, list: *mut c_void, obj: *mut c_void, _: u32) {
            // SAFETY: `list` is the Vec below, borrowed by nobody else during the walk.
            unsafe { &mut *list.cast::<Vec<u64>>() }.push(obj.expose_provenance() as u64);
        }
        let mut all: Vec<u64> = Vec::new();
        // SAFETY: a live pool; the callback gets what it expects.
        unsafe { sys::rte_mempool_obj_iter(pool.as_ptr(), Some(each), (&raw mut all).cast()) };
        Self::from_addresses(all)
    }

    fn from_addresses(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        let count = u32::try_from(all.len()).expect("DPDK counts objects in u32");
        let base = all.first().map_or(0, |first| first >> PAGE_SHIFT << PAGE_SHIFT);
        let step = all.windows(2).map(|w| w[1] - w[0]).min().unwrap_or(u64::from(sys::LB_MBUF_SIZE));
        match runs(&all, base, step) {
            // ⌈2⁶⁴ / step⌉ is a word for steps above 1.
            Some(pages) if step > 1 => {
                Objects { count, base, reciprocal: u64::MAX / step + 1, pages, irregular: Vec::new() }
            }
            _ => Objects { count, base, reciprocal: 0, pages: Vec::new(), irregular: all },
        }
    }

    #[inline(always)]
    fn index(&self, addr: u64) -> Option<u32> {
        if self.reciprocal == 0 {
            return self.search(addr);
        }
        // An address below the base wraps to a page that is not there.
        let run = self.pages.get(usize::try_from(addr.wrapping_sub(self.base) >> PAGE_SHIFT).ok()?)?;
        let offset = addr.wrapping_sub(run.first);
        if offset > run.span || offset.wrapping_mul(self.reciprocal) >= self.reciprocal {
            return None; // behind the last, or not a multiple of the step
        }
        let before = (u128::from(offset) * u128::from(self.reciprocal)) >> 64;
        Some(run.index + u32::try_from(before).ok()?)
    }

    #[cold]
    fn search(&self, addr: u64) -> Option<u32> {
        self.irregular.binary_search(&addr).ok().and_then(|i| u32::try_from(i).ok())
    }
}

/// The objects page by page; `None` if those of some page are not `step` apart, or far more pages are empty than not.
fn runs(all: &[u64], base: u64, step: u64) -> Option<Vec<Run>> {
    let page = |addr: u64| usize::try_from((addr - base) >> PAGE_SHIFT).ok();
    let pages = page(*all.last()?)? + 1;
    let mut runs = vec![Run::EMPTY; Some(pages).filter(|n| *n <= 2 * all.len() + 64)?];
    for (index, addr) in (0..).zip(all) {
        let run = &mut runs[page(*addr)?];
        if run.first == u64::MAX {
            *run = Run { first: *addr, span: 0, index };
        } else if *addr - run.first - run.span == step {
            run.span += step;
        } else {
            return None;
        }
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addresses: &[u64]) {
        let objects = Objects::from_addresses(addresses.to_vec());
        for (i, &a) in addresses.iter().enumerate() {
            assert_eq!(objects.index(a), Some(u32::try_from(i).unwrap()));
            for off in [1, 8, 64, 128] {
                assert_eq!(objects.index(a + off), None, "{a:#x}+{off}");
                assert_eq!(objects.index(a - off), None, "{a:#x}-{off}");
            }
        }
        for a in [0, 1, u64::MAX] {
            assert_eq!(objects.index(a), None);
        }
    }

    #[test]
    fn owns_exactly_the_starts() {
        for step in [192, 2432, 2496, 9344] {
            check(&(0..5000).map(|i| 0x1_0000_0000 + i * step).collect::<Vec<_>>());
        }
        check(&[0x1000, 0x2000, 0x5000]); // irregular
        check(&[0x1000]);
        check(&[0x1000, 0x1000 + (1 << 40)]); // most pages are empty: irregular
    }

    #[test]
    fn a_gap_before_each_hugepage_costs_no_search() {
        let page = 1_u64 << PAGE_SHIFT;
        for (begin, header, step) in [(0, 64, 2432), (0x1_2340, 64, 2496), (page - 4096, 0, 1984)] {
            let (mut at, mut addresses) = (0x7_0000_0000 + begin, Vec::new());
            while addresses.len() < 5000 {
                // As rte_mempool_op_populate_helper (DPDK 22.11 lib/mempool/rte_mempool_ops_default.c).
                if at / page != (at + step - 1) / page {
                    at = at.next_multiple_of(page);
                }
                addresses.push(at + header);
                at += step;
            }
            let objects = Objects::from_addresses(addresses.clone());
            assert!(objects.reciprocal != 0 && objects.pages.len() > 4, "{begin:#x}");
            check(&addresses);
            let (first, last) = (addresses[0], addresses[4999]);
            let owned = (first - 4096..last + 4096).step_by(64).filter(|a| objects.index(*a).is_some()).count();
            assert_eq!(owned, 5000, "none but the objects");
        }
        // A gap in the middle of a page is no border's.
        assert_eq!(Objects::from_addresses(vec![0, 2432, 9728]).reciprocal, 0);
        assert_eq!(Objects::from_addresses(Vec::new()).index(0), None);
    }
}

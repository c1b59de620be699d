//! The ledger: words of shared memory that name the packets a slot holds.
//!
//! Bursts run directly on it: the array a driver's receive call fills and its transmit call reads *is* the
//! ledger. So what a killed owner held is written down at no cost, and [`Pool::recover`] gives it back.
//!
//! Shape: `&[AtomicU64]`, a word each: the address of an mbuf, which is the same in all processes of an EAL;
//! 0 = empty. Writer: the slot's owner, through this type only. Readers: whoever recovers after its death.
//! Order of writes: a packet is named in its new place before it is struck out in the old, and given to the
//! pool or driver before it is struck out; a kill in between names it twice, which recovery sorts out.
//!
//! **Contract.** Words are zeroed when the memory is made, and changed by this type only; one `Ledger` looks
//! at a word at a time; the pool is the one its RX queue fills from. Every access checks that the word is a
//! packet of the pool (some arithmetic once, then a comparison with the address found to be one), so a damaged
//! word reads as empty rather than leading outside the pool.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use dpdk_sys as sys;

use crate::mbuf::{Mbuf, NoRoom, PacketMut, Raw};
use crate::mempool::Pool;

/// A view of ledger words, made once by who serves the slot.
pub struct Ledger<'a> {
    words: &'a [AtomicU64],
    pool: &'a Pool,
    /// By word: the last address in it that was found to be a packet of the pool, which it then is for ever.
    known: Box<[Cell<u64>]>,
}

/// `n` empty words in this process's own memory, for tests and benchmarks: a crash recovers nothing, and
/// packets left in them when they are dropped are lost to the pool ([`Ledger::free_all`] first).
pub fn words(n: usize) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

impl<'a> Ledger<'a> {
    /// A view of `words`, whose packets come from `pool`. At most 65,535 words are used by a burst.
    #[inline]
    pub fn new(words: &'a [AtomicU64], pool: &'a Pool) -> Self {
        Ledger { words, pool, known: words.iter().map(|_| Cell::new(0)).collect() }
    }

    /// Words.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.words.len()
    }

    /// The address in word `i`, 0 if empty or beyond the end. What goes into [`Pool::recover`].
    #[inline]
    pub fn addr(&self, i: usize) -> u64 {
        // Relaxed: one thread writes and reads; readers of a dead owner's words come after its death.
        self.words.get(i).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// Words in use.
    pub fn filled(&self) -> usize {
        (0..self.capacity()).filter(|&i| self.addr(i) != 0).count()
    }

    #[inline(always)]
    fn raw(&self, i: usize) -> Option<Raw> {
        let known = self.known.get(i)?;
        let addr = self.addr(i);
        if addr != known.get() {
            if !self.pool.owns(addr) {
                return None;
            }
            known.set(addr);
        }
        Raw::from_addr(addr)
    }

    /// Release: the strike-out is not seen before what it follows (a free, a copy elsewhere). The compiler
    /// keeps the order; a kill stops the CPU between two instructions, so nothing stronger is needed.
    #[inline(always)]
    fn write(&self, i: usize, addr: u64) {
        self.words[i].store(addr, Ordering::Release);
    }

    /// The bytes of packet `i`.
    #[inline(always)]
    pub fn data(&self, i: usize) -> Option<&[u8]> {
        // SAFETY: a packet of the pool named by a word only we write; the view does not outlive `&self`.
        self.raw(i).map(|raw| unsafe { PacketMut::new(raw) }.into_data() as &[u8])
    }

    /// As [`data`](Self::data), for a packet of a dead owner: `None` too if its header points out of its own buffer.
    pub fn checked_data(&self, i: usize) -> Option<&[u8]> {
        let raw = self.raw(i)?;
        raw.is_whole(self.pool.data_room()).then(|| self.data(i))?
    }

    /// Packet `i`.
    #[inline(always)]
    pub fn get(&mut self, i: usize) -> Option<PacketMut<'_>> {
        // SAFETY: as `data`, and `&mut self` for the view's life.
        self.raw(i).map(|raw| unsafe { PacketMut::new(raw) })
    }

    /// The packets of words `0..n`, one after the other.
    #[inline]
    pub fn packets(&mut self, n: usize) -> impl Iterator<Item = (usize, PacketMut<'_>)> {
        // SAFETY: words name distinct packets (contract), so the views do not overlap.
        (0..n).filter_map(|i| self.raw(i).map(|raw| (i, unsafe { PacketMut::new(raw) })))
    }

    /// Prefetches the mbuf of word `i`: a stage before [`prefetch_data`](Self::prefetch_data).
    #[inline(always)]
    pub fn prefetch_header(&self, i: usize) {
        let addr = self.addr(i);
        if addr != 0 {
            prefetch(std::ptr::without_provenance(usize::try_from(addr).unwrap_or(0)));
        }
    }

    /// Prefetches the first cache line of packet `i` (reads the mbuf: prefetch that first).
    #[inline(always)]
    pub fn prefetch_data(&self, i: usize) {
        if let Some(data) = self.data(i) {
            prefetch(data.as_ptr());
        }
    }

    /// Takes a packet from the pool into empty word `i`, empty. `None`: no packet, or the word is in use.
    pub fn alloc(&mut self, i: usize) -> Option<PacketMut<'_>> {
        let word = self.words.get(i)?;
        if word.load(Ordering::Relaxed) != 0 {
            return None;
        }
        // SAFETY: a live pool; the word has room for one pointer. The address is written before the pool's
        // tail moves: a kill loses nothing.
        if unsafe { sys::lb_alloc_bulk(self.pool.as_ptr(), word.as_ptr().cast(), 1) } != 0 {
            self.write(i, 0);
            return None;
        }
        self.get(i)
    }

    /// Takes a packet for `bytes` into empty word `i`. `Ok(false)`: no packet, or the word is in use.
    pub fn alloc_with(&mut self, i: usize, bytes: &[u8]) -> Result<bool, NoRoom> {
        match self.alloc(i).map(|mut p| p.fill(bytes)) {
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(e)) => {
                self.free(i);
                Err(e)
            }
        }
    }

    /// Takes packet `i` out of the ledger. From here on a crash loses it.
    pub fn take(&mut self, i: usize) -> Option<Mbuf> {
        let raw = self.raw(i)?;
        self.write(i, 0);
        // SAFETY: named by no word any more.
        Some(unsafe { Mbuf::from_raw(raw) })
    }

    /// Puts a packet into empty word `i`; it comes back if the word is in use or the packet is of another pool.
    pub fn put(&mut self, i: usize, packet: Mbuf) -> Result<(), Mbuf> {
        if i >= self.capacity() || self.addr(i) != 0 || !self.pool.owns(packet.addr()) {
            return Err(packet);
        }
        self.write(i, packet.into_raw().addr());
        Ok(())
    }

    /// Moves packet `i` to empty word `j` of `other`, a ledger of the same pool. `false`: nothing was moved.
    #[inline]
    pub fn move_to(&mut self, i: usize, other: &mut Ledger<'_>, j: usize) -> bool {
        self.raw(i).is_some_and(|raw| self.rename(i, raw, other, j))
    }

    /// Moves packet `i` to the queue `other` of what is to be sent, as [`move_to`](Self::move_to), without what the driver
    /// said of it at reception: flags of RX and TX share a word. Returns its bytes; `None`: nothing was moved.
    #[inline(always)]
    pub fn move_to_send(&mut self, i: usize, other: &mut Ledger<'_>, j: usize) -> Option<usize> {
        let raw = self.raw(i)?;
        // SAFETY: a packet of the pool named by a word only we write; the view ends here.
        let mut packet = unsafe { PacketMut::new(raw) };
        packet.clear_offload();
        let bytes = packet.len();
        self.rename(i, raw, other, j).then_some(bytes)
    }

    /// The packet of word `i` is named in word `j` of `other`, then no more here.
    #[inline(always)]
    fn rename(&mut self, i: usize, raw: Raw, other: &mut Ledger<'_>, j: usize) -> bool {
        let addr = raw.addr();
        let fits = std::ptr::eq(self.pool, other.pool) || other.pool.owns(addr);
        let free = other.words.get(j).filter(|word| word.load(Ordering::Relaxed) == 0);
        let (Some(word), Some(known)) = (free.filter(|_| fits), other.known.get(j)) else { return false };
        known.set(addr);
        word.store(addr, Ordering::Release); // As in `write`.
        self.write(i, 0);
        true
    }

    /// Gives packet `i` back to the pool.
    #[inline]
    pub fn free(&mut self, i: usize) {
        if let Some(raw) = self.raw(i) {
            // SAFETY: named by this word only; struck out right after.
            unsafe { sys::lb_free(raw.0.as_ptr()) };
            self.write(i, 0);
        }
    }

    /// Gives the packets of words `0..n` back to the pool, in one go.
    pub fn free_first(&mut self, n: usize) {
        let n = n.min(self.capacity());
        let mut any = false;
        for i in 0..n {
            let addr = self.addr(i);
            if addr != 0 && self.raw(i).is_none() {
                self.write(i, 0); // damaged: not followed
            }
            any |= addr != 0;
        }
        if any {
            let count = u32::try_from(n).expect("a burst is a few hundred words");
            // SAFETY: n words, each 0 or a packet of the pool named once; DPDK skips NULL and writes none.
            unsafe { sys::rte_pktmbuf_free_bulk(self.as_mbufs(), count) };
            self.strike(0, n);
        }
    }

    /// Gives all packets back.
    pub fn free_all(&mut self) {
        self.free_first(self.capacity());
    }

    /// The words as DPDK's array of mbuf pointers.
    pub(crate) fn as_mbufs(&self) -> *mut *mut sys::rte_mbuf {
        // AtomicU64 has the layout of u64 and may be written through a shared reference.
        self.words.as_ptr().cast_mut().cast()
    }

    pub(crate) fn strike(&mut self, from: usize, to: usize) {
        for i in from..to {
            self.write(i, 0);
        }
    }

    /// How many of the words `0..n` name a packet, counted up to the first that does not.
    pub(crate) fn leading(&self, n: usize) -> usize {
        (0..n.min(self.capacity())).take_while(|&i| self.raw(i).is_some()).count()
    }

    /// Moves the packets of words `from..to` to the front, which is empty.
    pub(crate) fn shift_down(&mut self, from: usize, to: usize) {
        for i in from..to {
            self.write(i - from, self.addr(i));
            self.write(i, 0);
        }
    }
}

/// A packet's address, for tools that print ledgers.
impl std::fmt::Debug for Ledger<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger({} of {} words, pool {})", self.filled(), self.capacity(), self.pool.name())
    }
}

#[inline(always)]
fn prefetch(p: *const u8) {
    // SAFETY: a prefetch faults on no address.
    unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(p.cast()) };
}

/// Keeps the import honest: a word is exactly a pointer.
const _: () = assert!(size_of::<AtomicU64>() == size_of::<Option<NonNull<sys::rte_mbuf>>>());

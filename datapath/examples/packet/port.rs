//! A port made of packet buffers as DPDK lays them out: on hugepages, 2,368 bytes apart, so that 32 headers do not fall
//! into the same few lines of the cache. 4,096 of them are 9.25 MiB, taken round and round: no header is in L1 or L2.

use datapath::io::{Flushed, Io};
use memmap2::MmapOptions;
use shm_layout::limits::RX_BURST;

/// Buffers, and packets of a round.
pub const BUFFERS: usize = 4096;
/// An mbuf (128), headroom (128), 2,048 bytes of data, the pool's own header (64).
const BUFFER: usize = 2368;
const START: usize = 64 + 128 + 128;

/// The port.
pub struct Port {
    /// One bound for both: a place is checked once, as with the slot's ledger.
    buffers: &'static mut [[u8; BUFFER]; BUFFERS],
    lengths: Box<[u16; BUFFERS]>,
    next: usize,
    burst: usize,
    queued: usize,
    bytes: u64,
    /// Frames it was given to send, and those that were dropped.
    pub sent: u64,
    pub dropped: u64,
}

impl Port {
    /// Empty frames. The memory is never given back.
    pub fn new() -> Self {
        let len = (BUFFERS * BUFFER).next_multiple_of(2 << 20);
        let huge = MmapOptions::new().len(len).huge(Some(21)).map_anon();
        let memory = Box::leak(Box::new(huge.or_else(|_| MmapOptions::new().len(len).map_anon()).unwrap()));
        let buffers = memory.as_chunks_mut().0.first_chunk_mut().unwrap();
        let lengths = Box::new([0; BUFFERS]);
        Self { buffers, lengths, next: BUFFERS, burst: 0, queued: 0, bytes: 0, sent: 0, dropped: 0 }
    }

    /// Buffer `n`, as long as a frame may be.
    pub fn buffer(&mut self, n: usize) -> &mut [u8] {
        &mut self.buffers[n][START..]
    }

    /// Puts a frame into buffer `n`.
    pub fn put(&mut self, n: usize, frame: &[u8]) {
        self.buffer(n)[..frame.len()].copy_from_slice(frame);
        self.lengths[n] = u16::try_from(frame.len()).unwrap();
    }

    /// The frame in buffer `n`.
    pub fn frame_of(&self, n: usize) -> &[u8] {
        &self.buffers[n][START..][..usize::from(self.lengths[n])]
    }

    /// Delivers all frames once more.
    pub fn rewind(&mut self) {
        (self.next, self.sent, self.dropped) = (0, 0, 0);
    }
}

impl Io for Port {
    #[inline]
    fn receive(&mut self) -> usize {
        let count = RX_BURST.min(BUFFERS - self.next);
        self.burst = self.next;
        self.next += count;
        count
    }
    #[inline(always)]
    fn frame(&mut self, place: usize) -> Option<&mut [u8]> {
        let n = (self.burst + place) % BUFFERS;
        let len = usize::from(self.lengths[n]) % (BUFFER - START);
        Some(&mut self.buffers[n][START..START + len])
    }
    #[inline(always)]
    fn prefetch(&self, place: usize) {
        arch::prefetch_at(self.buffers.as_flattened(), (self.burst + place) * BUFFER + START);
    }
    #[inline(always)]
    fn send(&mut self, place: usize) -> bool {
        self.queued += 1;
        self.bytes += self.lengths.get(self.burst + place).map_or(0, |len| u64::from(*len));
        true
    }
    #[inline(always)]
    fn send_all(&mut self, from: usize, to: usize) -> usize {
        let lengths = self.lengths.get(self.burst + from..self.burst + to).unwrap_or_default();
        self.queued += lengths.len();
        self.bytes += lengths.iter().map(|len| u64::from(*len)).sum::<u64>();
        to
    }
    fn flush(&mut self) -> Flushed {
        let (sent, bytes) = (std::mem::take(&mut self.queued), std::mem::take(&mut self.bytes));
        self.sent += sent as u64;
        Flushed { sent, bytes, ..Flushed::default() }
    }
    fn queued(&self) -> usize {
        self.queued
    }
    fn discard(&mut self, _: usize) {
        self.dropped += 1;
    }
    fn inject(&mut self, _: usize, _: &[u8]) -> bool {
        false
    }
    fn resize(&mut self, _: usize, _: usize) -> bool {
        false
    }
    fn park(&mut self, _: usize, _: usize) {}
    fn parked(&mut self, _: usize) -> Option<&mut [u8]> {
        None
    }
    fn unpark(&mut self, _: usize) -> bool {
        false
    }
    fn discard_parked(&mut self, _: usize) {}
    fn originate(&mut self, _: &[u8]) -> bool {
        false
    }
}

//! Single-producer single-consumer byte ring between processes: records of 64-byte granules, copied in and out.
//!
//! A record is visible only when whole (the tail moves last); a consumer killed between copy and head takes the record
//! again. Neither side ever waits for the other.

use crate::failpoint::{self, Bug, Op};
use crate::limits::RING_FRAME_MAX;
use crate::row;
use crate::segment::Rows;
use crate::sync::{AtomicU64, Ordering};

/// Granule of a ring, bytes.
pub const GRANULE: usize = 64;

/// Shape: two lines, one per side. Writers: producer (tail), consumer (head). Readers: both, lbctl. Units: granules.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct RingControl {
    /// Granules written so far. Producer.
    tail: AtomicU64,
    /// Records written so far. Producer.
    pushed: AtomicU64,
    /// Records refused because the ring was full. Producer.
    refused: AtomicU64,
    pad0: [AtomicU64; 5],
    /// Granules taken so far. Consumer.
    head: AtomicU64,
    /// Records taken so far. Consumer.
    popped: AtomicU64,
    pad1: [AtomicU64; 6],
}
row!(RingControl, size 128, align 64, tail @ 0, head @ 64);

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RecordKind {
    /// A frame for the receiving slot's datapath.
    Redirect = 1,
    /// A frame to be sent as it is by the receiving slot.
    Send = 2,
    /// A frame for control (ARP answers).
    Learn = 3,
    /// Control: please resolve `args[0]` (IPv4) on port `args[1]`. With a frame of 16 bytes: that IPv6 address. From layout 1.2.
    Resolve = 4,
    /// Slot: end sessions. `args`: client address, client port, vip address, vip port, protocol (0 = any each). With a frame of
    /// 32 bytes: IPv6 client's and virtual address (zeros: any) in place of those two words. From layout 1.2.
    Kill = 5,
}

impl RecordKind {
    fn of(word: u16) -> Option<Self> {
        [Self::Redirect, Self::Send, Self::Learn, Self::Resolve, Self::Kill].into_iter().find(|k| *k as u16 == word)
    }
}

/// Arguments of a record that carries no frame.
pub type Args = [u32; 5];

/// First words of a record: `len | kind << 32`, then the arguments; the frame follows in the next granule.
const HEADER_WORDS: usize = GRANULE / 8;

/// One ring: its control lines and its granules.
#[derive(Clone, Debug)]
pub struct Ring {
    control: crate::segment::One<RingControl>,
    words: Rows<AtomicU64>,
    granules: u64,
}

impl Ring {
    /// Bytes of a ring whose records take `bytes`.
    #[must_use]
    pub const fn segment_bytes(bytes: usize) -> u64 {
        (size_of::<RingControl>() + bytes) as u64
    }

    /// Views the ring at `offset`: control lines, then `bytes` (a power of two) of granules.
    ///
    /// # Errors
    /// Out of bounds.
    pub fn at(
        map: &std::sync::Arc<crate::segment::Mapping>,
        offset: u64,
        bytes: usize,
    ) -> Result<Self, crate::error::SegmentError> {
        let words = map.rows(offset + size_of::<RingControl>() as u64, (bytes / 8) as u64)?;
        Ok(Self { control: map.one(offset)?, words, granules: (bytes / GRANULE) as u64 })
    }

    #[inline]
    fn granule(&self, at: u64) -> &[AtomicU64] {
        // granules is a power of two and words.len() == granules * 8, so the range is inside.
        #[allow(clippy::cast_possible_truncation, reason = "masked by the ring size")]
        let at = (at & (self.granules - 1)) as usize * HEADER_WORDS;
        &self.words[at..at + HEADER_WORDS]
    }

    /// Copies a record in. Producer only. `false`: full (counted), or the frame is longer than [`RING_FRAME_MAX`].
    pub fn push(&self, kind: RecordKind, args: Args, frame: &[u8]) -> bool {
        let need = 1 + frame.len().div_ceil(GRANULE) as u64;
        let tail = self.control.tail.load(Ordering::Relaxed); // Relaxed: own word.
        // Pairs with the Release in `pop`: what the consumer gave back is free to overwrite.
        let head = self.control.head.load(Ordering::Acquire);
        if frame.len() > RING_FRAME_MAX || tail.wrapping_sub(head).saturating_add(need) > self.granules {
            let refused = self.control.refused.load(Ordering::Relaxed);
            self.control.refused.store(refused + 1, Ordering::Relaxed); // Relaxed: a counter of one writer.
            return false;
        }
        let _op = failpoint::enter(Op::Push);
        if failpoint::planted(Bug::TailBeforeFrame) {
            self.control.tail.store(tail + need, Ordering::Release);
        }
        let first = self.granule(tail);
        // Relaxed stores here and below: published by the Release of tail.
        first[0].store(frame.len() as u64 | u64::from(kind as u16) << 32, Ordering::Relaxed);
        first[1].store(u64::from(args[0]) | u64::from(args[1]) << 32, Ordering::Relaxed);
        first[2].store(u64::from(args[2]) | u64::from(args[3]) << 32, Ordering::Relaxed);
        first[3].store(u64::from(args[4]), Ordering::Relaxed);
        failpoint::store();
        for (i, chunk) in frame.chunks(GRANULE).enumerate() {
            let granule = self.granule(tail + 1 + i as u64);
            for (word, bytes) in granule.iter().zip(chunk.chunks(8)) {
                let mut value = [0; 8];
                value[..bytes.len()].copy_from_slice(bytes);
                word.store(u64::from_le_bytes(value), Ordering::Relaxed);
            }
            failpoint::store();
        }
        let pushed = self.control.pushed.load(Ordering::Relaxed);
        self.control.pushed.store(pushed + 1, Ordering::Relaxed);
        failpoint::store();
        // Pairs with the Acquire in `pop`.
        self.control.tail.store(tail + need, Ordering::Release);
        failpoint::store();
        true
    }

    /// Copies the next record out: kind, arguments, frame length; the frame's bytes go to `into`. Consumer only.
    ///
    /// A record that makes no sense (the producer died or scribbled) empties the ring: nothing after it can be trusted.
    pub fn pop(&self, into: &mut [u8; RING_FRAME_MAX]) -> Option<(RecordKind, Args, usize)> {
        let head = self.control.head.load(Ordering::Relaxed); // Relaxed: own word.
        let tail = self.control.tail.load(Ordering::Acquire); // Pairs with the Release in `push`.
        if head == tail {
            return None;
        }
        let used = tail.wrapping_sub(head);
        let first = self.granule(head);
        let word = first[0].load(Ordering::Relaxed);
        #[allow(clippy::cast_possible_truncation, reason = "fields of the record's first word")]
        let (len, kind) = (word as u32 as usize, RecordKind::of((word >> 32) as u16));
        let need = 1 + len.div_ceil(GRANULE) as u64;
        let (Some(kind), true) = (kind, used <= self.granules && need <= used && len <= RING_FRAME_MAX) else {
            // All records are given up together.
            self.finish(tail, self.control.pushed.load(Ordering::Relaxed));
            return None;
        };
        let mut args = [0; 5];
        for (i, pair) in args.chunks_mut(2).enumerate() {
            let word = first[1 + i].load(Ordering::Relaxed);
            for (j, arg) in pair.iter_mut().enumerate() {
                #[allow(clippy::cast_possible_truncation, reason = "two arguments in a word")]
                {
                    *arg = (word >> (32 * j)) as u32;
                }
            }
        }
        for (i, chunk) in into[..len].chunks_mut(GRANULE).enumerate() {
            let granule = self.granule(head + 1 + i as u64);
            for (bytes, word) in chunk.chunks_mut(8).zip(granule) {
                let value = word.load(Ordering::Relaxed).to_le_bytes();
                bytes.copy_from_slice(&value[..bytes.len()]);
            }
        }
        let popped = self.control.popped.load(Ordering::Relaxed); // Relaxed: own word.
        self.finish(head + need, popped + 1);
        Some((kind, args, len))
    }

    fn finish(&self, head: u64, popped: u64) {
        let _op = failpoint::enter(Op::Pop);
        self.control.popped.store(popped, Ordering::Relaxed); // Relaxed: statistics of one writer.
        failpoint::store();
        // Pairs with the Acquire in `push`: the granules are free only when copied out.
        self.control.head.store(head, Ordering::Release);
        failpoint::store();
    }

    /// Nothing to take? One load of the producer's line.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // Relaxed: a hint; `pop` acquires.
        self.control.tail.load(Ordering::Relaxed) == self.control.head.load(Ordering::Relaxed)
    }

    /// Records lying in the ring; exact at rest.
    #[must_use]
    pub fn len(&self) -> u64 {
        let popped = self.control.popped.load(Ordering::Relaxed); // Relaxed: statistics.
        self.control.pushed.load(Ordering::Relaxed).saturating_sub(popped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Mapping;

    fn ring(bytes: usize) -> Ring {
        Ring::at(&Mapping::anonymous(Ring::segment_bytes(bytes), false).unwrap(), 0, bytes).unwrap()
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        let ring = ring(32 * 1024);
        let mut into = [0; RING_FRAME_MAX];
        for round in 0..5_000_usize {
            let frame: Vec<u8> = (0..round % 1600).map(|i| (i * round) as u8).collect();
            assert!(ring.push(RecordKind::Redirect, [1, 2, 3, 4, round as u32], &frame));
            assert_eq!(ring.len(), 1);
            let (kind, args, len) = ring.pop(&mut into).unwrap();
            assert_eq!((kind, args, &into[..len]), (RecordKind::Redirect, [1, 2, 3, 4, round as u32], &frame[..]));
            assert!(ring.is_empty() && ring.pop(&mut into).is_none());
        }
    }

    #[test]
    fn full_is_said_and_nothing_is_overwritten() {
        let ring = ring(32 * 1024);
        let mut n = 0_u8;
        while ring.push(RecordKind::Send, [0; 5], &[n; 1000]) {
            n += 1;
        }
        assert_eq!(n as usize, 512 / 17);
        assert!(!ring.push(RecordKind::Send, [0; 5], &vec![0; RING_FRAME_MAX + 1]));
        let mut into = [0; RING_FRAME_MAX];
        for want in 0..n {
            let (_, _, len) = ring.pop(&mut into).unwrap();
            assert_eq!((&into[..len], len), (&[want; 1000][..], 1000));
        }
    }

    #[test]
    fn garbage_empties_the_ring() {
        let ring = ring(32 * 1024);
        assert!(ring.push(RecordKind::Send, [0; 5], &[1; 100]));
        ring.words[0].store(u64::MAX, Ordering::Relaxed);
        let mut into = [0; RING_FRAME_MAX];
        assert!(ring.push(RecordKind::Send, [0; 5], &[1; 100]));
        assert!(ring.pop(&mut into).is_none());
        assert_eq!(ring.len(), 0, "both are given up");
        assert!(ring.push(RecordKind::Send, [0; 5], &[2; 100]));
        assert!(ring.pop(&mut into).is_some());
    }

    #[test]
    fn two_threads() {
        let ring = ring(64 * 1024);
        std::thread::scope(|s| {
            s.spawn(|| {
                for i in 0..100_000_u32 {
                    while !ring.push(RecordKind::Redirect, [i; 5], &i.to_le_bytes()) {
                        std::thread::yield_now();
                    }
                }
            });
            let mut into = [0; RING_FRAME_MAX];
            let mut next = 0_u32;
            while next < 100_000 {
                match ring.pop(&mut into) {
                    Some((_, args, 4)) => {
                        assert_eq!((args, &into[..4]), ([next; 5], &next.to_le_bytes()[..]));
                        next += 1;
                    }
                    Some(_) => panic!("length"),
                    None => std::thread::yield_now(),
                }
            }
        });
    }
}

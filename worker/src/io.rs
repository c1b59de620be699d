//! [`Io`] over DPDK: bursts run directly on the slot's ledger in shared memory, so that whatever a killed owner held can
//! be given back by its successor.

use datapath::io::{Flushed, Io};
use dpdk::{Ledger, Pool, Port, PortError, RxQueue, TxQueue};
use shm_layout::slot::Slot;

/// Queue pair and ledger of one slot. Made in the thread that uses it: the pool knows one user at a time.
pub struct DpdkIo {
    rx_queue: RxQueue,
    tx_queue: TxQueue,
    rx: Ledger<'static>,
    tx: Ledger<'static>,
    wait: Ledger<'static>,
    /// Frames in `tx`, from place 0.
    queued: usize,
    /// The port took nothing at the last flush.
    refused: bool,
}

impl DpdkIo {
    /// The slot's queue pair `queue` of `port`. The ledger is empty: the caller has recovered or cleared it.
    ///
    /// Slot and pool are leaked: a worker keeps both until it ends, and ends by `_exit`.
    ///
    /// # Errors
    /// The port has no such queue.
    pub fn open(slot: Slot, pool: Pool, port: &Port, queue: u16) -> Result<Self, PortError> {
        let (slot, pool): (&'static Slot, &'static Pool) = (Box::leak(Box::new(slot)), Box::leak(Box::new(pool)));
        let row = &*slot.ledger;
        Ok(Self {
            rx_queue: RxQueue::open(port, queue)?,
            tx_queue: TxQueue::open(port, queue)?,
            rx: Ledger::new(&row.rx, pool),
            tx: Ledger::new(&row.tx, pool),
            wait: Ledger::new(&row.wait, pool),
            queued: 0,
            refused: false,
        })
    }
}

/// The frame's bytes; `None` when they lie in several buffers.
#[inline(always)]
fn bytes<'a>(ledger: &'a mut Ledger<'_>, place: usize) -> Option<&'a mut [u8]> {
    ledger.get(place).filter(|packet| packet.nb_segs() == 1).map(dpdk::PacketMut::into_data)
}

/// Moves a frame to place `end` of `tx`, without the flags of its reception: those of transmission share their word.
#[inline(always)]
fn queue(from: &mut Ledger<'_>, place: usize, tx: &mut Ledger<'_>, end: &mut usize) -> bool {
    if let Some(mut packet) = from.get(place) {
        packet.clear_offload();
    }
    let moved = from.move_to(place, tx, *end);
    *end += usize::from(moved);
    moved
}

impl Io for DpdkIo {
    #[inline]
    fn receive(&mut self) -> usize {
        let count = self.rx_queue.burst(&mut self.rx);
        for place in 0..count {
            self.rx.prefetch_header(place);
        }
        count
    }

    fn inject(&mut self, place: usize, frame: &[u8]) -> bool {
        self.rx.alloc_with(place, frame).unwrap_or(false)
    }

    #[inline(always)]
    fn frame(&mut self, place: usize) -> Option<&mut [u8]> {
        bytes(&mut self.rx, place)
    }

    #[inline(always)]
    fn prefetch(&self, place: usize) {
        self.rx.prefetch_data(place);
    }

    fn resize(&mut self, place: usize, len: usize) -> bool {
        self.rx.get(place).is_some_and(|mut packet| packet.set_len(len).is_ok())
    }

    #[inline]
    fn send(&mut self, place: usize) -> bool {
        queue(&mut self.rx, place, &mut self.tx, &mut self.queued)
    }

    #[inline]
    fn discard(&mut self, place: usize) {
        self.rx.free(place);
    }

    fn park(&mut self, place: usize, at: usize) {
        let moved = self.rx.move_to(place, &mut self.wait, at);
        debug_assert!(moved, "the caller parks on free places");
    }

    fn parked(&mut self, at: usize) -> Option<&mut [u8]> {
        bytes(&mut self.wait, at)
    }

    fn unpark(&mut self, at: usize) -> bool {
        queue(&mut self.wait, at, &mut self.tx, &mut self.queued)
    }

    fn discard_parked(&mut self, at: usize) {
        self.wait.free(at);
    }

    fn originate(&mut self, frame: &[u8]) -> bool {
        let made = self.tx.alloc_with(self.queued, frame).unwrap_or(false);
        self.queued += usize::from(made);
        made
    }

    fn flush(&mut self) -> Flushed {
        let length = |tx: &Ledger<'_>, place: usize| tx.data(place).map_or(0, |d| d.len() as u64);
        let before: u64 = (0..self.queued).map(|place| length(&self.tx, place)).sum();
        let sent = self.tx_queue.burst(&mut self.tx, self.queued);
        self.queued -= sent;
        let rest: u64 = (0..self.queued).map(|place| length(&self.tx, place)).sum();
        let mut dropped = 0;
        // Refused twice in a row: the first may be one that the port can never send.
        if sent > 0 || self.queued == 0 {
            self.refused = false;
        } else if std::mem::replace(&mut self.refused, true) {
            self.refused = false;
            self.drop_first();
            dropped = 1;
        }
        Flushed { sent, bytes: before - rest, dropped, held: self.queued }
    }

    fn queued(&self) -> usize {
        self.queued
    }
}

impl DpdkIo {
    /// Gives up the first frame of `tx`; the others move up.
    #[cold]
    fn drop_first(&mut self) {
        self.tx.free(0);
        for place in 1..self.queued {
            if let Some(packet) = self.tx.take(place) {
                // The place before it has just been emptied.
                let _ = self.tx.put(place - 1, packet);
            }
        }
        self.queued -= 1;
    }
}

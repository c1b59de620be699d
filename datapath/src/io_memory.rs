//! [`Io`] over plain memory: cases and benchmarks run in milliseconds, without DPDK.

use std::collections::VecDeque;

use shm_layout::limits::{NEIGH_WAIT, RX_BURST, TX_HELD};

use crate::io::{Flushed, Io};

/// Room of a buffer, bytes.
const ROOM: usize = 9728;

/// A port in memory: push frames to `input`, run the slot, look at `output`.
#[derive(Debug, Default)]
pub struct MemoryIo {
    /// Frames the port will deliver.
    pub input: VecDeque<Vec<u8>>,
    /// Frames the port has taken, oldest first.
    pub output: Vec<Vec<u8>>,
    /// Frames the kernel interface will deliver.
    pub kernel_input: VecDeque<Vec<u8>>,
    /// Frames the kernel interface has taken.
    pub kernel_output: Vec<Vec<u8>>,
    /// Frames the port takes per flush; `None`: all.
    pub accept: Option<usize>,
    /// Buffers left; `None`: endless.
    pub buffers: Option<usize>,
    rx: Vec<Option<Vec<u8>>>,
    tx: VecDeque<Vec<u8>>,
    wait: Vec<Option<Vec<u8>>>,
    refused: bool,
}

impl MemoryIo {
    /// An empty port.
    #[must_use]
    pub fn new() -> Self {
        Self { rx: vec![None; RX_BURST], wait: vec![None; NEIGH_WAIT], ..Self::default() }
    }

    /// Frames in `rx`, `tx` and `wait`. Between bursts `rx` is empty: what is left there was forgotten.
    #[must_use]
    pub fn places(&self) -> [usize; 3] {
        let taken = |row: &[Option<Vec<u8>>]| row.iter().flatten().count();
        [taken(&self.rx), self.tx.len(), taken(&self.wait)]
    }

    /// The owner died: what it held is given back unsent. The port goes on, with what it has and has taken.
    pub fn owner_died(&mut self) {
        self.rx.fill(None);
        self.tx.clear();
        self.wait.fill(None);
        self.refused = false;
    }

    fn take_buffer(&mut self) -> bool {
        match &mut self.buffers {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    fn push_tx(&mut self, frame: Vec<u8>) -> Result<(), Vec<u8>> {
        if self.tx.len() < TX_HELD {
            self.tx.push_back(frame);
            return Ok(());
        }
        Err(frame)
    }
}

impl Io for MemoryIo {
    fn receive(&mut self) -> usize {
        take(&mut self.rx, &mut self.input)
    }

    fn inject(&mut self, place: usize, frame: &[u8]) -> bool {
        if !self.take_buffer() {
            return false;
        }
        self.rx[place] = Some(frame.to_vec());
        true
    }

    fn frame(&mut self, place: usize) -> Option<&mut [u8]> {
        self.rx[place].as_deref_mut()
    }

    fn prefetch(&self, _place: usize) {}

    fn resize(&mut self, place: usize, len: usize) -> bool {
        match &mut self.rx[place] {
            Some(frame) if len <= ROOM => {
                frame.resize(len, 0);
                true
            }
            _ => false,
        }
    }

    fn prepend(&mut self, place: usize, n: usize) -> bool {
        let room = self.rx[place].as_mut().filter(|frame| frame.len() + n <= ROOM);
        room.is_some_and(|frame| frame.splice(..0, std::iter::repeat_n(0xaa, n)).count() == 0)
    }

    fn cut(&mut self, place: usize, n: usize) -> bool {
        let frame = self.rx[place].as_mut().filter(|frame| frame.len() > n);
        frame.is_some_and(|frame| frame.drain(..n).count() == n)
    }

    fn send(&mut self, place: usize) -> bool {
        let Some(frame) = self.rx[place].take() else { return false };
        match self.push_tx(frame) {
            Ok(()) => true,
            Err(frame) => {
                self.rx[place] = Some(frame);
                false
            }
        }
    }

    fn discard(&mut self, place: usize) {
        self.rx[place] = None;
    }

    fn park(&mut self, place: usize, at: usize) {
        self.wait[at] = self.rx[place].take();
    }

    fn parked(&mut self, at: usize) -> Option<&mut [u8]> {
        self.wait[at].as_deref_mut()
    }

    fn unpark(&mut self, at: usize) -> bool {
        let Some(frame) = self.wait[at].take() else { return false };
        match self.push_tx(frame) {
            Ok(()) => true,
            Err(frame) => {
                self.wait[at] = Some(frame);
                false
            }
        }
    }

    fn discard_parked(&mut self, at: usize) {
        self.wait[at] = None;
    }

    fn originate(&mut self, frame: &[u8]) -> bool {
        self.tx.len() < TX_HELD && self.take_buffer() && self.push_tx(frame.to_vec()).is_ok()
    }

    fn flush(&mut self) -> Flushed {
        let mut flushed = Flushed::default();
        let count = self.tx.len().min(self.accept.unwrap_or(usize::MAX));
        for frame in self.tx.drain(..count) {
            flushed.bytes += frame.len() as u64;
            self.output.push(frame);
        }
        flushed.sent = count;
        // The port refused twice in a row: give up the first, keep the others.
        if count > 0 || self.tx.is_empty() {
            self.refused = false;
        } else if std::mem::replace(&mut self.refused, true) {
            self.tx.pop_front();
            self.refused = false;
            flushed.dropped = 1;
        }
        flushed.held = self.tx.len();
        flushed
    }

    fn queued(&self) -> usize {
        self.tx.len()
    }

    fn receive_kernel(&mut self) -> usize {
        take(&mut self.rx, &mut self.kernel_input)
    }

    fn to_kernel(&mut self, place: usize) -> bool {
        self.kernel_output.extend(self.rx[place].take());
        true
    }
}

fn take(rx: &mut [Option<Vec<u8>>], input: &mut VecDeque<Vec<u8>>) -> usize {
    let count = input.len().min(RX_BURST);
    for (place, frame) in rx.iter_mut().zip(input.drain(..count)) {
        *place = Some(frame);
    }
    count
}

//! A worker that only reflects, in builds with the feature `reflect` alone: loop, ports, buffers and clocks are those of
//! the real one, so that what the datapath costs is the difference.

use datapath::io::Io;
use shm_layout::counters::{Counts, Flow};
use shm_layout::slot::Slot;

use crate::io::DpdkIo;

/// Turns with frames between two flips of the counters: often enough for who watches, too seldom to cost.
const FLIP: u32 = 1024;

/// Counts of one slot.
#[derive(Default)]
pub struct Reflector {
    counts: Option<Counts>,
    turns: u32,
}

impl Reflector {
    /// One turn: sends back what has come, with its addresses swapped. Returns the frames.
    pub fn poll(&mut self, io: &mut DpdkIo, slot: &Slot) -> usize {
        let Some(counts) = &mut self.counts else {
            self.counts = slot.counters.read();
            return 0;
        };
        let count = io.receive();
        (0..count).for_each(|place| io.prefetch(place));
        for place in 0..count {
            if let Some(addresses) = io.frame(place).and_then(|frame| frame.first_chunk_mut::<12>()) {
                addresses.rotate_left(6);
            }
            if !io.send(place) {
                io.discard(place);
            }
        }
        if io.queued() > 0 {
            let flushed = io.flush();
            counts.add(Flow::Rx, count as u64);
            counts.add(Flow::Tx, flushed.sent as u64);
            self.turns += 1;
        }
        if self.turns >= FLIP {
            self.turns = 0;
            slot.counters.flip(counts);
        }
        count
    }
}

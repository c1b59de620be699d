//! What the datapath needs of a port: frames in places, bursts, buffers. DPDK is one implementation, plain memory another.
//!
//! Places are numbers in the arrays of the slot's ledger: `rx` holds the burst being worked on, `tx` what is to be sent
//! (an unsent rest first), `wait` what waits for a neighbour. A frame is in exactly one place; moving it between places
//! or freeing it is all that can happen to it, so none can be lost.

/// Sent and given up by one [`Io::flush`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Packets the port took.
    pub sent: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Packets given up: the first of a rest that was not taken twice.
    pub dropped: usize,
    /// Packets still waiting in `tx`.
    pub held: usize,
}

/// Frames and bursts of one slot.
pub trait Io {
    /// Takes a burst of at most [`RX_BURST`](shm_layout::limits::RX_BURST) frames into `rx`; returns how many. `rx` is empty before.
    fn receive(&mut self) -> usize;

    /// Takes a buffer, copies `frame` into it, puts it into `rx[place]` (the next free place). `false`: no buffer.
    fn inject(&mut self, place: usize, frame: &[u8]) -> bool;

    /// Bytes of `rx[place]`; `None` when the frame lies in several buffers.
    fn frame(&mut self, place: usize) -> Option<&mut [u8]>;

    /// Asks for the first line of the frame's bytes.
    fn prefetch(&self, place: usize);

    /// Makes the frame in `rx[place]` `len` bytes long. `false`: no room in its buffer.
    fn resize(&mut self, place: usize, len: usize) -> bool;

    /// Puts `n` bytes of any content before the frame in `rx[place]`. `false`: no room in its buffer.
    fn prepend(&mut self, _place: usize, _n: usize) -> bool {
        false
    }

    /// Cuts `n` bytes off the front of the frame in `rx[place]`. `false`: it has no more than that.
    fn cut(&mut self, _place: usize, n: usize) -> bool {
        n == 0
    }

    /// Moves `rx[place]` to the end of `tx`. `false`: `tx` is full (the frame stays).
    fn send(&mut self, place: usize) -> bool;

    /// [`send`](Self::send) of `rx[from..to]`, in order. Returns the first place whose frame stays, `to` if none does.
    #[inline]
    fn send_all(&mut self, from: usize, to: usize) -> usize {
        (from..to).find(|place| !self.send(*place)).unwrap_or(to)
    }

    /// Frees `rx[place]`.
    fn discard(&mut self, place: usize);

    /// Moves `rx[place]` to the free place `wait[at]`.
    fn park(&mut self, place: usize, at: usize);

    /// Bytes of `wait[at]`.
    fn parked(&mut self, at: usize) -> Option<&mut [u8]>;

    /// Moves `wait[at]` to the end of `tx`. `false`: `tx` is full (the frame stays).
    fn unpark(&mut self, at: usize) -> bool;

    /// Frees `wait[at]`.
    fn discard_parked(&mut self, at: usize);

    /// Takes a buffer, copies `frame` into it, puts it at the end of `tx`. `false`: no buffer or no room.
    fn originate(&mut self, frame: &[u8]) -> bool;

    /// Hands `tx` to the port. Of a rest that the port did not take in two calls the first is freed (a frame the port
    /// cannot send at all must not block the others); the rest stays in front for the next flush.
    fn flush(&mut self) -> Flushed;

    /// Frames waiting in `tx`.
    fn queued(&self) -> usize;

    /// As [`Self::receive`], from the port's kernel interface. `rx` is empty before.
    fn receive_kernel(&mut self) -> usize {
        0
    }

    /// Hands `rx[place]` to the port's kernel interface. `false`: there is none, or it takes none now (the frame stays).
    fn to_kernel(&mut self, _place: usize) -> bool {
        false
    }
}

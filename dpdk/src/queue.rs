//! Bursts.

use crate::ledger::Ledger;
use crate::port::{Port, PortError};
use dpdk_sys as sys;

/// A receive queue. One owner at a time: `&mut`, not `Clone`; across processes the slot's ownership word.
#[derive(Debug)]
pub struct RxQueue {
    port: u16,
    queue: u16,
}

/// A transmit queue. One owner at a time, as [`RxQueue`].
#[derive(Debug)]
pub struct TxQueue {
    port: u16,
    queue: u16,
}

impl RxQueue {
    /// Queue `queue` of a configured port.
    pub fn open(port: &Port, queue: u16) -> Result<Self, PortError> {
        port.check_queue(queue, "rx")?;
        Ok(RxQueue { port: port.id(), queue })
    }

    /// Receives into the ledger; packets are in words `0..n`, the others are empty.
    ///
    /// Whatever the ledger still held is given back to the pool first, so words are empty before the driver
    /// writes: a killed owner's half-filled array can be read. Drivers that write pointers behind the count
    /// they return (vector PMDs look ahead) are corrected before this returns.
    #[inline]
    pub fn burst(&mut self, ledger: &mut Ledger<'_>) -> usize {
        ledger.free_all();
        let n = u16::try_from(ledger.capacity()).unwrap_or(u16::MAX);
        // SAFETY: the queue was checked at `open`; the array has n words.
        let got = usize::from(unsafe { sys::lb_rx_burst(self.port, self.queue, ledger.as_mbufs(), n) });
        ledger.strike(got, usize::from(n));
        got
    }
}

impl TxQueue {
    /// Queue `queue` of a configured port, on the device it sends by.
    pub fn open(port: &Port, queue: u16) -> Result<Self, PortError> {
        let sender = port.sender();
        sender.check_queue(queue, "tx")?;
        Ok(TxQueue { port: sender.id(), queue })
    }

    /// Sends the packets of words `0..n`. Returns how many the driver took; the unsent rest has moved to the
    /// front, words `0..n - sent`, in order.
    ///
    /// Sends up to the first empty word. Every packet must fit the port's MTU: net_tap stops at the first
    /// that does not, for ever.
    #[inline]
    pub fn burst(&mut self, ledger: &mut Ledger<'_>, n: usize) -> usize {
        let ready = ledger.leading(n.min(usize::from(u16::MAX)));
        if ready == 0 {
            return 0;
        }
        #[allow(clippy::cast_possible_truncation, reason = "limited to u16::MAX above")]
        let count = ready as u16;
        // SAFETY: the queue was checked at `open`; the first `ready` words name packets of the pool.
        let sent = usize::from(unsafe { sys::lb_tx_burst(self.port, self.queue, ledger.as_mbufs(), count) });
        ledger.strike(0, sent);
        if sent > 0 && sent < ready {
            ledger.shift_down(sent, ready);
        }
        sent
    }

    /// Sends the packet of one word. `false`: the word is empty, or the driver did not take it (the packet stays).
    pub fn one(&mut self, ledger: &mut Ledger<'_>, place: usize) -> bool {
        if ledger.get(place).is_none() {
            return false;
        }
        // SAFETY: the queue was checked at `open`; word `place` is inside and names a packet of the pool.
        let sent = unsafe { sys::lb_tx_burst(self.port, self.queue, ledger.as_mbufs().add(place), 1) };
        if sent == 1 {
            ledger.strike(place, place + 1);
        }
        sent == 1
    }
}

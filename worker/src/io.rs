//! [`Io`] over DPDK: bursts run directly on the slot's ledger in shared memory, so that whatever a killed owner held can
//! be given back by its successor.

use datapath::io::{Flushed, Io};
use dpdk::{Ledger, Pool, Port, PortError, RxQueue, TxQueue};
use shm_layout::slot::Slot;

/// Queue pair and ledger of one slot. Made in the thread that uses it: the pool knows one user at a time.
pub struct DpdkIo {
    rx_queue: RxQueue,
    tx_queue: TxQueue,
    /// The port's kernel interface, if this slot speaks with it.
    kernel: Option<(RxQueue, TxQueue)>,
    rx: Ledger<'static>,
    tx: Ledger<'static>,
    wait: Ledger<'static>,
    /// Frames in `tx`, from place 0.
    queued: usize,
    /// Their bytes.
    bytes: u64,
    /// The port took nothing at the last flush.
    refused: bool,
}

impl DpdkIo {
    /// The slot's queue pair `queue` of `port`. What a hand-over left in the ledger is still to be sent.
    ///
    /// Slot and pool are leaked: a worker keeps both until it ends, and ends by `_exit`.
    ///
    /// # Errors
    /// The port has no such queue.
    pub fn open(slot: Slot, pool: Pool, port: &Port, queue: u16) -> Result<Self, PortError> {
        let (slot, pool): (&'static Slot, &'static Pool) = (Box::leak(Box::new(slot)), Box::leak(Box::new(pool)));
        let row = &*slot.ledger;
        let tx = Ledger::new(&row.tx, pool);
        Ok(Self {
            rx_queue: RxQueue::open(port, queue)?,
            tx_queue: TxQueue::open(port, queue)?,
            kernel: None,
            rx: Ledger::new(&row.rx, pool),
            queued: tx.filled(),
            bytes: bytes_of(&tx, tx.filled()),
            tx,
            wait: Ledger::new(&row.wait, pool),
            refused: false,
        })
    }

    /// With the one queue pair of the port's kernel interface.
    ///
    /// # Errors
    /// It has none.
    pub fn with_kernel(mut self, interface: &Port) -> Result<Self, PortError> {
        self.kernel = Some((RxQueue::open(interface, 0)?, TxQueue::open(interface, 0)?));
        Ok(self)
    }
}

/// The frame's bytes; `None` when they lie in several buffers.
#[inline(always)]
fn bytes<'a>(ledger: &'a mut Ledger<'_>, place: usize) -> Option<&'a mut [u8]> {
    ledger.get(place).filter(|packet| packet.nb_segs() == 1).map(dpdk::PacketMut::into_data)
}

/// Bytes of the frames in the first places.
fn bytes_of(ledger: &Ledger<'_>, places: usize) -> u64 {
    (0..places).map(|place| ledger.data(place).map_or(0, |data| data.len() as u64)).sum()
}

impl DpdkIo {
    /// A frame has moved to the end of `tx`, or could not.
    #[inline(always)]
    fn took(&mut self, bytes: Option<usize>) -> bool {
        self.queued += usize::from(bytes.is_some());
        self.bytes += bytes.unwrap_or(0) as u64;
        bytes.is_some()
    }
}

impl Io for DpdkIo {
    #[inline]
    fn receive(&mut self) -> usize {
        #[cfg(feature = "failpoints")]
        if crate::faults::deaf() {
            return 0;
        }
        let count = self.rx_queue.burst(&mut self.rx);
        #[cfg(feature = "failpoints")]
        for place in 0..count {
            if let Some(packet) = self.rx.get(place) {
                crate::faults::frame(packet.into_data());
            }
        }
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

    fn prepend(&mut self, place: usize, n: usize) -> bool {
        self.rx.get(place).is_some_and(|mut packet| packet.prepend(n).is_ok())
    }

    fn cut(&mut self, place: usize, n: usize) -> bool {
        self.rx.get(place).is_some_and(|mut packet| packet.len() > n && packet.adj(n).is_ok())
    }

    #[inline]
    fn send(&mut self, place: usize) -> bool {
        let moved = self.rx.move_to_send(place, &mut self.tx, self.queued);
        self.took(moved)
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
        let moved = self.wait.move_to_send(at, &mut self.tx, self.queued);
        self.took(moved)
    }

    fn discard_parked(&mut self, at: usize) {
        self.wait.free(at);
    }

    fn originate(&mut self, frame: &[u8]) -> bool {
        let made = self.tx.alloc_with(self.queued, frame).unwrap_or(false);
        self.took(made.then_some(frame.len()))
    }

    fn flush(&mut self) -> Flushed {
        let sent = self.tx_queue.burst(&mut self.tx, self.queued);
        self.queued -= sent;
        let rest = bytes_of(&self.tx, self.queued);
        let bytes = self.bytes.saturating_sub(rest);
        self.bytes = rest;
        let mut dropped = 0;
        // Refused twice in a row: the first may be one that the port can never send.
        if sent > 0 || self.queued == 0 {
            self.refused = false;
        } else if std::mem::replace(&mut self.refused, true) {
            self.refused = false;
            self.drop_first();
            dropped = 1;
        }
        Flushed { sent, bytes, dropped, held: self.queued }
    }

    fn queued(&self) -> usize {
        self.queued
    }

    fn receive_kernel(&mut self) -> usize {
        self.kernel.as_mut().map_or(0, |(queue, _)| queue.burst(&mut self.rx))
    }

    fn to_kernel(&mut self, place: usize) -> bool {
        if let Some(mut packet) = self.rx.get(place) {
            packet.clear_offload();
        }
        self.kernel.as_mut().is_some_and(|(_, queue)| queue.one(&mut self.rx, place))
    }
}

impl DpdkIo {
    /// Gives up the first frame of `tx`; the others move up.
    #[cold]
    fn drop_first(&mut self) {
        self.bytes = self.bytes.saturating_sub(bytes_of(&self.tx, 1));
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

/// On a ring device (what is sent comes back), in a mount namespace of the test's own. Needs root and 24 hugepages.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests panic")]
mod tests {
    use super::*;
    use dpdk::{EalArgs, PortConfig, ProcType};
    use nix::mount::{MsFlags, mount};
    use shm_layout::limits::{NEIGH_WAIT, TX_HELD};
    use shm_layout::slot::SlotGeometry;

    const POOL: &str = "io-test";
    const PACKETS: u32 = 2047;
    const HUGE: &str = "/mnt/huge";

    const INSIDE: &str = "LB_WORKER_TEST_INSIDE";

    /// EAL's files and hugepages vanish with the namespace, which is the process's: EAL asks /proc/self.
    #[test]
    fn frames_are_in_one_place_and_none_is_lost() {
        if std::env::var_os(INSIDE).is_some() {
            return check();
        }
        let test = "io::tests::frames_are_in_one_place_and_none_is_lost";
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--"]).arg(std::env::current_exe().unwrap());
        let status = command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").status();
        assert!(status.expect("the test needs unshare (util-linux)").success());
    }

    fn ring_port() -> (Port, DpdkIo) {
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        for folder in ["/mnt", "/run"] {
            mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        }
        std::fs::create_dir(HUGE).unwrap();
        mount(Some("none"), HUGE, Some("hugetlbfs"), MsFlags::empty(), Some("pagesize=2M")).unwrap();
        let args = EalArgs::new(ProcType::Primary, "io-test", std::path::Path::new(HUGE), "0@0").memory_mb(48);
        dpdk::eal::init(&args.vdev("net_ring0")).expect("the test needs 24 free hugepages of 2 MiB");
        let port = Port::open("net_ring0").unwrap();
        let pools = [Pool::create(POOL, PACKETS, 2048, None).unwrap()];
        let (queues, descriptors) = (1, 512);
        port.configure(&PortConfig {
            rx_queues: queues,
            tx_queues: queues,
            rx_desc: descriptors,
            tx_desc: descriptors,
            mtu: 1500,
            pools: &pools,
            rss_key: None,
            promiscuous: false,
        })
        .unwrap();
        port.start().unwrap();
        let geometry =
            SlotGeometry { slot: 0, slots: 1, sessions: 16, wide_sessions: 0, servers: 1, services: 1, extensions: 0 };
        let slot = Slot::anonymous(geometry, false).unwrap();
        let io = DpdkIo::open(slot, Pool::lookup(POOL).unwrap(), &port, 0).unwrap();
        (port, io)
    }

    fn check() {
        let (_port, mut io) = ring_port();
        let audit = || Pool::lookup(POOL).unwrap().audit();

        // rx → tx → port → rx.
        let frames: Vec<Vec<u8>> = (1..=3_u8).map(|n| vec![n; 60 + usize::from(n)]).collect();
        for (place, frame) in frames.iter().enumerate() {
            assert!(io.inject(place, frame) && io.send(place));
        }
        assert_eq!(io.queued(), 3);
        assert_eq!(io.flush(), Flushed { sent: 3, bytes: 61 + 62 + 63, dropped: 0, held: 0 });
        assert_eq!(io.receive(), 3);
        for (place, frame) in frames.iter().enumerate() {
            io.prefetch(place);
            assert_eq!(io.frame(place).unwrap(), frame.as_slice());
        }
        assert!(io.frame(3).is_none());

        // Waiting places, and a shorter frame.
        assert!(io.resize(0, 20) && !io.resize(1, 70_000));
        io.park(0, NEIGH_WAIT - 1);
        assert!(io.frame(0).is_none());
        assert_eq!(io.parked(NEIGH_WAIT - 1).unwrap(), &[1; 20]);
        assert!(io.unpark(NEIGH_WAIT - 1));
        io.park(1, 0);
        io.discard_parked(0);
        io.discard(2);
        assert_eq!(io.flush().sent, 1);
        assert_eq!(io.receive(), 1);
        io.discard(0);
        assert_eq!(audit().missing, 0);

        // A full `tx` refuses; what waits keeps its order.
        for n in 0..TX_HELD {
            assert!(io.originate(&[u8::try_from(n).unwrap(); 60]));
        }
        assert!(!io.originate(&[0; 60]) && io.inject(0, &[9; 60]) && !io.send(0));
        io.discard(0);

        // A full port: nothing taken twice, then the first is given up and the second is the first.
        let mut sent = 0;
        loop {
            let flushed = io.flush();
            sent += flushed.sent;
            if flushed.sent == 0 {
                assert_eq!((flushed.dropped, flushed.bytes), (0, 0));
                break;
            }
            while io.queued() < TX_HELD && io.originate(&[7; 60]) {}
        }
        let (held, first) = (io.queued(), io.tx.data(1).unwrap().as_ptr());
        assert_eq!(io.flush(), Flushed { sent: 0, bytes: 0, dropped: 1, held: held - 1 });
        assert_eq!(io.tx.data(0).unwrap().as_ptr(), first);

        // All comes back: what the port took, what waited, and no packet is missing.
        let mut back = 0;
        while back < sent + held - 1 {
            io.flush();
            back += io.receive();
        }
        assert_eq!((io.receive(), io.queued()), (0, 0));
        let audit = audit();
        assert_eq!((audit.missing, audit.duplicates, audit.foreign), (0, 0, 0));
    }
}

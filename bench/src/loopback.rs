//! A worker's thread in this process, which is DPDK's primary: the loop of `worker::threads` as shipped, on a port whose
//! frames come from one device and leave by another.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use config::Poll;
use dpdk::{EalArgs, Pool, Port, PortConfig, ProcType};
use links::messages::{AdmitPort, pool_name};
use packet::Mac;
use shm_layout::slot::Slot;
use worker::slots::Slots;
use worker::threads::{self, Common, Order, Server};

use crate::clock::pin;
use crate::{sandbox, world};

/// Buffers a worker's pool of a virtual device has (primary/src/holder/plan.rs).
const FREE: u64 = 2047;
/// Above so many flows the driver's copies of the capture get small buffers: 2.4 KiB for each would take gigabytes.
const MANY: u64 = 300_000;

/// Devices and flows.
pub struct Wanted<'a> {
    /// EAL's string of the device that receives.
    pub rx: &'a str,
    /// Of the one that sends.
    pub tx: &'a str,
    /// Sessions there will be.
    pub flows: u64,
    /// Frames the receiving device keeps in buffers of the pool.
    pub kept: u64,
    /// CPU of the worker's thread.
    pub cpu: u16,
    /// CPU of all else.
    pub other: u16,
}

/// Buffer size (data room) for so many frames kept by the driver.
#[must_use]
pub fn data_room(kept: u64) -> u16 {
    if kept > MANY { 256 } else { 2048 }
}

/// MiB of hugepages for so many frames kept by the driver.
#[must_use]
pub fn memory_mb(kept: u64) -> u32 {
    // A buffer with DPDK's headers; the ring of the frames kept; EAL's own.
    let bytes = (kept + FREE) * (u64::from(data_room(kept)) + 384) + kept.next_power_of_two() * 16;
    u32::try_from((bytes >> 20) + 48).expect("MiB")
}

/// A worker's thread at work.
pub struct Loopback {
    /// The slot's tables.
    pub slot: Slot,
    rx: Port,
    tx: Port,
    common: Arc<Common>,
    server: Server,
}

impl Loopback {
    /// Starts EAL, ports, tables and the thread. Within the sandbox, once per process.
    ///
    /// # Panics
    /// Too few hugepages, or the devices do not start.
    #[must_use]
    pub fn start(wanted: &Wanted<'_>) -> Self {
        pin(wanted.other);
        let lcore = format!("0@{}", wanted.other);
        let args = EalArgs::new(ProcType::Primary, "bench", Path::new(sandbox::HUGE), &lcore);
        let args = args.memory_mb(memory_mb(wanted.kept)).vdev(wanted.rx).vdev(wanted.tx);
        dpdk::eal::init(&args).expect("EAL, with enough hugepages");
        let room = data_room(wanted.kept);
        let buffers = u32::try_from(wanted.kept + FREE).expect("buffers");
        let pools = [Pool::create(&pool_name(0), buffers, room, None).unwrap()];
        let config = PortConfig {
            rx_queues: 1,
            tx_queues: 1,
            rx_desc: 1024,
            tx_desc: 1024,
            mtu: (room - 22).min(1500),
            pools: &pools,
            rss_key: None,
            promiscuous: false,
        };
        let open = |device| {
            let port = Port::open(device).unwrap();
            port.configure(&config).unwrap();
            port.start().unwrap();
            port
        };
        let (rx, tx) = (open(wanted.rx), open(wanted.tx));
        let shared = world::tables(wanted.flows, Mac(rx.mac().unwrap()), rx.id(), wanted.cpu);
        let admitted = AdmitPort {
            index: 0,
            name: "net0".into(),
            device: wanted.rx.into(),
            device_id: rx.id(),
            first_slot: 0,
            queues: 1,
            restarts: false,
        };
        let slot = shared.slots[0].clone();
        let slots = Slots::find(&shared, &[admitted], 0, 0).unwrap();
        let pair = Port::open(wanted.rx).unwrap().sending_by(Port::open(wanted.tx).unwrap());
        let taken = slots.take(&slots.places[0]).expect("it is nobody's");
        let (shared, stop) = (Arc::new(shared), AtomicBool::new(false));
        let common = Arc::new(Common { shared, ports: vec![pair], slots, poll: Poll::Busy, stop });
        let server = threads::start(&common, wanted.cpu).unwrap();
        server.order(Order::Serve(Box::new(taken)));
        Self { slot, rx, tx, common, server }
    }

    /// The MAC clients send to.
    #[must_use]
    pub fn mac(&self) -> Mac {
        Mac(self.rx.mac().unwrap())
    }

    /// Number of the worker's thread.
    ///
    /// # Panics
    /// It does not begin within 10 s.
    #[must_use]
    pub fn thread(&self) -> u32 {
        wait("the thread begins", || self.slot.owner.tid.load(Ordering::Relaxed) != 0);
        self.slot.owner.tid.load(Ordering::Relaxed)
    }

    /// Waits until `flows` sessions are there.
    pub fn wait_for_sessions(&self, flows: u64) {
        let active = || u64::from(self.slot.table.active.load(Ordering::Relaxed));
        wait("all flows have a session", || active() >= flows);
        assert_eq!(active(), flows, "a session for each flow, and no other");
    }

    /// Ends the thread, everything sent.
    pub fn stop(&self) {
        self.common.stop.store(true, Ordering::Relaxed);
        wait("the thread ends", || self.server.pulse.done.load(Ordering::Acquire));
    }

    /// Packets the devices have received and sent by their own counters.
    #[must_use]
    pub fn devices(&self) -> (u64, u64) {
        (self.rx.stats().unwrap().rx_packets, self.tx.stats().unwrap().tx_packets)
    }

    /// Stops the devices: captures are whole then.
    pub fn close(&self) {
        self.rx.stop().unwrap();
        self.tx.stop().unwrap();
    }
}

/// Waits for something, 20 s at most.
///
/// # Panics
/// It does not come.
pub fn wait(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

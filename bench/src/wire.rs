//! The other end of a wire: router, clients and servers in one thread. Sends clients' frames, answers ARP, takes what comes.

use std::path::Path;

use dpdk::{EalArgs, Ledger, Pool, Port, PortConfig, ProcType, RxQueue, TxQueue, ledger};
use packet::{Mac, arp, ethernet};
use shm_layout::clock;

use crate::appliance::FOLDER;
use crate::frames::{self, FRAME, GATEWAY};
use crate::options::Options;
use crate::{sandbox, world};

/// Frames a burst.
const BURST: usize = 32;
/// Buffers.
const BUFFERS: u32 = 4095;
/// Where the payload lies: flow or time, 8 bytes.
const PAYLOAD: usize = 42;

/// What is done with frames that come back.
pub trait Taker {
    /// One frame, at `now` ns.
    fn take(&mut self, frame: &[u8], now: u64);
}

/// Counts only.
impl Taker for u64 {
    #[inline(always)]
    fn take(&mut self, _frame: &[u8], _now: u64) {
        *self += 1;
    }
}

/// The generator.
pub struct Wire {
    rx_queue: RxQueue,
    tx_queue: TxQueue,
    rx: Ledger<'static>,
    tx: Ledger<'static>,
    answers: Ledger<'static>,
    /// Clients' frames, sent in turn.
    requests: Vec<[u8; FRAME]>,
    next: usize,
    filled: usize,
    /// Frames sent.
    pub sent: u64,
    /// Bursts sent whole or in part, and those of which the wire took nothing: it was full.
    pub bursts: [u64; 2],
    /// ARP requests answered.
    pub answered: u64,
}

/// The life of a program at the other end of a wire: itself again in namespaces of its own, there `run`, its error, its end.
pub fn main(run: fn(&Options) -> Result<(), String>) {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = Options::of(&words);
    if !options.inside {
        std::process::exit(sandbox::whole(&words));
    }
    if let Err(error) = run(&options) {
        eprintln!("error: {error}");
        dpdk::exit_now(1);
    }
    dpdk::exit_now(0);
}

impl Wire {
    /// The wire of a benchmark in the namespaces it has just entered, on the CPU that the worker leaves.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn within(options: &Options) -> Result<Self, String> {
        sandbox::enter();
        std::fs::create_dir_all(FOLDER).map_err(|error| error.to_string())?;
        crate::clock::pin(options.other());
        Ok(Self::start(&options.memif("server"), options.other()))
    }

    /// Starts EAL with the device, once per process, in the sandbox.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(device: &str, cpu: u16) -> Self {
        let args = EalArgs::new(ProcType::Primary, "wire", Path::new(sandbox::HUGE), &format!("0@{cpu}"));
        dpdk::eal::init(&args.memory_mb(64).vdev(device)).expect("EAL, with 32 free hugepages");
        let pools = [Pool::create("wire", BUFFERS, 2048, None).unwrap()];
        let port = Port::open(device).unwrap();
        let config = PortConfig {
            rx_queues: 1,
            tx_queues: 1,
            rx_desc: 1024,
            tx_desc: 1024,
            mtu: 1500,
            pools: &pools,
            rss_key: None,
            promiscuous: false,
        };
        port.configure(&config).unwrap();
        port.start().unwrap();
        let [pool] = pools;
        let pool: &'static Pool = Box::leak(Box::new(pool));
        let words = || Ledger::new(Box::leak(ledger::words(BURST)), pool);
        Self {
            rx_queue: RxQueue::open(&port, 0).unwrap(),
            tx_queue: TxQueue::open(&port, 0).unwrap(),
            rx: words(),
            tx: words(),
            answers: words(),
            requests: Vec::new(),
            next: 0,
            filled: 0,
            sent: 0,
            bursts: [0; 2],
            answered: 0,
        }
    }

    /// From now on clients of `flows` flows send to the port of address `mac`.
    pub fn aim(&mut self, flows: u64, mac: Mac) {
        self.requests = frames::shuffled(flows).into_iter().map(|n| frames::request(n, mac)).collect();
        self.next = 0;
        self.tx.free_all();
        self.filled = 0;
    }

    /// Sends at most `most` frames of one burst, those not handed over before stamped `stamp` if it is not 0.
    #[inline]
    pub fn send(&mut self, most: usize, stamp: u64) {
        let (most, old) = (most.min(BURST), self.filled);
        while self.filled < most && self.tx.alloc_with(self.filled, &self.requests[self.next]).unwrap_or(false) {
            self.next = if self.next + 1 == self.requests.len() { 0 } else { self.next + 1 };
            self.filled += 1;
        }
        if stamp != 0 {
            for (_, mut packet) in self.tx.packets(self.filled).skip(old) {
                if let Some(payload) = packet.data_mut().get_mut(PAYLOAD..PAYLOAD + 8) {
                    payload.copy_from_slice(&stamp.to_be_bytes());
                }
            }
        }
        let sent = self.tx_queue.burst(&mut self.tx, self.filled);
        self.filled -= sent;
        self.sent += sent as u64;
        self.bursts[usize::from(sent == 0)] += 1;
    }

    /// Takes one burst; returns how many frames it had.
    #[inline]
    pub fn receive(&mut self, taker: &mut impl Taker) -> usize {
        let count = self.rx_queue.burst(&mut self.rx);
        if count == 0 {
            return 0;
        }
        let now = clock::now_ns();
        let mut asked = false;
        for (_, packet) in self.rx.packets(count) {
            if packet.data().get(12..14) == Some(&ethernet::ARP.to_be_bytes()) {
                asked = true;
            } else {
                taker.take(packet.data(), now);
            }
        }
        if asked {
            self.answer(count);
        }
        count
    }

    /// Answers the ARP requests among the frames just received.
    #[cold]
    fn answer(&mut self, count: usize) {
        let mut answers = 0;
        for place in 0..count {
            let Some(mut packet) = self.rx.get(place) else { continue };
            let frame = packet.data_mut();
            if frame.get(12..14) != Some(&ethernet::ARP.to_be_bytes()) {
                continue;
            }
            let Some(mac) = arp::parse(&frame[ethernet::HEADER..]).ok().and_then(|asked| mac_of(asked.target_ip))
            else {
                continue;
            };
            if arp::reply_in_place(frame, 14, mac).is_some() {
                answers += usize::from(self.rx.move_to_send(place, &mut self.answers, answers).is_some());
            }
        }
        self.answered += self.tx_queue.burst(&mut self.answers, answers) as u64;
        self.answers.free_all();
    }

    /// Takes what is still under way.
    pub fn drain(&mut self, taker: &mut impl Taker) {
        let mut empty = 0;
        while empty < 20_000 {
            empty = if self.receive(taker) == 0 { empty + 1 } else { 0 };
        }
    }
}

/// Who has this address on the wire.
fn mac_of(ip: u32) -> Option<Mac> {
    if ip == GATEWAY.0 { Some(GATEWAY.1) } else { world::server_of(ip).map(world::server_mac) }
}

/// The time a frame carries.
#[inline(always)]
#[must_use]
pub fn stamp(frame: &[u8]) -> Option<u64> {
    frame.get(PAYLOAD..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

//! The kernel's end: UDP sockets that send steadily and count what comes back.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Flows; the kernel spreads them over the tap's queues.
const FLOWS: usize = 16;

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    sent: AtomicU64,
    replies: AtomicU64,
}

pub struct Peer {
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

impl Peer {
    pub fn start() -> Self {
        let counts = Arc::new(Counts::default());
        let mine = Arc::clone(&counts);
        Peer { counts, thread: std::thread::spawn(move || exchange(&mine)) }
    }

    pub fn wait_for_replies(&self, more: u64, otherwise: &str) {
        let want = self.counts.replies.load(Ordering::Relaxed) + more;
        let end = Instant::now() + Duration::from_secs(10);
        while self.counts.replies.load(Ordering::Relaxed) < want {
            assert!(Instant::now() < end, "{otherwise}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn stop(self) -> (u64, u64) {
        self.counts.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        (self.counts.sent.load(Ordering::Relaxed), self.counts.replies.load(Ordering::Relaxed))
    }
}

fn exchange(counts: &Counts) {
    let sockets: Vec<UdpSocket> = (0..FLOWS)
        .map(|_| {
            let s = UdpSocket::bind("10.77.0.1:0").unwrap();
            s.connect("10.77.0.2:7").unwrap();
            s.set_nonblocking(true).unwrap();
            s
        })
        .collect();
    let mut buf = [0u8; 2048];
    while !counts.stop.load(Ordering::Relaxed) {
        for s in &sockets {
            for _ in 0..4 {
                counts.sent.fetch_add(u64::from(s.send(&buf[..200]).is_ok()), Ordering::Relaxed);
            }
            while s.recv(&mut buf).is_ok() {
                counts.replies.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

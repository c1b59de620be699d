//! What figures of a shared machine are held against, measured between the rounds: the length of a cycle, and packets
//! that are merely sent back.

use std::fmt;
use std::time::Instant;

use datapath::io::Io;
use shm_layout::limits::RX_BURST;

use crate::port::{BUFFERS, Port};

/// Nanoseconds per cycle now: a chain of multiplications and additions, 4 cycles a link on x86 since 2010. Grows when the
/// clock is lowered or the hypervisor runs somebody else.
#[inline(never)]
pub fn cycle_ns() -> f64 {
    const LINKS: u32 = 20_000;
    let start = Instant::now();
    let mut x = std::hint::black_box(3_u64);
    for _ in 0..LINKS {
        x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(x >> 63);
    }
    std::hint::black_box(x);
    start.elapsed().as_nanos() as f64 / f64::from(4 * LINKS)
}

/// Nanoseconds per packet of a round over all buffers that only swaps the link's addresses.
#[inline(never)]
pub fn reflect(port: &mut Port) -> f64 {
    port.rewind();
    let start = Instant::now();
    for _ in 0..BUFFERS / RX_BURST {
        let count = port.receive();
        for place in 0..count {
            port.prefetch(place);
        }
        for place in 0..count {
            if let Some(addresses) = port.frame(place).and_then(|frame| frame.first_chunk_mut::<12>()) {
                addresses.rotate_left(6);
            }
            port.send(place);
        }
        port.flush();
    }
    start.elapsed().as_nanos() as f64 / BUFFERS as f64
}

/// Measurements of one thing.
#[derive(Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    pub fn add(&mut self, value: f64) {
        let at = self.0.partition_point(|v| *v < value);
        self.0.insert(at, value);
    }

    /// A percentile: 0 the least, 50 the median.
    pub fn at(&self, percent: usize) -> f64 {
        self.0.get((self.0.len() - 1) * percent / 100).copied().unwrap_or(f64::NAN)
    }

    pub fn json(&self) -> String {
        let [least, quarter, median, most] = [0, 25, 50, 75].map(|p| self.at(p));
        format!(r#"{{"least":{least:.2},"p25":{quarter:.2},"median":{median:.2},"p75":{most:.2}}}"#)
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} (least {:.1}, quartiles {:.1} to {:.1})", self.at(50), self.at(0), self.at(25), self.at(75))
    }
}

/// How much of the time this thread was running.
pub struct Busy(Instant, u64);

impl Busy {
    pub fn begin() -> Self {
        Self(Instant::now(), run_ns())
    }

    /// 0 to 1.
    pub fn share(&self) -> f64 {
        (run_ns() - self.1) as f64 / self.0.elapsed().as_nanos() as f64
    }
}

/// Time on a CPU, ns.
fn run_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

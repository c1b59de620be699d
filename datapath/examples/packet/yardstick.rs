//! What figures of a shared machine are held against, measured between the rounds: the length of a cycle, and packets
//! that are merely sent back.

use datapath::io::Io;
use shm_layout::limits::RX_BURST;

use crate::port::{BUFFERS, Port};
use crate::spread::thread_ns;

/// Nanoseconds per cycle now: a chain of multiplications and additions, 4 cycles a link on x86 since 2010. Grows when the
/// clock is lowered or the hypervisor runs somebody else.
#[inline(never)]
pub fn cycle_ns() -> f64 {
    const LINKS: u32 = 20_000;
    let start = thread_ns();
    let mut x = std::hint::black_box(3_u64);
    for _ in 0..LINKS {
        x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(x >> 63);
    }
    std::hint::black_box(x);
    (thread_ns() - start) as f64 / f64::from(4 * LINKS)
}

/// Nanoseconds per packet of a round over all buffers that only swaps the link's addresses.
#[inline(never)]
pub fn reflect(port: &mut Port) -> f64 {
    port.rewind();
    let start = thread_ns();
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
    (thread_ns() - start) as f64 / BUFFERS as f64
}

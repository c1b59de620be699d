//! Clocks: time on the CPU of another thread of this process, and the length of a cycle.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::spread::{Spread, thread_ns};

/// Pins the calling thread.
pub fn pin(cpu: u16) {
    let mut set = CpuSet::new();
    set.set(cpu.into()).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).expect("the CPU is there");
}

/// Time thread `tid` of this process has been on a CPU, ns.
#[must_use]
pub fn cpu_ns(tid: u32) -> u64 {
    // A thread's clock by its number: linux/posix-timers.h, CPUCLOCK_PERTHREAD and CPUCLOCK_SCHED.
    let id = ClockId::from_raw((!tid.cast_signed() << 3) | 6);
    let time = clock_gettime(id).expect("the thread lives");
    time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned()
}

/// Nanoseconds per cycle of `cpu` now: a chain of multiplications and additions, 4 cycles a link on x86 since 2010.
/// The median of many short ones.
#[must_use]
pub fn cycle_ns(cpu: u16) -> f64 {
    const LINKS: u32 = 20_000;
    let chain = move || {
        pin(cpu);
        let one = |_| {
            let start = thread_ns();
            let mut x = std::hint::black_box(3_u64);
            for _ in 0..LINKS {
                x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(x >> 63);
            }
            std::hint::black_box(x);
            #[allow(clippy::cast_precision_loss, reason = "a time")]
            let spent = (thread_ns() - start) as f64;
            spent / f64::from(4 * LINKS)
        };
        let mut all = Spread::default();
        (0..400).map(one).for_each(|length| all.add(length));
        all.at(50)
    };
    std::thread::spawn(chain).join().expect("it only calculates")
}

//! The secondary: echoes UDP packets on both queues until it is killed, with extra strain on the pools.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use dpdk::{EalArgs, Ledger, Pool, Port, ProcType, RxQueue, TxQueue, eal};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::shared::{DEVICE, DIR, PREFIX, SCRATCH, SLOTS, Shared, pool_name};

pub fn run() {
    let generation: u32 = std::env::args().nth(2).unwrap().parse().unwrap();
    // EAL is started on a thread pinned to one CPU, with its lcore on another.
    let cpus = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    let (before, lcore_cpu) = (generation % cpus, (generation / 2) % cpus);
    let mut set = CpuSet::new();
    set.set(before as usize).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();

    let lane = 10 + generation % 2;
    let args = EalArgs::new(ProcType::Secondary, PREFIX, &Path::new(DIR).join("huge"), &format!("{lane}@{lcore_cpu}"));
    let began = Instant::now();
    eal::init(&args).unwrap_or_else(|e| panic!("{e}"));
    let attach_us = began.elapsed().as_micros();
    assert!(sched_getaffinity(Pid::from_raw(0)).unwrap().is_set(lcore_cpu as usize).unwrap());

    let port = Port::open(DEVICE).unwrap();
    assert_eq!(Port::names(), [DEVICE]);
    let shared = Shared::open();
    let mut slots: Vec<_> = (0..SLOTS)
        .map(|slot| {
            let queue = u16::try_from(slot).unwrap();
            (
                Pool::lookup(&pool_name(slot)).unwrap(),
                RxQueue::open(&port, queue).unwrap(),
                TxQueue::open(&port, queue).unwrap(),
            )
        })
        .collect();
    println!("READY attach_us={attach_us}");
    loop {
        for (slot, (pool, rx, tx)) in slots.iter_mut().enumerate() {
            let mut inbox = Ledger::new(shared.rx(slot), pool);
            let mut outbox = Ledger::new(shared.tx(slot), pool);
            let mut scratch = Ledger::new(shared.scratch(slot), pool);
            let n = rx.burst(&mut inbox);
            shared.received(slot).fetch_add(n as u64, Ordering::Relaxed);
            let out = answer(n, &mut inbox, &mut outbox);
            let sent = tx.burst(&mut outbox, out);
            if sent < out {
                tx.burst(&mut outbox, out - sent);
            }
            outbox.free_all();
            // Strain: the pool's ring is in motion most of the time.
            for _ in 0..8 {
                for i in 0..SCRATCH {
                    scratch.alloc(i);
                }
                for i in 0..SCRATCH / 8 {
                    scratch.free(i);
                }
                scratch.free_all();
            }
        }
    }
}

/// Moves what is to be answered to `outbox`; the rest stays for the next burst to give back.
fn answer(n: usize, inbox: &mut Ledger<'_>, outbox: &mut Ledger<'_>) -> usize {
    let mut out = 0;
    for i in 0..n {
        inbox.prefetch_header(i + 1);
        let Some(mut packet) = inbox.get(i) else { panic!("word {i} of {n} is empty") };
        assert_eq!(packet.nb_segs(), 1);
        if !echo(packet.data_mut()) {
            inbox.free(i);
            continue;
        }
        packet.clear_offload();
        if i % 8 == 7 {
            // A copy instead of the packet itself, as a redirect would do.
            let copy = packet.data().to_vec();
            inbox.free(i);
            if outbox.alloc_with(out, &copy).unwrap() {
                out += 1;
            }
        } else if inbox.move_to(i, outbox, out) {
            out += 1;
        }
    }
    out
}

/// Turns a UDP over IPv4 frame round. The checksums stay right: sums do not care for order.
fn echo(frame: &mut [u8]) -> bool {
    if frame.len() < 42 || frame[12..15] != [8, 0, 0x45] || frame[23] != 17 {
        return false;
    }
    let (dst, src) = frame[..12].split_at_mut(6);
    dst.swap_with_slice(src);
    let (src, dst) = frame[26..34].split_at_mut(4);
    src.swap_with_slice(dst);
    let (src, dst) = frame[34..38].split_at_mut(2);
    src.swap_with_slice(dst);
    true
}

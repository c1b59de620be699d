//! The primary: makes the port and the pools, then obeys lines on stdin, one answer line each.

use std::io::BufRead;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use dpdk::locks::{Locks, Restored};
use dpdk::{Eal, EalArgs, Ledger, Pool, Port, PortConfig, ProcType, eal, exit_now, ledger, tap};

use crate::shared::{DEVICE, DIR, IFACE, PREFIX, SLOTS, Shared, pool_name};

const MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 1];

pub fn run() {
    let device = tap::with_mac(&format!("{DEVICE},iface={IFACE}"), MAC);
    let args = EalArgs::new(ProcType::Primary, PREFIX, &Path::new(DIR).join("huge"), "0@0").memory_mb(32).vdev(&device);
    assert!(!eal::prefix_in_use(PREFIX).unwrap());
    let began = Instant::now();
    let started: Eal = eal::init(&args).unwrap_or_else(|e| panic!("{e}"));
    let init_ms = began.elapsed().as_millis();
    let pools: Vec<Pool> = (0..SLOTS)
        .map(|slot| Pool::create(&pool_name(slot), 2048, 2048, None).unwrap_or_else(|e| panic!("{e}")))
        .collect();
    let port = Port::open(&device).unwrap();
    refusals(&port, &pools);
    packets(&pools);
    torn_rings(&pools[1]);
    port.configure(&config(&pools)).unwrap_or_else(|e| panic!("{e}"));
    port.start().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(port.mac().unwrap(), MAC);
    assert_eq!(port.mtu().unwrap(), 1500);
    assert!(eal::prefix_in_use(PREFIX).unwrap());
    println!("READY init_ms={init_ms} {:?}", port.capabilities().unwrap());

    locks();

    let shared = Shared::open();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (command, slot) = line.split_once(' ').unwrap_or((&line, "0"));
        let slot: usize = slot.parse().unwrap();
        match command {
            "recover" => {
                let r = pools[slot].recover(&shared.addresses(slot));
                shared.clear(slot);
                println!(
                    "given_back={} already_in_ring={} repeated={} foreign={} missing={} duplicates={}",
                    r.given_back, r.already_in_ring, r.repeated, r.foreign, r.missing, r.duplicates
                );
            }
            "audit" => {
                let a = pools[slot].audit();
                println!(
                    "count={} in_ring={} missing={} duplicates={} foreign={} received={}",
                    a.count,
                    a.in_ring,
                    a.missing,
                    a.duplicates,
                    a.foreign,
                    shared.received(slot).load(Ordering::Relaxed)
                );
            }
            "sleep" => sleep(),
            "sleep-armed" => {
                arm();
                sleep();
                tap::disarm().unwrap();
            }
            "grow" => {
                let began = Instant::now();
                assert!(Pool::create("more", 40_000, 2048, None).is_err(), "the memory grew");
                println!("ms={}", began.elapsed().as_millis());
            }
            "heap" => {
                let (free, all) = eal::heap(0).unwrap();
                println!("free_kib={} all_kib={}", free / 1024, all / 1024);
            }
            "ping" => println!("pong=1"),
            "stop" => break,
            other => panic!("command {other}"),
        }
    }
    println!("stats {:?}", port.stats().unwrap());
    port.stop().unwrap();
    port.close().unwrap();
    started.cleanup();
    exit_now(0);
}

/// EAL's locks are found; one left taken is freed, a heap left locked is told and left alone.
fn locks() {
    let locks = Locks::find(PREFIX).unwrap_or_else(|e| panic!("{e}"));
    let before = locks.snapshot();
    assert_eq!(locks.restore(&before), Restored::default());
    // SAFETY: EAL is started; `restore` gives it back.
    unsafe { dpdk_sys::rte_mcfg_mem_write_lock() };
    assert_eq!(locks.restore(&before), Restored { locks: vec!["memory"], heap: false });
    // SAFETY: it would wait for ever, were it still taken.
    unsafe { dpdk_sys::rte_mcfg_mem_write_lock() };
    // SAFETY: taken in the line before.
    unsafe { dpdk_sys::rte_mcfg_mem_write_unlock() };
}

fn config(pools: &[Pool]) -> PortConfig<'_> {
    let queues = u16::try_from(pools.len()).unwrap();
    PortConfig {
        rx_queues: queues,
        tx_queues: queues,
        rx_desc: 256,
        tx_desc: 256,
        mtu: 1500,
        pools,
        rss_key: None,
        promiscuous: false,
    }
}

/// What would abort or mislead DPDK is refused before it is asked.
fn refusals(port: &Port, pools: &[Pool]) {
    for (rx_queues, tx_queues, mtu) in [(5, 5, 1500), (2, 1, 1500), (1, 1, 1500), (2, 2, 9000), (0, 0, 1500)] {
        let config = PortConfig { rx_queues, tx_queues, mtu, ..config(pools) };
        let refused = port.configure(&config);
        assert!(refused.is_err(), "{rx_queues} rx, {tx_queues} tx, mtu {mtu} was accepted");
    }
    assert!(port.set_mac(MAC).is_err());
    assert!(Port::open("net_tap9").is_err());
    assert!(Pool::lookup("none").is_err());
    assert!(pools[0].alloc().is_some_and(|m| pools[0].owns(m.addr()) && !pools[1].owns(m.addr())));
    assert_eq!(pools[0].available(), pools[0].count());
}

/// The rules of ledgers and packets, on a real pool.
fn packets(pools: &[Pool]) {
    let pool = &pools[0];
    let (words, more) = (ledger::words(4), ledger::words(4));
    let (mut a, mut b) = (Ledger::new(&words, pool), Ledger::new(&more, pool));
    assert!(a.get(0).is_none() && a.get(9).is_none() && a.take(0).is_none());
    assert!(a.alloc_with(1, b"0123456789").unwrap());
    assert!(!a.alloc_with(1, b"again").unwrap(), "a word in use was given twice");
    assert!(a.alloc_with(2, &[0; 3000]).is_err(), "3000 bytes in a room of 2048");
    assert_eq!((a.filled(), a.data(1).unwrap(), a.addr(2)), (1, &b"0123456789"[..], 0));

    let mut p = a.get(1).unwrap();
    assert_eq!((p.headroom(), p.tailroom(), p.nb_segs()), (128, 2038, 1));
    p.adj(2).unwrap();
    p.trim(3).unwrap();
    assert_eq!((p.data(), p.packet_len()), (&b"23456"[..], 5));
    assert!(p.adj(6).is_err() && p.trim(6).is_err() && p.prepend(131).is_err() && p.set_len(2047).is_err());
    p.prepend(130).unwrap();
    p.data_mut()[0] = b'x';
    assert_eq!((p.len(), p.headroom()), (135, 0));
    p.set_len(2176).unwrap();
    assert_eq!((p.len(), p.tailroom()), (2176, 0));

    assert!(a.move_to(1, &mut b, 3) && !a.move_to(1, &mut b, 2), "an empty word was moved");
    let one = b.take(3).unwrap();
    assert_eq!((a.filled(), b.filled(), one.data()[0]), (0, 0, b'x'));
    let mut foreign = Ledger::new(&words, &pools[1]);
    let one = foreign.put(0, one).unwrap_err();
    a.put(0, one).unwrap();
    assert!(foreign.get(0).is_none(), "a packet of another pool was followed");
    assert_eq!(pool.available(), pool.count() - 1);
    a.free(0);
    for i in 0..4 {
        b.alloc(i).unwrap();
    }
    assert_eq!(b.packets(4).map(|(i, p)| i + p.len()).sum::<usize>(), 6);
    b.free_all();

    // A damaged or repeated word does not reach the pool; one that is there already is not given twice.
    let held = pool.alloc().unwrap();
    let (addr, free) = (held.addr(), pool.alloc().map(|m| m.addr()).unwrap());
    std::mem::forget(held); // its holder "died"
    let r = pool.recover(&[addr, 0, addr + 64, addr, free, 1, u64::MAX]);
    assert_eq!((r.given_back, r.repeated, r.already_in_ring, r.foreign, r.missing, r.duplicates), (1, 1, 1, 3, 0, 0));
    assert_eq!(pool.recover(&[addr]).already_in_ring, 1);
    assert_eq!(pool.available(), pool.count());
}

/// Heads as a kill inside giving or taking leaves them: ahead of their tails.
fn torn_rings(pool: &Pool) {
    let name = std::ffi::CString::new(pool.name()).unwrap();
    let head = |offset: u32| {
        // SAFETY: a live pool; its ring and the ring's heads lie at the offsets the C compiler gave.
        unsafe {
            let pool = dpdk_sys::rte_mempool_lookup(name.as_ptr());
            let ring = pool.byte_add(dpdk_sys::LB_POOL_RING as usize).cast::<*mut u8>().read();
            AtomicU32::from_ptr(ring.add(offset as usize).cast())
        }
    };
    let held: Vec<u64> = (0..7).map(|_| pool.alloc().unwrap()).map(|m| (m.addr(), std::mem::forget(m)).0).collect();
    head(dpdk_sys::LB_RING_PROD_HEAD).fetch_add(7, Ordering::Relaxed);
    head(dpdk_sys::LB_RING_CONS_HEAD).fetch_add(5, Ordering::Relaxed);
    assert_eq!(pool.recover(&held).given_back, 7);
    // Every packet comes out exactly once, and goes in again.
    let mut all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    all.sort_by_key(dpdk::Mbuf::addr);
    all.dedup_by_key(|m| m.addr());
    assert_eq!(all.len(), pool.count() as usize);
    drop(all);
    let a = pool.audit();
    assert_eq!((a.in_ring, a.duplicates, a.foreign), (pool.count(), 0, 0));
}

/// One plain nanosleep of 2 s, not resumed.
fn sleep() {
    let began = Instant::now();
    let time = libc::timespec { tv_sec: 2, tv_nsec: 0 };
    // SAFETY: a time to read; no remainder asked.
    let cut = unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) } != 0;
    println!("ms={} eintr={}", began.elapsed().as_millis(), u32::from(cut));
}

/// What net_tap does on its own: signals for every packet.
fn arm() {
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        if std::fs::read_link(entry.path()).is_ok_and(|t| t == Path::new("/dev/net/tun")) {
            let fd: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
            // SAFETY: fcntl on an open descriptor.
            unsafe { libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_ASYNC) };
        }
    }
}

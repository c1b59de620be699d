//! Ten million IPv4 sessions: begun, found from both sides, expired. Prints bytes per session, index load and times.
//!
//! `cargo run --release -p datapath --example session_table [SESSIONS] [--huge]` (about 0.8 GiB for 10 million). The
//! ordinary tests run the same with one million (tests/session_table.rs).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use datapath::session::{Direction, LocalPool, LocalRange, New, SessionTable};
use shm_layout::limits::{BUCKET_KEYS, RECORDS_PER_BURST};
use shm_layout::published::protocol::TCP;
use shm_layout::secrets;
use shm_layout::session::{BucketRow, SessionRow, State};
use shm_layout::slot::{Slot, SlotGeometry};

/// A multiple of 17: its keys fill a whole number of buckets to 85 %.
pub const TEN_MILLION: u32 = 10_000_012;
/// As above.
pub const ONE_MILLION: u32 = 1_000_008;

const SERVERS: u32 = 1_000;
const TIMEOUT_MS: u32 = 60_000;
const BURST: usize = 32;

/// All of a client's tuple and server follow from its number; the local port is drawn.
fn session(i: u32, now_ms: u64) -> New {
    let server = i % SERVERS;
    New {
        client_ip: 0x0a00_0000 + (i >> 12),
        client_port: u16::try_from(1024 + (i & 0xfff)).expect("below 5,120"),
        vip: 0xc0a8_0001,
        vip_port: 443,
        local_ip: 0,
        local_port: 0,
        server_ip: 0xac10_0000 + server,
        server_port: 8443,
        udp: false,
        state: State::SynSent,
        tunnel: false,
        client_hop: 0,
        client_hop_tag: 1,
        server_hop: 1,
        server_hop_tag: 1,
        server_id: server,
        server_tag: 1,
        service: 0,
        service_id: 1,
        isn_shift: i,
        end: [0; 2],
        ack: [0; 2],
        now_ms,
        timeout_ms: TIMEOUT_MS,
        wide: None,
    }
}

fn per(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(count)
}

fn xorshift(x: &mut u64) -> u64 {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    *x
}

/// The whole life of `sessions` sessions; panics when a promise is not kept.
pub fn run(sessions: u32, huge: bool) {
    let geometry = SlotGeometry {
        slot: 0,
        slots: 1,
        sessions: u64::from(sessions),
        wide_sessions: 0,
        servers: u64::from(SERVERS),
        services: 1,
        extensions: 0,
    };
    let slot = Slot::anonymous(geometry, huge).expect("memory for the tables");
    let mut table = SessionTable::attach(slot, &secrets::anonymous().expect("random keys"));
    let locals = LocalPool::new(&[LocalRange { ip: 0xc0a8_0101, low: 1_024, high: 65_535 }], 0, 1);
    let start_ms = 1_000_000;

    let begun = Instant::now();
    for i in 0..sessions {
        let mut new = session(i, start_ms);
        let local = table.pick_port(&locals, new.server_ip, new.server_port, TCP).expect("a free local port");
        (new.local_ip, new.local_port) = (local.ip, local.port);
        table.create(&new).unwrap_or_else(|error| panic!("session {i} of {sessions}: {error}"));
    }
    println!(
        "begun:      {sessions} sessions, {:.0} ns each with the choice of a port",
        per(begun.elapsed(), sessions)
    );

    let places = table.slot().buckets.len() * BUCKET_KEYS;
    let load = f64::from(sessions) * 2.0 / places as f64;
    let index = table.slot().buckets.len() * size_of::<BucketRow>();
    let records = table.slot().sessions.len() * size_of::<SessionRow>();
    let bytes = (index + records) as f64 / f64::from(sessions);
    println!("memory:     {bytes:.2} bytes per session with index; index load {load:.4}");
    assert!(bytes <= 96.0, "at most 96 bytes per session with its index, here {bytes}");
    assert!(load >= 0.85, "the index carries at least 0.85, here {load}");
    let count = table.check().expect("the laws of the table");
    println!("index:      {:.1} % of the keys in their second bucket", 100.0 * count.second as f64 / count.keys as f64);
    assert_eq!((count.active, count.keys), (sessions, u64::from(sessions) * 2));

    find_all(&table, sessions);
    find_random(&table, sessions);
    expire_all(&mut table, sessions, start_ms);
}

/// Each session from its client's and its server's side.
fn find_all(table: &SessionTable, sessions: u32) {
    let begun = Instant::now();
    for i in 0..sessions {
        let (record, side) = table.find(session(i, 0).client_key()).expect("found from the client's side");
        assert_eq!(side, Direction::Client);
        let row = table.row(record).expect("a record of the table");
        assert_eq!(row.isn_shift.load(Ordering::Relaxed), i);
        let mut new = session(i, 0);
        new.local_ip = row.local_ip.load(Ordering::Relaxed);
        new.local_port = row.local_port.load(Ordering::Relaxed);
        assert_eq!(table.find(new.server_key()), Some((record, Direction::Server)));
    }
    println!("found:      all from both sides, {:.0} ns per pair, one after another", per(begun.elapsed(), sessions));
    assert_eq!(table.find(session(sessions, 0).client_key()), None);
}

/// In stages over bursts, as packets are: few sessions (hot) and all (each lookup misses the caches).
fn find_random(table: &SessionTable, sessions: u32) {
    for among in [1_000, sessions] {
        let mut x = 0x9E37_79B9_7F4A_7C15_u64;
        let keys: Vec<_> = (0..1 << 16)
            .map(|_| session(u32::try_from(xorshift(&mut x) % u64::from(among)).expect("below u32"), 0).client_key())
            .collect();
        let mut best = f64::MAX;
        for _ in 0..9 {
            let begun = Instant::now();
            let mut found = 0;
            for burst in keys.chunks_exact(BURST) {
                let mut hashes = [0; BURST];
                for (hash, key) in hashes.iter_mut().zip(burst) {
                    *hash = table.hash(*key);
                    table.prefetch_bucket(*hash);
                }
                let candidates = hashes.map(|hash| {
                    let candidate = table.candidate(hash);
                    candidate.inspect(|record| table.prefetch_session(*record))
                });
                for ((key, hash), candidate) in burst.iter().zip(hashes).zip(candidates) {
                    let found_it = candidate.and_then(|candidate| table.resolve(candidate, *key, hash));
                    found += usize::from(found_it.is_some());
                }
            }
            assert_eq!(found, keys.len());
            best = best.min(begun.elapsed().as_secs_f64() * 1e9 / keys.len() as f64);
        }
        println!("looked up:  {best:.1} ns per key in bursts of {BURST}, at random among {among}");
    }
}

/// The wheel lets go of all of them, 64 records per call, none before its time.
fn expire_all(table: &mut SessionTable, sessions: u32, start_ms: u64) {
    let begun = Instant::now();
    let (mut now, mut expired, mut first, mut last, mut calls) = (start_ms, 0_u32, u64::MAX, 0, 0_u64);
    let due = start_ms + u64::from(TIMEOUT_MS);
    while expired < sessions && now < due + 60_000 {
        now += 125;
        // As many calls as it takes to catch up, as bursts go on within these 125 ms.
        loop {
            let before = table.slot().table.tick.load(Ordering::Relaxed);
            let ended = table.expire(now, RECORDS_PER_BURST, |_| TIMEOUT_MS, |_, _| ());
            calls += 1;
            if ended > 0 {
                expired += u32::try_from(ended).expect("at most the budget");
                (first, last) = (first.min(now), now);
            }
            let reached = table.slot().table.tick.load(Ordering::Relaxed);
            let through = u64::from(reached) > now / 125;
            if through && (before == reached || ended < RECORDS_PER_BURST) {
                break;
            }
        }
    }
    println!(
        "expired:    {expired} in {calls} calls of at most {RECORDS_PER_BURST} records, {} to {} ms after their time, {:.0} ns per session",
        first - due,
        last - due,
        per(begun.elapsed(), sessions)
    );
    assert!(expired == sessions && first >= due && last <= due + 125, "expired {expired}, from {first} to {last}");
    let count = table.check().expect("the laws of the table");
    assert_eq!((count.active, count.waiting, count.keys, count.free), (0, 0, 0, sessions));
    let quarantined = table.slot().pulse.quarantined.load(Ordering::Relaxed);
    assert_eq!(quarantined, 0);
}

#[allow(dead_code, reason = "the ordinary tests include this file for `run`")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let sessions = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(TEN_MILLION);
    run(sessions, arguments.iter().any(|argument| argument == "--huge"));
}

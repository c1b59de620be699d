//! Other slots look on while the owner works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::{Direction, SessionReader};
use super::{Random, new, table};

#[test]
fn a_reader_sees_what_is_there() {
    let mut table = table(1_000);
    for i in 0..900 {
        table.create(&new(i, 5_000)).unwrap();
    }
    for i in (0..900).step_by(3) {
        let (record, _) = table.find(new(i, 0).client_key()).unwrap();
        table.close(record);
    }
    let reader = SessionReader::new(table.slot().clone(), *table.hash_key());
    for i in 0..900 {
        let made = new(i, 0);
        let client = reader.find(made.client_key());
        assert_eq!(client.is_some(), i % 3 != 0);
        if let Some((record, side, session)) = client {
            assert_eq!((side, table.find(made.client_key())), (Direction::Client, Some((record, Direction::Client))));
            assert_eq!(
                (session.server_ip, session.local_port, session.state),
                (shm_layout::neighbours::ip4(made.server_ip), made.local_port, made.state)
            );
            assert_eq!((session.idle_ms(7_500), session.protocol), (2_500, made.protocol()));
            assert_eq!(reader.find(made.server_key()).map(|(r, side, _)| (r, side)), Some((record, Direction::Server)));
        }
    }
    assert_eq!(reader.iter().count(), 600);
}

#[test]
fn sessions_that_stay_are_always_found_and_none_is_ever_torn() {
    let mut table = table(400);
    for i in 0..100 {
        table.create(&new(i, 0)).unwrap();
    }
    let reader = SessionReader::new(table.slot().clone(), *table.hash_key());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut looks, mut seen) = (0_u64, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                for i in 0..100 {
                    let (_, _, session) = reader.find(new(i, 0).server_key()).expect("it stays");
                    assert_eq!(session.client_port, new(i, 0).client_port);
                    looks += 1;
                }
                for (record, session) in reader.iter() {
                    // Client and server side of one session are made of one number: a torn copy would mix two.
                    let i = u32::from(session.client_port - 1024);
                    assert_eq!(u32::from(session.local_port), i >> 4, "record {record}: {session:?}");
                    assert_eq!(session.server_id, i % super::SERVERS);
                    seen += 1;
                }
            }
            (looks, seen)
        });
        let (mut random, start, mut now) = (Random(3), Instant::now(), 0_u64);
        while start.elapsed() < Duration::from_millis(300) {
            for _ in 0..200 {
                let _ = table.create(&new(100 + random.below(3_900), now));
                if let Some((record, _)) = table.find(new(100 + random.below(3_900), 0).client_key()) {
                    table.close(record);
                }
                now += 20;
            }
            for i in 0..100 {
                let (record, _) = table.find(new(i, 0).client_key()).unwrap();
                table.touch(record, now);
            }
            table.expire(now, 1_000, |_| 10_000, |_, _| ());
        }
        stop.store(true, Ordering::Relaxed);
        let (looks, seen) = watcher.join().unwrap();
        println!("{looks} looks, {seen} copies, {} sessions made", table.slot().table.created.load(Ordering::Relaxed));
        assert!(looks > 1_000);
    });
    table.check().unwrap();
}

use std::sync::atomic::{AtomicBool, fence};

use shm_layout::neighbours::from_std;
use shm_layout::published::store_name;

use super::*;

fn put(board: &Board, row: usize, id: u32, tag: u32, kind: u32, profile: u32) {
    let to = &board.targets[row];
    let ip = from_std("10.0.0.21".parse().unwrap());
    to.id.store(id, Ordering::Relaxed);
    to.tag.store(tag, Ordering::Relaxed);
    to.ip[0].store(ip[0], Ordering::Relaxed);
    to.ip[1].store(ip[1], Ordering::Relaxed);
    to.port.store(8080, Ordering::Relaxed);
    to.kind.store(kind, Ordering::Relaxed);
    to.interval_ms.store(2000, Ordering::Relaxed);
    to.timeout_ms.store(1000, Ordering::Relaxed);
    to.rise_fall.store(2 << 16 | 3, Ordering::Relaxed);
    to.profile.store(profile, Ordering::Relaxed);
}

fn put_text(words: &[AtomicU64], text: &str) {
    let mut bytes = text.bytes().chain(std::iter::repeat(0));
    for word in words {
        word.store(u64::from_le_bytes(std::array::from_fn(|_| bytes.next().unwrap())), Ordering::Relaxed);
    }
}

#[test]
fn targets_are_read_whole() {
    let board = Board::anonymous(100, 10).unwrap();
    store_name(&board.profiles[2].service, "web");
    put_text(&board.profiles[2].path, "/health");
    put_text(&board.profiles[2].expect, "ok");
    put(&board, 0, 7, 3, check::TCP, 2);
    put(&board, 1, 8, 4, check::HTTP, 2);
    put(&board, 2, 9, 5, check::NONE, 2);
    board.head.targets.store(3, Ordering::Relaxed);
    let mut ours = HealthBoard::of(board.clone());
    assert!(ours.moved(), "nothing read yet");
    let Reading { targets, complaints } = ours.read().unwrap();
    assert!(!ours.moved() && complaints.is_empty());
    assert_eq!(targets[0].address, "10.0.0.21:8080".parse().unwrap());
    assert_eq!((targets[0].id, targets[0].tag, &targets[0].check, &*targets[0].service), (7, 3, &Check::Tcp, "web"));
    assert_eq!(targets[0].fast, Duration::from_secs(2), "0: the interval");
    assert_eq!(targets[0].limits, Limits { rise: 2, fall: 3 });
    assert_eq!(targets[1].check, Check::Http(Arc::new(Http::new("/health", "", "ok").unwrap())));
    assert_eq!(targets[2].check, Check::None);
    board.head.targets_sequence.store(2, Ordering::Release);
    assert!(ours.moved());
    ours.read().unwrap();
    assert_eq!(board.head.seen_sequence.load(Ordering::Relaxed), 2);
}

#[test]
fn nonsense_on_the_board_is_complained_of_and_skipped() {
    let board = Board::anonymous(10, 10).unwrap();
    put_text(&board.profiles[1].path, "no path");
    put(&board, 0, 10, 1, check::TCP, 0);
    put(&board, 1, 1, 1, check::HTTP, 1);
    put(&board, 2, 2, 1, 77, 0);
    put(&board, 3, 3, 1, check::TCP, 4_000_000_000);
    board.head.targets.store(u64::MAX, Ordering::Relaxed);
    let Reading { targets, complaints } = HealthBoard::of(board).read().unwrap();
    assert!(complaints[0].contains("id is beyond the board's 10 servers"), "{complaints:?}");
    assert!(complaints[1].contains("health path \"no path\""), "{complaints:?}");
    assert!(complaints[2].contains("kind of check 77"), "{complaints:?}");
    assert_eq!(complaints.len(), 3);
    let probed: Vec<_> = targets.iter().filter(|t| t.check != Check::None).map(|t| t.id).collect();
    assert_eq!(probed, [3]);
}

#[test]
fn targets_being_written_are_left_alone() {
    let board = Board::anonymous(10, 10).unwrap();
    board.head.targets_sequence.store(1, Ordering::Relaxed);
    let mut ours = HealthBoard::of(board.clone());
    assert!(ours.read().is_none() && ours.moved());
    board.head.targets_sequence.store(2, Ordering::Release);
    assert!(ours.read().is_some() && !ours.moved());
}

#[test]
fn a_reading_is_never_half_of_one() {
    let board = Board::anonymous(64, 4).unwrap();
    let (writer, done) = (board.clone(), Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&done);
    let writing = std::thread::spawn(move || {
        for round in 1..=20_000_u32 {
            let head = &writer.head;
            head.targets_sequence.fetch_add(1, Ordering::Relaxed);
            fence(Ordering::Release);
            for row in 0..64 {
                put(&writer, row, u32::try_from(row).unwrap(), round, check::TCP, 0);
            }
            head.targets.store(64, Ordering::Relaxed);
            head.targets_sequence.fetch_add(1, Ordering::Release);
            std::thread::yield_now();
        }
        ended.store(true, Ordering::Relaxed);
    });
    let mut ours = HealthBoard::of(board);
    let mut readings = 0;
    while !done.load(Ordering::Relaxed) {
        if let Some(Reading { targets, .. }) = ours.read() {
            readings += 1;
            assert!(targets.iter().all(|t| t.tag == targets[0].tag), "rows of two readings");
        }
    }
    writing.join().unwrap();
    assert!(readings > 0);
}

#[test]
fn results_are_written_under_the_servers_own_tag() {
    let board = Board::anonymous(10, 10).unwrap();
    put(&board, 0, 5, 1, check::TCP, 0);
    board.head.targets.store(1, Ordering::Relaxed);
    let mut ours = HealthBoard::of(board.clone());
    let target = Arc::new(ours.read().unwrap().targets.remove(0));
    let failure = Some(Reason { kind: shm_layout::board::failure::STATUS, detail: 503 });
    ours.write(&Effect { target: Arc::clone(&target), change: Some(Probed::Down), failure });
    let failed = |tag| Failure(board.failures[5].load(Ordering::Relaxed)).text(tag);
    assert_eq!((board.cell(5).state(1), board.cell(5).state(2)), (Probed::Down, Probed::Unknown));
    assert_eq!((failed(1).as_deref(), failed(2)), (Some("http status 503"), None));
    assert_eq!(board.head.epoch.load(Ordering::Relaxed), 1);
    // A result without a change raises no epoch; a success clears the failure.
    ours.write(&Effect { target: Arc::clone(&target), change: None, failure: None });
    assert_eq!((board.head.epoch.load(Ordering::Relaxed), failed(1)), (1, None));
    assert_eq!(ours.known(&target), Probed::Down);
}

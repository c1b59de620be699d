use std::sync::Arc;

use loom::thread;
use shm_models::seqlock;
use shm_models::sync::Ordering::Relaxed;
use shm_models::sync::{AtomicU64, own};

/// Two changes against two tries: a copy that mixes two states is seen.
#[test]
fn what_is_copied_belongs_together() {
    crate::explore(4, || {
        let rows: Arc<[AtomicU64; 3]> = Arc::default();
        let writer = Arc::clone(&rows);
        let writer = thread::spawn(move || {
            own();
            let [sequence, a, b] = &*writer;
            for number in 1..=2 {
                let odd = seqlock::begin(sequence);
                a.store(number, Relaxed);
                b.store(number, Relaxed);
                seqlock::end(sequence, odd);
            }
        });
        let [sequence, a, b] = &*rows;
        if let Some((number, (a, b))) = seqlock::read(sequence, 2, || (a.load(Relaxed), b.load(Relaxed))) {
            assert_eq!((a, b), (number / 2, number / 2), "a mixed copy");
        }
        writer.join().unwrap();
        assert!(seqlock::read(sequence, 1, || ()).is_some());
    });
}

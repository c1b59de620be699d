use std::sync::Arc;

use loom::thread;
use shm_models::counters::{CounterBlock, Counts};
use shm_models::sync::own;

/// Each flip's words are equal: a reading that mixes two is seen.
#[test]
fn a_reading_is_of_one_flip() {
    crate::explore(4, || {
        let block = Arc::new(CounterBlock::<2>::default());
        let owner = Arc::clone(&block);
        let owner = thread::spawn(move || {
            own();
            for flip in 1..=3 {
                let mut counts = Counts::default();
                counts.0[..2].fill(flip);
                owner.flip(&counts);
            }
        });
        if let Some(counts) = block.read() {
            assert_eq!(counts.0[0], counts.0[1], "two flips in one reading");
        }
        owner.join().unwrap();
        assert_eq!(block.read().unwrap().0[..2], [3, 3]);
    });
}

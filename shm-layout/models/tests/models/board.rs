use loom::sync::atomic::Ordering::Acquire;
use loom::thread;
use shm_models::board::{Board, Cell, Probed};

/// A slot looks at cells when the epoch has moved: an epoch must never be seen before its result, or the result would
/// be missed until the next one.
#[test]
fn an_epoch_brings_its_result() {
    crate::explore(4, || {
        let board = Board::anonymous(2, 1).unwrap();
        let checker = board.clone();
        let checker = thread::spawn(move || {
            checker.set(0, Cell::new(Probed::Down, 7, 100));
            checker.set(1, Cell::new(Probed::Down, 7, 200));
            checker.set(0, Cell::new(Probed::Up, 7, 300));
        });
        // As in `datapath::schedule::eligible`.
        let epoch = board.head.epoch.load(Acquire);
        let states = [0, 1].map(|id| board.cell(id).state(7));
        let at_least = match epoch {
            0 => [Probed::Unknown, Probed::Unknown],
            1 => [Probed::Down, Probed::Unknown],
            2 => [Probed::Down, Probed::Down],
            _ => [Probed::Up, Probed::Down],
        };
        let rank = |id: usize, state| match (id, state) {
            (_, Probed::Unknown) => 0,
            (_, Probed::Down) => 1,
            (_, Probed::Up) => 2,
        };
        for id in 0..2 {
            assert!(rank(id, states[id]) >= rank(id, at_least[id]), "epoch {epoch}, server {id}: {:?}", states[id]);
        }
        checker.join().unwrap();
    });
}

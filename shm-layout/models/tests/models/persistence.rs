use std::sync::Arc;

use loom::thread;
use shm_models::persistence::{Kept, PersistenceRow};
use shm_models::sync::own;

fn kept(n: u32) -> Kept {
    Kept { id: n, tag: n, made_ms: n.into(), until_ms: n.into() }
}

/// A row goes from one prefix to another while another slot reads it for the first: it reads the first's server or nothing.
#[test]
fn a_row_given_to_another_prefix_deceives_nobody() {
    crate::explore(3, || {
        let row = Arc::new(PersistenceRow::default());
        row.write(1, kept(1));
        let writer = thread::spawn({
            let row = Arc::clone(&row);
            move || {
                own();
                row.write(2, kept(2));
            }
        });
        for key in [1, 2] {
            if let Some(found) = row.read(u64::from(key)) {
                assert_eq!(found, kept(key));
            }
        }
        writer.join().unwrap();
        assert_eq!((row.read(1), row.read(2)), (None, Some(kept(2))));
    });
}

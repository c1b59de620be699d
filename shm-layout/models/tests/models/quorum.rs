use std::sync::Arc;

use loom::thread;
use shm_models::owner::Process;
use shm_models::published::RootRow;
use shm_models::quorum::lowest_seen;
use shm_models::slot::Slot;
use shm_models::sync::AtomicU64;
use shm_models::sync::Ordering::Relaxed;

/// The publisher's rows: two places; generation `n` lies in place `n & 1`, 0 = taken back.
#[derive(Default)]
struct Tables {
    root: RootRow,
    rows: [AtomicU64; 2],
}

impl Tables {
    fn publish(&self, number: u64) {
        self.rows[usize::from(number & 1 == 1)].store(number, Relaxed);
        self.root.put_in_force(number, 0);
    }

    /// What `Publisher::reclaim` does with the generation before `number`.
    fn reclaim(&self, number: u64, slots: &[Slot]) -> bool {
        let free = lowest_seen(slots).0 >= number;
        if free {
            self.rows[usize::from(number & 1 == 0)].store(0, Relaxed);
        }
        free
    }

    /// A burst of a slot, as `SlotRunner::update` begins it.
    fn burst(&self, slot: &Slot) {
        let number = self.root.in_force() >> 8;
        slot.pulse.see(number);
        let row = &self.rows[usize::from(number & 1 == 1)];
        assert_eq!(row.load(Relaxed), number, "rows of generation {number} were taken back");
    }
}

fn living(slot: &Slot) {
    assert!(slot.owner.claim(Process::NOBODY, Process::this()));
}

/// A reader joins while the publisher replaces a generation and takes the old one back.
#[test]
fn who_joins_loses_no_row() {
    crate::explore(3, || {
        let tables = Arc::new(Tables::default());
        let slot = Slot::small(0);
        living(&slot);
        tables.publish(1);
        let (reader, tables_read) = (slot.clone(), Arc::clone(&tables));
        let reader = thread::spawn(move || {
            reader.pulse.join();
            tables_read.burst(&reader);
            tables_read.burst(&reader);
            reader.pulse.leave();
        });
        tables.publish(2);
        tables.reclaim(2, std::slice::from_ref(&slot));
        reader.join().unwrap();
        assert!(tables.reclaim(2, std::slice::from_ref(&slot)), "nobody reads any more");
    });
}

/// The slot changes hands in between: the old owner's last read is over before the new one's word can be mistaken for it.
#[test]
fn a_slot_that_changes_hands_holds_what_it_reads() {
    crate::explore(2, || {
        let tables = Arc::new(Tables::default());
        let slot = Slot::small(0);
        living(&slot);
        tables.publish(1);
        slot.pulse.join();
        tables.burst(&slot);
        let (reader, tables_read) = (slot.clone(), Arc::clone(&tables));
        let reader = thread::spawn(move || {
            tables_read.burst(&reader);
            reader.pulse.leave();
            reader.owner.release();
            living(&reader);
            reader.pulse.join();
            tables_read.burst(&reader);
        });
        tables.publish(2);
        tables.reclaim(2, std::slice::from_ref(&slot));
        reader.join().unwrap();
    });
}

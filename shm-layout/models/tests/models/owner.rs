use std::sync::Arc;

use loom::thread;
use shm_models::owner::{OwnerRow, Process, hand};
use shm_models::sync::AtomicU64;
use shm_models::sync::Ordering::Relaxed;

/// A slot: its ownership word and a word that only its owner writes.
#[derive(Default)]
struct Slot {
    owner: OwnerRow,
    word: AtomicU64,
    /// What it must be; not loom's, so that it is never stale.
    truth: std::sync::atomic::AtomicU64,
    /// Owners at work: with any two of them at once it is seen above 1.
    inside: std::sync::atomic::AtomicU64,
}

impl Slot {
    /// A burst of the owner: finds what the last owner left, and leaves something else.
    fn burst(&self) {
        assert_eq!(self.inside.fetch_add(1, Relaxed), 0, "two owners");
        let number = self.word.load(Relaxed);
        assert_eq!(number, self.truth.load(Relaxed), "the last owner's stores are not all there");
        self.word.store(number + 1, Relaxed);
        self.truth.store(number + 1, Relaxed);
        self.inside.fetch_sub(1, Relaxed);
    }

    /// Takes it if it is nobody's or `dead`'s, works a burst, and lets go. `true`: it was taken.
    fn take(&self, me: u32, dead: Process) -> bool {
        let before = self.owner.owner();
        if before != Process::NOBODY && before != dead {
            return false;
        }
        let taken = self.owner.claim(before, process(me));
        if taken {
            self.burst();
        }
        taken
    }
}

fn process(number: u32) -> Process {
    Process::new(number, 1)
}

/// Elder owns, heir asks, adopter finds the slot without an owner for a moment: one of the two gets it.
#[test]
fn of_heir_and_adopter_one_gets_it() {
    crate::explore(3, || {
        let slot = Arc::new(Slot::default());
        assert!(slot.owner.claim(Process::NOBODY, process(1)));
        slot.burst();
        let (heir, adopter) = (Arc::clone(&slot), Arc::clone(&slot));
        let heir = thread::spawn(move || {
            heir.owner.ask(process(2));
            (0..2).any(|_| heir.take(2, Process::NOBODY))
        });
        let adopter = thread::spawn(move || adopter.take(3, Process::NOBODY));
        for _ in 0..2 {
            if slot.owner.asked() {
                slot.owner.release();
                break;
            }
            slot.burst();
        }
        let (heir, adopter) = (heir.join().unwrap(), adopter.join().unwrap());
        assert!(!(heir && adopter), "both have it");
        let owner = slot.owner.owner().pid();
        assert_eq!(heir, owner == 2);
        assert_eq!(adopter, owner == 3);
        if owner > 1 {
            // The heir's question may come after the adopter's claim: then the adopter is asked, and gives in turn.
            let told = slot.owner.hand.load(Relaxed);
            assert!(
                told == hand::OWNED || (told == hand::OFFERED && !heir),
                "hand says {told} of a slot that is owned"
            );
        }
    });
}

/// The owner is dead (confirmed): of all that come, one gets the slot, with all that was stored before the death.
#[test]
fn of_a_dead_owner_one_inherits() {
    crate::explore(3, || {
        let slot = Arc::new(Slot::default());
        assert!(slot.owner.claim(Process::NOBODY, process(1)));
        slot.burst();
        let takers = [2, 3].map(|me| {
            let slot = Arc::clone(&slot);
            thread::spawn(move || slot.take(me, process(1)))
        });
        let taken = takers.map(|taker| taker.join().unwrap());
        assert_eq!(taken.iter().filter(|t| **t).count(), 1, "{taken:?}");
    });
}

/// On trial: the elder asks the slot back while an adopter looks, and the heir's first burst is not over.
#[test]
fn a_slot_goes_there_and_back() {
    crate::explore(2, || {
        let slot = Arc::new(Slot::default());
        assert!(slot.owner.claim(Process::NOBODY, process(1)));
        slot.burst();
        let (heir, adopter) = (Arc::clone(&slot), Arc::clone(&slot));
        let heir = thread::spawn(move || {
            heir.owner.ask(process(2));
            if (0..2).any(|_| heir.take(2, Process::NOBODY)) && heir.owner.asked() {
                heir.burst();
                heir.owner.release();
            }
        });
        let adopter = thread::spawn(move || adopter.take(3, Process::NOBODY));
        if slot.owner.asked() {
            slot.owner.release();
            slot.owner.ask(process(1));
            let _ = slot.take(1, Process::NOBODY) || slot.take(1, Process::NOBODY);
            slot.owner.ask_no_more();
        }
        heir.join().unwrap();
        adopter.join().unwrap();
    });
}

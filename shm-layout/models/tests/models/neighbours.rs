use loom::thread;
use shm_models::learn::Learner;
use shm_models::neighbours::{Neighbours, ip4};
use shm_models::sync::own;

const A: u32 = 0x0a00_0001;
const B: u32 = 0x0a00_0002;
const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

/// A row goes from one neighbour to another while slots look: none sends A's packets to B's MAC, neither by the row it
/// finds now nor by the row and tag it remembers.
#[test]
fn a_recycled_row_deceives_nobody() {
    crate::explore(3, || {
        let table = Neighbours::anonymous(1).unwrap();
        let mut learner = Learner::attach(table.clone());
        let row = learner.row(ip4(A), 0).unwrap();
        learner.confirm(row, MAC_A, 1);
        let control = thread::spawn(move || {
            own();
            learner.forget(row);
            let again = learner.row(ip4(B), 0).unwrap();
            learner.confirm(again, MAC_B, 2);
        });
        let found = [(A, MAC_A), (B, MAC_B)].map(|(ip, mac)| {
            let found = table.find(ip4(ip), 0);
            if let Some((number, hop)) = found {
                assert_eq!(number, row);
                assert!(!hop.resolved() || hop.mac() == mac, "found {ip:x} at {:x?}", hop.mac());
            }
            found.map(|(number, hop)| (number, hop.tag(), mac))
        });
        control.join().unwrap();
        // What a session remembers: used while the tag is that of then.
        for (number, tag, mac) in found.into_iter().flatten() {
            let now = table.hop(number);
            assert!(now.tag() != tag || !now.resolved() || now.mac() == mac, "remembered {mac:x?}: {:x?}", now.mac());
        }
    });
}

/// Who waits for a neighbour looks when the epoch has moved: the hop is there then.
#[test]
fn an_epoch_brings_its_hop() {
    crate::explore(4, || {
        let table = Neighbours::anonymous(1).unwrap();
        let mut learner = Learner::attach(table.clone());
        let row = learner.row(ip4(A), 0).unwrap();
        let control = thread::spawn(move || {
            own();
            learner.confirm(row, MAC_A, 1);
        });
        let epoch = table.head.epoch.load(loom::sync::atomic::Ordering::Acquire);
        let hop = table.hop(row);
        assert!(epoch == 0 || hop.resolved(), "an epoch without its hop");
        control.join().unwrap();
    });
}

use loom::thread;
use shm_models::slot::Slot;
use shm_models::sync::own;
use shm_models::table::{self, SessionReader};

/// A record ends, is freed and begins anew while another slot reads it: the copy is of one session or none.
#[test]
fn a_copy_is_of_one_session() {
    crate::explore(2, || {
        let slot = Slot::small(0);
        table::create(&slot, 1);
        let owner = slot.clone();
        let owner = thread::spawn(move || {
            own();
            table::close(&owner);
            table::free(&owner);
            table::create(&owner, 2);
        });
        let reader = SessionReader::new(slot, arch::HashKey::new([0; 32]));
        if let Some(session) = reader.get(0) {
            assert_eq!(session.client_ip, session.server_ip, "two sessions in one copy");
        }
        owner.join().unwrap();
        assert_eq!(reader.get(0).map(|s| s.client_ip), Some(shm_models::neighbours::ip4(2)));
    });
}

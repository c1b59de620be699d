//! A session table with one record, of which one thread is the owner and others look on: the shipped plans (`intent`),
//! stores (`store`) and reader (`reader`), with an index that finds nothing (lookups by key are not modelled).

use crate::session::State;
use crate::slot::Slot;
use crate::sync::Ordering;

#[path = "../../../datapath/src/session/intent.rs"]
mod intent;
#[path = "../../../datapath/src/session/reader.rs"]
mod reader;
#[path = "../../../datapath/src/session/store.rs"]
mod store;

pub use reader::{Session, SessionReader};

use intent::{Place, Plan};
use store::Put;

/// What of a session the models tell apart: both sides are made of one number.
pub fn write(slot: &Slot, number: u32) {
    let row = &slot.sessions[0];
    row.client_ip.put(number);
    row.server_ip.put(number);
}

/// The owner begins session `number` in the record.
pub fn create(slot: &Slot, number: u32) {
    write(slot, number);
    let flags = shm_layout::session::flag::INDEXED;
    let fresh = slot.table.fresh.load(Ordering::Relaxed) == 0;
    let [none, free] = [crate::limits::NONE; 2];
    let state = State::Established as u8;
    let counts = intent::Counts::default();
    let plan = Plan::create(0, [Place::NOWHERE; 2], [1, 2], 0, none, free, fresh, state, flags, none, none, counts);
    assert!(plan.run(slot));
}

/// The owner ends it.
pub fn close(slot: &Slot) {
    let none = crate::limits::NONE;
    let state = State::Established as u8;
    let plan = Plan::close(0, [Place::NOWHERE; 2], state, 0, none, none, intent::Counts::default());
    assert!(plan.run(slot));
}

/// The wheel lets go of the record.
pub fn free(slot: &Slot) {
    let none = crate::limits::NONE;
    assert!(Plan::free(0, 0, none, none, intent::Counts::default()).run(slot));
}

mod key {
    //! What the reader leans on: keys are not modelled, a reader compares the addresses themselves.

    use shm_layout::neighbours::Ip;
    use shm_layout::session::{AddressLine, SessionRow, flag};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Key;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Direction {
        Client,
        Server,
    }

    impl Key {
        pub const fn client_of(_row: &SessionRow) -> Self {
            Self
        }
        pub const fn server_of(_row: &SessionRow) -> Self {
            Self
        }
    }

    pub trait Wanted: Copy {
        fn key(&self) -> Key;
        fn ends(&self) -> Option<[Ip; 2]>;
    }

    pub const fn ends_of(_line: &AddressLine, _direct: bool, _side: Direction) -> [Ip; 2] {
        [[0; 2]; 2] // The model's records have no line.
    }

    pub const fn protocol_of_flags(flags: u8) -> u8 {
        if flags & flag::UDP == 0 { 6 } else { 17 }
    }
}

mod index {
    //! An index that is empty.

    use shm_layout::slot::Slot;

    use super::key::{Key, Wanted};

    #[derive(Clone, Debug)]
    pub struct Index;

    pub struct Found {
        pub record: u32,
    }

    impl Index {
        pub const fn new(_slot: &Slot, _key: arch::HashKey) -> Self {
            Self
        }
        pub const fn hash(&self, _key: Key) -> u64 {
            0
        }
        pub fn search(&self, _wanted: impl Wanted, _hash: u64, _damaged: impl FnMut(u32, u32)) -> Option<Found> {
            None
        }
    }
}

mod wheel {
    pub const fn idle(last_seen: u32, now_ms: u64) -> u32 {
        (now_ms & 0xffff_ffff) as u32 - last_seen
    }
}

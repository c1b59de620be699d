//! Is an id still in use? Asked before it is given again.
//!
//! A session counts from the moment its intent is written: a dead owner's successor makes it, however much later, and
//! counts it then at whoever has the id. So a change in progress that names the id uses it, whatever the change is. While
//! a table is made anew its counts say nothing.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::slot::{IntentRow, Slot};

/// Sessions at a real server id, over all slots, those about to be made included.
#[must_use]
pub fn server(slots: &[Slot], id: u32) -> u64 {
    let of = |slot: &Slot| {
        let about = || pending(slot, |line| line.server.load(Relaxed) == id);
        // After the intent: a session that is made between the two loads is seen in one of them. And before it again: a
        // rebuild that begins meanwhile has emptied the count.
        let before = about();
        let active = slot.servers.get(id as usize).map_or(0, |row| u64::from(row.active.load(Acquire)));
        active + before.max(about())
    };
    slots.iter().map(of).sum()
}

/// Sessions of a service index, as [`server`].
#[must_use]
pub fn service(slots: &[Slot], index: u32) -> u64 {
    let of = |slot: &Slot| {
        let about = || pending(slot, |line| line.service.load(Relaxed) == index);
        let before = about();
        let active = slot.services.get(index as usize).map_or(0, |row| u64::from(row.active.load(Acquire)));
        active + before.max(about())
    };
    slots.iter().map(of).sum()
}

/// 1 if a change in progress names it, or if the slot is being counted anew: until it is, every id may be used there.
fn pending(slot: &Slot, names: impl Fn(&IntentRow) -> bool) -> u64 {
    // Acquire pairs with the owner's Release stores: the rest of the line is this change's, the counts those before it.
    let changing = slot.intent.op.load(Acquire) != 0 && names(&slot.intent);
    u64::from(changing || slot.table.rebuilding.load(Acquire) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::SlotGeometry;

    #[test]
    fn a_half_made_session_uses_its_server_and_its_service() {
        let geometry = |slot| SlotGeometry {
            slot,
            slots: 2,
            sessions: 16,
            wide_sessions: 0,
            servers: 4,
            services: 4,
            extensions: 0,
        };
        let slots = [0, 1].map(|slot| Slot::anonymous(geometry(slot), false).unwrap());
        slots[0].servers[3].active.store(2, Relaxed);
        assert_eq!([server(&slots, 3), server(&slots, 2), service(&slots, 1)], [2, 0, 0]);
        slots[1].intent.server.store(2, Relaxed);
        slots[1].intent.service.store(1, Relaxed);
        assert_eq!([server(&slots, 2), service(&slots, 1)], [0, 0], "without its operation the line says nothing");
        slots[1].intent.op.store(1, Relaxed);
        assert_eq!([server(&slots, 3), server(&slots, 2), service(&slots, 1)], [2, 1, 1]);
        slots[0].table.rebuilding.store(1, Relaxed);
        assert_eq!([server(&slots, 0), service(&slots, 3)], [1, 1], "counted anew: anything may come of it");
    }
}

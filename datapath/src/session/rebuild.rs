//! The table made anew from its records, when a check of the whole found that index, wheel or counts contradict them.
//!
//! O(table), not on the packet path. `rebuilding` stands in the table while it works: who dies in here is followed by one
//! that begins again.

use std::sync::atomic::Ordering;

use shm_layout::limits::{NONE, WHEEL_BUCKETS};
use shm_layout::session::{SessionRow, State, flag};

use super::SessionTable;
use super::intent::{op, put_entry};
use super::key::{Key, tag};
use super::store::Put;

impl SessionTable {
    /// Makes index, wheel, free list and counts anew. A session is kept if its record says that it is one and no other has
    /// its keys. Returns how many were kept.
    pub fn rebuild(&mut self) -> u32 {
        self.slot.table.rebuilding.put(1);
        self.slot.intent.op.put(op::NONE);
        self.clear();
        let mut kept = 0;
        for (wide, used) in [false, true].into_iter().zip(self.slot.used()) {
            if wide && self.slot.wide.is_empty() {
                break; // Tables without IPv6.
            }
            self.slot.heads(wide).1.put(used.end); // Relaxed here and below: own data.
            for record in used {
                if self.enter(record) {
                    kept += 1;
                } else if let Some(row) = self.slot.sessions.get(record as usize) {
                    let (free, _) = self.slot.heads(wide);
                    row.state.put(State::Free as u8);
                    row.flags.put(0);
                    row.link.put(free.load(Ordering::Relaxed));
                    free.put(record);
                }
            }
        }
        let table = &self.slot.table;
        table.active.put(kept);
        table.records.put(kept);
        table.ended.put(table.created.load(Ordering::Relaxed).wrapping_sub(kept.into()));
        table.rebuilding.put(0);
        kept
    }

    /// Empties everything that is derived from the records.
    fn clear(&self) {
        let slot = &self.slot;
        for bucket in slot.buckets.iter() {
            bucket.tags.iter().for_each(|tag| tag.put(0));
            bucket.overflow.put(0);
        }
        slot.wheel.iter().for_each(|head| head.put(NONE));
        slot.servers.iter().for_each(|row| row.active.put(0));
        slot.services.iter().for_each(|row| row.active.put(0));
        slot.table.free.put(NONE);
        slot.wide.iter().for_each(|head| head.free.put(NONE));
    }

    /// Enters a record's session into index, wheel and counts. `false`: it is none.
    fn enter(&mut self, record: u32) -> bool {
        let Some((keys, server)) = self.slot.sessions.get(record as usize).and_then(session_of) else { return false };
        let hashes = keys.map(|key| self.index.hash(key));
        let Some(tuples) = self.index.tuples(record) else { return false };
        let known = tuples.iter().zip(hashes).any(|(tuple, hash)| self.find_hashed(*tuple, hash).is_some());
        if known || keys[0] == keys[1] || !self.index.distinct(hashes) {
            return false;
        }
        // Both places before either is used: a session is entered whole or not.
        let Some(client) = self.make_room(hashes[0], NONE) else { return false };
        let Some(reply) = self.make_room(hashes[1], client.at) else { return false };
        let slot = &self.slot;
        for (place, hash) in [client, reply].into_iter().zip(hashes) {
            if let Some(first) = slot.buckets.get(place.over as usize) {
                first.overflow.put(first.overflow.load(Ordering::Relaxed) + 1);
            }
            if let Some(bucket) = slot.buckets.get((place.at >> 4) as usize) {
                put_entry(bucket, (place.at & 15) as usize, record, tag(hash));
            }
        }
        if let Some(counts) = slot.servers.get(server as usize) {
            counts.active.put(counts.active.load(Ordering::Relaxed) + 1);
            if let Some(service) = slot.services.get(counts.service.load(Ordering::Relaxed) as usize) {
                service.active.put(service.active.load(Ordering::Relaxed) + 1);
            }
        }
        if server != NONE
            && slot.servers.get(server as usize).is_none()
            && let Some(row) = slot.sessions.get(record as usize)
        {
            // A damaged id: the session lives on by its own addresses, and counts for nobody.
            row.flags.put(row.flags.load(Ordering::Relaxed) & !flag::COUNTED);
        }
        // Any bucket does: a visit too early is harmless.
        if let (Some(row), Some(head)) =
            (slot.sessions.get(record as usize), slot.wheel.get(record as usize % WHEEL_BUCKETS))
        {
            row.link.put(head.load(Ordering::Relaxed));
            head.put(record);
        }
        true
    }
}

/// Keys and server (NONE: counted nowhere) of a record that says it is a living session.
fn session_of(row: &SessionRow) -> Option<([Key; 2], u32)> {
    let flags = row.flags.load(Ordering::Relaxed);
    let state = State::of(row.state.load(Ordering::Relaxed));
    if flags & flag::INDEXED == 0 || matches!(state, None | Some(State::Free)) {
        return None;
    }
    let server = if flags & flag::COUNTED == 0 { NONE } else { row.server_id.load(Ordering::Relaxed) };
    Some(([Key::client_of(row), Key::server_of(row)], server))
}

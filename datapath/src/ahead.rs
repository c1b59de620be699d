//! Rows that beginning and ending sessions read, asked for ahead: each step reads what the step before asked for, and asks
//! for what that names. Hints only: whatever is read here is read again, and checked, when it is used.

use std::sync::atomic::Ordering::Relaxed; // Published rows do not change; the others are the owner's own.

use arch::{prefetch_at, prefetch_read};
use packet::plain;
use shm_layout::limits::{NONE, RX_BURST};
use shm_layout::neighbours::ip4;
use shm_layout::published::{Directory, Generation, Published, address_hash};
use shm_layout::session::SessionRow;

use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::SessionTable;

/// A packet that may begin a session.
#[derive(Clone, Copy)]
struct Opening {
    /// Places of the service in the hash of services, of the source in the hash of their addresses.
    places: [usize; 2],
    /// What stands there: the service, a service whose address may be the source's.
    services: [u32; 2],
    /// How many openings in a row before it go to the same service.
    run: u32,
    /// Place of the member in the scheduler's list, then in its arena.
    member: usize,
}

const NOTHING: Opening = Opening { places: [0; 2], services: [NONE; 2], run: 0, member: usize::MAX };

impl SlotRunner {
    /// Asks for what beginning sessions reads, for packets of a burst that found none: `places` of `rx`, all at once.
    #[cold]
    #[inline(never)]
    pub(crate) fn foresee_openings<I: Io>(&self, io: &mut I, places: impl Iterator<Item = usize>) {
        let Some(generation) = self.generation else { return };
        let (published, directory) = (&self.shared.published, self.shared.published.directory(generation));
        let mut openings = [NOTHING; RX_BURST];
        let mut count = 0;
        for place in places {
            // Read as if it was plain: a tagged packet's rows are read without having been asked for.
            let Some(window) = io.frame(place).and_then(|frame| frame.first_chunk()) else { continue };
            let Some(opening) = openings.get_mut(count) else { break };
            let packet = plain::Head::of(window);
            let service = address_hash(ip4(packet.destination), packet.port, packet.protocol);
            let [source, vip] = [packet.source, packet.destination].map(|address| address_hash(ip4(address), 0, 0));
            let addresses = &directory.vip_addresses;
            opening.places = [Directory::first(&directory.vips, service), Directory::first(addresses, source)];
            prefetch_at(&directory.vips, opening.places[0]);
            prefetch_at(addresses, opening.places[1]);
            prefetch_at(addresses, Directory::first(addresses, vip));
            count += 1;
        }
        let openings = &mut openings[..count];
        let (mut last, mut run) = (NONE, 0);
        for opening in openings.iter_mut() {
            let hashes = [&directory.vips, &directory.vip_addresses];
            opening.services = std::array::from_fn(|i| {
                let place = hashes[i].get(opening.places[i]);
                place.map_or(NONE, |index| index.load(Relaxed).wrapping_sub(1))
            });
            let [service, _] = opening.services;
            run = if service == last { run + 1 } else { 0 };
            (last, opening.run) = (service, run);
            opening.services.iter().for_each(|index| prefetch_at(&directory.services, *index as usize));
            prefetch_at(&self.slot.services, service as usize);
            self.schedulers.foresee(service);
        }
        for opening in openings.iter() {
            let [service, of_source] = opening.services.map(|index| published.service(generation, index));
            service.into_iter().chain(of_source).for_each(prefetch_read);
        }
        for opening in openings.iter_mut() {
            let [service, _] = opening.services;
            if let Some(row) = published.service(generation, service) {
                opening.member = self.schedulers.foresee_place(service, row, opening.run);
            }
        }
        for opening in openings.iter_mut() {
            if let Some(row) = published.service(generation, opening.services[0]) {
                opening.member = self.schedulers.foresee_member(row, opening.member);
                prefetch_at(&published.members, opening.member);
            }
        }
        for member in openings.iter().filter_map(|opening| published.members.get(opening.member)) {
            prefetch_at(&self.slot.servers, member.id.load(Relaxed) as usize);
        }
    }
}

/// How many sessions before its turn a session that is over is looked at, by step: [`foresee_end`] of 3 first.
pub(crate) const ENDING: [usize; 4] = [4, 8, 12, 16];

/// Asks for what ending a session reads: its record, then both index buckets and its server's counts, then its service's;
/// and its timeout meanwhile.
pub(crate) fn foresee_end(
    sessions: &SessionTable,
    published: &Published,
    generation: Generation,
    record: u32,
    step: usize,
) {
    let Some(row) = sessions.row(record) else { return };
    let (slot, id) = (sessions.slot(), row.server_id.load(Relaxed) as usize);
    match step {
        3 => return prefetch_read(row),
        2 => {
            sessions.prefetch_buckets_of(row);
            prefetch_at(&slot.servers, id);
        }
        1 => {
            let service = slot.servers.get(id).map_or(NONE, |counts| counts.service.load(Relaxed));
            prefetch_at(&slot.services, service as usize);
        }
        _ => {}
    }
    foresee_timeout(published, generation, row, step);
}

/// Asks for what [`crate::timeout::of`] reads: place of the server's row (step 2), that row, the state's word
/// in the service's row (step 0).
pub(crate) fn foresee_timeout(published: &Published, generation: Generation, row: &SessionRow, step: usize) {
    let places = &published.directory(generation).servers;
    let (id, state) = (row.server_id.load(Relaxed) as usize, usize::from(row.state.load(Relaxed)));
    if step == 2 {
        return prefetch_at(places, id);
    }
    let member = places.get(id).map_or(usize::MAX, |place| place.load(Relaxed) as usize);
    if step == 1 {
        return prefetch_at(&published.members, member);
    }
    let service = published.members.get(member).map(|member| member.service.load(Relaxed));
    if let Some(row) = service.and_then(|index| published.service(generation, index)) {
        prefetch_at(&row.timeouts, state);
    }
}

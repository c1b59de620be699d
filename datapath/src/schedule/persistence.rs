//! Persistence: the sessions of a client's prefix go to one server, for as long as the prefix comes back in time.
//!
//! The first choice is by hash, so that slots which hear of a client at the same moment agree without a word, as do the
//! nodes of a cluster. What was chosen is remembered in shared memory, each slot for itself: servers may come, go and change
//! their weight, and their clients stay. Of several choices for a prefix the youngest counts.

use std::sync::atomic::Ordering::Relaxed; // Published rows do not change.

use arch::siphash13;
use shm_layout::choice::{client_hash, masked};
use shm_layout::neighbours::Ip;
use shm_layout::persistence::Kept;
use shm_layout::published::{Generation, ServiceRow};
use shm_layout::secrets;

use super::Schedulers;
use super::hash::{Client, key_of};
use crate::shared::Shared;

/// What a slot needs to find its rows.
#[derive(Debug)]
pub(super) struct Memory {
    slot: usize,
    /// Of this boot: nobody outside can choose prefixes that push each other out.
    key: [u64; 2],
}

impl Memory {
    pub(super) fn new(shared: &Shared, slot: u32) -> Self {
        let bytes: [u8; 16] = secrets::bytes(&shared.secrets.hash_key[..2]);
        let key = u128::from_le_bytes(bytes);
        let half = |word: u128| u64::try_from(word & u128::from(u64::MAX)).unwrap_or(0);
        Self { slot: slot as usize, key: [half(key), half(key >> 64)] }
    }

    /// Key of a prefix of a service.
    fn key(&self, service: &ServiceRow, prefix: Ip) -> u64 {
        let address = siphash13(prefix[0], prefix[1], self.key);
        siphash13(address, service.id.load(Relaxed).into(), self.key).max(1)
    }

    /// The youngest choice for `key` that holds and `fits`.
    fn find(&self, shared: &Shared, key: u64, now_ms: u64, fits: impl Fn(&Kept) -> bool) -> Option<Kept> {
        let tables = shared.persistence.as_ref()?;
        let rows = (0..shared.slots.len()).flat_map(|slot| tables.bucket(slot, key));
        let kept = rows.filter_map(|row| row.read(key)).filter(|kept| kept.until_ms > now_ms && fits(kept));
        kept.reduce(|best, kept| if kept.made_ms > best.made_ms { kept } else { best })
    }

    /// Remembers `kept`, in the place of what would be forgotten first.
    fn keep(&self, shared: &Shared, key: u64, kept: Kept) {
        let Some(tables) = &shared.persistence else { return };
        let bucket = tables.bucket(self.slot, key);
        let own = bucket.iter().find(|row| row.read(key).is_some());
        if let Some(row) = own.or_else(|| bucket.iter().min_by_key(|row| row.due())) {
            row.write(key, kept);
        }
    }
}

impl Schedulers {
    /// The server of the client's prefix.
    pub(super) fn kept(
        &self,
        shared: &Shared,
        generation: Generation,
        index: u32,
        service: &ServiceRow,
        client: &Client,
        now_ms: u64,
    ) -> Option<u32> {
        let prefix = masked(client.ip, service.persistence_prefix.load(Relaxed));
        let key = self.memory.key(service, prefix);
        let until_ms = now_ms + u64::from(service.persistence_ms.load(Relaxed));
        let eligible = |kept: &Kept| self.place(shared, generation, service, kept).is_some();
        if let Some(kept) = self.memory.find(shared, key, now_ms, eligible) {
            self.memory.keep(shared, key, Kept { until_ms, ..kept });
            return self.place(shared, generation, service, &kept);
        }
        let place = self.by_hash(shared, index, service, client_hash(prefix, None, key_of(service)))?;
        let member = shared.published.members(service).get(place as usize)?;
        let (id, tag) = (member.id.load(Relaxed), member.tag.load(Relaxed));
        self.memory.keep(shared, key, Kept { id, tag, made_ms: now_ms, until_ms });
        Some(place)
    }

    /// Place of a remembered server among the service's members, if it takes sessions.
    fn place(&self, shared: &Shared, generation: Generation, service: &ServiceRow, kept: &Kept) -> Option<u32> {
        let row = shared.published.directory(generation).servers.get(kept.id as usize)?.load(Relaxed);
        let place = row.checked_sub(service.first_member.load(Relaxed))?;
        let member = shared.published.members(service).get(place as usize)?;
        let same = member.id.load(Relaxed) == kept.id && member.tag.load(Relaxed) == kept.tag;
        (same && self.takes.get(row as usize) == Some(&true)).then_some(place)
    }
}

//! Choices by hash: alike in every slot and on every node with the same configuration, without knowing of each other.
//!
//! The table names all configured servers. One that takes nobody just now is stepped over by each client along a way of its
//! own, so that its clients spread over the others, and theirs stay; control need not be there.

use std::sync::atomic::Ordering::Relaxed; // Published rows do not change.

use shm_layout::choice::{client_hash, start_and_stride, step};
use shm_layout::neighbours::Ip;
use shm_layout::published::{ServiceRow, scheduler};

use super::Schedulers;
use crate::shared::Shared;

/// Places looked at before a server is taken from those that are left: with one of twenty servers eligible, 1 of 700
/// clients is chosen for that way.
const LOOKS: usize = 128;

/// Who asks for a server.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Address.
    pub ip: Ip,
    /// Port.
    pub port: u16,
}

impl Client {
    /// Hash of what the scheduler of `service` goes by.
    #[inline]
    pub(super) fn hash(&self, service: &ServiceRow) -> u64 {
        let extra = match service.scheduler.load(Relaxed) {
            scheduler::SOURCE_IP => None,
            scheduler::SOURCE_IP_PORT => Some(u64::from(self.port)),
            _ => {
                let (port, protocol) = (service.port.load(Relaxed), service.protocol.load(Relaxed));
                let vip = service.vip[0].load(Relaxed) ^ service.vip[1].load(Relaxed);
                Some(vip.rotate_left(32) ^ u64::from(self.port) ^ u64::from(port) << 16 ^ u64::from(protocol) << 32)
            }
        };
        client_hash(self.ip, extra, key_of(service))
    }
}

/// Key of a service's choices.
#[inline]
pub(super) fn key_of(service: &ServiceRow) -> [u64; 2] {
    [service.choice_key[0].load(Relaxed), service.choice_key[1].load(Relaxed)]
}

impl Schedulers {
    /// The first eligible server on the way of `hash`.
    pub(super) fn by_hash(&self, shared: &Shared, index: u32, service: &ServiceRow, hash: u64) -> Option<u32> {
        let first = service.first_member.load(Relaxed) as usize;
        let members = service.members.load(Relaxed) as usize;
        let takes = self.takes.get(first..first.checked_add(members)?)?;
        if let Some(table) = shared.published.choice(service) {
            let (mut at, stride) = start_and_stride(hash);
            for _ in 0..LOOKS {
                let place = table.get(at)?.load(Relaxed);
                if takes.get(usize::from(place)) == Some(&true) {
                    return Some(place.into());
                }
                at = step(at, stride);
            }
        }
        // Nearly all are down: any of those that are left, by the same hash.
        let len = u64::from(self.caches.get(index as usize)?.len);
        let at = usize::try_from(hash.checked_rem(len)?).ok()?;
        self.by_member.get(first + at).copied()
    }
}

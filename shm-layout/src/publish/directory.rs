//! The directory of a generation: which row each service and server has, and the hashes that packets look them up by.
//!
//! Among ten thousand services a change leaves nearly everything as it is. So where no service goes and none changes its
//! address, the directory in force is copied and what is new is put in; else it is made anew from all services.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::{Held, MemberPlan, Publisher, ServicePlan, SharedPlan, Version};
use crate::limits::NONE;
use crate::published::{Directory, address_hash, admin, directory_flag, mode, service_flag};
use crate::segment::Rows;

impl Publisher {
    /// Writes the directory of `held`, which is made of `plan`.
    pub(super) fn write_directory(&self, held: &Held, plan: &SharedPlan) {
        let block = &self.tables.directories[held.directory];
        // Release: a reader outside the quorum that sees new words below also sees that the block is being written.
        block.head.generation.store(0, Release);
        // What scribbled on the directory in force must not be copied, and signed, with it.
        let whole = |d: &Directory| d.head.checksum.load(Relaxed) == d.sum();
        let before = self.held.back().filter(|b| continues(b, held) && whole(&self.tables.directories[b.directory]));
        match before {
            Some(before) => self.go_on(block, before, held),
            None => self.anew(block, held),
        }
        self.locals(block, plan);
        let new = before.map_or(&[][..], |before| &before.versions);
        let new =
            held.versions.iter().enumerate().filter(|(place, v)| !new.get(*place).is_some_and(|b| Arc::ptr_eq(b, v)));
        let new: Vec<&ServicePlan> = new.filter_map(|(_, v)| v.plan.as_deref()).collect();
        let highest = new.iter().map(|s| s.index + 1).max().unwrap_or(0);
        let services = before.map_or(0, |b| self.tables.directories[b.directory].head.services.load(Relaxed));
        block.head.services.store(highest.max(services), Relaxed);
        block.head.flags.store(self.flags(plan, &new), Relaxed);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        block.head.published_at.store(since.map_or(0, |t| t.as_secs()), Relaxed);
        (self.step)();
        block.head.generation.store(held.number, Relaxed);
        block.head.checksum.store(block.sum(), Relaxed);
    }

    /// Bits of [`directory_flag`]. `new`: the services of `plan` that are not in force like this.
    fn flags(&self, plan: &SharedPlan, new: &[&ServicePlan]) -> u64 {
        let before = self.tables.current().map_or(0, |g| self.tables.directory(g).head.flags.load(Relaxed));
        let ends = |m: &MemberPlan| matches!(m.admin, admin::DISABLED | admin::REMOVED_NOW);
        let ends = |s: &ServicePlan| s.members.iter().any(ends);
        // Not set before: none of those that stay has one.
        let swept = before & directory_flag::SWEEP != 0 && plan.services.iter().any(|s| ends(s));
        // Once set it stays: sessions outlive the mode of their service.
        let nat = before & directory_flag::NAT != 0 || new.iter().any(|s| s.mode == mode::NAT);
        let flags = [(swept || new.iter().any(|s| ends(s)), directory_flag::SWEEP), (nat, directory_flag::NAT)];
        flags.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum()
    }

    fn anew(&self, block: &Directory, held: &Held) {
        let clear = |rows: &Rows<AtomicU32>, value| rows.iter().for_each(|w| w.store(value, Relaxed));
        clear(&block.services, NONE);
        clear(&block.servers, NONE);
        clear(&block.vips, 0);
        clear(&block.vip_addresses, 0);
        (self.step)();
        // Services by index, for comparing what a place of the hash tables holds with what is to be put there.
        let mut plans: Vec<Option<&ServicePlan>> = vec![None; block.services.len()];
        for service in held.versions.iter().filter_map(|v| v.plan.as_deref()) {
            plans[service.index as usize] = Some(service);
        }
        let plan_of = |index: u32| plans.get(index as usize).copied().flatten();
        // A removed service whose address has been given to another is found by its sessions only.
        let (removed, kept): (Vec<_>, Vec<_>) = held.versions.iter().partition(|v| is_removed(v));
        for version in kept.into_iter().chain(removed) {
            let Some(service) = version.plan.as_deref() else { continue };
            address(block, service, plan_of);
            rows(block, service, version);
        }
    }

    /// As [`Self::anew`], from the directory of the generation before, which `held` continues.
    fn go_on(&self, block: &Directory, before: &Held, held: &Held) {
        let from = &self.tables.directories[before.directory];
        let copy = |to: &Rows<AtomicU32>, from: &Rows<AtomicU32>| {
            to.iter().zip(from.iter()).for_each(|(to, from)| to.store(from.load(Relaxed), Relaxed));
        };
        copy(&block.services, &from.services);
        copy(&block.servers, &from.servers);
        copy(&block.vips, &from.vips);
        copy(&block.vip_addresses, &from.vip_addresses);
        (self.step)();
        let changed = || held.versions.iter().zip(&before.versions).filter(|(now, before)| !Arc::ptr_eq(now, before));
        for member in changed().filter_map(|(_, before)| before.plan.as_deref()).flat_map(|s| &s.members) {
            block.servers[member.id as usize].store(NONE, Relaxed);
        }
        let added = &held.versions[before.versions.len()..];
        for version in changed().map(|(now, _)| now).chain(added) {
            let Some(service) = version.plan.as_deref() else { continue };
            rows(block, service, version);
        }
        // By index, when a place that is taken is met: few are.
        let plan_of = |index: u32| held.versions.iter().filter_map(|v| v.plan.as_deref()).find(|p| p.index == index);
        added.iter().filter_map(|v| v.plan.as_deref()).for_each(|service| address(block, service, plan_of));
    }

    fn locals(&self, block: &Directory, plan: &SharedPlan) {
        block.local_addresses.iter().for_each(|w| w.store(0, Relaxed));
        for (at, local) in (0_u32..).zip(&plan.locals) {
            local.store(&block.locals[at as usize]);
            insert(&block.local_addresses, address_hash(local.ip, 0, 0), at, |other| {
                plan.locals.get(other as usize).is_some_and(|o| o.ip == local.ip)
            });
        }
        block.head.locals.store(u32::try_from(plan.locals.len()).unwrap_or(0), Relaxed);
    }
}

/// Are the services of `now` those of `before` at the same addresses, and some more behind them? (Not where removed ones
/// are: whose address they had may be another's.)
fn continues(before: &Held, now: &Held) -> bool {
    let at = |v: &Version| v.plan.as_ref().map(|p| (p.index, p.vip, p.port, p.protocol));
    let same = |(before, now): (&Arc<Version>, &Arc<Version>)| {
        Arc::ptr_eq(before, now) && before.plan.is_some() || at(before).is_some() && at(before) == at(now)
    };
    before.versions.len() <= now.versions.len()
        && before.versions.iter().zip(&now.versions).all(same)
        && !before.versions.iter().chain(&now.versions).any(is_removed)
}

fn is_removed(version: &Arc<Version>) -> bool {
    version.plan.as_ref().is_some_and(|p| p.flags & service_flag::REMOVED != 0)
}

/// The service in the hashes. `plan_of`: the service of an index that stands in them.
fn address<'a>(block: &Directory, service: &ServicePlan, plan_of: impl Fn(u32) -> Option<&'a ServicePlan>) {
    let (vip, port, protocol) = (service.vip, service.port, service.protocol);
    insert(&block.vips, address_hash(vip, port, protocol), service.index, |other| {
        plan_of(other).is_some_and(|o| (o.vip, o.port, o.protocol) == (vip, port, protocol))
    });
    insert(&block.vip_addresses, address_hash(vip, 0, 0), service.index, |other| {
        plan_of(other).is_some_and(|o| o.vip == vip)
    });
}

/// The rows of the service and of its servers.
fn rows(block: &Directory, service: &ServicePlan, version: &Version) {
    block.services[service.index as usize].store(version.row, Relaxed);
    for (member, at) in service.members.iter().zip(version.members.clone()) {
        block.servers[member.id as usize].store(at, Relaxed);
    }
}

/// Puts `value + 1` at the first empty place from the hash's, unless one that is the `same` stands on the way: the first
/// of two wins. The tables are at most half full.
fn insert(rows: &Rows<AtomicU32>, hash: u64, value: u32, same: impl Fn(u32) -> bool) {
    let mask = rows.len().wrapping_sub(1);
    let start = usize::try_from(hash >> 32).unwrap_or(0);
    for step in 0..rows.len() {
        let place = &rows[start.wrapping_add(step) & mask];
        match place.load(Relaxed) {
            0 => return place.store(value + 1, Relaxed),
            other if same(other - 1) => return,
            _ => {}
        }
    }
}

//! Control and the health-checker, at random: generations, neighbours lost and found, a board that flips.

use std::collections::HashMap;
use std::time::Duration;

use shm_layout::board::{Cell, Probed};
use shm_layout::in_use;
use shm_layout::neighbours::ip4;
use shm_layout::publish::{MemberPlan, lowest_seen};
use shm_layout::published::{admin, scheduler, service_flag};
use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::world::{Rng, World, server};

/// Real servers there are, by [`server`].
pub const SERVERS: u8 = 12;

/// What control keeps beside the tables.
#[derive(Debug, Default)]
pub struct Control {
    tags: u32,
    /// Removed members, with the generation that said so first.
    removed: HashMap<u32, u64>,
    /// When sessions of a server were last ordered to end, ms; `u64::MAX`: they still are.
    ended: HashMap<u32, u64>,
    /// Generations published, and those that had to wait for a slot.
    pub published: u64,
    pub held: u64,
}

impl Control {
    /// Are sessions of the server that began at `since` under an order to end?
    pub fn ends(&self, server: u32, since: u64) -> bool {
        self.ended.get(&server).is_some_and(|ended| since <= *ended)
    }

    /// A change of one service, then publication if the slots let it.
    pub fn change(&mut self, world: &mut World, rng: &mut Rng, now_ms: u64) {
        self.purge(world);
        let which = rng.below(world.plan.services.len() as u64) as usize;
        match rng.below(16) {
            0..=5 => self.add(world, rng, which),
            6 => self.set_admin(world, rng, which, admin::REMOVED, now_ms),
            7 => self.set_admin(world, rng, which, admin::REMOVED_NOW, now_ms),
            8 => self.set_admin(world, rng, which, admin::DRAIN, now_ms),
            9 => self.set_admin(world, rng, which, admin::DISABLED, now_ms),
            10..=12 => self.set_admin(world, rng, which, admin::ENABLED, now_ms),
            13 => {
                let service = &mut world.plan.services[which];
                service.scheduler = rng.below(u64::from(scheduler::MAGLEV) + 1) as u8;
                service.hashing.persistence_ms = *rng.pick(&[0, 0, 3000]);
                service.hashing.prefix = 126;
                service.flags = *rng.pick(&[0, service_flag::PANIC]);
            }
            14 => world.plan.services[which].max_sessions = *rng.pick(&[0, 0, 0, 20, 500]),
            _ => {
                if let Some(member) = pick(rng, &mut world.plan.services[which].members, |_| true) {
                    member.weight = *rng.pick(&[0, 1, 1, 2, 5]);
                }
            }
        }
        self.publish(world, now_ms);
        if std::env::var_os("LB_SIM_TRACE").is_some() {
            let states: Vec<_> = world
                .plan
                .services
                .iter()
                .flat_map(|s| s.members.iter().map(|m| (m.id, m.ip[1] as u8, m.admin)))
                .collect();
            println!("at {now_ms}: generation {} {states:?}", world.publisher.generation());
        }
    }

    fn publish(&mut self, world: &mut World, now_ms: u64) {
        let number = world.publisher.generation() + 1;
        match world.publisher.stage(&world.plan, number, &world.shared.slots, Duration::ZERO) {
            Ok(staged) => {
                world.publisher.commit(staged);
                self.published += 1;
                for member in world.plan.services.iter().flat_map(|s| &s.members) {
                    if member.admin == admin::REMOVED || member.admin == admin::REMOVED_NOW {
                        self.removed.entry(member.id).or_insert(number);
                    }
                }
                // An order that stands no longer ended what began until now.
                let under_order: Vec<u32> = ended_servers(world).collect();
                for (address, ended) in &mut self.ended {
                    if *ended == u64::MAX && !under_order.contains(address) {
                        *ended = now_ms;
                    }
                }
            }
            Err(_) => self.held += 1,
        }
    }

    fn add(&mut self, world: &mut World, rng: &mut Rng, which: usize) {
        let address = server(rng.below(SERVERS.into()) as u8);
        let taken = |m: &MemberPlan| m.ip == ip4(address);
        let used: Vec<u32> = world.plan.services.iter().flat_map(|s| s.members.iter().map(|m| m.id)).collect();
        let free = |id: &u32| !used.contains(id) && self.idle(world, *id);
        // Few ids: they come round.
        let Some(id) = (0..24).find(free) else { return };
        if !world.plan.services[which].members.iter().any(taken) {
            self.tags += 1;
            let tag = 100 + self.tags;
            let plan = MemberPlan { id, tag, ip: ip4(address), port: 8080, weight: 1, admin: admin::ENABLED };
            world.plan.services[which].members.push(plan);
        }
    }

    fn set_admin(&mut self, world: &mut World, rng: &mut Rng, which: usize, to: u8, now_ms: u64) {
        let removed = |m: &MemberPlan| m.admin == admin::REMOVED || m.admin == admin::REMOVED_NOW;
        let Some(member) = pick(rng, &mut world.plan.services[which].members, |m| !removed(m)) else { return };
        member.admin = to;
        if to == admin::DISABLED || to == admin::REMOVED_NOW {
            let [_, low] = member.ip;
            self.ended.insert(low as u32, u64::MAX);
        }
        let _ = now_ms;
    }

    /// Takes removed members out whose last session is gone, as control does: when every slot has seen the removal.
    fn purge(&mut self, world: &mut World) {
        let lowest = lowest_seen(&world.shared.slots).0;
        let gone: Vec<u32> = self
            .removed
            .iter()
            .filter(|(id, since)| lowest >= **since && self.idle(world, **id))
            .map(|(i, _)| *i)
            .collect();
        for service in &mut world.plan.services {
            service.members.retain(|m| !gone.contains(&m.id));
        }
        self.removed.retain(|id, _| !gone.contains(id));
    }

    fn idle(&self, world: &World, id: u32) -> bool {
        in_use::server(&world.shared.slots, id) == 0
    }
}

fn ended_servers(world: &World) -> impl Iterator<Item = u32> + '_ {
    let under = |m: &&MemberPlan| m.admin == admin::DISABLED || m.admin == admin::REMOVED_NOW;
    world.plan.services.iter().flat_map(|s| &s.members).filter(under).map(|m| m.ip[1] as u32)
}

fn pick<'a>(
    rng: &mut Rng,
    of: &'a mut [MemberPlan],
    which: impl Fn(&MemberPlan) -> bool,
) -> Option<&'a mut MemberPlan> {
    let places: Vec<usize> = (0..of.len()).filter(|at| which(&of[*at])).collect();
    if places.is_empty() { None } else { of.get_mut(*rng.pick(&places)) }
}

/// A word of the board: a state that may be true, or garbage.
pub fn board(world: &World, rng: &mut Rng, now_ms: u64) {
    let board = &world.shared.board;
    let id = rng.below(20) as usize;
    let members = world.plan.services.iter().flat_map(|s| &s.members);
    let tag = members.clone().find(|m| m.id as usize == id).map_or(0, |m| m.tag);
    let word = match rng.below(4) {
        0 => rng.next(),
        1 => Cell::new(Probed::Down, tag, now_ms).0,
        _ => Cell::new(Probed::Up, tag, now_ms).0,
    };
    board.cells[id].store(word, Release);
    board.head.epoch.store(board.head.epoch.load(Relaxed) + 1, Release);
}

/// A neighbour is lost, its row perhaps given to another; or comes back.
pub fn neighbour(world: &mut World, rng: &mut Rng, stations: &[u32]) {
    let address = *rng.pick(stations);
    let Some((row, _)) = world.shared.neighbours.find(ip4(address), 0) else { return world.resolve(address) };
    match rng.below(4) {
        0 => world.learner.fail(row),
        1 => {
            world.learner.forget(row);
            // Whoever comes next gets its row.
            let next = *rng.pick(stations);
            world.resolve(next);
        }
        _ => world.resolve(address),
    }
}

//! Choices by hash, persistence, weighted least connections, slow start: over slots, nodes, changes and deaths.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use shm_layout::board::{Cell, Probed};
use shm_layout::publish::{Hashing, MemberPlan};
use shm_layout::published::{admin, protocol, scheduler};
use world::*;

/// Client `n`, behind the gateway.
fn client(n: u32) -> u32 {
    ip(100, 64, 0, 0) + n
}

fn members(count: u32) -> Vec<MemberPlan> {
    (0..count).map(|n| member(n, server(n as u8))).collect()
}

/// An appliance with one UDP service whose sessions stay.
fn world(slots: u32, by: u8, members: Vec<MemberPlan>) -> World {
    let mut service = service(protocol::UDP, 53, members);
    service.scheduler = by;
    service.timeouts = [0, 5000, 10_000, 90_000, 30_000, 30_000, 5000, 3000, 1000, 7_200_000];
    let mut world = World::new(slots, 16_384, vec![service]);
    world.resolve(server(10));
    world
}

/// The server that a datagram of the client goes to.
fn choice(world: &mut World, slot: usize, client: (u32, u16)) -> u32 {
    let out = world.deliver(slot, udp(client, (VIP, 53), b"x"));
    assert_eq!(out.len(), 1, "drops: {:?}", world.drops());
    checked(&out[0].1).dst
}

/// Where each of `count` clients goes, from one port, over all slots.
fn choices(world: &mut World, count: u32, port: u16) -> Vec<u32> {
    let slots = world.ios.len();
    (0..count).map(|n| choice(world, n as usize % slots, (client(n), port))).collect()
}

fn counts(chosen: &[u32]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    chosen.iter().for_each(|server| *counts.entry(*server).or_default() += 1);
    counts
}

fn probed(world: &World, id: u32, state: Probed) {
    world.shared.board.set(id, Cell::new(state, 7, world.now / 1_000_000));
}

/// Weights 1, 2 and 3 over four slots: by sessions exactly, by hash as a fair die would.
#[test]
fn weights_are_kept_over_slots() {
    for by in [scheduler::WLC, scheduler::SOURCE_IP, scheduler::SOURCE_IP_PORT, scheduler::MAGLEV] {
        let mut all = members(3);
        (1..).zip(&mut all).for_each(|(weight, member)| member.weight = weight);
        let mut world = world(4, by, all);
        let got = counts(&choices(&mut world, 6000, 4000));
        println!("scheduler {by}: {got:?}");
        // Four standard deviations of 6,000 throws; wlc sees other slots a few picks late.
        let tolerance = if by == scheduler::WLC { 12 } else { 155 };
        for n in 0..3 {
            assert!(got[&server(n)].abs_diff(1000 * (usize::from(n) + 1)) <= tolerance, "{by}: {got:?}");
        }
        world.rest();
    }
}

/// More servers than are compared at a pick: the sample is drawn by weight too.
#[test]
fn weighted_least_connections_of_a_large_pool() {
    let mut all: Vec<MemberPlan> =
        (0..20).map(|n| MemberPlan { port: 8000 + n as u16, ..member(n, server(0)) }).collect();
    all[7].weight = 20;
    let mut world = world(2, scheduler::WLC, all);
    choices(&mut world, 3900, 4000);
    let heavy = world.active(7);
    println!("weight 20 of 39: {heavy} of 3900");
    assert!((1900..=2100).contains(&heavy));
    assert!((0..20).filter(|id| *id != 7).all(|id| (60..=140).contains(&world.active(id))));
}

#[test]
fn slots_choose_alike_by_hash() {
    for by in [scheduler::SOURCE_IP, scheduler::SOURCE_IP_PORT, scheduler::MAGLEV] {
        let mut world = world(4, by, members(5));
        let mut ports_matter = false;
        for n in 0..200 {
            let chosen: Vec<u32> = (0..4).map(|slot| choice(&mut world, slot, (client(n), 4000))).collect();
            assert!(chosen.iter().all(|server| *server == chosen[0]), "{by}: {chosen:x?}");
            ports_matter |= choice(&mut world, 0, (client(n), 4001)) != chosen[0];
        }
        assert_eq!(ports_matter, by != scheduler::SOURCE_IP);
    }
}

/// Another node: other keys of its own, other ids, servers in another order.
#[test]
fn nodes_choose_alike_by_hash() {
    for (by, key) in [(scheduler::SOURCE_IP, [0, 0]), (scheduler::MAGLEV, [0, 0]), (scheduler::MAGLEV, [7, 8])] {
        let mut all = members(7);
        all[2].weight = 3;
        let mut other = all.clone();
        other.rotate_left(3);
        other.iter_mut().enumerate().for_each(|(n, member)| (member.id, member.tag) = (40 + n as u32, 9));
        let mut nodes = [world(2, by, all), world(1, by, other)];
        for word in nodes[1].shared.secrets.hash_key.iter().chain(&nodes[1].shared.secrets.port_key) {
            word.store(!word.load(Relaxed), Relaxed);
        }
        nodes[1].replace(0);
        let chosen = nodes.each_mut().map(|node| {
            node.plan.services[0].hashing = Hashing { key, ..Hashing::default() };
            node.publish();
            choices(node, 500, 4000)
        });
        assert_eq!(chosen[0], chosen[1]);
        if key != [0, 0] {
            nodes[1].plan.services[0].hashing = Hashing::default();
            nodes[1].publish();
            assert_ne!(choices(&mut nodes[1], 500, 4001), chosen[0], "the key counts");
        }
    }
}

/// Only the clients of a server that goes move, and they spread; they are back when it is.
#[test]
fn a_dead_servers_clients_move_and_no_others() {
    for by in [scheduler::SOURCE_IP, scheduler::SOURCE_IP_PORT, scheduler::MAGLEV] {
        let mut world = world(5, by, members(5));
        // The port counts for two of them: every round is another slot's session of the same tuple.
        let mut slots = 0..;
        let mut round = |world: &mut World| -> Vec<u32> {
            let slot = slots.next().unwrap();
            (0..400).map(|n| choice(world, slot, (client(n), 4000))).collect()
        };
        let before = round(&mut world);
        let mut goes = |world: &mut World, gone: &dyn Fn(&mut World), back: &dyn Fn(&mut World)| {
            gone(world);
            let during = round(world);
            for (was, is) in before.iter().zip(&during) {
                assert!(was == is || *was == server(2), "{by}: a client moved though its server lives");
            }
            let heirs = counts(
                &during.iter().zip(&before).filter(|(_, b)| **b == server(2)).map(|(d, _)| *d).collect::<Vec<_>>(),
            );
            assert!(heirs.len() == 4 && !heirs.contains_key(&server(2)), "spread over the others: {heirs:?}");
            back(world);
            assert_eq!(round(world), before);
        };
        goes(&mut world, &|w| probed(w, 2, Probed::Down), &|w| probed(w, 2, Probed::Up));
        let set = |word: u8| {
            move |w: &mut World| {
                w.plan.services[0].members[2].admin = word;
                w.publish();
            }
        };
        goes(&mut world, &set(admin::DRAIN), &set(admin::ENABLED));
    }
}

/// All but one are down: who is left has everybody.
#[test]
fn the_last_server_has_everybody() {
    let mut world = world(1, scheduler::MAGLEV, members(6));
    (0..5).for_each(|id| probed(&world, id, Probed::Down));
    world.pass(7000);
    assert_eq!(counts(&choices(&mut world, 300, 4000)), BTreeMap::from([(server(5), 300)]));
}

fn persistent(world: &mut World, ms: u32, prefix: u32) {
    world.plan.services[0].hashing = Hashing { key: [0, 0], persistence_ms: ms, prefix };
    world.publish();
}

/// A client stays with its server while servers come, change their weight and go, in all slots and over their owners'
/// deaths, until it has been away for too long.
#[test]
fn a_client_stays_with_its_server() {
    let mut world = world(3, scheduler::LC, members(4));
    persistent(&mut world, 600_000, 128);
    let before: Vec<u32> = (0..300).map(|n| choice(&mut world, n as usize % 3, (client(n), 1000))).collect();
    assert_eq!(counts(&before).len(), 4);
    let stay = |world: &mut World, port: u16, what: &str| {
        let now: Vec<u32> =
            (0..300).map(|n| choice(world, (n as usize + usize::from(port)) % 3, (client(n), port))).collect();
        assert_eq!(now, before, "{what}");
    };
    world.plan.services[0].members.extend((4..9).map(|n| member(n, server(n as u8))));
    world.publish();
    stay(&mut world, 1001, "five servers more");
    world.plan.services[0].members[0].weight = 9;
    world.publish();
    stay(&mut world, 1002, "another weight");
    (0..3).for_each(|slot| world.replace(slot));
    world.pass(5000); // They announce themselves.
    stay(&mut world, 1003, "new owners of all slots");
    world.pass(400_000);
    stay(&mut world, 1004, "within the time");
    world.pass(400_000);
    stay(&mut world, 1005, "within the time since it came last");
    world.pass(601_000);
    let after: Vec<u32> = (0..300).map(|n| choice(&mut world, 0, (client(n), 1006))).collect();
    assert!(counts(&after).len() == 9, "forgotten: chosen anew among nine");
}

/// A server that takes nobody loses its clients, to one server each; all slots follow the youngest choice.
#[test]
fn a_persistent_client_of_a_dead_server_moves_once() {
    let mut world = world(3, scheduler::RR, members(4));
    persistent(&mut world, 600_000, 128);
    let before: Vec<u32> = (0..200).map(|n| choice(&mut world, 0, (client(n), 1000))).collect();
    world.pass(10);
    probed(&world, 1, Probed::Down);
    let during: Vec<u32> = (0..200).map(|n| choice(&mut world, 1, (client(n), 1001))).collect();
    for (was, is) in before.iter().zip(&during) {
        assert!(*is != server(1) && (was == is || *was == server(1)));
    }
    world.pass(10);
    probed(&world, 1, Probed::Up);
    for slot in 0..3 {
        let after: Vec<u32> = (0..200).map(|n| choice(&mut world, slot, (client(n), 1002))).collect();
        assert_eq!(after, during, "slot {slot}: back again they would have moved twice");
    }
}

#[test]
fn a_prefix_stays_together() {
    let mut world = world(2, scheduler::SOURCE_IP_PORT, members(5));
    persistent(&mut world, 60_000, 96 + 24);
    let mut used = std::collections::BTreeSet::new();
    for net in 0..40 {
        let chosen: Vec<u32> =
            (0..20).map(|n| choice(&mut world, n as usize % 2, (client(net * 256 + n), 9 + n as u16))).collect();
        assert!(chosen.iter().all(|server| *server == chosen[0]));
        used.insert(chosen[0]);
    }
    assert_eq!(used.len(), 5);
}

/// More clients than can be remembered: what is pushed out is chosen by hash, the same as before while nothing changed.
#[test]
fn memory_is_bounded_and_what_is_forgotten_is_chosen_alike() {
    let mut world = world(1, scheduler::RR, members(4));
    persistent(&mut world, 600_000, 128);
    let first: Vec<u32> = choices(&mut world, 6000, 1000);
    assert_eq!(choices(&mut world, 6000, 1001), first);
}

/// A server that comes to ten busy ones gets at most twice its fair share of the next 1,000 sessions, however fast they
/// come, and in the end as many as the others have.
#[test]
fn a_newcomer_is_not_flooded() {
    for (by, ms, slots) in
        [(scheduler::LC, 0, 1), (scheduler::LC, 0, 4), (scheduler::LC, 100, 2), (scheduler::WLC, 10, 2)]
    {
        for recovers in [false, true] {
            let mut world = world(slots, by, members(10));
            if recovers {
                world.plan.services[0].members.push(member(10, server(10)));
                world.publish();
                choices(&mut world, 8, 999); // All slots know the service.
                probed(&world, 10, Probed::Down);
                world.pass(20);
            }
            choices(&mut world, 3000, 1000);
            let before = world.active(10);
            if recovers {
                probed(&world, 10, Probed::Up);
            } else {
                world.plan.services[0].members.push(member(10, server(10)));
                world.publish();
            }
            let next = |world: &mut World, port: u16| {
                for n in 0..1000 {
                    world.now += ms * 1_000_000;
                    choice(world, n as usize % slots as usize, (client(n), port));
                }
            };
            next(&mut world, 1001);
            let got = world.active(10) - before;
            println!("scheduler {by}, {slots} slots, {ms} ms apart, recovers {recovers}: {got} of the next 1000");
            assert!((10..=182).contains(&got), "fair are 91: {got}");
            // Later it has caught up.
            (1002..1008).for_each(|port| {
                world.pass(11_000);
                next(&mut world, port);
            });
            let (newcomer, others) = (f64::from(world.active(10)), (0..10).map(|id| world.active(id)).sum::<u32>());
            println!("  at last {newcomer} sessions, the others {}", others / 10);
            assert!(newcomer >= 0.9 * f64::from(others) / 10.0);
            world.rest();
        }
    }
}

/// At a start, or when all come back at once, nobody is held back.
#[test]
fn many_newcomers_are_none() {
    let mut world = world(1, scheduler::LC, members(4));
    choices(&mut world, 4, 999);
    (0..3).for_each(|id| probed(&world, id, Probed::Down));
    world.pass(10_000);
    choices(&mut world, 10, 1000);
    (0..3).for_each(|id| probed(&world, id, Probed::Up));
    let got = counts(&choices(&mut world, 30, 1001));
    assert!((0..3).all(|n| got[&server(n)] >= 9), "{got:?}");
}

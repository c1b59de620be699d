//! Generations that change under traffic, and slots that change hands: sessions stay where they are.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use datapath::Shared;
use datapath::io_memory::MemoryIo;
use shm_layout::counters::{DropReason, Flow};
use shm_layout::neighbours::ip4;
use shm_layout::owner::Process;
use shm_layout::publish::{MemberPlan, Plan, PublishError, Publisher};
use shm_layout::published::{Generation, admin, protocol, scheduler};
use shm_layout::slot::{SEEN_IDLE, Slot};
use world::*;

/// Makes this process the owner of every slot: it counts in the quorum.
fn own(slots: &[Slot]) {
    for slot in slots {
        assert!(slot.owner.claim(slot.owner.owner(), Process::this()));
    }
}

/// Are all rows a generation names as they were published?
fn intact(shared: &Shared, generation: Generation) {
    let directory = shared.published.directory(generation);
    assert_eq!(directory.head.generation.load(Acquire), generation.number);
    assert_eq!(directory.sum(), directory.head.checksum.load(Acquire), "directory of {generation:?}");
    for index in 0..directory.head.services.load(Relaxed) {
        if let Some(service) = shared.published.service(generation, index) {
            assert_eq!(shared.published.service_sum(service), service.checksum.load(Relaxed), "service {index}");
        }
    }
}

/// Stages and commits without polling anybody.
fn publish(world: &mut World) -> Result<u64, PublishError> {
    let number = world.publisher.generation() + 1;
    let staged = world.publisher.stage(&world.plan, number, &world.shared.slots, Duration::from_millis(5))?;
    Ok(world.publisher.commit(staged))
}

/// A change as operators make them: servers come, go, drain, change weight; schedulers change; a service comes and goes.
/// Servers 0 to 2 and their service stay.
fn change(plan: &mut Plan, rng: &mut Rng) {
    let web = &mut plan.services[0];
    match rng.below(6) {
        0 => web.scheduler = *rng.pick(&[scheduler::RR, scheduler::WRR, scheduler::LC]),
        1 => web.members[rng.below(3) as usize].weight = 1 + rng.below(9) as u16,
        2 => web.members.truncate(3),
        3 if web.members.len() < 10 => {
            let n = web.members.len() as u32;
            web.members.push(MemberPlan { tag: rng.next() as u32, ..member(20 + n, server(n as u8)) });
        }
        4 => {
            if let Some(last) = web.members.get_mut(3) {
                last.admin = *rng.pick(&[admin::ENABLED, admin::DRAIN]);
            }
        }
        _ => {
            let extra = plan.services.iter().position(|s| s.index == 3);
            match extra {
                Some(at) => drop(plan.services.remove(at)),
                None => {
                    let mut dns = service(protocol::UDP, 5353, vec![member(40, server(4))]);
                    (dns.index, dns.id) = (3, 77);
                    plan.services.push(dns);
                }
            }
        }
    }
}

#[test]
fn two_thousand_generations_move_no_session() {
    let seed = 2000;
    println!("seed {seed}");
    let mut rng = Rng(seed);
    let mut world = World::usual(4);
    own(&world.shared.slots);
    let mut open: Vec<Connection> =
        (0..40).map(|n| Connection::open(&mut world, usize::from(n) % 4, 9000 + n)).collect();
    for round in 0..2000_u32 {
        change(&mut world.plan, &mut rng);
        publish(&mut world).unwrap();
        // Some slots see it at once, some later: packets of all sessions go on in any mix of generations.
        for _ in 0..4 {
            let at = rng.below(open.len() as u64) as usize;
            let c = &mut open[at];
            let (_, _, seen) = world.one(rng.below(4) as usize, c.client_says("P", b"data").frame());
            assert_eq!((seen.dst, seen.dport, seen.src, seen.sport), (c.server.0, c.server.1, c.local.0, c.local.1));
            c.client_seq += 4;
            let (_, _, seen) = world.one(rng.below(4) as usize, c.server_says("", &[]).frame());
            assert_eq!((seen.dst, seen.dport, seen.ack), (c.client.0, c.client.1, c.client_seq));
        }
        let port = 10_000 + (round % 50_000) as u16;
        let fresh = Connection::open(&mut world, rng.below(4) as usize, port);
        let allowed =
            world.plan.services[0].members.iter().any(|m| m.ip == ip4(fresh.server.0) && m.admin == admin::ENABLED);
        assert!(allowed, "a new session goes by the newest generation");
        let at = rng.below(open.len() as u64) as usize;
        let gone = std::mem::replace(&mut open[at], fresh);
        world.one(gone.slot, Tcp { ack: None, ..gone.client_says("R", &[]) }.frame());
        world.pass(10);
        intact(&world.shared, world.shared.published.current().unwrap());
        assert!(world.publisher.retired() <= 1, "everybody has seen it");
        if round % 250 == 0 {
            world.rest();
        }
    }
    assert_eq!((world.dropped(DropReason::BadRecord), world.dropped(DropReason::NoSession)), (0, 0));
    // Even without any plan: orphans go on by their own addresses.
    world.plan.services.clear();
    world.publish();
    for c in &open {
        world.one(c.slot, c.client_says("P", b"orphan").frame());
        world.one(c.slot, c.server_says("P", b"orphan").frame());
    }
    world.rest();
    world.pass(100_000);
    assert_eq!(world.flow(Flow::Created), world.flow(Flow::Ended), "and end by their default time");
    world.rest();
}

#[test]
fn a_slot_that_lags_keeps_its_generation_and_an_idle_one_holds_up_nobody() {
    let mut world = World::usual(3);
    own(&world.shared.slots);
    // Slot 2 is released: it reads nothing.
    world.runners[2].release(&mut world.ios[2]);
    assert_eq!(world.shared.slots[2].pulse.seen_generation.load(Acquire), SEEN_IDLE);
    let seen = world.shared.published.current().unwrap();
    let mut rng = Rng(5);
    let mut published = 0;
    let refusal = loop {
        change(&mut world.plan, &mut rng);
        // Slot 0 keeps up, slot 1 sleeps.
        match publish(&mut world) {
            Ok(_) => published += 1,
            Err(error) => break error,
        }
        world.now += 1000;
        world.runners[0].poll(&mut world.ios[0], world.now);
        intact(&world.shared, seen);
        assert!(published < 20);
    };
    let PublishError::Held { who, .. } = refusal else { panic!("{refusal}") };
    assert_eq!((who.slot, who.pid, who.seen), (1, std::process::id(), seen.number));
    intact(&world.shared, seen);
    assert!(published >= 4, "some changes are taken meanwhile: {published}");
    // It wakes up: the newest at once, and the old ones are taken back.
    world.now += 1000;
    world.runners[1].poll(&mut world.ios[1], world.now);
    publish(&mut world).unwrap();
    assert!(world.publisher.retired() <= 2);
    // A dead owner is struck from the quorum.
    world.shared.slots[1].owner.owner.store(Process::this().word() ^ 1, Release);
    for _ in 0..20 {
        change(&mut world.plan, &mut rng);
        publish(&mut world).unwrap();
        world.now += 1000;
        world.runners[0].poll(&mut world.ios[0], world.now);
    }
    // The idle slot is taken again: it joins at the newest.
    world.replace(2);
    world.now += 1000;
    world.runners[2].poll(&mut world.ios[2], world.now);
    assert_eq!(world.shared.slots[2].pulse.seen_generation.load(Acquire), world.publisher.generation());
}

/// Says so when it goes.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Real threads: two slots under traffic, one publisher. What a slot reads is never written over.
#[test]
fn publications_race_with_bursts() {
    let mut world = World::usual(2);
    own(&world.shared.slots);
    world.plan.services.truncate(1);
    world.publish();
    let connections: Vec<_> = (0..8).map(|n| Connection::open(&mut world, usize::from(n) % 2, 9000 + n)).collect();
    let (stop, polls) = (AtomicBool::new(false), AtomicU64::new(0));
    let (shared, start) = (Arc::clone(&world.shared), world.now);
    let runners = std::mem::take(&mut world.runners);
    let mut plan = world.plan.clone();
    std::thread::scope(|scope| {
        for (number, mut runner) in runners.into_iter().enumerate() {
            let (shared, stop, polls, own) = (&shared, &stop, &polls, &connections);
            scope.spawn(move || {
                let (mut io, mut now, mut port, mut rng) = (MemoryIo::new(), start, 0_u16, Rng(number as u64));
                while !stop.load(Relaxed) {
                    now += 1_000_000;
                    port = port % 60_000 + 1;
                    io.input.push_back(syn(port, 1).frame());
                    let c = own.iter().filter(|c| c.slot == number).nth(rng.below(4) as usize).unwrap();
                    io.input.push_back(c.client_says("P", b"x").frame());
                    runner.poll(&mut io, now);
                    for frame in io.output.drain(..) {
                        let seen = checked(&frame);
                        if seen.tcp_flags & 2 == 0 {
                            let place = ((seen.src, seen.sport), (seen.dst, seen.dport));
                            assert_eq!(place, (c.local, c.server), "an established session moved");
                        }
                        assert!((server(0)..=server(9)).contains(&seen.dst) || seen.dst == CLIENT);
                    }
                    law(&shared.slots[number].counters.read().unwrap(), number);
                    polls.fetch_add(1, Relaxed);
                    if rng.one_in(64) {
                        std::thread::sleep(Duration::from_micros(rng.below(300)));
                    }
                }
                runner.release(&mut io);
                runner.sessions().check().unwrap();
            });
        }
        let _ended = Ended(&stop); // Also by a failure.
        let mut rng = Rng(99);
        let mut publisher = Publisher::attach(shared.published.clone());
        for _ in 0..2000 {
            change(&mut plan, &mut rng);
            let number = publisher.generation() + 1;
            let staged = publisher.stage(&plan, number, &shared.slots, Duration::from_secs(10)).unwrap();
            publisher.commit(staged);
            for slot in &shared.slots {
                let seen = slot.pulse.seen_generation.load(Acquire);
                assert!(seen <= number);
            }
        }
    });
    println!("{} bursts under 2,000 generations", polls.load(Relaxed));
    for reason in [DropReason::BadRecord, DropReason::NoService, DropReason::NotForUs, DropReason::NoServer] {
        assert_eq!(world.dropped(reason), 0, "{}", reason.name());
    }
    assert!(shared.slots.iter().all(|s| s.pulse.seen_generation.load(Acquire) == SEEN_IDLE));
}

/// A new owner of a port's first slot tells the neighbours where our addresses are, and sends nothing else.
fn announced(world: &mut World) {
    assert!(world.run().iter().all(|(slot, frame)| *slot == 0 && frame[12..14] == [8, 6]));
}

#[test]
fn a_slot_changes_hands_between_any_two_bursts() {
    let seed = 7;
    println!("seed {seed}");
    let mut rng = Rng(seed);
    let mut world = World::usual(2);
    let mut open: Vec<Connection> =
        (0..30).map(|n| Connection::open(&mut world, usize::from(n) % 2, 9000 + n)).collect();
    for round in 0..500_u32 {
        let before = world.counts();
        let slot = rng.below(2) as usize;
        world.replace(slot);
        let after = world.counts();
        assert_eq!(before, after, "nothing is counted until the new owner has done something");
        announced(&mut world);
        let at = rng.below(30) as usize;
        let c = &mut open[at];
        let (_, _, seen) = world.one(rng.below(2) as usize, c.client_says("P", b"data").frame());
        assert_eq!(seen.seq, c.client_seq.wrapping_add(c.shift));
        c.client_seq += 4;
        world.one(rng.below(2) as usize, c.server_says("", &[]).frame());
        let after = world.counts();
        assert!(after.flow(Flow::Rx) > before.flow(Flow::Rx) && after.flow(Flow::Tx) > before.flow(Flow::Tx));
        if rng.one_in(4) {
            let gone = std::mem::replace(&mut open[at], Connection::open(&mut world, slot, 10_000 + round as u16));
            // Closed under one owner, released under another: the list of what is over is gone, the wheel is not.
            world.one(gone.slot, Tcp { ack: None, ..gone.client_says("R", &[]) }.frame());
        }
        world.pass(10);
        if round % 50 == 0 {
            world.rest();
        }
    }
    assert_eq!(world.dropped(DropReason::NoSession), 0);
    world.pass(120_000);
    world.rest();
    assert_eq!(world.flow(Flow::Created), world.flow(Flow::Ended));
}

#[test]
fn what_a_dead_owner_held_is_counted_as_lost_and_what_a_leaving_one_holds_is_not_forgotten() {
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    world.ios[0].accept = Some(0);
    world.ios[0].input.extend((0..10).map(|_| c.client_says("P", b"held").frame()));
    world.now += 1000;
    world.runners[0].poll(&mut world.ios[0], world.now);
    assert_eq!(world.flow(Flow::Held), 10);
    // Dies: its buffers are gone.
    world.ios[0] = MemoryIo::new();
    world.replace(0);
    announced(&mut world);
    world.one(0, c.client_says("P", b"on").frame());
    assert_eq!((world.flow(Flow::Held), world.dropped(DropReason::LostInCrash)), (0, 10));
    world.rest();

    // Leaves in order, with a port that takes nothing and a packet that waits for a neighbour.
    let (_, _, seen) = world.one(0, udp((ip(10, 0, 9, 9), 1), (VIP, 53), b"?"));
    assert!(world.deliver(0, udp((seen.dst, seen.dport), (seen.src, seen.sport), b"!")).is_empty());
    world.ios[0].accept = Some(0);
    world.ios[0].input.extend((0..100).map(|_| c.client_says("P", b"held").frame()));
    for _ in 0..4 {
        world.now += 1000;
        world.runners[0].poll(&mut world.ios[0], world.now);
    }
    world.runners[0].release(&mut world.ios[0]);
    let counts = world.counts();
    law(&counts, 0);
    assert_eq!((counts.flow(Flow::Held), counts.dropped(DropReason::NoNeighbour)), (0, 1), "{:?}", world.drops());
    assert_eq!(counts.dropped(DropReason::TxFull), 100);
    world.ios[0].accept = None;
    world.replace(0);
    announced(&mut world);
    world.one(0, c.client_says("P", b"and on").frame());
    world.rest();
}

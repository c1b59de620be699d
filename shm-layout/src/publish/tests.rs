use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release, SeqCst};

use super::*;
use crate::neighbours::ip4;
use crate::owner::Process;
use crate::published::{PublishedGeometry, admin, mode, protocol, scheduler, service_flag};
use crate::session::TIMEOUTS;
use crate::slot::{SEEN_IDLE, SEEN_JOINING, SlotGeometry};

const PATIENCE: Duration = Duration::from_millis(20);

fn tables() -> Published {
    Published::anonymous(PublishedGeometry { services: 16, servers: 64 }).unwrap()
}

fn slots(n: u32) -> Vec<Slot> {
    let geometry =
        SlotGeometry { slot: 0, slots: n, sessions: 16, wide_sessions: 0, servers: 64, services: 16, extensions: 0 };
    (0..n).map(|slot| Slot::anonymous(SlotGeometry { slot, ..geometry }, false).unwrap()).collect()
}

/// Makes this process the owner of a slot.
fn own(slot: &Slot, seen: u64) {
    assert!(slot.owner.claim(slot.owner.owner(), Process::this()));
    slot.pulse.seen_generation.store(seen, SeqCst);
}

fn service(index: u32, members: u32, stamp: u32) -> ServicePlan {
    let member = |k: u32| MemberPlan {
        id: index * 4 + k,
        tag: 1,
        ip: ip4(0x0a00_0015 + k),
        port: 8080,
        weight: 1 + u16::try_from(k).unwrap(),
        admin: 0,
    };
    ServicePlan {
        index,
        id: index + 100,
        vip: ip4(0x0a00_0064 + index),
        port: 80,
        protocol: protocol::TCP,
        mode: mode::FULLNAT,
        scheduler: scheduler::WRR,
        flags: 0,
        max_sessions: stamp,
        check_interval_ms: 2000,
        timeouts: [1000; TIMEOUTS],
        hashing: Hashing::default(),
        name: format!("service-{index}"),
        members: (0..members).map(member).collect(),
    }
}

fn plan(services: u32, stamp: u32) -> Plan {
    let local = LocalPlan { ip: ip4(0x0a00_0080), port: 0, low: 1024, high: 65_535, flags: 0 };
    Plan { services: (0..services).map(|i| service(i, 3, stamp)).collect(), locals: vec![local] }
}

fn publish(publisher: &mut Publisher, plan: &Plan, slots: &[Slot]) -> Result<u64, PublishError> {
    let staged = publisher.stage(plan, publisher.generation() + 1, slots, PATIENCE)?;
    Ok(publisher.commit(staged))
}

#[test]
fn what_is_published_is_found() {
    let tables = tables();
    assert!(tables.current().is_none());
    let mut publisher = Publisher::attach(tables.clone());
    let plan = plan(5, 7);
    assert_eq!(publish(&mut publisher, &plan, &[]).unwrap(), 1);
    let generation = tables.current().unwrap();
    for want in &plan.services {
        let found = tables.find_service(generation, want.vip, 80, protocol::TCP).unwrap();
        assert_eq!(found, want.index);
        let row = tables.service(generation, found).unwrap();
        assert_eq!(ServicePlan::load(&tables, found, row).as_ref(), Some(want));
        assert_eq!(tables.steps(row).iter().map(|s| s.load(Relaxed)).collect::<Vec<_>>(), [2, 1, 0, 2, 1, 2]);
        for member in &want.members {
            assert_eq!(tables.server(generation, member.id).unwrap().service.load(Relaxed), want.index);
        }
        assert!(tables.is_vip(generation, want.vip));
    }
    assert_eq!(tables.find_service(generation, plan.services[0].vip, 81, protocol::TCP), None);
    assert_eq!(tables.find_service(generation, plan.services[0].vip, 80, protocol::UDP), None);
    assert!(!tables.is_vip(generation, ip4(1)) && tables.server(generation, 63).is_none());
    assert_eq!(tables.find_local(generation, ip4(0x0a00_0080)).unwrap().high.load(Relaxed), 65_535);
    assert!(publisher.in_force(&plan));
}

#[test]
fn a_removed_service_yields_its_address() {
    let tables = tables();
    let mut publisher = Publisher::attach(tables.clone());
    let mut old = service(0, 1, 0);
    old.flags |= service_flag::REMOVED;
    let new = ServicePlan { index: 3, id: 200, vip: old.vip, ..service(3, 1, 0) };
    publish(&mut publisher, &Plan { services: vec![old.clone(), new], locals: vec![] }, &[]).unwrap();
    let generation = tables.current().unwrap();
    assert_eq!(tables.find_service(generation, old.vip, 80, protocol::TCP), Some(3));
    assert!(tables.server(generation, 0).is_some(), "its sessions still find their server");
}

/// What packets find in the tables' generation.
fn found(tables: &Published) -> impl PartialEq + std::fmt::Debug {
    let generation = tables.current().unwrap();
    assert!(tables.verify(generation).is_ok());
    let addresses = || (0..40).map(|n| ip4(0x0a00_0064 + n));
    let server = |id| tables.server(generation, id).map(|m| (m.service.load(Relaxed), m.weight.load(Relaxed)));
    let head = &tables.directory(generation).head;
    (
        addresses().map(|ip| tables.find_service(generation, ip, 80, protocol::TCP)).collect::<Vec<_>>(),
        addresses().map(|ip| tables.is_vip(generation, ip)).collect::<Vec<_>>(),
        (0..64).map(server).collect::<Vec<_>>(),
        head.services.load(Relaxed),
        head.flags.load(Relaxed),
    )
}

/// Changes of all kinds in a row: the directory that is copied from the one before finds what one made anew finds.
#[test]
fn a_directory_that_goes_on_is_as_one_made_anew() {
    let kept = tables();
    let mut publisher = Publisher::attach(kept.clone());
    let mut plan = plan(3, 0);
    let mut seed = 4711_u32;
    let mut random = move |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % below
    };
    for step in 0..600_u32 {
        let at = random(u32::try_from(plan.services.len()).unwrap()) as usize;
        let free = (0..16).find(|i| plan.services.iter().all(|s| s.index != *i));
        let kind = random(9);
        match kind {
            0 => plan.services.extend(free.map(|index| service(index, random(4), step))),
            1 if plan.services.len() > 1 => drop(plan.services.remove(at)),
            7 if random(9) == 0 => plan.services.swap(at, 0),
            _ => {
                let service = &mut plan.services[at];
                match kind {
                    2 => service.flags ^= service_flag::REMOVED,
                    3 => service.vip = ip4(0x0a00_0064 + random(40)),
                    4 => drop(service.members.pop()),
                    5 => service.members = self::service(service.index, 3, 0).members,
                    6 => service.members.iter_mut().for_each(|m| m.admin = admin::DISABLED),
                    _ => service.members.iter_mut().for_each(|m| m.weight = 1 + u16::try_from(random(9)).unwrap()),
                }
            }
        }
        publish(&mut publisher, &plan, &[]).unwrap();
        let anew = tables();
        publish(&mut Publisher::attach(anew.clone()), &plan, &[]).unwrap();
        assert_eq!(found(&kept), found(&anew), "step {step}");
    }
}

/// What scribbled on the directory in force is not signed with the next one.
#[test]
fn a_damaged_directory_is_not_copied() {
    let tables = tables();
    let mut publisher = Publisher::attach(tables.clone());
    let mut plan = plan(5, 0);
    publish(&mut publisher, &plan, &[]).unwrap();
    let before = found(&tables);
    let block = tables.directory(tables.current().unwrap());
    block.servers[1].store(NONE, Relaxed);
    block.vips.iter().for_each(|w| w.store(0, Relaxed));
    plan.services[3].max_sessions = 9;
    publish(&mut publisher, &plan, &[]).unwrap();
    assert_eq!(found(&tables), before);
}

#[test]
fn unchanged_services_keep_their_rows_and_an_abort_leaves_no_trace() {
    let tables = tables();
    let mut publisher = Publisher::attach(tables.clone());
    let mut plan = plan(8, 1);
    publish(&mut publisher, &plan, &[]).unwrap();
    let rows = |tables: &Published| -> Vec<u32> {
        let generation = tables.current().unwrap();
        tables.directory(generation).services.iter().map(|r| r.load(Relaxed)).collect()
    };
    let before = rows(&tables);
    plan.services[3].members[1].weight = 9;
    let free = (publisher.rows.free(), publisher.members.free(), publisher.steps.free());
    let staged = publisher.stage(&plan, 2, &[], PATIENCE).unwrap();
    publisher.abort(staged);
    assert_eq!((publisher.rows.free(), publisher.members.free(), publisher.steps.free()), free);
    assert_eq!((rows(&tables), publisher.generation()), (before.clone(), 1));
    publish(&mut publisher, &plan, &[]).unwrap();
    let differing: Vec<_> = (0..16).filter(|i| rows(&tables)[*i] != before[*i]).collect();
    assert_eq!(differing, [3]);
}

#[test]
fn limits_are_said() {
    let mut publisher = Publisher::attach(tables());
    let many = Plan { services: vec![service(16, 1, 0)], locals: vec![] };
    assert!(matches!(publisher.stage(&many, 1, &[], PATIENCE), Err(PublishError::Limit { what: "service", .. })));
    let mut many = plan(1, 0);
    many.services[0].members[0].id = 64;
    assert!(matches!(publisher.stage(&many, 1, &[], PATIENCE), Err(PublishError::Limit { what: "real server", .. })));
    publish(&mut publisher, &plan(1, 0), &[]).unwrap();
    assert!(matches!(publisher.stage(&plan(1, 0), 1, &[], PATIENCE), Err(PublishError::Stale { .. })));
}

#[test]
fn a_slow_worker_is_waited_for_and_named_a_dead_one_is_not() {
    let slots = slots(2);
    let mut publisher = Publisher::attach(tables());
    publish(&mut publisher, &plan(4, 0), &slots).unwrap();
    own(&slots[1], 1);
    let mut outcome = Ok(0);
    for stamp in 1..10 {
        outcome = publish(&mut publisher, &plan(4, stamp), &slots);
        if outcome.is_err() {
            break;
        }
    }
    let Err(PublishError::Held { who, generation }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((who.slot, who.pid, who.seen), (1, std::process::id(), 1));
    assert!(generation > 3 && publisher.retired() <= RETIRED_GENERATIONS + 1);
    let stuck = publisher.generation();
    slots[1].pulse.seen_generation.store(SEEN_JOINING, SeqCst);
    assert!(publish(&mut publisher, &plan(4, 50), &slots).is_err(), "joining blocks");
    slots[1].owner.owner.store(Process::this().word() ^ 1, SeqCst); // Dead: its pid is another's.
    assert_eq!(publish(&mut publisher, &plan(4, 51), &slots).unwrap(), stuck + 1);
    own(&slots[1], SEEN_IDLE);
    publish(&mut publisher, &plan(4, 52), &slots).unwrap();
}

/// A process that owns the slot and is killed: the word stays, the process is gone.
fn owned_by_the_dead(slot: &Slot, seen: u64) {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let process = Process::living(child.id()).unwrap();
    assert!(slot.owner.claim(slot.owner.owner(), process));
    slot.pulse.seen_generation.store(seen, SeqCst);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!process.runs() && slot.owner.owner() == process);
}

#[test]
fn who_is_killed_while_it_joins_blocks_nothing() {
    let slots = slots(3);
    let mut publisher = Publisher::attach(tables());
    publish(&mut publisher, &plan(4, 0), &slots).unwrap();
    owned_by_the_dead(&slots[0], SEEN_JOINING);
    for stamp in 1..20 {
        publish(&mut publisher, &plan(4, stamp), &slots).unwrap();
        assert!(publisher.retired() <= 1, "only the one just superseded is still held");
    }
}

#[test]
fn who_is_killed_with_an_old_generation_blocks_nothing() {
    let slots = slots(3);
    let mut publisher = Publisher::attach(tables());
    publish(&mut publisher, &plan(4, 0), &slots).unwrap();
    // One dead since the first generation, one since the second, one alive and up to date.
    owned_by_the_dead(&slots[0], 1);
    own(&slots[2], 1);
    publish(&mut publisher, &plan(4, 1), &slots).unwrap();
    owned_by_the_dead(&slots[1], 2);
    for stamp in 2..20 {
        slots[2].pulse.see(publisher.generation());
        publish(&mut publisher, &plan(4, stamp), &slots).unwrap();
        assert!(publisher.retired() <= 1);
    }
    // Its successor lives, but has not read anything yet: its predecessor's number holds only what is held anyway.
    assert!(slots[0].owner.claim(slots[0].owner.owner(), Process::this()));
    publish(&mut publisher, &plan(4, 30), &slots).unwrap();
    slots[0].pulse.join();
    slots[0].pulse.see(publisher.generation());
    slots[2].pulse.see(publisher.generation());
    publisher.reclaim(&slots);
    assert_eq!(publisher.retired(), 0);
}

#[test]
fn four_generations_may_wait_then_apply_names_the_worker() {
    let slots = slots(2);
    let mut publisher = Publisher::attach(tables());
    publish(&mut publisher, &plan(1, 0), &slots).unwrap();
    own(&slots[1], 1);
    slots[1].owner.sign(3, 0, 0, "test");
    for stamp in 1..=4 {
        publish(&mut publisher, &plan(1, stamp), &slots).unwrap();
    }
    assert_eq!(publisher.retired(), RETIRED_GENERATIONS);
    publish(&mut publisher, &plan(1, 5), &slots).unwrap(); // Its directory is the spare one.
    let before = Instant::now();
    let error = publish(&mut publisher, &plan(1, 6), &slots).unwrap_err();
    assert!(before.elapsed() >= PATIENCE, "it has waited");
    let said = error.to_string();
    let pid = format!("pid {}", std::process::id());
    for part in ["generation 7 waits for slot 1 of zone 3", &pid, "still reads generation 1", "lbctl worker list"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!((publisher.generation(), publisher.tables().current().unwrap().number), (6, 6), "nothing has changed");
    // It goes on within the patience: apply goes on too.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(PATIENCE / 4);
            slots[1].pulse.see(6);
        });
        let staged = publisher.stage(&plan(1, 6), 7, &slots, Duration::from_secs(10)).unwrap();
        assert_eq!(publisher.commit(staged), 7);
    });
    assert_eq!(publisher.retired(), 1);
}

#[test]
fn a_restarted_writer_goes_on_where_the_other_died() {
    let tables = tables();
    let slots = slots(1);
    own(&slots[0], 1);
    let mut first = Publisher::attach(tables.clone());
    publish(&mut first, &plan(6, 1), &slots).unwrap();
    publish(&mut first, &plan(6, 2), &slots).unwrap();
    let staged = first.stage(&plan(6, 3), 3, &slots, PATIENCE).unwrap(); // Died between stage and commit.
    std::mem::forget(staged);
    let mut second = Publisher::attach(tables.clone());
    assert_eq!((second.generation(), second.retired()), (2, 1));
    assert!(second.in_force(&plan(6, 2)) && !second.in_force(&plan(6, 3)));
    // Generation 1 is still read: its rows stay as they are while more are published.
    let old = crate::published::Generation { number: 1, directory: 0 };
    publish(&mut second, &plan(6, 3), &slots).unwrap();
    let mut checked = 0;
    for index in 0..6 {
        let row = tables.service(old, index).unwrap();
        assert_eq!((row.max_sessions.load(Relaxed), row.checksum.load(Relaxed)), (1, tables.service_sum(row)));
        checked += 1;
    }
    assert_eq!(checked, 6);
    slots[0].pulse.seen_generation.store(3, SeqCst);
    second.reclaim(&slots);
    assert_eq!(second.retired(), 0);
    let used = second.tables.services.len() as u64 - second.rows.free();
    assert_eq!(used, 6);
}

#[test]
fn readers_never_see_two_generations_at_once() {
    let tables = tables();
    let slots = slots(1);
    let stop = AtomicBool::new(false);
    own(&slots[0], SEEN_IDLE);
    let read = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        // A worker: one burst after the other, now and then idle and joining again.
        scope.spawn(|| {
            let seen = &slots[0].pulse.seen_generation;
            let mut bursts = 0_u64;
            while !stop.load(Acquire) {
                if bursts.is_multiple_of(64) {
                    seen.store(SEEN_JOINING, Release);
                    std::sync::atomic::fence(SeqCst);
                }
                let Some(generation) = tables.current() else { continue };
                seen.store(generation.number, Release);
                let directory = tables.directory(generation);
                assert_eq!(directory.head.generation.load(Relaxed), generation.number);
                assert_eq!(directory.head.checksum.load(Relaxed), directory.sum());
                let stamp = u32::try_from(generation.number).unwrap();
                for index in 0..4 {
                    let row = tables.service(generation, index).unwrap();
                    assert_eq!(row.checksum.load(Relaxed), tables.service_sum(row));
                    assert_eq!(row.max_sessions.load(Relaxed), stamp);
                }
                // One that changes every third generation only, and keeps its rows meanwhile.
                let row = tables.service(generation, 4).unwrap();
                assert_eq!(
                    (row.max_sessions.load(Relaxed), row.checksum.load(Relaxed)),
                    (stamp / 3, tables.service_sum(row))
                );
                assert_eq!(tables.find_service(generation, ip4(0x0a00_0066), 80, protocol::TCP), Some(2));
                bursts += 1;
                read.fetch_add(1, AcqRel);
                // Idle at the end of the round whose next one joins: who reads without joining is not waited for.
                if bursts.is_multiple_of(64) {
                    seen.store(SEEN_IDLE, Release);
                }
            }
        });
        let mut publisher = Publisher::attach(tables.clone());
        for number in 1..=10_000_u64 {
            let stamp = u32::try_from(number).unwrap();
            let mut plan = plan(4, stamp);
            plan.services.push(service(4, 1 + stamp / 3 % 4, stamp / 3));
            let staged = publisher.stage(&plan, number, &slots, Duration::from_secs(10)).unwrap();
            publisher.commit(staged);
            if number % 1000 == 0 {
                publisher = Publisher::attach(tables.clone()); // Control restarts.
            }
        }
        stop.store(true, Release);
    });
    println!("bursts read while 10,000 generations were published: {}", read.load(Relaxed));
    assert!(read.load(Relaxed) > 100);
}

#[test]
fn ipv6_is_refused_by_tables_without_room_for_it() {
    let mut publisher = Publisher::attach(tables());
    let narrow = slots(2);
    let wide: Vec<Slot> = (0..2)
        .map(|slot| SlotGeometry { slot, wide_sessions: 4, ..narrow[0].geometry })
        .map(|geometry| Slot::anonymous(geometry, false).unwrap())
        .collect();
    let v6 = [0x2001_0db8_0000_0000, 1];
    let vip = Plan { services: vec![ServicePlan { vip: v6, ..service(0, 3, 1) }], ..plan(1, 1) };
    let mut server = plan(1, 1);
    server.services[0].members[2].ip = v6;
    for (number, plan) in [(1, vip), (2, server)] {
        let refused = publisher.stage(&plan, number, &narrow, PATIENCE).unwrap_err();
        assert!(matches!(&refused, PublishError::NoIpv6 { service } if service == "service-0"), "{refused}");
        let staged = publisher.stage(&plan, number, &wide, PATIENCE).unwrap();
        publisher.commit(staged);
    }
}

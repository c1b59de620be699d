//! Rings between slots, orders of control, a port that takes little, buffers that run out: what is lost is counted, what
//! is not counted is not lost.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use shm_layout::counters::{DropReason, Flow};
use shm_layout::limits::{RX_BURST, TX_HELD};
use shm_layout::published::protocol;
use shm_layout::ring::{RecordKind, Ring};
use world::*;

/// One poll of one slot alone; the law after it.
fn poll(world: &mut World, slot: usize) -> usize {
    world.now += 1000;
    let work = world.runners[slot].poll(&mut world.ios[slot], world.now);
    law(&world.shared.slots[slot].counters.read().unwrap(), slot);
    work
}

fn numbered(world: &World, c: &Connection, n: u32) -> Vec<u8> {
    assert!(world.session(c.client.1).is_some());
    c.client_says("P", &n.to_be_bytes()).frame()
}

fn numbers(out: &[Vec<u8>]) -> Vec<u32> {
    out.iter().map(|f| u32::from_be_bytes(f[54..58].try_into().unwrap())).collect()
}

#[test]
fn a_ring_nobody_empties_fills_and_says_so() {
    let mut world = World::usual(2);
    let c = Connection::open(&mut world, 1, 40_000);
    let sent = 5000;
    for n in 0..sent {
        let frame = numbered(&world, &c, n);
        world.ios[0].input.push_back(frame);
        poll(&mut world, 0);
    }
    let lost = world.dropped(DropReason::RingFull);
    let lying = world.shared.slots[1].inbound[0].len();
    assert!(lost > 1000 && lying + lost == u64::from(sent), "{lost} lost, {lying} lying");
    assert_eq!(world.flow(Flow::ToRing), lying);
    world.rest();
    // The slot wakes up: everything that was taken comes out, in order.
    let out: Vec<_> = world.run().into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(numbers(&out), (0..lying as u32).collect::<Vec<_>>());
    assert_eq!(world.dropped(DropReason::RingFull), lost);
    world.rest();
}

#[test]
fn what_a_slot_takes_from_rings_it_can_also_send() {
    let mut world = World::two_armed(2);
    // Many frames to be sent by one slot of the other port, more than it may hold: they wait in the ring.
    let frame = syn(1, 1).frame();
    for n in 0..600_u32 {
        let from = (n % 2) as usize;
        assert!(world.shared.slots[2].inbound[from].push(RecordKind::Send, [0; 5], &frame));
    }
    let mut sent = 0;
    for accept in [0, 1, 7, 32, 500, 500, 500, 500, 500, 500, 500, 500, 500, 500] {
        world.ios[2].accept = Some(accept);
        poll(&mut world, 2);
        let now = world.ios[2].output.drain(..).count();
        assert!(now <= accept);
        sent += now;
    }
    world.ios[2].accept = None;
    sent += world.run().len();
    assert_eq!((sent, world.dropped(DropReason::NoBuffer), world.dropped(DropReason::TxFull)), (600, 0, 0));
}

#[test]
fn a_redirect_goes_one_way_once() {
    let mut world = World::usual(4);
    // For every slot and every owner: replies nobody expects end where their port's owner sits.
    for arrival in 0..4 {
        for port in 2000..2008_u16 {
            let stray =
                Tcp { from: (server(0), 8080), to: (LOCAL, port), seq: 1, ack: Some(5), flags: "P", ..Tcp::default() };
            let before = world.flow(Flow::FromRing);
            let out = world.deliver(arrival, stray.frame());
            assert_eq!((out.len(), checked(&out[0].1).tcp_flags), (1, 4), "one reset");
            assert!(world.flow(Flow::FromRing) - before <= 1);
            assert!(world.deliver(arrival, udp((server(0), 8080), (LOCAL, port), b"x")).is_empty());
        }
    }
    assert_eq!(world.dropped(DropReason::NoSession), 64);
    // A session that another slot's packets and its own end meet in one turn: nothing circles.
    let c = Connection::open(&mut world, 2, 40_000);
    for _ in 0..20 {
        world.ios[0].input.push_back(c.client_says("P", b"late").frame());
    }
    poll(&mut world, 0);
    world.ios[2].input.push_back(Tcp { ack: None, ..c.client_says("R", &[]) }.frame());
    world.ios[2].input.push_back(syn(40_000, 5).frame());
    let before = world.flow(Flow::FromRing);
    world.run();
    assert_eq!(world.flow(Flow::FromRing) - before, 20);
    world.rest();
}

#[test]
fn a_slot_goes_on_over_garbage_in_its_rings() {
    let mut world = World::usual(2);
    let c = Connection::open(&mut world, 1, 40_000);
    let mut rng = Rng(3);
    // Kinds that do not belong there, frames that are none, arguments of any kind.
    for _ in 0..500 {
        let kind = *rng.pick(&[RecordKind::Learn, RecordKind::Resolve, RecordKind::Kill, RecordKind::Redirect]);
        let frame: Vec<u8> = (0..rng.below(200)).map(|_| rng.next() as u8).collect();
        let args = [rng.next() as u32; 5];
        // By the ring of slot 0, as if that were mad; counted as its own would be.
        assert!(world.shared.slots[1].inbound[0].push(kind, args, &frame));
        poll(&mut world, 1);
        if kind != RecordKind::Kill {
            world.shared.slots[1].from_control.push(kind, args, &frame);
        }
        poll(&mut world, 1);
    }
    assert!(world.dropped(DropReason::BadRecord) > 250);
    assert_eq!(world.flow(Flow::FromRing), 500);
    world.run();
    // A record that is damaged in the memory of the ring empties it; the next one comes through.
    let ring = &world.shared.slots[1].inbound[0];
    assert!(ring.is_empty() && Ring::len(ring) == 0);
    let (slot, _, _) = world.one(0, c.client_says("P", b"goes on").frame());
    assert_eq!(slot, 1);
    world.check_tables();
}

#[test]
fn control_is_heard_over_any_traffic() {
    let mut world = World::usual(2);
    let c = Connection::open(&mut world, 1, 40_000);
    let doomed = Connection::open(&mut world, 1, 40_001);
    let refill = |world: &mut World| {
        let frame = c.client_says("P", b"much").frame();
        while Ring::len(&world.shared.slots[1].inbound[0]) < 200 {
            assert!(world.shared.slots[1].inbound[0].push(RecordKind::Redirect, [0; 5], &frame));
        }
    };
    refill(&mut world);
    let announcement = arp_request(VIP);
    assert!(world.shared.slots[1].from_control.push(RecordKind::Send, [0; 5], &announcement));
    let order = [CLIENT, 40_001, VIP, 80, 6];
    assert!(world.shared.slots[1].from_control.push(RecordKind::Kill, order, &[]));
    for _ in 0..3 {
        refill(&mut world);
        poll(&mut world, 1);
    }
    let out = std::mem::take(&mut world.ios[1].output);
    assert!(out.contains(&announcement), "sent as it is");
    let resets: Vec<_> =
        out.iter().filter(|f| f[12..14] == [8, 0]).map(|f| checked(f)).filter(|p| p.tcp_flags == 4).collect();
    assert_eq!(resets.len(), 2);
    let to_client = resets.iter().find(|p| p.dst == CLIENT).unwrap();
    assert_eq!((to_client.seq, to_client.dport), (doomed.server_seq, 40_001));
    let to_server = resets.iter().find(|p| p.dst == doomed.server.0).unwrap();
    assert_eq!((to_server.seq, to_server.sport), (doomed.client_seq.wrapping_add(doomed.shift), doomed.local.1));
    assert_eq!((world.state(40_001), world.state(40_000).is_some()), (None, true));
    world.run();
    world.check_tables();
}

#[test]
fn orders_that_keep_coming_are_all_carried_out_and_every_reset_is_sent() {
    let mut world = World::usual(1);
    for n in 0..2000 {
        Connection::open(&mut world, 0, 10_000 + n);
    }
    // An order for a session that does not exist at every turn, and one for the last record in the table.
    let order = |world: &World, port: u32| {
        world.shared.slots[0].from_control.push(RecordKind::Kill, [CLIENT, port, VIP, 80, 6], &[]);
    };
    order(&world, 11_999);
    for n in 0..200 {
        order(&world, 1 + n % 5);
        poll(&mut world, 0);
    }
    assert_eq!(world.state(11_999), None, "reached while orders keep coming");
    assert_eq!(world.runners[0].sessions().active(), 1999);
    world.run();
    for slot in &mut world.ios {
        slot.output.clear();
    }
    // All sessions of a client, while the port takes but a few frames per turn.
    world.shared.slots[0].from_control.push(RecordKind::Kill, [CLIENT, 0, 0, 0, 0], &[]);
    world.ios[0].accept = Some(5);
    for _ in 0..3000 {
        poll(&mut world, 0);
    }
    let resets = world.ios[0].output.iter().filter(|f| f[12..14] == [8, 0] && checked(f).tcp_flags == 4).count();
    assert_eq!((resets, world.runners[0].sessions().active()), (2 * 1999, 0));
    assert_eq!(world.dropped(DropReason::NoBuffer), 0);
    world.rest();
}

#[test]
fn a_port_that_takes_little_gets_the_rest_later_in_order() {
    for accept in [1, 3, 31] {
        let mut world = World::usual(1);
        let c = Connection::open(&mut world, 0, 40_000);
        world.ios[0].accept = Some(accept);
        for n in 0..TX_HELD as u32 {
            let frame = numbered(&world, &c, n);
            world.ios[0].input.push_back(frame);
        }
        poll(&mut world, 0);
        assert_eq!(world.flow(Flow::Held), (RX_BURST - accept) as u64);
        let out: Vec<_> = world.run().into_iter().map(|(_, frame)| frame).collect();
        let dropped = world.dropped(DropReason::TxFull);
        assert_eq!(out.len() as u64 + dropped, TX_HELD as u64);
        let sent = numbers(&out);
        assert!(sent.windows(2).all(|w| w[0] < w[1]), "in order");
        assert_eq!(dropped, 0, "accept {accept}: what fits among those held is not lost");
        assert_eq!(world.flow(Flow::Held), 0);
        world.rest();
    }
}

#[test]
fn a_port_that_takes_nothing_loses_one_frame_per_retry() {
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    world.ios[0].accept = Some(0);
    for n in 0..10 {
        let frame = numbered(&world, &c, n);
        world.ios[0].input.push_back(frame);
    }
    poll(&mut world, 0);
    assert_eq!((world.flow(Flow::Held), world.dropped(DropReason::TxFull)), (10, 0), "one retry first");
    poll(&mut world, 0);
    assert_eq!((world.flow(Flow::Held), world.dropped(DropReason::TxFull)), (9, 1));
    poll(&mut world, 0);
    assert_eq!((world.flow(Flow::Held), world.dropped(DropReason::TxFull)), (9, 1));
    world.ios[0].accept = None;
    let out: Vec<_> = world.run().into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(numbers(&out), (1..10).collect::<Vec<_>>(), "the first was given up, the others stay in order");
    // Beyond what may be held it is dropped at once, and counted.
    world.ios[0].accept = Some(0);
    for n in 0..400 {
        let frame = numbered(&world, &c, n);
        world.ios[0].input.push_back(frame);
    }
    for _ in 0..13 {
        poll(&mut world, 0);
    }
    let held = world.flow(Flow::Held);
    assert!(held <= TX_HELD as u64 && held + world.dropped(DropReason::TxFull) - 1 == 400, "{held}");
    world.ios[0].accept = None;
    world.run();
    world.rest();
}

#[test]
fn without_buffers_copies_and_answers_are_counted_as_lost() {
    let mut world = World::usual(2);
    let c = Connection::open(&mut world, 1, 40_000);
    world.ios.iter_mut().for_each(|io| io.buffers = Some(0));
    // A redirect needs one at the receiver, a reset and what control sends need one here.
    assert!(world.deliver(0, c.client_says("P", b"copy").frame()).is_empty());
    assert_eq!(world.dropped(DropReason::NoBuffer), 1);
    let stray = Tcp { from: (CLIENT, 7), ack: Some(1), flags: "P", ..Tcp::default() };
    assert!(world.deliver(0, stray.frame()).is_empty());
    world.shared.slots[0].from_control.push(RecordKind::Send, [0; 5], &arp_request(VIP));
    assert!(world.run().is_empty());
    assert_eq!((world.dropped(DropReason::NoBuffer), world.dropped(DropReason::NoSession)), (3, 1));
    // What is forwarded or answered in place needs none.
    world.one(1, c.client_says("P", b"in place").frame());
    assert_eq!(world.deliver(0, arp_request(VIP)).len(), 1);
    world.rest();
}

/// Everything at once: random arrivals, a stingy port, buffers that come and go, orders, garbage, slots that pause.
#[test]
fn the_laws_hold_whatever_happens() {
    for seed in [41, 42, 43] {
        println!("seed {seed}");
        let mut rng = Rng(seed);
        let mut world = World::usual(3);
        let mut open: Vec<Connection> =
            (0..30).map(|n| Connection::open(&mut world, usize::from(n) % 3, 9000 + n)).collect();
        for round in 0..20_000_u32 {
            let slot = rng.below(3) as usize;
            let c = rng.below(open.len() as u64) as usize;
            let frame = match rng.below(8) {
                0 => syn(1000 + rng.below(500) as u16, 1).frame(),
                1 => udp((CLIENT, 1000 + rng.below(500) as u16), (VIP, 53), b"q"),
                2 => udp((ip(10, 0, 50, rng.below(200) as u8), 9), (VIP, 53), b"of an unknown neighbour"),
                3 | 4 => open[c].server_says("P", b"from the server").frame(),
                _ => open[c].client_says("P", b"from the client").frame(),
            };
            world.ios[slot].input.push_back(frame);
            match rng.below(60) {
                0 => world.ios[slot].accept = Some(rng.below(40) as usize),
                1 => world.ios[slot].accept = None,
                2 => world.ios[slot].buffers = Some(rng.below(20) as usize),
                3 => world.ios[slot].buffers = None,
                4 => {
                    let order = [0, 9000 + rng.below(30) as u32, 0, 0, protocol::TCP.into()];
                    world.shared.slots[slot].from_control.push(RecordKind::Kill, order, &[]);
                }
                5 => world.resolve(ip(10, 0, 50, rng.below(200) as u8)),
                6 => world.now += rng.below(3000) * 1_000_000,
                _ => {}
            }
            let pausing = round / 500 % 4;
            for number in (0..3).filter(|n| *n as u32 != pausing) {
                poll(&mut world, number);
                for frame in std::mem::take(&mut world.ios[number].output) {
                    // The servers of the datagrams answer.
                    if frame[23] == protocol::UDP && frame[36..38] == 8080_u16.to_be_bytes() {
                        let seen = checked(&frame);
                        let answer = udp((seen.dst, seen.dport), (seen.src, seen.sport), b"a");
                        world.ios[rng.below(3) as usize].input.push_back(answer);
                    }
                }
            }
            if round % 1000 == 999 {
                world.rest();
                let port = 20_000 + (round / 1000) as u16;
                world.ios.iter_mut().for_each(|io| (io.accept, io.buffers) = (None, None));
                world.run();
                open[c] = Connection::open(&mut world, slot, port);
            }
        }
        world.ios.iter_mut().for_each(|io| (io.accept, io.buffers) = (None, None));
        world.run();
        world.pass(2000);
        assert_eq!(world.flow(Flow::Held), 0, "seed {seed}");
        world.rest();
        for reason in [DropReason::TxFull, DropReason::NoBuffer, DropReason::NoNeighbour] {
            assert!(world.dropped(reason) > 0, "seed {seed}: {} never happened", reason.name());
        }
    }
}

//! TCP's corners: numbers that wrap, closes of every order, what an attacker who does not see the session may try.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use shm_layout::counters::{DropReason, Flow};
use shm_layout::session::State;
use world::*;

/// The server's answer to what it saw of a SYN.
fn syn_ack(seen: &packet::V4, seq: u32, ack: u32) -> Tcp {
    Tcp { from: (seen.dst, seen.dport), to: (seen.src, seen.sport), seq, ack: Some(ack), flags: "S", ..Tcp::default() }
}

/// Closes in order, the client first; ends in TIME_WAIT.
fn close(world: &mut World, c: &mut Connection) {
    world.one(c.slot, c.client_says("F", &[]).frame());
    c.client_seq = c.client_seq.wrapping_add(1);
    world.one(c.slot, c.server_says("F", &[]).frame());
    c.server_seq = c.server_seq.wrapping_add(1);
    world.one(c.slot, c.client_says("", &[]).frame());
}

#[test]
fn numbers_wrap_with_any_shift() {
    let mut world = World::usual(1);
    // Both ends of the number space around both peers' numbers, and around the shifted ones.
    for (n, isn) in [u32::MAX, u32::MAX - 1, 0, 1 << 31, (1 << 31) - 1, u32::MAX - 3000].into_iter().enumerate() {
        let port = 40_000 + n as u16;
        let (_, _, seen) = world.one(0, syn(port, isn).frame());
        let shift = seen.seq.wrapping_sub(isn);
        let server_isn = u32::MAX - 700;
        world.one(0, syn_ack(&seen, server_isn, seen.seq.wrapping_add(1)).frame());
        let mut c = Connection {
            slot: 0,
            client: (CLIENT, port),
            server: (seen.dst, seen.dport),
            local: (seen.src, seen.sport),
            client_seq: isn.wrapping_add(1),
            server_seq: server_isn.wrapping_add(1),
            shift,
        };
        world.one(0, c.client_says("", &[]).frame());
        assert_eq!(world.state(port), Some(State::Established), "{isn:x}");
        for _ in 0..8 {
            let (_, _, seen) = world.one(0, c.client_says("P", &[7; 1000]).frame());
            assert_eq!(seen.seq, c.client_seq.wrapping_add(shift));
            c.client_seq = c.client_seq.wrapping_add(1000);
            let (_, _, seen) = world.one(0, c.server_says("P", &[8; 500]).frame());
            assert_eq!(seen.ack, c.client_seq);
            c.server_seq = c.server_seq.wrapping_add(500);
        }
        let (_, record) = world.session(port).unwrap();
        assert_eq!((record.end, record.ack[1]), ([c.client_seq, c.server_seq], c.client_seq));
        close(&mut world, &mut c);
        assert_eq!(world.state(port), Some(State::TimeWait));
    }
    world.pass(20_000);
    world.rest();
}

#[test]
fn both_may_close_at_once() {
    let mut world = World::usual(1);
    let mut c = Connection::open(&mut world, 0, 40_000);
    let (client_fin, server_fin) = (c.client_says("F", &[]), c.server_says("F", &[]));
    world.one(0, client_fin.frame());
    assert_eq!(world.state(40_000), Some(State::FinWait));
    world.one(0, server_fin.frame());
    assert_eq!(world.state(40_000), Some(State::LastAck));
    c.client_seq += 1;
    c.server_seq += 1;
    world.one(0, c.server_says("", &[]).frame());
    assert_eq!(world.state(40_000), Some(State::LastAck), "one is acknowledged, the other not");
    world.one(0, c.client_says("", &[]).frame());
    assert_eq!(world.state(40_000), Some(State::TimeWait));
    // Retransmitted FINs and acks: forwarded, nothing else; the time begins anew with each.
    for _ in 0..10 {
        world.pass(2000);
        world.one(0, client_fin.frame());
        world.one(0, server_fin.frame());
        assert_eq!(world.state(40_000), Some(State::TimeWait));
    }
    world.pass(3200);
    assert_eq!((world.state(40_000), world.flow(Flow::Ended)), (None, 1));
    world.rest();
}

#[test]
fn a_half_closed_connection_carries_data_for_long() {
    let mut world = World::usual(1);
    let mut c = Connection::open(&mut world, 0, 40_000);
    world.one(0, c.client_says("F", b"request").frame());
    c.client_seq += 8;
    for n in 0..200_u32 {
        world.one(0, c.server_says("P", &[1; 1000]).frame());
        c.server_seq += 1000;
        world.one(0, c.client_says("", &[]).frame());
        assert_eq!(world.state(40_000), Some(State::CloseWait));
        world.pass(if n % 20 == 0 { 25_000 } else { 100 });
        // What somebody else says after the FIN moves nothing.
        world.one(0, Tcp { seq: c.client_seq + 5000, ..c.client_says("P", b"never") }.frame());
    }
    world.one(0, c.server_says("F", &[]).frame());
    c.server_seq += 1;
    world.one(0, c.client_says("", &[]).frame());
    assert_eq!(world.state(40_000), Some(State::TimeWait));
    world.pass(3500);
    assert_eq!(world.state(40_000), None);
    world.rest();
}

#[test]
fn a_syn_on_a_session_that_is_over_begins_a_new_one() {
    let mut world = World::usual(2);
    let mut c = Connection::open(&mut world, 1, 40_000);
    close(&mut world, &mut c);
    let (_, first) = world.session(40_000).unwrap();
    assert_eq!(first.state, State::TimeWait);
    // Twice in one burst: one session.
    world.ios[1].input.extend([syn(40_000, 99_000).frame(), syn(40_000, 99_000).frame()]);
    let out = world.run();
    assert_eq!((out.len(), &out[0].1), (2, &out[1].1));
    let (_, second) = world.session(40_000).unwrap();
    assert_eq!((second.state, second.end[0]), (State::SynSent, 99_001));
    assert_ne!((second.local, second.server), (first.local, first.server));
    assert_eq!((world.flow(Flow::Created), world.flow(Flow::Ended)), (2, 1));
    world.rest();
    // The list of what is over still names the first record: the second session lives on.
    world.pass(4000);
    assert_eq!(world.state(40_000), Some(State::SynSent));
    world.rest();
}

#[test]
fn a_peer_that_lost_its_memory_gets_through_by_the_challenge() {
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    // The client has crashed and begins again with the same port.
    world.one(0, syn(40_000, 700_000).frame());
    assert_eq!(world.state(40_000), Some(State::Established));
    let (_, _, challenge) = world.one(0, c.server_says("", &[]).frame());
    assert_eq!((challenge.seq, challenge.ack), (c.server_seq, c.client_seq));
    // It knows nothing of that and resets with the number acknowledged (RFC 9293 §3.5.2): exact.
    let reset = Tcp { seq: challenge.ack, ack: None, ..c.client_says("R", &[]) };
    let (_, _, seen) = world.one(0, reset.frame());
    assert_eq!(seen.seq, c.client_seq.wrapping_add(c.shift));
    assert_eq!(world.state(40_000), Some(State::Close));
    let (_, _, seen) = world.one(0, syn(40_000, 700_000).frame());
    assert_eq!((seen.tcp_flags, world.flow(Flow::Created)), (2, 2));
    world.rest();
}

#[test]
fn only_the_answer_to_this_syn_counts() {
    let mut world = World::usual(1);
    let (_, _, seen) = world.one(0, syn(40_000, 1000).frame());
    for wrong in [0, 1, u32::MAX, seen.seq, seen.seq.wrapping_add(2)] {
        world.one(0, syn_ack(&seen, 1, wrong).frame());
        assert_eq!(world.state(40_000), Some(State::SynSent));
        let refusal = Tcp { flags: "R", ..syn_ack(&seen, 0, wrong) };
        world.one(0, refusal.frame());
        assert_eq!(world.state(40_000), Some(State::SynSent));
    }
    // Nothing a client may send before the answer changes anything: data, ACK, a reset with number 0.
    let early = Tcp { seq: 1001, ack: Some(5), payload: b"early".to_vec(), ..syn(40_000, 0) };
    for flags in ["P", "", "F"] {
        world.one(0, Tcp { flags, ..early.clone() }.frame());
    }
    world.one(0, Tcp { seq: 0, ack: None, flags: "R", payload: vec![], ..early }.frame());
    let (_, record) = world.session(40_000).unwrap();
    assert_eq!((record.state, record.end), (State::SynSent, [1001, 0]));

    // A server that keeps no state answers each SYN with another number: the last one counts.
    world.one(0, syn_ack(&seen, 5000, seen.seq.wrapping_add(1)).frame());
    world.one(0, syn(40_000, 1000).frame());
    world.one(0, syn_ack(&seen, 90_000, seen.seq.wrapping_add(1)).frame());
    assert_eq!(world.state(40_000), Some(State::SynRecv));
    let ack = |number| Tcp { seq: 1001, ack: Some(number), flags: "", ..syn(40_000, 0) };
    world.one(0, ack(77).frame());
    assert_eq!(world.state(40_000), Some(State::SynRecv), "an ACK of something else completes nothing");
    world.one(0, ack(90_001).frame());
    assert_eq!(world.state(40_000), Some(State::Established));
    // And now an old answer comes once more.
    let before = world.session(40_000).unwrap();
    world.one(0, syn_ack(&seen, 5000, seen.seq.wrapping_add(1)).frame());
    assert_eq!(world.session(40_000).unwrap(), before);
    world.rest();
}

/// RFC 7413: the server may take the payload of a SYN or not.
#[test]
fn a_syn_with_payload_completes_either_way() {
    for taken in [0, 200] {
        let mut world = World::usual(1);
        let first =
            Tcp { payload: vec![1; 200], options: vec![1, 1, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8], ..syn(40_000, 1000) };
        let (_, frame, seen) = world.one(0, first.frame());
        assert_eq!((frame.len() - usize::from(seen.payload), seen.segment_len()), (200, 201));
        world.one(0, syn_ack(&seen, 5000, seen.seq.wrapping_add(1 + taken)).frame());
        assert_eq!(world.state(40_000), Some(State::SynRecv), "{taken}");
        if taken > 0 {
            // It may answer at once.
            let answer = Tcp { flags: "P", payload: vec![2; 100], ..syn_ack(&seen, 5001, seen.seq.wrapping_add(201)) };
            world.one(0, answer.frame());
        }
        let ack = Tcp { seq: 1001 + taken, ack: Some(5001), flags: "P", payload: vec![1; 200], ..syn(40_000, 0) };
        world.one(0, ack.frame());
        assert_eq!(world.state(40_000), Some(State::Established), "{taken}");
        assert_eq!(world.session(40_000).unwrap().1.end[0], 1201 + taken);
        world.pass(60_000);
        assert_eq!(world.state(40_000), Some(State::Established), "kept for its own time, not that of a half-open one");
        world.rest();
    }
}

#[test]
fn a_reset_is_believed_by_either_exact_number() {
    // The sender's end (data just sent), or what the peer has acknowledged (that data was lost).
    for from_client in [true, false] {
        for by_ack in [true, false] {
            let mut world = World::usual(1);
            let mut c = Connection::open(&mut world, 0, 40_000);
            world.one(
                0,
                if from_client { c.client_says("P", &[0; 100]) } else { c.server_says("P", &[0; 100]) }.frame(),
            );
            let moved = if by_ack { 0 } else { 100 };
            if from_client {
                c.client_seq += moved;
            } else {
                c.server_seq += moved;
            }
            let reset = if from_client { c.client_says("R", &[]) } else { c.server_says("R", &[]) };
            let (_, _, seen) = world.one(0, reset.frame());
            assert_eq!(seen.tcp_flags & 4, 4);
            assert_eq!(world.state(40_000), Some(State::Close), "{from_client} {by_ack}");
            world.pass(1200);
            assert_eq!(world.state(40_000), None);
            world.rest();
        }
    }
}

/// An attacker knows the client's address and port, not the numbers.
#[test]
fn a_hundred_thousand_blind_resets_close_nothing() {
    let mut rng = Rng(0xb114d);
    let mut world = World::usual(1);
    let mut c = Connection::open(&mut world, 0, 40_000);
    let half_open = world.one(0, syn(40_001, 1000).frame()).2;
    world.pass(50);
    let before = [world.session(40_000).unwrap(), world.session(40_001).unwrap()];
    for n in 0..100_000_u32 {
        let number = match n {
            0..16 => n,
            16..32 => u32::MAX - n,
            _ => rng.next() as u32,
        };
        for port in [40_000, 40_001] {
            let ack = rng.one_in(2).then(|| rng.next() as u32);
            let blind = Tcp { from: (CLIENT, port), seq: number, ack, flags: "R", ..Tcp::default() };
            world.ios[0].input.push_back(blind.frame());
        }
        if n % 16 == 15 {
            world.now += 1000;
            world.runners[0].poll(&mut world.ios[0], world.now);
            world.ios[0].output.clear();
        }
    }
    world.run();
    assert_eq!([world.session(40_000).unwrap(), world.session(40_001).unwrap()], before, "not even kept alive");
    world.one(0, c.client_says("P", b"alive").frame());
    c.client_seq += 5;
    world.one(0, c.server_says("", &[]).frame());
    world.one(0, syn_ack(&half_open, 9, half_open.seq.wrapping_add(1)).frame());
    assert_eq!(world.state(40_001), Some(State::SynRecv));
    world.rest();
}

/// The same attacker first sends data, so that a number of his own choosing becomes the sender's end, then resets by it.
#[test]
fn blind_data_prepares_no_blind_reset() {
    let mut rng = Rng(0xda7a);
    let mut world = World::usual(1);
    let mut c = Connection::open(&mut world, 0, 40_000);
    for _ in 0..20 {
        world.one(0, c.client_says("P", &[1; 1000]).frame());
        c.client_seq += 1000;
        world.one(0, c.server_says("P", &[1; 1000]).frame());
        c.server_seq += 1000;
    }
    for n in 0..50_000_u32 {
        let (seq, ack) = match n % 4 {
            // All he can hope for: numbers just ahead, where the real ones will be, without knowing the other half.
            0 => (c.client_seq.wrapping_add(rng.below(1 << 20) as u32), rng.next() as u32),
            1 => (c.client_seq.wrapping_add(1460), c.server_seq.wrapping_add(1 + rng.below(1 << 24) as u32)),
            _ => (rng.next() as u32, rng.next() as u32),
        };
        let flags = *rng.pick(&["P", "", "F", "S"]);
        let payload = vec![6; rng.below(40) as usize];
        let blind = Tcp { seq, ack: Some(ack), flags, payload, ..c.client_says("", &[]) };
        let len = blind.payload.len() as u32 + u32::from(matches!(flags, "F" | "S"));
        let reset = Tcp { seq: seq.wrapping_add(len), ack: None, ..c.client_says("R", &[]) };
        world.ios[0].input.extend([blind.frame(), reset.frame()]);
        if n % 16 == 15 {
            world.run();
        }
    }
    assert_eq!(world.state(40_000), Some(State::Established));
    let (_, record) = world.session(40_000).unwrap();
    assert_eq!(record.end, [c.client_seq, c.server_seq], "numbers are where the peers left them");
    // The session goes on and closes as if nothing had been.
    close(&mut world, &mut c);
    assert_eq!(world.state(40_000), Some(State::TimeWait));
    world.rest();
}

/// Losses and long flights: the ends follow, so that resets and FINs that are real are believed.
#[test]
fn ends_follow_real_traffic_over_gaps() {
    let mut world = World::usual(1);
    let mut c = Connection::open(&mut world, 0, 40_000);
    for n in 0..1000_u32 {
        // Every third segment is lost before us and comes again later, from further back.
        let lost = c.client_seq;
        if n % 3 != 0 {
            world.one(0, c.client_says("P", &[1; 1400]).frame());
        }
        c.client_seq = c.client_seq.wrapping_add(1400 + (n % 7) * 100_000);
        world.one(0, c.client_says("P", &[1; 100]).frame());
        c.client_seq = c.client_seq.wrapping_add(100);
        world.one(0, Tcp { seq: lost, ..c.client_says("P", &[1; 1400]) }.frame());
        world.one(0, c.server_says("P", &[2; 1400]).frame());
        c.server_seq += 1400;
        // An old acknowledgement overtaken by new ones.
        world.one(0, Tcp { ack: Some(c.server_seq.wrapping_sub(2800)), ..c.client_says("", &[]) }.frame());
    }
    assert_eq!(world.session(40_000).unwrap().1.end, [c.client_seq, c.server_seq]);
    world.one(0, Tcp { ack: None, ..c.client_says("R", &[]) }.frame());
    assert_eq!(world.state(40_000), Some(State::Close));
    world.rest();
}

#[test]
fn closed_sessions_let_go_of_their_ports_whatever_one_peer_does() {
    let mut world = World::usual(1);
    let mut chatty = Connection::open(&mut world, 0, 40_000);
    let others: Vec<_> = (1..=100).map(|n| Connection::open(&mut world, 0, 40_000 + n)).collect();
    world.pass(4000); // The wheel has been by and comes again in a quarter of a minute.
    close(&mut world, &mut chatty);
    for c in &others {
        world.one(0, Tcp { ack: None, ..c.client_says("R", &[]) }.frame());
    }
    // The oldest in the list never falls silent.
    for _ in 0..5 {
        world.pass(1000);
        world.one(0, chatty.client_says("", &[]).frame());
    }
    assert_eq!((world.state(40_000), world.flow(Flow::Ended)), (Some(State::TimeWait), 100));
    world.rest();
}

/// The list of what is over holds 65,536; beyond, the oldest is released at once, but never a session begun since in its
/// record.
#[test]
fn an_overflowing_list_of_closed_sessions_ends_no_living_one() {
    let members = vec![member(0, server(0)), member(1, server(1)), member(2, server(2))];
    let mut plan = service(shm_layout::published::protocol::TCP, 80, members);
    plan.timeouts[State::Close as usize] = 10_000_000;
    let mut world = World::new(1, 4096, vec![plan]);
    let mut kept = Vec::new();
    // The head of the list stays, so that all others wait behind it.
    let head = Connection::open(&mut world, 0, 999);
    world.one(0, Tcp { ack: None, ..head.client_says("R", &[]) }.frame());
    // One session after another with the same ports: each is over, and reopened by the next.
    let mut record = 0_u32;
    while record < 65_535 {
        if record == 4096 {
            // From here on these live, in records that the list names from before.
            kept.extend((0..1200).map(|n| Connection::open(&mut world, 0, 50_000 + n)));
        }
        let port = 1000 + (record % 512) as u16;
        let c = Connection::open(&mut world, 0, port);
        world.one(0, Tcp { ack: None, ..c.client_says("R", &[]) }.frame());
        record += 1;
        if record.is_multiple_of(512) {
            world.pass(16_000); // The wheel frees what was reopened; the records are used again.
        }
        if record.is_multiple_of(2048) {
            kept.iter().for_each(|c| drop(world.one(0, c.client_says("P", b"here").frame())));
        }
    }
    // It is full. A burst of closes pushes the head out, and those behind it.
    let last: Vec<_> = (0..32).map(|n| Connection::open(&mut world, 0, 60_000 + n)).collect();
    world.ios[0].input.extend(last.iter().map(|c| Tcp { ack: None, ..c.client_says("R", &[]) }.frame()));
    world.run();
    assert_eq!(world.state(999), None, "the oldest is released");
    for c in &kept {
        assert_eq!(world.state(c.client.1), Some(State::Established));
    }
    assert_eq!(world.dropped(DropReason::NoSession), 0);
    world.rest();
}

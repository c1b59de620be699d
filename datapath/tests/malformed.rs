//! Frames nobody should send: never a panic, one verdict each, every drop by a reason, nothing malformed goes on.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use shm_layout::counters::{Counts, DropReason, Flow};
use shm_layout::published::protocol;
use world::*;

/// What became of one frame: copies forwarded (answers of our own not counted), drops.
fn verdict(world: &mut World, slot: usize, frame: Vec<u8>) -> (u64, u64) {
    let before = world.shared.slots[slot].counters.read().unwrap();
    world.ios[slot].input.push_back(frame);
    world.now += 1000;
    world.runners[slot].poll(&mut world.ios[slot], world.now);
    world.ios[slot].output.clear();
    let after = world.shared.slots[slot].counters.read().unwrap();
    law(&after, slot);
    let grown = |flow: Flow| after.flow(flow) - before.flow(flow);
    assert_eq!(grown(Flow::Rx), 1);
    (grown(Flow::Tx) + grown(Flow::ToRing) - grown(Flow::Originated), drops(&after) - drops(&before))
}

fn drops(counts: &Counts) -> u64 {
    DropReason::ALL.iter().map(|r| counts.dropped(*r)).sum()
}

/// A frame with these header fields, `len` bytes long, whatever they say; the IP checksum is right.
fn frame(proto: u8, dst: u32, ihl: u8, offset: u8, total: u16, len: usize) -> Vec<u8> {
    let mut frame = vec![0_u8; 14 + 60 + 60 + 20];
    frame[..6].copy_from_slice(&OUR_MAC.0);
    frame[6..12].copy_from_slice(&mac_of(CLIENT));
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x40 | ihl;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    (frame[22], frame[23]) = (64, proto);
    frame[26..30].copy_from_slice(&CLIENT.to_be_bytes());
    frame[30..34].copy_from_slice(&dst.to_be_bytes());
    let l4 = 14 + usize::from(ihl) * 4;
    let header = &mut frame[l4..];
    match proto {
        protocol::TCP => {
            header[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
            (header[12], header[13]) = (offset << 4, 2);
        }
        protocol::UDP => {
            header[..4].copy_from_slice(&[0x9c, 0x40, 0, 53]);
            header[4..6].copy_from_slice(&(u16::from(offset) * 8).to_be_bytes());
        }
        _ => header[0] = 8,
    }
    fix_ip_checksum(&mut frame);
    frame.truncate(len);
    frame
}

/// By the RFCs: is it a whole packet? (`offset`: TCP's in words, UDP's length in eights.)
fn whole(proto: u8, ihl: u8, offset: u8, total: u16, len: usize) -> bool {
    let (total, header) = (usize::from(total), usize::from(ihl) * 4);
    if ihl < 5 || total < header || 14 + total > len {
        return false;
    }
    let (l4, said) = (total - header, usize::from(offset));
    match proto {
        protocol::TCP => said >= 5 && said * 4 <= l4,
        protocol::UDP => said >= 1 && said * 8 <= l4,
        _ => l4 >= 8,
    }
}

#[test]
fn every_header_length_offset_and_frame_length() {
    let mut world = World::usual(1);
    let (mut forwarded, mut refused) = (0_u32, 0_u32);
    for proto in [protocol::TCP, protocol::UDP, 1] {
        for dst in [VIP, LOCAL, PORT] {
            for ihl in 0..16 {
                for offset in 0..16 {
                    for len in 0..=110 {
                        // The frame as long as the header says; and cut short, or with something behind it.
                        for total in [len.max(14) - 14, 80] {
                            let total = total as u16;
                            world.now += 2_000_000; // The rate of our own answers must not hide a verdict.
                            let (out, dropped) = verdict(&mut world, 0, frame(proto, dst, ihl, offset, total, len));
                            assert_eq!(out + dropped, 1, "one verdict");
                            // The session's way leads on only from the VIP; echo is answered for all three.
                            let good = whole(proto, ihl, offset, total, len) && (dst == VIP || proto == 1);
                            assert_eq!(out == 1, good, "{proto} {dst:x} ihl {ihl} offset {offset} {total}/{len}");
                            *(if good { &mut forwarded } else { &mut refused }) += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{forwarded} whole ones, {refused} refused: {:?}", world.drops());
    assert!(forwarded > 20_000 && refused > 400_000);
    for reason in [DropReason::TooShort, DropReason::BadIpHeader, DropReason::BadTcpHeader, DropReason::BadUdpHeader] {
        assert!(world.dropped(reason) > 0, "{}", reason.name());
    }
    world.run();
    world.rest();
}

#[test]
fn every_ethertype_tag_and_length_of_noise() {
    let mut world = World::usual(1);
    let mut rng = Rng(1);
    for ethertype in [0_u16, 0x0600, 0x0800, 0x0806, 0x8100, 0x86dd, 0x88a8, 0x88cc, 0x8847, 0xffff] {
        for to in [OUR_MAC.0, [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [2, 9, 9, 9, 9, 9]] {
            for len in 0..=100 {
                let mut frame: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
                for (at, byte) in to.iter().copied().chain([0; 6]).chain(ethertype.to_be_bytes()).enumerate() {
                    if at < len && !(6..12).contains(&at) {
                        frame[at] = byte;
                    }
                }
                assert_eq!(verdict(&mut world, 0, frame), (0, 1), "{ethertype:x} {len}");
            }
        }
    }
    // A tag that is not ours on a good packet; and no tag at all where one is configured.
    let mut tagged = syn(40_000, 1).frame();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(verdict(&mut world, 0, tagged.clone()), (0, 1));
    assert_eq!(world.dropped(DropReason::UnexpectedVlan), 1);
    world.rest();

    let mut world = World::with_ports(
        vec![shm_layout::publish::PortPlan { vlan: 5, ..port(1) }],
        64,
        vec![service(protocol::TCP, 80, vec![member(0, server(0))])],
    );
    assert_eq!(verdict(&mut world, 0, syn(40_000, 1).frame()), (0, 1));
    assert_eq!(world.dropped(DropReason::UnexpectedVlan), 1);
    let out = world.deliver(0, tagged);
    assert_eq!((out.len(), &out[0].1[12..18]), (1, &[0x81, 0, 0, 5, 8, 0][..]), "goes on with its tag");
}

/// Frames of all kinds, as good peers send them; client ports 40,000 to 40,015.
fn good_frames(world: &mut World) -> Vec<Vec<u8>> {
    let mut frames = vec![ping(CLIENT, VIP), ping(CLIENT, PORT), arp_request(VIP), arp_request(LOCAL)];
    let mut reply = arp_request(VIP);
    reply[21] = 2;
    frames.push(reply);
    for n in 0..16_u16 {
        let c = Connection::open(world, usize::from(n) % 2, 40_000 + n);
        frames.push(syn(40_000 + n, 7).frame());
        frames.push(c.client_says("P", b"a request").frame());
        frames.push(c.client_says("F", &[]).frame());
        let mut options = vec![1, 1, 5, 10];
        options.extend((c.client_seq + 9).wrapping_add(c.shift).to_be_bytes());
        options.extend((c.client_seq + 19).wrapping_add(c.shift).to_be_bytes());
        frames.push(Tcp { options, ..c.server_says("P", b"an answer") }.frame());
        frames.push(c.server_says("F", &[]).frame());
        frames.push(udp((CLIENT, 30_000 + n), (VIP, 53), b"a question"));
    }
    frames
}

fn mutate(rng: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        let len = frame.len() as u64;
        if len == 0 {
            return;
        }
        let at = rng.below(len) as usize;
        match rng.below(7) {
            0 => frame[at] ^= 1 << rng.below(8),
            1 => frame[at] = rng.next() as u8,
            2 => frame[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            3 => frame.truncate(at),
            4 => frame.extend(std::iter::repeat_n(0xa5, rng.below(1600) as usize)),
            5 => {
                let byte = frame[at];
                frame.insert(at, byte);
            }
            _ => drop(frame.remove(at)),
        }
    }
    if !rng.one_in(3) {
        fix_ip_checksum(frame); // Else few mutants come past the first check.
    }
}

#[test]
fn a_storm_of_mutants_touches_no_session_of_others() {
    for seed in [0x5eed_0001, 0x5eed_0002, 0x5eed_0003] {
        println!("seed {seed:#x}");
        let mut rng = Rng(seed);
        let mut world = World::usual(2);
        let mut others: Vec<_> =
            (0..8).map(|n| Connection::open(&mut world, usize::from(n) % 2, 7 + 1111 * n)).collect();
        let corpus = good_frames(&mut world);
        let records: Vec<_> = others.iter().map(|c| world.session(c.client.1).unwrap()).collect();
        for round in 0..100_000 {
            let mut frame = rng.pick(&corpus).clone();
            mutate(&mut rng, &mut frame);
            let slot = rng.below(2) as usize;
            world.ios[slot].input.push_back(frame);
            if !rng.one_in(4) {
                world.now += 1000;
                for (number, (runner, io)) in world.runners.iter_mut().zip(&mut world.ios).enumerate() {
                    runner.poll(io, world.now);
                    io.output.clear();
                    law(&world.shared.slots[number].counters.read().unwrap(), number);
                }
            }
            if round % 20_000 == 0 {
                world.check_tables();
            }
        }
        world.run();
        world.rest();
        for (c, before) in others.iter_mut().zip(records) {
            assert_eq!(
                world.session(c.client.1),
                Some(before),
                "seed {seed:#x}: the record of a session nobody spoke to"
            );
            let (_, _, seen) = world.one(c.slot, c.client_says("P", b"still").frame());
            assert_eq!((seen.dst, seen.seq), (c.server.0, c.client_seq.wrapping_add(c.shift)));
            c.client_seq += 5;
            let (_, _, seen) = world.one(c.slot, c.server_says("P", b"here").frame());
            assert_eq!((seen.dst, seen.dport, seen.ack), (c.client.0, c.client.1, c.client_seq));
        }
        assert!(world.dropped(DropReason::BadIpChecksum) > 1000 && world.flow(Flow::Created) > 100);
        assert_eq!(world.dropped(DropReason::BadRecord), 0);
    }
}

#[test]
fn what_a_frame_carries_behind_its_packet_does_not_block_the_port() {
    let mut world = World::usual(1);
    let c = Connection::open(&mut world, 0, 40_000);
    let mut frame = c.client_says("P", b"short").frame();
    let len = frame.len();
    frame.resize(3000, 0xee);
    let (_, out, _) = world.one(0, frame);
    assert_eq!(out.len(), len, "a port stops a burst at a frame it cannot send: cut off");
    let mut frame = ping(CLIENT, VIP);
    frame.resize(3000, 0xee);
    assert_eq!(verdict(&mut world, 0, frame), (0, 1));
    assert_eq!(world.dropped(DropReason::TooBig), 1);
    world.rest();
}

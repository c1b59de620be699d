//! Neighbour discovery and echo over IPv6. Packets that come, and the answers expected, are scapy's (packet/tests/scapy/icmpv6.py).
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use packet::ipv6::Ip6;
use packet::{Mac, nd};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::limits::RING_FRAME_MAX;
use shm_layout::neighbours::ip4;
use shm_layout::publish::PortPlan;
use shm_layout::published::{port_flag, protocol};
use shm_layout::ring::RecordKind;
use world::*;

const US: [u8; 6] = [2, 0, 10, 0, 0, 2];
const OWN: Ip6 = [0x2001_0db8 << 32, 2];
const VIP6: Ip6 = [0x2001_0db8 << 32, 0x100];

fn made(name: &str) -> Vec<u8> {
    let lines = include_str!("../../packet/tests/scapy/icmpv6.txt").lines();
    let (_, digits) = lines.filter_map(|line| line.split_once(' ')).find(|(n, _)| *n == name).unwrap();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// A port with the MAC of scapy's packets and an address of each family; the VIP of those packets.
fn world_with(flags: u32, vlan: u16, v6: bool) -> World {
    let mut addresses = vec![(ip4(PORT), 96 + 16)];
    if v6 {
        addresses.push((OWN, 64));
    }
    let port = PortPlan { mac: US, flags, vlan: vlan.into(), addresses, ..port(2) };
    let mut service = service(protocol::TCP, 80, vec![member(0, server(0))]);
    if v6 {
        service.vip = VIP6;
    }
    World::with_ports(vec![port], 4096, vec![service])
}

/// What is said to control, of slot `slot`.
fn told(world: &World, slot: usize) -> Vec<Vec<u8>> {
    let mut buffer = [0; RING_FRAME_MAX];
    let ring = &world.shared.slots[slot].to_control;
    std::iter::from_fn(|| ring.pop(&mut buffer).map(|(kind, _, len)| (kind, buffer[..len].to_vec())))
        .filter(|(kind, _)| *kind == RecordKind::Learn)
        .map(|(_, frame)| frame)
        .collect()
}

/// The solicitation of `solicit`, of any target, by any hop limit.
fn solicit(target: Ip6, hop_limit: u8) -> Vec<u8> {
    let mut frame = [0; 128];
    let len = nd::solicit(&mut frame, Mac([2, 0, 10, 0, 0, 1]), [0x2001_0db8_0001 << 16, 5], target, 0).unwrap();
    frame[21] = hop_limit;
    frame[..len].to_vec()
}

#[test]
fn solicitations_of_our_addresses_are_answered() {
    let mut world = world_with(0, 0, true);
    // Asked by 2001:db8:1::5: told in person, solicited, by whatever slot it came to.
    for slot in [0, 1] {
        let mut out = world.deliver(slot, solicit(VIP6, 255));
        assert_eq!(out.len(), 1, "{:?}", world.drops());
        assert_eq!(out.remove(0), (slot, made("answer")));
    }
    // A probe for duplicates: told to all, unsolicited.
    assert_eq!(world.deliver(0, made("duplicate_probe")), [(0, made("announce"))]);
    for own in [OWN, nd::link_local(Mac(US))] {
        let out = world.deliver(0, solicit(own, 255));
        assert_eq!(out.len(), 1, "{own:?}");
        assert_eq!(packet::ipv6::from_bytes(out[0].1[62..78].try_into().unwrap()), own);
    }
    assert_eq!(
        world.flow(Flow::Originated),
        world.flow(Flow::Tx) - 5,
        "announcements apart, answers use the question's buffer"
    );
    // Not ours, from behind a router, damaged.
    assert!(world.deliver(0, solicit([VIP6[0], 0x101], 255)).is_empty());
    assert!(world.deliver(0, solicit(VIP6, 254)).is_empty());
    let mut damaged = solicit(VIP6, 255);
    damaged[70] ^= 1;
    assert!(world.deliver(0, damaged).is_empty());
    assert_eq!(world.dropped(DropReason::BadNd), 3);
    // To our MAC, as a probe of one who knows us.
    let mut unicast = solicit(VIP6, 255);
    unicast[..6].copy_from_slice(&US);
    assert_eq!(world.deliver(1, unicast), [(1, made("answer"))]);
    world.rest();
}

#[test]
fn advertisements_go_to_control() {
    let mut world = world_with(0, 0, true);
    let (mut answer, announcement) = (made("answer"), made("announce"));
    answer[..6].copy_from_slice(&US);
    assert!(world.deliver(1, answer.clone()).is_empty() && world.deliver(1, announcement.clone()).is_empty());
    assert_eq!(told(&world, 1), [answer.clone(), announcement]);
    assert_eq!(world.dropped(DropReason::HandledNd), 2);
    answer[58] ^= 0x20;
    world.deliver(1, answer);
    assert!(told(&world, 1).is_empty(), "a wrong checksum");
    assert_eq!(world.dropped(DropReason::BadNd), 1);
    world.rest();
}

#[test]
fn own_addresses_are_announced_in_both_families() {
    let mut world = world_with(0, 0, true);
    // Told at the start, before we look: a successor tells it again.
    world.replace(0);
    let out = world.run();
    assert!(out.contains(&(0, made("announce"))), "of the VIP");
    let of = |ethertype: [u8; 2]| out.iter().filter(|(_, frame)| frame[12..14] == ethertype).count();
    assert_eq!((of([8, 6]), of([0x86, 0xdd])), (2, 2), "port and local address by ARP, port and VIP by advertisements");
}

#[test]
fn echo_to_our_addresses_is_answered() {
    let mut world = world_with(0, 0, true);
    assert_eq!(world.deliver(0, made("echo")), [(0, made("echo_reply"))]);
    // To all stations: nobody says anything (a flood of answers is what they want).
    let mut to_all = made("echo");
    to_all[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    assert!(world.deliver(0, to_all).is_empty());
    assert_eq!(world.dropped(DropReason::BadSource), 1);
    for _ in 0..3000 {
        world.deliver(1, made("echo"));
    }
    assert!(world.dropped(DropReason::RateLimited) > 1000, "a flood is not reflected");
    world.rest();
}

#[test]
fn where_there_is_no_ipv6_it_is_counted_as_such() {
    let mut world = world_with(0, 0, false);
    let mut echo = made("echo");
    assert!(world.deliver(0, echo.clone()).is_empty() && world.deliver(0, solicit(VIP6, 255)).is_empty());
    assert_eq!((world.dropped(DropReason::Ipv6), world.dropped(DropReason::NotOurMac)), (1, 1));
    let mut world = world_with(0, 7, true);
    assert!(world.deliver(0, echo.clone()).is_empty());
    assert_eq!(world.dropped(DropReason::UnexpectedVlan), 1);
    echo.splice(12..12, [0x81, 0, 0, 7]);
    assert_eq!(world.deliver(0, echo).len(), 1, "{:?}", world.drops());
    world.rest();
}

/// A router advertisement to all stations (no options; its checksum is the kernel's business).
fn router_advertisement(hop_limit: u8) -> Vec<u8> {
    let mut frame = made("announce");
    frame[6..12].copy_from_slice(&[2, 0, 10, 0, 0, 9]);
    frame[21] = hop_limit;
    frame[22..38].copy_from_slice(&packet::ipv6::bytes([0xfe80 << 48, 9]));
    frame[54] = 134;
    frame
}

#[test]
fn the_links_own_messages_are_the_kernels() {
    let mut world = world_with(port_flag::KERNEL, 0, true);
    let mut asks_kernel = solicit([0xfe80 << 48, 0x1234_5678], 255);
    asks_kernel[11] = 9;
    let mut report = made("announce"); // MLD: to the routers' group, by hop limit 1.
    (report[21], report[54]) = (1, 143);
    let frames = [router_advertisement(255), asks_kernel, report, made("announce")];
    for frame in &frames {
        assert!(world.deliver(1, frame.clone()).is_empty());
    }
    assert_eq!(world.ios[0].kernel_output, frames, "{:?}", world.drops());
    world.deliver(1, router_advertisement(254));
    assert_eq!(world.flow(Flow::ToKernel), 5, "the kernel tells a forged one itself");
    // What we answer is not the kernel's.
    assert_eq!(world.deliver(1, made("echo")).len(), 1);
    assert_eq!(world.deliver(1, solicit(VIP6, 255)).len(), 1);
    assert_eq!(world.flow(Flow::ToKernel), 5);
    world.rest();
    let mut without = world_with(0, 0, true);
    without.deliver(1, router_advertisement(255));
    assert_eq!(without.dropped(DropReason::NoKernelInterface), 1);
}

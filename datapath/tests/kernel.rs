//! The kernel interface: what is for the machine goes there by classes, what it sends goes out.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use packet::Mac;
use shm_layout::counters::{DropReason, Flow};
use shm_layout::publish::PortPlan;
use shm_layout::published::{port_flag, protocol};
use world::*;

/// Two slots on a port with a kernel interface; its first slot speaks with it.
fn with_kernel(vlan: u16) -> World {
    let members = (0..3).map(|n| member(n, server(n as u8))).collect();
    let port = PortPlan { flags: port_flag::KERNEL, vlan: vlan.into(), ..port(2) };
    World::with_ports(vec![port], 4096, vec![service(protocol::TCP, 80, members)])
}

fn to_host(port: u16) -> Vec<u8> {
    Tcp { to: (PORT, port), ..syn(40_000, 7) }.frame()
}

fn arp_reply() -> Vec<u8> {
    let mut frame = arp_request(PORT);
    frame[..6].copy_from_slice(&OUR_MAC.0);
    frame[21] = 2;
    frame[32..38].copy_from_slice(&OUR_MAC.0);
    frame
}

fn tagged(mut frame: Vec<u8>, vlan: u16) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, (vlan >> 8) as u8, vlan as u8]);
    frame
}

#[test]
fn what_is_for_the_machine_goes_to_the_kernel_by_whatever_slot_it_came() {
    let mut world = with_kernel(0);
    let mut echo_reply = ping(CLIENT, PORT);
    echo_reply[34] = 0;
    let mut other = to_host(22);
    other[23] = 89; // OSPF
    fix_ip_checksum(&mut other);
    let frames = [to_host(22), to_host(179), udp((CLIENT, 5), (PORT, 161), b"snmp"), arp_reply(), echo_reply, other];
    for slot in [0, 1] {
        for frame in &frames {
            assert!(world.deliver(slot, frame.clone()).is_empty());
        }
        let got = std::mem::take(&mut world.ios[0].kernel_output);
        assert_eq!(got, frames, "by slot {slot}: {:?}", world.drops());
        assert!(world.ios[1].kernel_output.is_empty());
    }
    assert_eq!(world.flow(Flow::ToKernel), 12);
    assert_eq!(world.flow(Flow::ToRing), 6);
    // What the appliance answers itself, and what is for a VIP, is not the kernel's.
    assert_eq!(world.deliver(1, ping(CLIENT, PORT)).len(), 1);
    assert_eq!(world.deliver(1, arp_request(PORT)).len(), 1);
    assert_eq!(world.deliver(1, syn(40_000, 7).frame()).len(), 1);
    assert_eq!(world.flow(Flow::ToKernel), 12);
    world.rest();
}

#[test]
fn what_the_kernel_sends_goes_out_as_it_is() {
    let mut world = with_kernel(0);
    let frames: Vec<Vec<u8>> = (0..200_u16).map(|n| udp((PORT, 1000 + n), (CLIENT, 7), b"from the kernel")).collect();
    world.ios[0].kernel_input.extend(frames.clone());
    let out: Vec<Vec<u8>> = world.pass(10).into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(out, frames);
    world.ios[0].kernel_input.push_back(vec![0; 1515]);
    assert!(world.pass(10).is_empty());
    assert_eq!((world.flow(Flow::FromKernel), world.dropped(DropReason::TooBig)), (201, 1));
    world.rest();
}

#[test]
fn the_kernel_sees_no_tag_and_sends_with_the_ports() {
    const VLAN: u16 = 100;
    let mut world = with_kernel(VLAN);
    for slot in [0, 1] {
        assert!(world.deliver(slot, tagged(to_host(22), VLAN)).is_empty());
        assert_eq!(world.ios[0].kernel_output.pop(), Some(to_host(22)), "{:?}", world.drops());
    }
    assert!(world.deliver(0, tagged(to_host(22), 7)).is_empty() && world.ios[0].kernel_output.is_empty());
    let frame = udp((PORT, 5), (CLIENT, 7), b"x");
    world.ios[0].kernel_input.push_back(frame.clone());
    let out = world.pass(10);
    assert_eq!(out.into_iter().map(|(_, frame)| frame).collect::<Vec<_>>(), [tagged(frame, VLAN)]);
    world.rest();
}

/// Strangers' packets of any kind, and stations' of a kind each, take nothing from BGP, BFD or answers to probes.
#[test]
fn a_flood_of_one_class_takes_nothing_from_another() {
    let far = ip(192, 0, 2, 7);
    let floods = [
        udp((far, 9), (PORT, 9), b"flood"),
        udp((far, 9), (PORT, 3784), b"no BFD: it crossed a router"),
        Tcp { from: (far, 9), to: (PORT, 179), ..syn(0, 7) }.frame(),
        arp_reply(),
    ];
    let mut bfd = udp((CLIENT, 49_152), (PORT, 3784), b"BFD");
    bfd[22] = 255;
    fix_ip_checksum(&mut bfd);
    let answer =
        Tcp { from: (server(0), 8080), to: (PORT, 45_000), flags: "S", ack: Some(1), ..Tcp::default() }.frame();
    let honest = [to_host(179), bfd, answer];
    for (flood, slot) in floods.iter().flat_map(|flood| [(flood, 0), (flood, 1)]) {
        let mut world = with_kernel(0);
        let mut sent = 0;
        for n in 0..10_000_u32 {
            // A million a second, 10 ms long.
            world.ios[slot].input.push_back(flood.clone());
            if n % 100 == 0 {
                world.ios[slot].input.extend(honest.clone());
                sent += honest.len();
            }
            world.now += 1000;
            if n % 20 == 0 {
                world.run();
            }
        }
        world.run();
        let got = &world.ios[0].kernel_output;
        let through = got.iter().filter(|frame| honest.contains(frame)).count();
        assert_eq!(through, sent, "through a flood at slot {slot}");
        let flooded = got.len() - through;
        assert!((100..1000).contains(&flooded), "{flooded} of 10,000");
        assert_eq!(world.dropped(DropReason::KernelPoliced) as usize, 10_000 - flooded);
        world.rest();
    }
}

#[test]
fn without_a_kernel_interface_it_is_said() {
    let mut world = World::usual(2);
    assert!(world.deliver(1, to_host(22)).is_empty() && world.deliver(0, arp_reply()).is_empty());
    assert_eq!((world.dropped(DropReason::NoKernelInterface), world.dropped(DropReason::HandledArp)), (1, 1));
    assert_eq!(Mac(arp_reply()[..6].try_into().unwrap()), OUR_MAC);
}

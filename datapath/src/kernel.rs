//! The port's kernel interface: what is for the machine itself goes there, by classes of which none can starve another, and
//! what the kernel sends goes out by the port. The port's first slot speaks with it; the others pass on by its ring.

use packet::{V4, ethernet, ipv4, ipv6};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::limits::{RX_BURST, TX_HELD};
use shm_layout::neighbours::{Ip, as_v4};
use shm_layout::ring::RecordKind;

use crate::family::Packet;
use crate::io::Io;
use crate::rate::Rate;
use crate::runner::{Origin, SlotRunner};

/// The kernel interface is looked at so often at least, ns: a look is a system call on most of them.
const LOOK_NS: u64 = 50_000;

/// What a packet for the machine is. What anybody can send shares nothing with what keeps the machine in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Answers to questions, by ARP or neighbour discovery; what the link's routers tell.
    Arp,
    /// BGP of stations on the port's networks, BFD that crossed no router.
    Routing,
    /// The operator: SSH.
    Admin,
    /// Other packets of stations on the port's networks: answers to probes, for instance.
    Near,
    /// Anything else.
    Rest,
}

/// Packets per second a slot passes to the kernel, by class: more than each needs, less than takes the CPU from the others.
const PER_SECOND: [u32; 5] = [5_000, 10_000, 10_000, 10_000, 5_000];
const BGP: u16 = 179;
/// RFC 5881, RFC 7130: over one hop, with a TTL that no router has touched.
const BFD: [u16; 3] = [3784, 3785, 6784];
const SSH: u16 = 22;

impl Class {
    /// Of a packet to one of the port's addresses. `near`: its source is on the port's networks.
    fn of(packet: &V4, near: bool) -> Self {
        let either = |port: u16| packet.sport == port || packet.dport == port;
        match packet.proto {
            ipv4::TCP if either(BGP) && near => Self::Routing,
            ipv4::UDP if BFD.contains(&packet.dport) && packet.ttl == u8::MAX => Self::Routing,
            ipv4::TCP if either(SSH) => Self::Admin,
            _ if near => Self::Near,
            _ => Self::Rest,
        }
    }
}

/// The slot's end of it.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The slot that speaks with the interface.
    speaker: u32,
    classes: [Rate; 5],
    /// When to look again.
    due_ns: u64,
}

impl Kernel {
    /// Of a port whose first slot is `speaker`.
    pub(crate) fn new(speaker: u32) -> Self {
        Self { speaker, classes: PER_SECOND.map(Rate::new), due_ns: 0 }
    }
}

impl SlotRunner {
    /// An IP packet that the datapath has no use for: the machine's if it is to an address of a port, else dropped for `reason`.
    pub(crate) fn for_kernel_or<I: Io>(
        &mut self,
        io: &mut I,
        place: usize,
        packet: &impl Packet,
        origin: Origin,
        reason: DropReason,
    ) {
        if !self.is_for_machine(packet.destination()) {
            return self.refuse(io, place, reason);
        }
        let class = Class::of(packet.head(), self.is_near(packet.source()));
        self.for_kernel(io, place, class, origin);
    }

    /// Is it an address of a port, or of the port's link? Also a group of the link's stations (its routers, those who speak OSPF).
    fn is_for_machine(&self, ip: Ip) -> bool {
        self.is_port_address(ip) || self.is_link_local_of_port(ip) || as_v4(ip).is_none() && ipv6::is_multicast(ip)
    }

    /// Is it on the port's networks?
    fn is_near(&self, src: Ip) -> bool {
        let port = self.shared.published.ports.get(usize::from(self.port.number));
        let connected = port.is_some_and(|port| port.addresses.iter().any(|network| network.contains(src)));
        connected || ipv6::is_link_local(src)
    }

    /// A packet for the machine itself.
    pub(crate) fn for_kernel<I: Io>(&mut self, io: &mut I, place: usize, class: Class, origin: Origin) {
        let Some(kernel) = &mut self.kernel else { return self.refuse(io, place, DropReason::NoKernelInterface) };
        // Where it comes in, so that a flood does not fill the ring, and once more where it leaves.
        if !kernel.classes[class as usize].allow(self.now_ms) {
            return self.refuse(io, place, DropReason::KernelPoliced);
        }
        let speaker = kernel.speaker;
        if speaker != self.number {
            return match origin {
                Origin::Port => self.pass_on(io, place, speaker, RecordKind::Redirect),
                Origin::Ring => self.refuse(io, place, DropReason::NoKernelInterface),
            };
        }
        if self.port.vlan != 0 && !self.untag(io, place) {
            return self.refuse(io, place, DropReason::NoBuffer);
        }
        if io.to_kernel(place) {
            self.counts.add(Flow::ToKernel, 1);
        } else {
            // Its queue is full, or the interface is down.
            self.refuse(io, place, DropReason::TxFull);
        }
    }

    /// The kernel knows nothing of the port's tag: a copy without it takes the place.
    fn untag<I: Io>(&mut self, io: &mut I, place: usize) -> bool {
        let len = io.frame(place).and_then(|frame| ethernet::retagged(frame, 0, self.scratch.as_mut_slice()));
        let Some(frame) = len.and_then(|len| self.scratch.get(..len)) else { return false };
        io.discard(place);
        io.inject(place, frame)
    }

    /// What the kernel sends. Returns how many packets.
    pub(crate) fn take_from_kernel<I: Io>(&mut self, io: &mut I) -> usize {
        let Some(kernel) = &mut self.kernel else { return 0 };
        if kernel.speaker != self.number || self.now_ns < kernel.due_ns || io.queued() > TX_HELD - RX_BURST {
            return 0;
        }
        let count = io.receive_kernel();
        // More may wait behind a full burst.
        kernel.due_ns = if count < RX_BURST { self.now_ns + LOOK_NS } else { 0 };
        self.counts.add(Flow::FromKernel, count as u64);
        for place in 0..count {
            self.send_for_kernel(io, place);
        }
        count
    }

    fn send_for_kernel<I: Io>(&mut self, io: &mut I, place: usize) {
        let most = ethernet::HEADER + self.port.mtu as usize;
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        if frame.len() > most {
            return self.refuse(io, place, DropReason::TooBig);
        }
        if self.port.vlan == 0 {
            if !io.send(place) {
                self.refuse(io, place, DropReason::TxFull);
            }
            return;
        }
        let len = ethernet::retagged(frame, self.port.vlan, self.scratch.as_mut_slice());
        let sent = len.and_then(|len| self.scratch.get(..len)).is_some_and(|frame| io.originate(frame));
        io.discard(place);
        if !sent {
            self.counts.drop(DropReason::NoBuffer);
        }
    }
}

//! What the appliance itself says over IPv6, as `answer` does over IPv4: neighbour discovery, echo.

use packet::nd::{self, Nd};
use packet::{Mac, V6, ethernet, icmpv6, ipv6, quote6};
use shm_layout::counters::DropReason;
use shm_layout::neighbours::{Ip, as_v4};
use shm_layout::published::Generation;
use shm_layout::ring::RecordKind;

use crate::io::Io;
use crate::kernel::Class;
use crate::runner::{Origin, SlotRunner};

/// Room for an answer: Ethernet with tag, IPv6, a message with one option.
pub(crate) const OWN_FRAME_V6: usize = 96;
const _: () = assert!(OWN_FRAME_V6 >= ethernet::TAGGED_HEADER + ipv6::HEADER + nd::WHOLE);
/// An advertisement is some dozens of bytes; longer ones would only fill the ring towards control.
const LONGEST_HEARD: usize = 256;

impl SlotRunner {
    /// An IPv6 packet that no session has and none begins with, to our MAC, to a group's, or passed on by a slot that judged it.
    pub(crate) fn other_v6<I: Io>(&mut self, io: &mut I, place: usize, packet: &V6, origin: Origin) {
        if !self.speaks_v6() && !self.answers_for(packet.dst) {
            return self.refuse(io, place, DropReason::Ipv6);
        }
        if as_v4(packet.src).or(as_v4(packet.dst)).is_some() {
            return self.refuse(io, place, DropReason::BadSource); // No address on a wire (RFC 4291 §2.5.5).
        }
        let [kind, _] = packet.head.dport.to_be_bytes();
        if packet.head.proto != ipv6::ICMPV6 {
            return self.for_kernel_or(io, place, packet, origin, DropReason::UnknownProtocol);
        }
        match kind {
            nd::SOLICITATION | nd::ADVERTISEMENT => self.discovery(io, place, packet, origin),
            // Of the link's routers; what crossed one is forged.
            nd::ROUTER_SOLICITATION | nd::ROUTER_ADVERTISEMENT | nd::REDIRECT if packet.head.ttl == nd::HOP_LIMIT => {
                self.for_kernel(io, place, Class::Arp, origin);
            }
            icmpv6::ECHO_REQUEST if !ipv6::is_multicast(packet.dst) => self.echo_v6(io, place, packet, origin),
            _ if quote6::is_error(packet) => self.icmpv6_error(io, place, packet, origin),
            _ => self.for_kernel_or(io, place, packet, origin, DropReason::BadIcmp),
        }
    }

    /// Answers solicitations of addresses of ours, gives advertisements to control.
    fn discovery<I: Io>(&mut self, io: &mut I, place: usize, packet: &V6, origin: Origin) {
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        let message = nd::parse(packet.src, packet.dst, packet.head.ttl, packet.head.segment(frame));
        let heard = frame.get(..packet.head.end()).filter(|heard| heard.len() <= LONGEST_HEARD);
        let (Ok(message), Some(heard)) = (message, heard) else {
            return self.refuse(io, place, DropReason::BadNd);
        };
        match message {
            Nd::Advertisement { .. } => {
                // A full ring: control is busy or dead, it asks again.
                self.slot.to_control.push(RecordKind::Learn, [u32::from(self.port.number), 0, 0, 0, 0], heard);
                if self.kernel.is_none() {
                    return self.refuse(io, place, DropReason::HandledNd);
                }
                // Perhaps the answer to a question of the kernel's.
                self.for_kernel(io, place, Class::Arp, origin);
            }
            Nd::Solicitation { target, .. } if self.answers_for(target) => {
                let (asker, mac) = (ethernet::src(frame), self.port.mac);
                let mut answer = [0; OWN_FRAME_V6];
                let len = asker.filter(|asker| asker.is_unicast() && *asker != mac);
                let len = len.and_then(|to| nd::answer(&mut answer, to, packet.src, mac, target, self.port.vlan));
                let Some(len) = len else { return self.refuse(io, place, DropReason::BadNd) };
                if !io.resize(place, len) {
                    return self.refuse(io, place, DropReason::NoBuffer);
                }
                if let Some(frame) = io.frame(place).and_then(|frame| frame.get_mut(..len)) {
                    frame.copy_from_slice(&answer[..len]);
                }
                self.send_back(io, place);
            }
            // Perhaps the kernel's: it has a link-local address of its own making.
            Nd::Solicitation { .. } if self.kernel.is_some() => self.for_kernel(io, place, Class::Arp, origin),
            Nd::Solicitation { .. } => self.refuse(io, place, DropReason::BadNd),
        }
    }

    fn echo_v6<I: Io>(&mut self, io: &mut I, place: usize, packet: &V6, origin: Origin) {
        if !icmpv6::is_echo_request(packet) {
            return self.for_kernel_or(io, place, packet, origin, DropReason::BadIcmp);
        }
        if !self.answers_for(packet.dst) {
            return self.refuse(io, place, DropReason::NotForUs);
        }
        if !self.answerable_v6(io, place, packet) {
            return self.refuse(io, place, DropReason::BadSource);
        }
        if !self.answers.allow(self.now_ms) {
            return self.refuse(io, place, DropReason::RateLimited);
        }
        let mac = self.port.mac;
        if io.frame(place).is_none_or(|frame| !icmpv6::echo_reply(frame, packet, mac)) {
            return self.refuse(io, place, DropReason::BadIcmp);
        }
        self.send_back(io, place);
    }

    /// As [`answerable`](Self::answerable).
    pub(crate) fn answerable_v6<I: Io>(&self, io: &mut I, place: usize, packet: &V6) -> bool {
        self.generation.is_some_and(|generation| !self.bad_source_v6(packet.src, generation))
            && self.came_from_one_station(io, place)
    }

    /// As [`bad_source`](Self::bad_source).
    pub(crate) fn bad_source_v6(&self, src: Ip, generation: Generation) -> bool {
        let published = &self.shared.published;
        !ipv6::is_source(src)
            || published.is_vip(generation, src)
            || published.find_local(generation, src).is_some()
            || self.is_port_address(src)
    }

    /// Does the port take part in IPv6? (Then it has a link-local address as well, made of its MAC.)
    fn speaks_v6(&self) -> bool {
        let port = self.shared.published.ports.get(usize::from(self.port.number));
        let v6 = |ip: Ip| as_v4(ip).is_none();
        port.is_some_and(|port| port.addresses.iter().any(|row| row.get().is_some_and(|(ip, _)| v6(ip))))
    }

    /// The address of the port's link, made of its MAC.
    pub(crate) fn is_link_local_of_port(&self, ip: Ip) -> bool {
        ip == nd::link_local(self.port.mac) && self.speaks_v6()
    }

    /// Is it the MAC of an IPv6 group, which every station of the link may be in?
    pub(crate) fn group_v6(&self, to: Option<Mac>) -> bool {
        to.is_some_and(|to| to.0[0] == 0x33 && to.0[1] == 0x33) && self.speaks_v6()
    }
}

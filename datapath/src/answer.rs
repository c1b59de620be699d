//! What the appliance answers itself: ARP, echo, resets. Answers go back by the way the packet came.

use std::sync::atomic::Ordering::Relaxed; // One writer.

use packet::arp::{self, Operation};
use packet::build::{self, Link};
use packet::tunnel;
use packet::{Mac, ParseError, Parsed, V4, ethernet, icmp, nd, quote};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::neighbours::{Ip, as_v4, ip4};
use shm_layout::published::Generation;
use shm_layout::ring::RecordKind;
use shm_layout::session::{AddressLine, SessionRow, State, flag};

use crate::burst::Flight;
use crate::discovery::OWN_FRAME_V6;
use crate::family::Packet;
use crate::io::Io;
use crate::kernel::Class;
use crate::runner::{Origin, SlotRunner, mac_of};
use crate::wide::load;

/// Room for a frame of our own: Ethernet header with a tag, IPv6 and TCP headers.
const OWN_FRAME: usize = 78;
/// The longest header a tunnel puts in front, bytes: IPv6.
const OUTER_MAX: usize = 40;
/// Addresses announced in one turn: traffic goes before.
const ANNOUNCED_PER_TURN: usize = 8;

impl SlotRunner {
    /// Everything that is not well-formed TCP or UDP over IPv4 to our MAC.
    #[cold]
    pub(crate) fn other<I: Io>(&mut self, io: &mut I, place: usize, origin: Origin) {
        let (mac, vlan) = (self.port.mac, self.port.vlan);
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        let to = ethernet::dst(frame);
        let parsed = packet::classify(frame);
        // What a ring brings was judged by the slot that received it.
        let passed = origin == Origin::Ring;
        let ours = passed || to == Some(mac);
        let reason = match parsed {
            Err(ParseError::TooShort) if to.is_none() => DropReason::TooShort,
            Ok(Parsed::Arp(link)) if link.vlan == vlan && (ours || to == Some(Mac::BROADCAST)) => {
                return self.arp(io, place, link.l3, origin);
            }
            Ok(Parsed::Arp(_)) if to == Some(Mac::BROADCAST) => DropReason::UnexpectedVlan,
            Ok(Parsed::V6(packet)) if (ours || self.group_v6(to)) && (passed || packet.head.vlan == vlan) => {
                return self.other_v6(io, place, &packet, origin);
            }
            _ if !ours => DropReason::NotOurMac,
            Ok(Parsed::Icmp(packet)) if passed || packet.vlan == vlan => return self.icmp(io, place, &packet, origin),
            Ok(Parsed::Arp(_) | Parsed::Icmp(_) | Parsed::L4(_) | Parsed::V6(_)) => DropReason::UnexpectedVlan,
            Ok(Parsed::OtherL4(packet)) => {
                return self.for_kernel_or(io, place, &packet, origin, DropReason::UnknownProtocol);
            }
            Err(error) => reason_of(error),
        };
        self.refuse(io, place, reason);
    }

    /// Answers requests for addresses of ours, gives answers to control.
    fn arp<I: Io>(&mut self, io: &mut I, place: usize, l3: u8, origin: Origin) {
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        let Ok(message) = arp::parse(frame.get(usize::from(l3)..).unwrap_or(&[])) else {
            return self.refuse(io, place, DropReason::BadArp);
        };
        if message.operation == Operation::Reply || message.is_gratuitous() {
            // A full ring: control is busy or dead, it asks again. What pads the message would only fill it.
            let heard = frame.get(..usize::from(l3) + arp::MESSAGE).unwrap_or(frame);
            self.slot.to_control.push(RecordKind::Learn, [u32::from(self.port.number), 0, 0, 0, 0], heard);
            if self.kernel.is_none() {
                return self.refuse(io, place, DropReason::HandledArp);
            }
            // Perhaps the answer to a question of the kernel's.
            return self.for_kernel(io, place, Class::Arp, origin);
        }
        if !self.answers_for(ip4(message.target_ip)) {
            return self.refuse(io, place, DropReason::BadArp);
        }
        let mac = self.port.mac;
        if io.frame(place).is_none_or(|frame| arp::reply_in_place(frame, l3, mac).is_none()) {
            return self.refuse(io, place, DropReason::BadArp);
        }
        self.send_back(io, place);
    }

    /// Is it an address this port speaks for: its own, a VIP, a local address on it?
    pub(crate) fn answers_for(&self, ip: Ip) -> bool {
        let published = &self.shared.published;
        let own = published
            .ports
            .get(usize::from(self.port.number))
            .is_some_and(|port| port.addresses.iter().any(|row| row.get().is_some_and(|(a, _)| a == ip)));
        let port = u32::from(self.port.number);
        own || self.is_link_local_of_port(ip)
            || self.generation.is_some_and(|generation| {
                published.is_vip(generation, ip)
                    || published.find_local(generation, ip).is_some_and(|row| row.port.load(Relaxed) == port)
            })
    }

    /// Answers echo requests to addresses of ours, passes errors about what we forwarded on.
    fn icmp<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, origin: Origin) {
        if quote::is_error(packet) {
            return self.icmp_error(io, place, packet, origin);
        }
        if !icmp::is_echo_request(packet) {
            return self.for_kernel_or(io, place, packet, origin, DropReason::BadIcmp);
        }
        if !self.answers_for(ip4(packet.dst)) {
            return self.refuse(io, place, DropReason::NotForUs);
        }
        if !self.answerable(io, place, packet) {
            return self.refuse(io, place, DropReason::BadSource);
        }
        if !self.answers.allow(self.now_ms) {
            return self.refuse(io, place, DropReason::RateLimited);
        }
        let mac = self.port.mac;
        if io.frame(place).is_none_or(|frame| !icmp::echo_reply(frame, packet, mac)) {
            return self.refuse(io, place, DropReason::BadIcmp);
        }
        self.send_back(io, place);
    }

    /// Is there one station to answer to, on this slot's port? (Not a group, not ourselves: no reflection.)
    pub(crate) fn answerable<I: Io>(&self, io: &mut I, place: usize, packet: &impl Packet) -> bool {
        self.came_from_one_station(io, place)
            && self.generation.is_some_and(|generation| !self.bad_source(packet, generation))
    }

    /// From one station that is not we, to us.
    pub(crate) fn came_from_one_station<I: Io>(&self, io: &mut I, place: usize) -> bool {
        let Some(frame) = io.frame(place) else { return false };
        let from = ethernet::src(frame);
        ethernet::dst(frame) == Some(self.port.mac) && from.is_some_and(|mac| mac.is_unicast() && mac != self.port.mac)
    }

    pub(crate) fn send_back<I: Io>(&mut self, io: &mut I, place: usize) {
        if io.frame(place).is_none_or(|frame| frame.len() > self.port.mtu as usize + ethernet::TAGGED_HEADER) {
            return self.refuse(io, place, DropReason::TooBig);
        }
        if !io.send(place) {
            self.refuse(io, place, DropReason::TxFull);
        }
    }

    /// Drops a packet for `reason`, and answers a TCP one with a reset (RFC 9293 §3.10.7.1), unless it is a reset itself.
    pub(crate) fn answer_reset<I: Io, P: Packet>(
        &mut self,
        io: &mut I,
        place: usize,
        flight: &Flight<P>,
        reason: DropReason,
    ) {
        let mut reset = [0; OWN_FRAME];
        let built = io.frame(place).and_then(|frame| flight.packet.reset(&mut reset, frame));
        if let Some(len) = built
            && self.answerable(io, place, &flight.packet)
            && self.answers.allow(self.now_ms)
        {
            self.originate(io, &reset[..len]);
        }
        self.refuse(io, place, reason);
    }

    /// Sends a reset of our own, by a slot of the port its receiver is behind.
    pub(crate) fn send_reset<I: Io>(&mut self, io: &mut I, reset: &Reset) {
        // By address: the row the session remembers may be another neighbour's by now.
        let Some(next) = self.shared.next_hop(reset.at) else { return };
        let hop = next.hop;
        if !hop.resolved() {
            return;
        }
        let ours = next.port == self.port.number;
        let Some(port) = self.shared.published.ports.get(usize::from(next.port)) else { return };
        let vlan = if ours { self.port.vlan } else { u16::try_from(port.vlan.load(Relaxed)).unwrap_or(0) };
        let link = Link { dst: Mac(hop.mac()), src: if ours { self.port.mac } else { mac_of(port) }, vlan };
        let target = self.sender_of(port);
        let mut room = [0; OUTER_MAX + OWN_FRAME];
        let Some(len) = room.get_mut(OUTER_MAX..).and_then(|frame| reset.build(frame, link)) else { return };
        let end = OUTER_MAX + len;
        let frame = if reset.wrapped {
            let l3 = if vlan == 0 { ethernet::HEADER } else { ethernet::TAGGED_HEADER };
            let outer = self.outer_to(reset.at, reset.from, next.port);
            outer.zip(u8::try_from(l3).ok()).and_then(|(outer, l3)| {
                let whole = room.get_mut(OUTER_MAX - usize::from(outer.len())..end)?;
                tunnel::wrap(whole, l3, outer).map(|()| whole)
            })
        } else {
            room.get_mut(OUTER_MAX..end)
        };
        match frame {
            Some(frame) if ours => self.originate(io, frame),
            Some(frame) => self.originate_elsewhere(frame, target),
            None => {}
        }
    }

    /// A frame of our own that another slot sends.
    fn originate_elsewhere(&mut self, frame: &[u8], target: u32) {
        self.counts.add(Flow::Originated, 1);
        let ring = self.shared.slots.get(target as usize).and_then(|slot| slot.inbound.get(self.number as usize));
        if ring.is_some_and(|ring| ring.push(RecordKind::Send, [0; 5], frame)) {
            self.counts.add(Flow::ToRing, 1);
        } else {
            self.counts.drop(DropReason::RingFull);
        }
    }

    /// Notes the addresses the neighbours have not been told yet. The first slot of a port speaks for it.
    pub(crate) fn plan_announcements(&mut self, generation: Generation) {
        let first = self.shared.published.slots.get(self.number as usize).is_some_and(|s| s.queue.load(Relaxed) == 0);
        if first {
            let addresses = self.own_addresses(generation);
            self.to_announce.extend(addresses.iter().filter(|a| self.announced.binary_search(a).is_err()));
            self.announced = addresses;
        }
    }

    /// Tells the neighbours where our addresses are, a few per turn: gratuitous ARP (RFC 5227 §3), unsolicited advertisements
    /// (RFC 4861 §7.2.6).
    pub(crate) fn announce<I: Io>(&mut self, io: &mut I) -> usize {
        let mut told = 0;
        while told < ANNOUNCED_PER_TURN
            && let Some(address) = self.to_announce.pop()
        {
            let mut frame = [0; OWN_FRAME_V6];
            let (mac, vlan) = (self.port.mac, self.port.vlan);
            let built = match as_v4(address) {
                Some(address) => build::garp(&mut frame, mac, address, vlan),
                None => nd::announce(&mut frame, mac, address, vlan),
            };
            if let Some(len) = built {
                self.originate(io, &frame[..len]);
            }
            told += 1;
        }
        told
    }

    fn own_addresses(&self, generation: Generation) -> Vec<Ip> {
        let published = &self.shared.published;
        let mut addresses: Vec<Ip> = Vec::new();
        if let Some(port) = published.ports.get(usize::from(self.port.number)) {
            addresses.extend(port.addresses.iter().filter_map(|row| row.get().map(|(ip, _)| ip)));
        }
        let directory = published.directory(generation);
        let count = directory.head.services.load(Relaxed);
        let services = (0..count).filter_map(|index| published.service(generation, index));
        addresses.extend(services.map(|s| [s.vip[0].load(Relaxed), s.vip[1].load(Relaxed)]));
        let locals = directory.locals.iter().take(directory.head.locals.load(Relaxed) as usize);
        let own = locals.filter(|row| row.port.load(Relaxed) == u32::from(self.port.number));
        addresses.extend(own.map(|row| [row.ip[0].load(Relaxed), row.ip[1].load(Relaxed)]));
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    pub(crate) fn originate<I: Io>(&mut self, io: &mut I, frame: &[u8]) {
        self.counts.add(Flow::Originated, 1);
        if !io.originate(frame) {
            self.counts.drop(DropReason::NoBuffer);
        }
    }
}

/// A reset towards one side of a session, with the number that side expects.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reset {
    from: (Ip, u16),
    to: (Ip, u16),
    seq: u32,
    /// Who gets it: the receiver, or the server that has the receiver's address.
    at: Ip,
    /// In a tunnel.
    wrapped: bool,
}

impl Reset {
    /// Writes it; both its ends are of one family.
    fn build(&self, buf: &mut [u8], link: Link) -> Option<usize> {
        let ((from, sport), (to, dport)) = (self.from, self.to);
        match (as_v4(from), as_v4(to)) {
            (Some(from), Some(to)) => build::tcp(buf, link, &build::rst((from, sport), (to, dport), self.seq, None)),
            _ => build::tcp_v6(buf, link, &build::rst(self.from, self.to, self.seq, None)),
        }
    }

    /// The resets that end a session at its client and its server; none for UDP.
    pub(crate) fn both(row: &SessionRow, line: Option<&AddressLine>) -> [Option<Self>; 2] {
        let state = row.state.load(Relaxed);
        let over = state == State::TimeWait as u8 || state == State::Close as u8;
        if row.flags.load(Relaxed) & flag::UDP != 0 || over {
            return [None; 2];
        }
        let direct = row.flags.load(Relaxed) & flag::DIRECT != 0;
        let [client, vip, local, server] = match line {
            Some(line) if direct => [&line.client, &line.vip, &line.client, &line.vip].map(load),
            Some(line) => [&line.client, &line.vip, &line.local, &line.server].map(load),
            None => [&row.client_ip, &row.vip, &row.local_ip, &row.server_ip].map(|word| ip4(word.load(Relaxed))),
        };
        // Each side expects what it has acknowledged; before that, what its peer began with.
        let acked = row.ack[0].load(Relaxed);
        let to_client = Self {
            from: (vip, row.vip_port.load(Relaxed)),
            to: (client, row.client_port.load(Relaxed)),
            at: client,
            seq: if acked == 0 { row.end[1].load(Relaxed) } else { acked },
            wrapped: false,
        };
        // Of a server that replies past us only what its client sent is known.
        let acked = if direct { 0 } else { row.ack[1].load(Relaxed) };
        let to_server = Self {
            from: (local, row.local_port.load(Relaxed)),
            to: (server, row.server_port.load(Relaxed)),
            at: line.map_or_else(|| ip4(row.real_server()), |line| load(&line.server)),
            seq: (if acked == 0 { row.end[0].load(Relaxed) } else { acked }).wrapping_add(row.shift()),
            wrapped: direct && row.flags.load(Relaxed) & flag::TUNNEL != 0,
        };
        [Some(to_client), Some(to_server)]
    }
}

/// The drop reason of a parser's refusal.
fn reason_of(error: ParseError) -> DropReason {
    match error {
        ParseError::TooShort => DropReason::TooShort,
        ParseError::NotIp => DropReason::UnknownEthertype,
        ParseError::BadVersion | ParseError::BadIhl | ParseError::BadTotalLength => DropReason::BadIpHeader,
        ParseError::BadIpChecksum => DropReason::BadIpChecksum,
        ParseError::Fragment => DropReason::IpFragment,
        ParseError::BadExtension => DropReason::Ipv6Extension,
        ParseError::BadTcpOffset | ParseError::TcpTooShort => DropReason::BadTcpHeader,
        ParseError::UdpTooShort | ParseError::BadUdpLength => DropReason::BadUdpHeader,
        ParseError::IcmpTooShort => DropReason::BadIcmp,
    }
}

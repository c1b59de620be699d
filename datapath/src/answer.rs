//! What the appliance answers itself: ARP, echo, resets. Answers go back by the way the packet came.

use std::sync::atomic::Ordering::Relaxed; // One writer.

use packet::ethernet::{self, EtherType, Mac};
use packet::parse::{self, ParseError};
use packet::{arp, build, icmp};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::neighbours::ip4;
use shm_layout::published::protocol;
use shm_layout::ring::RecordKind;
use shm_layout::session::{State, flag};

use crate::burst::Flight;
use crate::io::Io;
use crate::runner::{Origin, SlotRunner};
use crate::tcp::{ACK, RST};

/// Room for a frame of our own: Ethernet, IPv4 and TCP headers, padded to the Ethernet minimum.
const OWN_FRAME: usize = 64;

impl SlotRunner {
    /// Everything that is not well-formed TCP or UDP over IPv4 to our MAC.
    #[cold]
    pub(crate) fn other<I: Io>(&mut self, io: &mut I, place: usize, origin: Origin) {
        let mac = self.port.mac;
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        let reason = match parse::transport(frame, mac) {
            Err(ParseError::Arp) => return self.arp(io, place),
            Err(ParseError::Icmp) => return self.icmp(io, place, origin),
            Err(error) => reason_of(error),
            Ok(_) => DropReason::BadRecord, // The parser said no a moment ago: the frame changed under our hands.
        };
        self.refuse(io, place, reason);
    }

    /// Answers requests for addresses of ours, gives answers to control.
    fn arp<I: Io>(&mut self, io: &mut I, place: usize) {
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        let Some(message) = arp::parse(frame) else { return self.refuse(io, place, DropReason::BadArp) };
        if message.operation == arp::Operation::Reply {
            // A full ring: control is busy or dead, it asks again.
            self.slot.to_control.push(RecordKind::Learn, [u32::from(self.port.number), 0, 0, 0, 0], frame);
            return self.refuse(io, place, DropReason::HandledArp);
        }
        if !self.answers_for(message.target_ip) || message.sender_ip == message.target_ip {
            return self.refuse(io, place, DropReason::BadArp);
        }
        let mac = self.port.mac;
        if let Some(frame) = io.frame(place) {
            arp::into_reply(frame, &message, mac);
        }
        self.send_back(io, place);
    }

    /// Is it an address this port speaks for: its own, a VIP, a local address on it?
    fn answers_for(&self, address: u32) -> bool {
        let ip = ip4(address);
        let published = &self.shared.published;
        let own = published.ports.get(usize::from(self.port.number)).is_some_and(|port| {
            port.addresses.iter().any(|row| row.get().is_some_and(|(a, _)| a == ip))
        });
        let port = u32::from(self.port.number);
        own || self.generation.is_some_and(|generation| {
            published.is_vip(generation, ip)
                || published.find_local(generation, ip).is_some_and(|row| row.port.load(Relaxed) == port)
        })
    }

    /// Answers echo requests to addresses of ours.
    fn icmp<I: Io>(&mut self, io: &mut I, place: usize, _origin: Origin) {
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        let Some(echo) = icmp::parse_echo_request(frame) else { return self.refuse(io, place, DropReason::BadIcmp) };
        if !self.answers_for(echo.dst) {
            return self.refuse(io, place, DropReason::NotForUs);
        }
        if !self.answers.allow(self.now_ms) {
            return self.refuse(io, place, DropReason::RateLimited);
        }
        if let Some(frame) = io.frame(place) {
            icmp::into_echo_reply(frame, &echo);
        }
        self.send_back(io, place);
    }

    fn send_back<I: Io>(&mut self, io: &mut I, place: usize) {
        if let Some(frame) = io.frame(place) {
            let to = ethernet::source(frame);
            ethernet::set_addresses(frame, to, self.port.mac);
        }
        if !io.send(place) {
            self.refuse(io, place, DropReason::TxFull);
        }
    }

    /// Drops a packet for `reason`, and answers a TCP one with a reset (RFC 9293 §3.10.7.1), unless it is a reset itself.
    pub(crate) fn answer_reset<I: Io>(&mut self, io: &mut I, place: usize, flight: &Flight, reason: DropReason) {
        let parsed = &flight.parsed;
        if parsed.protocol == protocol::TCP && parsed.tcp_flags & RST == 0 && self.answers.allow(self.now_ms) {
            let mut reset = [0; OWN_FRAME];
            let to = io.frame(place).map(|frame| ethernet::source(frame)).unwrap_or(Mac::BROADCAST);
            let (seq, ack, flags) = if parsed.tcp_flags & ACK != 0 {
                (parsed.ack, 0, RST)
            } else {
                (0, parsed.seq.wrapping_add(parsed.segment_len), RST | ACK)
            };
            let len = build::tcp_control(&mut reset, &build::Control {
                dst_mac: to,
                src_mac: self.port.mac,
                src: parsed.dst,
                dst: parsed.src,
                sport: parsed.dport,
                dport: parsed.sport,
                seq,
                ack,
                flags,
            });
            self.originate(io, &reset[..len]);
        }
        self.refuse(io, place, reason);
    }

    /// Ends a session by order: resets to both sides with the numbers each expects, keys and port free at once.
    pub(crate) fn end_with_resets<I: Io>(&mut self, io: &mut I, index: u32) {
        let Some(row) = self.sessions.row(index) else { return };
        let flags = row.flags.load(Relaxed);
        if flags & flag::UDP == 0 && row.state.load(Relaxed) != State::SynSent as u8 {
            let shift = row.isn_shift.load(Relaxed);
            let to_client = (
                (row.vip.load(Relaxed), row.vip_port.load(Relaxed)),
                (row.client_ip.load(Relaxed), row.client_port.load(Relaxed)),
                row.end[1].load(Relaxed),
                row.client_hop.load(Relaxed),
            );
            let to_server = (
                (row.local_ip.load(Relaxed), row.local_port.load(Relaxed)),
                (row.server_ip.load(Relaxed), row.server_port.load(Relaxed)),
                row.ack[1].load(Relaxed).wrapping_add(shift),
                row.server_hop.load(Relaxed),
            );
            // The client expects what it has acknowledged; before its first acknowledgement, the server's end.
            let acked = row.ack[0].load(Relaxed);
            let client_expects = if acked == 0 { to_client.2 } else { acked };
            for (from, to, seq, hop_row) in [(to_client.0, to_client.1, client_expects, to_client.3), to_server] {
                let hop = self.shared.neighbours.hop(hop_row);
                if !hop.resolved() || hop.port() != self.port.number {
                    continue;
                }
                let mut reset = [0; OWN_FRAME];
                let len = build::tcp_control(&mut reset, &build::Control {
                    dst_mac: Mac(hop.mac()),
                    src_mac: self.port.mac,
                    src: from.0,
                    dst: to.0,
                    sport: from.1,
                    dport: to.1,
                    seq,
                    ack: 0,
                    flags: RST,
                });
                self.originate(io, &reset[..len]);
            }
        }
        self.sessions.close(index);
        self.counts.add(Flow::Ended, 1);
    }

    /// Tells the neighbours where our addresses are: gratuitous ARP for every address this port speaks for.
    pub fn announce<I: Io>(&mut self, io: &mut I) {
        let mut frame = [0; OWN_FRAME];
        for address in self.own_addresses() {
            let len = arp::gratuitous(&mut frame, self.port.mac, address);
            self.originate(io, &frame[..len]);
            if io.queued() >= shm_layout::limits::RX_BURST {
                self.finish(io, true);
            }
        }
        self.finish(io, true);
    }

    fn own_addresses(&self) -> Vec<u32> {
        let v4 = |ip: shm_layout::neighbours::Ip| (ip4(0)[1] >> 32 == ip[1] >> 32 && ip[0] == 0).then_some(ip[1]);
        let published = &self.shared.published;
        let mut addresses: Vec<u64> = Vec::new();
        if let Some(port) = published.ports.get(usize::from(self.port.number)) {
            addresses.extend(port.addresses.iter().filter_map(|row| row.get().and_then(|(ip, _)| v4(ip))));
        }
        if let Some(generation) = self.generation {
            let directory = published.directory(generation);
            let count = directory.head.services.load(Relaxed);
            let services = (0..count).filter_map(|index| published.service(generation, index));
            addresses.extend(services.filter_map(|s| v4([s.vip[0].load(Relaxed), s.vip[1].load(Relaxed)])));
            let locals = directory.locals.iter().take(directory.head.locals.load(Relaxed) as usize);
            let own = locals.filter(|row| row.port.load(Relaxed) == u32::from(self.port.number));
            addresses.extend(own.filter_map(|row| v4([row.ip[0].load(Relaxed), row.ip[1].load(Relaxed)])));
        }
        addresses.sort_unstable();
        addresses.dedup();
        #[allow(clippy::cast_possible_truncation, reason = "the IPv4 address is the low half")]
        addresses.into_iter().map(|address| address as u32).collect()
    }

    fn originate<I: Io>(&mut self, io: &mut I, frame: &[u8]) {
        self.counts.add(Flow::Originated, 1);
        if !io.originate(frame) {
            self.counts.drop(DropReason::NoBuffer);
        }
    }
}

/// The drop reason of a parser's refusal.
fn reason_of(error: ParseError) -> DropReason {
    match error {
        ParseError::TooShort => DropReason::TooShort,
        ParseError::NotOurMac => DropReason::NotOurMac,
        ParseError::Vlan => DropReason::UnexpectedVlan,
        ParseError::Ipv6 => DropReason::Ipv6,
        ParseError::NotIp => DropReason::UnknownEthertype,
        ParseError::BadVersion | ParseError::BadIhl | ParseError::BadTotalLength => DropReason::BadIpHeader,
        ParseError::BadIpChecksum => DropReason::BadIpChecksum,
        ParseError::Fragment => DropReason::IpFragment,
        ParseError::BadTcpOffset | ParseError::TcpTooShort => DropReason::BadTcpHeader,
        ParseError::UdpTooShort | ParseError::BadUdpLength => DropReason::BadUdpHeader,
        ParseError::OtherProtocol => DropReason::UnknownProtocol,
        ParseError::Arp => DropReason::BadArp,
        ParseError::Icmp => DropReason::BadIcmp,
    }
}

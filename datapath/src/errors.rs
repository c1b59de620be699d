//! ICMP errors about packets of sessions: translated for the end that sent the packet, between the families too (NAT64). They
//! change nothing (RFC 5927), so that path MTU discovery works through us and nobody ends a session by a forged one.

use std::sync::atomic::Ordering::Relaxed; // Session rows have one writer, this slot.

use packet::build::Link;
use packet::icmp64::{self, Mtus};
use packet::quote::{self, Quote};
use packet::quote6::{self, Quote6};
use packet::{Mac, Rewrite, V4, V6, ethernet};
use shm_layout::counters::DropReason;
use shm_layout::neighbours::{Ip, as_v4, ip4};
use shm_layout::published::protocol;
use shm_layout::ring::RecordKind;
use shm_layout::session::{AddressLine, SessionRow, flag};

use crate::family::Packet;
use crate::io::Io;
use crate::runner::{Origin, SlotRunner};
use crate::session::{Direction, Tuple};
use crate::wide::load;

/// A quoted packet of either family.
struct About {
    src: (Ip, u16),
    dst: (Ip, u16),
    seq: u32,
    proto: u8,
}

/// Whom an error is for, and what it is to say.
struct Told {
    index: u32,
    /// Of the error.
    direction: Direction,
    /// From, to.
    outer: (Ip, Ip),
    /// The quoted packet as its sender sent it.
    packet: Rewrite<Ip>,
    /// The server has the VIP: it sent the quoted packet as it is.
    direct: bool,
}

impl SlotRunner {
    /// An ICMP error to one of our addresses.
    pub(crate) fn icmp_error<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, origin: Origin) {
        if let Some((far, quote)) = io.frame(place).and_then(|frame| quote::read_tunnelled(frame, packet)) {
            return self.tunnel_error(io, place, packet, (far, &quote), origin);
        }
        let quote = io.frame(place).and_then(|frame| quote::read(frame, packet));
        let about =
            quote.map(|q| About { src: (ip4(q.src), q.sport), dst: (ip4(q.dst), q.dport), seq: q.seq, proto: q.proto });
        let Some((told, quote)) = self.reported(io, place, packet, about, origin).zip(quote) else { return };
        let done = match (as_v4(told.outer.0), as_v4(told.outer.1)) {
            (Some(from), Some(to)) => {
                let made = io.frame(place).zip(told.packet_v4());
                made.and_then(|(frame, quoted)| quote::translate(frame, packet, &quote, (from, to), &quoted))
                    .map(|()| *packet)
            }
            _ => self.tell_v6(io, place, packet, &quote, &told),
        };
        self.tell(io, place, done, &told);
    }

    /// An ICMPv6 error to one of our addresses.
    pub(crate) fn icmpv6_error<I: Io>(&mut self, io: &mut I, place: usize, packet: &V6, origin: Origin) {
        let quote = io.frame(place).and_then(|frame| quote6::read(frame, packet));
        let about = quote.map(|q| About { src: (q.src, q.sport), dst: (q.dst, q.dport), seq: q.seq, proto: q.proto });
        let Some((told, quote)) = self.reported(io, place, packet, about, origin).zip(quote) else { return };
        let done = if as_v4(told.outer.1).is_some() {
            self.tell_v4(io, place, packet, &quote, &told)
        } else {
            let frame = io.frame(place);
            frame
                .and_then(|frame| quote6::translate(frame, packet, &quote, told.outer, &told.packet))
                .map(|()| packet.head)
        };
        self.tell(io, place, done, &told);
    }

    /// Finds the session and judges the error; `None`: its packet has found its verdict.
    fn reported<I: Io, P: Packet>(
        &mut self,
        io: &mut I,
        place: usize,
        packet: &P,
        about: Option<About>,
        origin: Origin,
    ) -> Option<Told> {
        // Whoever reports a packet tells its sender.
        let Some(about) = about.filter(|about| about.src.0 == packet.destination()) else {
            // About something else of the kernel's own, an echo request for instance.
            self.for_kernel_or(io, place, packet, origin, DropReason::BadIcmp);
            return None;
        };
        // What comes the other way has the quoted packet's addresses turned round.
        let (ends, hash_key) = ([about.dst.0, about.src.0], self.sessions.hash_key());
        let wanted = Tuple::new(ends, about.dst.1, about.src.1, about.proto, hash_key);
        let Some((index, direction)) = self.sessions.find(wanted) else {
            match self.elsewhere(wanted).filter(|_| origin == Origin::Port) {
                Some(target) => self.pass_on(io, place, target, RecordKind::Redirect),
                // Perhaps about a packet of the kernel's own.
                None => self.for_kernel_or(io, place, packet, origin, DropReason::NoSession),
            }
            return None;
        };
        let row = self.slot.sessions.get(index as usize).filter(|row| row.flags.load(Relaxed) & flag::INDEXED != 0);
        let judged = row.ok_or(DropReason::BadRecord).and_then(|row| {
            // Of a server that replies past us the numbers are not known.
            let direct = row.flags.load(Relaxed) & flag::DIRECT != 0;
            match about.proto {
                protocol::TCP if !direct && !in_flight(row, direction, about.seq) => Err(DropReason::BadIcmp),
                _ if packet.head().ttl <= 1 => Err(DropReason::TtlExpired),
                _ if !self.errors.allow(self.now_ms) => Err(DropReason::RateLimited),
                _ => Ok((row, direct)),
            }
        });
        match judged {
            Ok((row, direct)) => {
                let (outer, quoted) = match direct {
                    true => ((packet.source(), packet.destination()), as_it_is(&about)),
                    false => turned(row, self.slot.line(index), direction),
                };
                Some(Told { index, direction, outer, packet: quoted, direct })
            }
            Err(reason) => {
                self.refuse(io, place, reason);
                None
            }
        }
    }

    /// Sends the error that lies in `place` now: `head` has its lengths; `None`: there is nothing to tell.
    fn tell<I: Io>(&mut self, io: &mut I, place: usize, head: Option<V4>, told: &Told) {
        let Some(head) = head else { return self.refuse(io, place, DropReason::BadIcmp) };
        let Some(row) = self.slot.sessions.get(told.index as usize) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let wrapped = told.direct && row.flags.load(Relaxed) & flag::TUNNEL != 0;
        if wrapped && told.direction == Direction::Client {
            return self.wrap_and_leave(io, place, &head, told.index);
        }
        if let Some(hop) = self.find_hop(io, place, told.index, told.direction) {
            self.leave(io, place, hop, &head);
        }
    }

    /// What a router of the IPv4 side reports, for the IPv6 client.
    fn tell_v6<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, quote: &Quote, told: &Told) -> Option<V4> {
        let mtus = self.mtus(told)?;
        let (scratch, frame) = (self.scratch.as_mut_slice(), io.frame(place)?);
        let link = link(packet);
        let len = icmp64::to_v6(scratch, link, (frame, packet, quote), &told.packet, mtus)?;
        self.replace(io, place, packet, len)
    }

    /// What a router of the IPv6 side reports, for the IPv4 server.
    fn tell_v4<I: Io>(&mut self, io: &mut I, place: usize, packet: &V6, quote: &Quote6, told: &Told) -> Option<V4> {
        let (mtus, quoted) = (self.mtus(told)?, told.packet_v4()?);
        let (scratch, frame) = (self.scratch.as_mut_slice(), io.frame(place)?);
        let len = icmp64::to_v4(scratch, link(&packet.head), (frame, packet, quote), &quoted, mtus)?;
        self.replace(io, place, &packet.head, len)
    }

    /// MTUs towards both ends of a session.
    fn mtus(&self, told: &Told) -> Option<Mtus> {
        let row = self.slot.sessions.get(told.index as usize)?;
        let of = |direction| self.mtu_towards(told.index, row, direction);
        Some(Mtus { v6: of(Direction::Server), v4: of(Direction::Client) })
    }

    /// Puts what `scratch` holds in the place of a frame. Returns its lengths.
    fn replace<I: Io>(&self, io: &mut I, place: usize, before: &V4, len: usize) -> Option<V4> {
        let made = self.scratch.get(..len)?;
        if !io.resize(place, len) {
            return None;
        }
        io.frame(place)?.get_mut(..len)?.copy_from_slice(made);
        let l3 = if before.vlan == 0 { ethernet::HEADER } else { ethernet::TAGGED_HEADER };
        Some(V4 { l3: u8::try_from(l3).ok()?, total_len: u16::try_from(len - l3).ok()?, ..*before })
    }
}

impl Told {
    /// `None`: it is not IPv4.
    fn packet_v4(&self) -> Option<Rewrite> {
        let Rewrite { sport, dport, seq_add, ack_sub, src, dst } = self.packet;
        Some(Rewrite { src: as_v4(src)?, dst: as_v4(dst)?, sport, dport, seq_add, ack_sub })
    }
}

/// The link addresses come last.
fn link(packet: &V4) -> Link {
    Link { dst: Mac::ZERO, src: Mac::ZERO, vlan: packet.vlan }
}

/// Is the quoted segment one that its receiver has not acknowledged yet? (RFC 5927 §4.1.) `direction`: of the error.
fn in_flight(row: &SessionRow, direction: Direction, seq: u32) -> bool {
    let (sender, seq) = match direction {
        Direction::Client => (1, seq),
        Direction::Server => (0, seq.wrapping_sub(row.shift())),
    };
    let (acked, end) = (row.ack[1 - sender].load(Relaxed), row.end[sender].load(Relaxed));
    // Before its SYN is acknowledged `acked` is one more than the SYN's number.
    seq.wrapping_sub(acked.wrapping_sub(1)) <= end.wrapping_sub(acked.wrapping_sub(1))
}

/// The quoted packet unchanged.
const fn as_it_is(about: &About) -> Rewrite<Ip> {
    let (src, dst, sport, dport) = (about.src.0, about.dst.0, about.src.1, about.dst.1);
    Rewrite { src, dst, sport, dport, seq_add: 0, ack_sub: 0 }
}

/// Addresses of the error, and the quoted packet as its sender sent it. Who reported it is not told to the other side, which
/// may have no route to there: the error comes from where the sender sent its packet to.
fn turned(row: &SessionRow, line: Option<&AddressLine>, direction: Direction) -> ((Ip, Ip), Rewrite<Ip>) {
    let [client, vip, local, server] = match line {
        Some(line) => [&line.client, &line.vip, &line.local, &line.server].map(load),
        None => [&row.client_ip, &row.vip, &row.local_ip, &row.server_ip].map(|word| ip4(word.load(Relaxed))),
    };
    let [client_port, vip_port, local_port, server_port] =
        [&row.client_port, &row.vip_port, &row.local_port, &row.server_port].map(|port| port.load(Relaxed));
    let shift = row.shift().wrapping_neg();
    let packet = match direction {
        // The client's side reports: the server's packet had the shift taken from its acknowledgement.
        Direction::Client => {
            Rewrite { src: server, dst: local, sport: server_port, dport: local_port, seq_add: 0, ack_sub: shift }
        }
        // The server's side reports: the client's had it added to its number.
        Direction::Server => {
            Rewrite { src: client, dst: vip, sport: client_port, dport: vip_port, seq_add: shift, ack_sub: 0 }
        }
    };
    ((packet.dst, packet.src), packet)
}

//! ICMP errors about packets of sessions: translated for the end that sent the packet. They change nothing (RFC 5927), so
//! that path MTU discovery works through us and nobody ends a session by a forged one.

use std::sync::atomic::Ordering::Relaxed; // Session rows have one writer, this slot.

use packet::quote::{self, Quote, Told};
use packet::{V4, icmp};
use shm_layout::counters::DropReason;
use shm_layout::published::protocol;
use shm_layout::ring::RecordKind;
use shm_layout::session::{SessionRow, flag};

use crate::io::Io;
use crate::runner::{Origin, SlotRunner};
use crate::session::{Direction, Key};
use crate::tunnel;

impl SlotRunner {
    /// An ICMP error to one of our addresses.
    pub(crate) fn icmp_error<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, origin: Origin) {
        if let Some((far, quote)) = io.frame(place).and_then(|frame| quote::read_tunnelled(frame, packet)) {
            return self.tunnel_error(io, place, packet, (far, &quote), origin);
        }
        let quote = io.frame(place).and_then(|frame| quote::read(frame, packet));
        // Whoever reports a packet tells its sender.
        let Some(quote) = quote.filter(|quote| quote.src == packet.dst) else {
            // About something else of the kernel's own, an echo request for instance.
            return self.for_kernel_or(io, place, packet, origin, DropReason::BadIcmp);
        };
        // What comes the other way has the quoted packet's addresses turned round.
        let key = Key::new(quote.dst, quote.dport, quote.src, quote.sport, quote.proto);
        let Some((index, direction)) = self.sessions.find(key) else {
            return match self.elsewhere(key).filter(|_| origin == Origin::Port) {
                Some(target) => self.pass_on(io, place, target, RecordKind::Redirect),
                // Perhaps about a packet of the kernel's own.
                None => self.for_kernel_or(io, place, packet, origin, DropReason::NoSession),
            };
        };
        let row = self.slot.sessions.get(index as usize).filter(|row| row.flags.load(Relaxed) & flag::INDEXED != 0);
        let Some(row) = row else { return self.refuse(io, place, DropReason::BadRecord) };
        if row.flags.load(Relaxed) & flag::V6 != 0 {
            return self.refuse(io, place, DropReason::BadIcmp); // Of NAT64: not translated yet.
        }
        // Of a server that replies past us the numbers are not known.
        let direct = row.flags.load(Relaxed) & flag::DIRECT != 0;
        if quote.proto == protocol::TCP && !direct && !in_flight(row, direction, &quote) {
            return self.refuse(io, place, DropReason::BadIcmp);
        }
        if packet.ttl <= 1 {
            return self.refuse(io, place, DropReason::TtlExpired);
        }
        if !self.errors.allow(self.now_ms) {
            return self.refuse(io, place, DropReason::RateLimited);
        }
        let (outer, to) = if direct { as_it_is(packet, &quote) } else { turned(row, direction) };
        if io.frame(place).and_then(|frame| quote::translate(frame, packet, &quote, outer, &to)).is_none() {
            return self.refuse(io, place, DropReason::BadIcmp);
        }
        if row.flags.load(Relaxed) & flag::TUNNEL != 0 && direction == Direction::Client {
            return self.wrap_and_leave(io, place, packet, index);
        }
        if let Some(hop) = self.find_hop(io, place, index, direction) {
            self.leave(io, place, hop, packet);
        }
    }

    /// An error about a packet of a tunnel, sent to the end we are: its session's client is told.
    #[cold]
    fn tunnel_error<I: Io>(
        &mut self,
        io: &mut I,
        place: usize,
        packet: &V4,
        (far, quote): (u32, &Quote),
        origin: Origin,
    ) {
        let key = Key::new(quote.src, quote.sport, quote.dst, quote.dport, quote.proto);
        let Some((index, _)) = self.sessions.find(key) else {
            return match self.elsewhere(key).filter(|_| origin == Origin::Port) {
                Some(target) => self.pass_on(io, place, target, RecordKind::Redirect),
                None => self.for_kernel_or(io, place, packet, origin, DropReason::NoSession),
            };
        };
        let row = self.slot.sessions.get(index as usize).filter(|row| row.flags.load(Relaxed) & flag::TUNNEL != 0);
        let Some(row) = row.filter(|row| row.real_server() == far) else {
            return self.refuse(io, place, DropReason::BadIcmp);
        };
        // What was sent lately (RFC 5927 §4.1): of what the server has acknowledged nothing is known here.
        let lately = row.end[0].load(Relaxed).wrapping_sub(quote.seq) < LATELY;
        let [kind, code] = packet.dport.to_be_bytes();
        let Some(kind) = told(kind, code).filter(|_| quote.proto != protocol::TCP || lately) else {
            return self.refuse(io, place, DropReason::BadIcmp);
        };
        if packet.ttl <= 1 {
            return self.refuse(io, place, DropReason::TtlExpired);
        }
        if !self.errors.allow(self.now_ms) {
            return self.refuse(io, place, DropReason::RateLimited);
        }
        let (vip, client) = (row.vip.load(Relaxed), row.client_ip.load(Relaxed));
        let mtu =
            |frame: &[u8]| frame.get(usize::from(packet.l4) + 6..)?.first_chunk().copied().map(u16::from_be_bytes);
        let untunnelled = io.frame(place).and_then(|frame| {
            let too_big = kind.1 == icmp::FRAGMENTATION_NEEDED;
            let most = mtu(frame).filter(|_| too_big).map_or(0, |mtu| mtu.saturating_sub(tunnel::MORE));
            quote::untunnel(frame, packet, quote, (vip, client), kind, most)
        });
        let Some(len) = untunnelled.filter(|len| io.resize(place, *len)) else {
            return self.refuse(io, place, DropReason::BadIcmp);
        };
        let total_len = u16::try_from(len - usize::from(packet.l3)).unwrap_or(u16::MAX);
        if let Some(hop) = self.find_hop(io, place, index, Direction::Server) {
            self.leave(io, place, hop, &V4 { total_len, ..*packet });
        }
    }
}

/// How far back a segment may lie to be believed to be on its way, bytes.
const LATELY: u32 = 1 << 24;

/// What a client is told of an error about the packet its own was wrapped into (RFC 2003 §4): that it is too big, or that the
/// host is not reached. `None`: nothing.
const fn told(kind: u8, code: u8) -> Option<(u8, u8)> {
    match (kind, code) {
        (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED) => Some((icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED)),
        (icmp::UNREACHABLE, 0 | 1 | 2 | 13) | (icmp::TIME_EXCEEDED, 0) => {
            Some((icmp::UNREACHABLE, icmp::HOST_UNREACHABLE))
        }
        _ => None,
    }
}

/// Is the quoted segment one that its receiver has not acknowledged yet? (RFC 5927 §4.1.) `direction`: of the error.
fn in_flight(row: &SessionRow, direction: Direction, quote: &Quote) -> bool {
    let (sender, seq) = match direction {
        Direction::Client => (1, quote.seq),
        Direction::Server => (0, quote.seq.wrapping_sub(row.shift())),
    };
    let (acked, end) = (row.ack[1 - sender].load(Relaxed), row.end[sender].load(Relaxed));
    // Before its SYN is acknowledged `acked` is one more than the SYN's number.
    seq.wrapping_sub(acked.wrapping_sub(1)) <= end.wrapping_sub(acked.wrapping_sub(1))
}

/// What goes to a server that has the VIP: it sent the quoted packet as it is.
const fn as_it_is(packet: &V4, quote: &Quote) -> ((u32, u32), Told<u32>) {
    let (sport, dport) = (quote.sport, quote.dport);
    ((packet.src, packet.dst), Told { src: quote.src, dst: quote.dst, sport, dport, seq_add: 0, ack_sub: 0 })
}

/// Addresses of the error, and the quoted packet as its sender sent it. Who reported it is not told to the other side, which
/// may have no route to there: the error comes from where the sender sent its packet to.
fn turned(row: &SessionRow, direction: Direction) -> ((u32, u32), Told<u32>) {
    let client = (row.client_ip.load(Relaxed), row.client_port.load(Relaxed));
    let vip = (row.vip.load(Relaxed), row.vip_port.load(Relaxed));
    let local = (row.local_ip.load(Relaxed), row.local_port.load(Relaxed));
    let server = (row.server_ip.load(Relaxed), row.server_port.load(Relaxed));
    let shift = row.shift();
    let (from, to, seq_add, ack_sub) = match direction {
        // The client's side reports: the server's packet had the shift taken from its acknowledgement.
        Direction::Client => (server, local, 0, shift.wrapping_neg()),
        // The server's side reports: the client's had it added to its number.
        Direction::Server => (client, vip, shift.wrapping_neg(), 0),
    };
    ((to.0, from.0), Told { src: from.0, dst: to.0, sport: from.1, dport: to.1, seq_add, ack_sub })
}

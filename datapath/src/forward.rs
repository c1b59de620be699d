//! The established way: track, count, rewrite, send.

use std::sync::atomic::Ordering::Relaxed; // Session and counter rows have one writer, this slot.

use packet::{Mac, Rewrite, V4, ethernet, ipv6, rewrite_v4, tcp as header, tcp_options};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::neighbours::{Hop, Ip, as_v4};
use shm_layout::published::protocol;
use shm_layout::ring::RecordKind;
use shm_layout::session::{SessionRow, flag};

use crate::burst::Flight;
use crate::family::Packet;
use crate::io::Io;
use crate::runner::{Origin, SlotRunner, mac_of};
use crate::session::Direction;
use crate::tcp::{self, Segment, Step};

impl SlotRunner {
    /// A packet of a session of this slot.
    #[inline]
    pub(crate) fn established<I: Io, P: Packet>(
        &mut self,
        io: &mut I,
        place: usize,
        whole: &P,
        hash: u64,
        (index, direction): (u32, Direction),
        origin: Origin,
    ) {
        let Some(row) = self.slot.sessions.get(index as usize) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let flags = row.flags.load(Relaxed);
        if flags & flag::INDEXED == 0 {
            // Ended by an earlier packet of this burst.
            return self.unknown(io, place, &self.flight(whole, hash), origin);
        }
        let packet = whole.head();
        if packet.ttl <= 1 {
            return self.refuse(io, place, DropReason::TtlExpired);
        }
        let direct = flags & flag::DIRECT != 0;
        let shift = row.shift();
        let mut step = Step::Stay;
        if packet.proto == protocol::TCP {
            let (flags, len) = (packet.tcp_flags, packet.segment_len());
            let segment = Segment { flags, seq: packet.seq, ack: packet.ack, len };
            if flags & header::SYN != 0
                && direction == Direction::Client
                && !self.keeps_client::<P>(index, row)
                && let Some(frame) = io.frame(place)
            {
                // As on the first SYN: it may be this one that reaches the server.
                tcp_options::erase_timestamps(frame, packet);
            }
            step = match direction {
                _ if !direct => tcp::track(row, direction, &segment, shift),
                Direction::Client => tcp::track_client(row, &segment),
                Direction::Server => Step::Ignore, // By way of us after all: passed on, and nothing learned from it.
            };
            match step {
                Step::Stay | Step::Ignore => {}
                Step::Closing => {
                    let ended = self.closing.push(&mut self.sessions, index, self.now_ms);
                    self.counts.add(Flow::Ended, ended as u64);
                }
                Step::Reopen => {
                    self.sessions.close(index);
                    self.counts.add(Flow::Ended, 1);
                    return self.begin(io, place, &self.flight(whole, hash));
                }
            }
        }
        if step != Step::Ignore {
            #[allow(clippy::cast_possible_truncation, reason = "the tables' clock wraps by design")]
            row.last_seen.store(self.now_ms as u32, Relaxed);
        }
        self.count(row, direction as usize, u64::from(packet.total_len));
        whole.forward(self, io, place, (index, direction), shift);
    }

    fn flight<P: Packet>(&self, packet: &P, hash: u64) -> Flight<P> {
        Flight { packet: *packet, key: packet.wanted(self.sessions.hash_key()), hash }
    }

    /// Is the client's address the one its server sees?
    #[inline(always)]
    fn keeps_client<P: Packet>(&self, index: u32, row: &SessionRow) -> bool {
        if P::V6 {
            return self.slot.line(index).is_some_and(crate::wide::keeps_client);
        }
        row.local_ip.load(Relaxed) == row.client_ip.load(Relaxed)
    }

    /// Counts a packet for the session's server. `side`: of its sender.
    #[inline(always)]
    pub(crate) fn count(&self, row: &SessionRow, side: usize, bytes: u64) {
        let Some(counts) = self.slot.servers.get(row.server_id.load(Relaxed) as usize) else { return };
        let (packets, octets) = match side {
            0 => (&counts.packets_in, &counts.bytes_in),
            _ => (&counts.packets_out, &counts.bytes_out),
        };
        packets.store(packets.load(Relaxed).wrapping_add(1), Relaxed);
        octets.store(octets.load(Relaxed).wrapping_add(bytes), Relaxed);
    }

    /// Rewrites the packet for the other side and sends it to the session's next hop.
    #[inline]
    pub(crate) fn forward<I: Io>(
        &mut self,
        io: &mut I,
        place: usize,
        packet: &V4,
        index: u32,
        direction: Direction,
        shift: u32,
    ) {
        let Some(row) = self.slot.sessions.get(index as usize) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let flags = row.flags.load(Relaxed);
        if flags & flag::TUNNEL != 0 {
            if flags & flag::V6 != 0 {
                return self.forward_to_v6(io, place, packet, index, shift);
            }
            if direction == Direction::Client {
                return self.forward_wrapped(io, place, packet, index);
            }
        }
        let (hop_row, hop_tag) = match direction {
            Direction::Client => (row.hop[1].load(Relaxed), row.hop_tag[1].load(Relaxed)),
            Direction::Server => (row.hop[0].load(Relaxed), row.hop_tag[0].load(Relaxed)),
        };
        let rewrite = match direction {
            Direction::Client => Rewrite {
                src: row.local_ip.load(Relaxed),
                dst: row.server_ip.load(Relaxed),
                sport: row.local_port.load(Relaxed),
                dport: row.server_port.load(Relaxed),
                seq_add: shift,
                ack_sub: 0,
            },
            Direction::Server => Rewrite {
                src: row.vip.load(Relaxed),
                dst: row.client_ip.load(Relaxed),
                sport: row.vip_port.load(Relaxed),
                dport: row.client_port.load(Relaxed),
                seq_add: 0,
                ack_sub: shift,
            },
        };
        let hop = self.shared.neighbours.hop(hop_row);
        let usable = hop_row != 0 && hop.resolved() && hop.tag() == hop_tag && hop.port() == self.port.number;
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        rewrite_v4(frame, packet, &rewrite);
        // SACK blocks of the server name the client's numbers as the server knows them.
        let options = usize::from(packet.payload) > usize::from(packet.l4) + header::HEADER;
        if options && direction == Direction::Server && packet.proto == protocol::TCP {
            tcp_options::shift_sack(frame, packet, shift);
        }
        let most = usize::from(packet.l3) + self.port.mtu as usize;
        if usable && frame.len() <= most {
            ethernet::set_addresses(frame, Mac(hop.mac()), self.port.mac);
            if !io.send(place) {
                self.refuse(io, place, DropReason::TxFull);
            }
        } else if let Some(hop) = self.find_hop(io, place, index, direction) {
            self.leave(io, place, hop, packet);
        }
    }

    /// Out by the hop's port: directly when it is the slot's own, else by a slot of that port.
    #[cold]
    pub(crate) fn leave<I: Io>(&mut self, io: &mut I, place: usize, hop: Hop, packet: &V4) {
        if hop.port() != self.port.number {
            return self.leave_elsewhere(io, place, hop, packet);
        }
        if !fits(io, place, packet, self.port.mtu) {
            return self.refuse(io, place, DropReason::TooBig);
        }
        if let Some(frame) = io.frame(place) {
            ethernet::set_addresses(frame, Mac(hop.mac()), self.port.mac);
        }
        if !io.send(place) {
            self.refuse(io, place, DropReason::TxFull);
        }
    }

    /// A port that this slot has no queue of: a copy goes to a slot that has.
    #[cold]
    fn leave_elsewhere<I: Io>(&mut self, io: &mut I, place: usize, hop: Hop, packet: &V4) {
        let Some(port) = self.shared.published.ports.get(usize::from(hop.port())) else {
            return self.refuse(io, place, DropReason::NoRoute);
        };
        if !fits(io, place, packet, port.mtu.load(Relaxed)) {
            return self.refuse(io, place, DropReason::TooBig);
        }
        let (mac, target) = (mac_of(port), self.sender_of(port));
        if let Some(frame) = io.frame(place) {
            ethernet::set_addresses(frame, Mac(hop.mac()), mac);
        }
        self.pass_on(io, place, target, RecordKind::Send);
    }

    /// Copies the packet to another slot's ring, with the VLAN tag of that slot's port.
    pub(crate) fn pass_on<I: Io>(&mut self, io: &mut I, place: usize, target: u32, kind: RecordKind) {
        let published = &self.shared.published;
        let port = published.slots.get(target as usize).map_or(0, |row| row.port.load(Relaxed) as usize);
        let vlan = published.ports.get(port).map_or(0, |row| row.vlan.load(Relaxed));
        let ring = self.shared.slots.get(target as usize).and_then(|slot| slot.inbound.get(self.number as usize));
        let passed = match (ring, io.frame(place)) {
            (Some(ring), Some(frame)) if ethernet::header(frame).is_ok_and(|h| u32::from(h.vlan) != vlan) => {
                let vlan = u16::try_from(vlan).unwrap_or(0);
                let len = ethernet::retagged(frame, vlan, self.scratch.as_mut_slice());
                len.and_then(|len| self.scratch.get(..len)).is_some_and(|frame| ring.push(kind, [0; 5], frame))
            }
            (Some(ring), Some(frame)) => ring.push(kind, [0; 5], frame),
            _ => false,
        };
        if passed {
            self.counts.add(Flow::ToRing, 1);
            io.discard(place);
        } else {
            self.refuse(io, place, DropReason::RingFull);
        }
    }

    /// The session's hop is not known, was recycled or stopped answering: looks it up by address, and lets the packet
    /// (already rewritten) wait if it must be asked for.
    #[cold]
    pub(crate) fn find_hop<I: Io>(
        &mut self,
        io: &mut I,
        place: usize,
        index: u32,
        direction: Direction,
    ) -> Option<Hop> {
        let Some(row) = self.slot.sessions.get(index as usize) else {
            self.refuse(io, place, DropReason::BadRecord);
            return None;
        };
        let Some(next) = self.shared.next_hop(self.receiver(index, row, direction)) else {
            self.refuse(io, place, DropReason::NoRoute);
            return None;
        };
        if next.row != 0 {
            let (hop, tag) = match direction {
                Direction::Client => (&row.hop[1], &row.hop_tag[1]),
                Direction::Server => (&row.hop[0], &row.hop_tag[0]),
            };
            hop.store(next.row, Relaxed);
            tag.store(next.hop.tag(), Relaxed);
        }
        if next.row != 0 && next.hop.resolved() {
            return Some(next.hop);
        }
        self.ask_neighbour(next.neighbour, next.port);
        if next.port != self.port.number {
            // Waiting for a neighbour of another port is not done: its slots have their own places.
            self.refuse(io, place, DropReason::NoNeighbour);
            return None;
        }
        // Once the neighbour has answered nobody looks any more.
        let most = ethernet::TAGGED_HEADER + self.port.mtu as usize;
        if io.frame(place).is_none_or(|frame| frame.len() > most) {
            self.refuse(io, place, DropReason::TooBig);
            return None;
        }
        match self.waiting.admit(next.neighbour, next.port, self.now_ms) {
            Some(at) => io.park(place, at),
            None => self.refuse(io, place, DropReason::NoNeighbour),
        }
        None
    }

    /// Asks control for a neighbour.
    pub(crate) fn ask_neighbour(&mut self, neighbour: Ip, port: u8) {
        if self.waiting.ask(neighbour, port, self.now_ms) {
            // A full ring means control is not listening; it is asked again with a later packet.
            let push = |address, frame: &[u8]| {
                self.slot.to_control.push(RecordKind::Resolve, [address, u32::from(port), 0, 0, 0], frame)
            };
            match as_v4(neighbour) {
                Some(address) => push(address, &[]),
                None => push(0, &ipv6::bytes(neighbour)),
            };
        }
    }

    /// Counts a drop and frees the packet.
    #[inline]
    pub(crate) fn refuse<I: Io>(&mut self, io: &mut I, place: usize, reason: DropReason) {
        self.counts.drop(reason);
        io.discard(place);
    }
}

/// Is the packet no longer than the port sends? What the frame carries behind the packet is cut off if it is in the way.
#[inline(always)]
fn fits<I: Io>(io: &mut I, place: usize, packet: &V4, mtu: u32) -> bool {
    let most = usize::from(packet.l3) + mtu as usize;
    packet.end() <= most && (io.frame(place).is_some_and(|f| f.len() <= most) || io.resize(place, packet.end()))
}

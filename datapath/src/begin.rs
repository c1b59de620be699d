//! Packets without a session: begin one, hand them to the slot that has it, or refuse them.

use std::sync::atomic::Ordering::Relaxed; // Published rows do not change; counts of other slots are statistics.

use packet::tcp::{ACK, FIN, RST, SYN};
use packet::{V4, ipv4, tcp_options};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::failpoint::{self, Bug};
use shm_layout::neighbours::ip4;
use shm_layout::published::{Generation, ServiceRow, directory_flag, mode, owner_slot, protocol, service_flag};
use shm_layout::ring::RecordKind;
use shm_layout::session::State;

use crate::burst::Flight;
use crate::io::Io;
use crate::runner::{Origin, SlotRunner};
use crate::schedule::{Client, Unschedulable};
use crate::session::{CreateError, Direction, Key, Local, New};

impl SlotRunner {
    /// A well-formed TCP or UDP packet that matched no session when the burst was probed.
    #[cold]
    pub(crate) fn unknown<I: Io>(&mut self, io: &mut I, place: usize, flight: &Flight, origin: Origin) {
        // An earlier packet of the same burst may have begun it.
        if let Some(found) = self.sessions.find_hashed(flight.key, flight.hash) {
            if self.sessions.end_damaged(found.0) {
                self.counts.add(Flow::Ended, 1);
                return self.refuse(io, place, DropReason::BadRecord);
            }
            return self.established(io, place, &flight.packet, flight.hash, found, origin);
        }
        let Some(generation) = self.generation else { return self.refuse(io, place, DropReason::NotForUs) };
        let packet = &flight.packet;
        let published = &self.shared.published;
        if published.is_vip(generation, ip4(packet.dst)) {
            return self.at_vip(io, place, flight, origin);
        }
        if published.find_local(generation, ip4(packet.dst)).is_some() {
            return self.at_local(io, place, flight, origin);
        }
        // A reply to a client whose address was kept may have come to any slot.
        let nat = published.directory(generation).head.flags.load(Relaxed) & directory_flag::NAT != 0;
        if origin == Origin::Port
            && nat
            && !self.is_port_address(packet.dst)
            && let Some(target) = self.elsewhere(flight.key)
        {
            return self.pass_on(io, place, target, RecordKind::Redirect);
        }
        self.for_kernel_or(io, place, packet, origin, DropReason::NotForUs);
    }

    /// Another slot that has a session of this key.
    pub(crate) fn elsewhere(&self, key: Key) -> Option<u32> {
        self.others.iter().find(|(_, reader)| reader.find(key).is_some()).map(|(slot, _)| *slot)
    }

    fn at_vip<I: Io>(&mut self, io: &mut I, place: usize, flight: &Flight, origin: Origin) {
        let packet = &flight.packet;
        if packet.proto == protocol::UDP {
            return self.begin(io, place, flight);
        }
        match packet.tcp_flags & (SYN | ACK | RST | FIN) {
            SYN => self.begin(io, place, flight),
            flags if flags & SYN != 0 && flags & (RST | FIN) != 0 => self.refuse(io, place, DropReason::BadTcpFlags),
            0 => self.refuse(io, place, DropReason::BadTcpFlags),
            _ => self.stray(io, place, flight, origin),
        }
    }

    /// A reply that no session of this slot expects: the owner of its port is known.
    fn at_local<I: Io>(&mut self, io: &mut I, place: usize, flight: &Flight, origin: Origin) {
        let owner = owner_slot(flight.packet.dport, self.shared.slot_count());
        if owner != self.number && origin == Origin::Port {
            return self.pass_on(io, place, owner, RecordKind::Redirect);
        }
        self.stray(io, place, flight, origin);
    }

    /// Belongs to no session here and may not begin one: is it another slot's? Never a reset before that is known.
    fn stray<I: Io>(&mut self, io: &mut I, place: usize, flight: &Flight, origin: Origin) {
        if origin == Origin::Port && !failpoint::planted(Bug::StrayReset) {
            if let Some(target) = self.elsewhere(flight.key) {
                return self.pass_on(io, place, target, RecordKind::Redirect);
            }
            // A table that is being made anew holds sessions nobody finds: silence, its sender tries again.
            if self.others.iter().any(|(_, reader)| reader.slot().table.rebuilding.load(Relaxed) != 0) {
                return self.refuse(io, place, DropReason::NoSession);
            }
        }
        self.answer_reset(io, place, flight, DropReason::NoSession);
    }

    /// Begins a session: service, server, local port, numbers, record; then forwards its first packet.
    pub(crate) fn begin<I: Io>(&mut self, io: &mut I, place: usize, flight: &Flight) {
        let Some(generation) = self.generation else { return self.refuse(io, place, DropReason::NotForUs) };
        match self.try_begin(io, place, flight, generation) {
            Ok((index, shift)) => {
                self.counts.add(Flow::Created, 1);
                self.first_packet(index, flight);
                self.forward(io, place, &flight.packet, index, Direction::Client, shift);
            }
            Err(reason) => {
                self.counts.add(Flow::Refused, 1);
                self.count_refused(flight, generation, reason);
                if reason == DropReason::NoService || reason == DropReason::NoServer {
                    return self.answer_reset(io, place, flight, reason);
                }
                self.refuse(io, place, reason);
            }
        }
    }

    fn try_begin<I: Io>(
        &mut self,
        io: &mut I,
        place: usize,
        flight: &Flight,
        generation: Generation,
    ) -> Result<(u32, u32), DropReason> {
        let packet = &flight.packet;
        let published = &self.shared.published;
        if packet.ttl <= 1 {
            return Err(DropReason::TtlExpired);
        }
        if self.bad_source(packet.src, generation) {
            return Err(DropReason::BadSource);
        }
        let found = published.find_service(generation, ip4(packet.dst), packet.dport, packet.proto);
        let service_index = found.ok_or(DropReason::NoService)?;
        let service = published.service(generation, service_index).ok_or(DropReason::NoService)?;
        if service.flags.load(Relaxed) & service_flag::REMOVED != 0 {
            return Err(DropReason::NoService);
        }
        if self.full(service, service_index) {
            return Err(DropReason::ServiceFull);
        }
        let client = Client { ip: ip4(packet.src), port: packet.sport };
        let member = self.schedulers.pick(&self.shared, generation, service_index, service, &client, self.now_ms);
        let member = member.map_err(|error| match error {
            Unschedulable::NoServer => DropReason::NoServer,
            Unschedulable::Damaged => DropReason::BadRecord,
        })?;
        #[allow(clippy::cast_possible_truncation, reason = "the IPv4 address is the low half")]
        let server = (member.ip[1].load(Relaxed) as u32, member.port.load(Relaxed));
        let (server_id, server_tag) = (member.id.load(Relaxed), member.tag.load(Relaxed));
        let tcp = packet.proto == protocol::TCP;
        let state = if tcp { State::SynSent } else { State::Udp };
        let timeout = service.timeouts.get(state as usize).map_or(0, |t| t.load(Relaxed));
        let service_id = service.id.load(Relaxed);
        let to_client = self.shared.next_hop(ip4(packet.src)).ok_or(DropReason::NoRoute)?;
        let to_server = self.shared.next_hop(ip4(server.0)).ok_or(DropReason::NoRoute)?;
        // Towards whom, from whom, and what stands in the shift's place (see `flag::DIRECT`).
        let mode = service.mode.load(Relaxed);
        let translates = mode == mode::FULLNAT;
        let direct = mode == mode::DR || mode == mode::TUNNEL;
        if mode == mode::DR && to_server.neighbour != ip4(server.0) {
            return Err(DropReason::NoRoute); // A router would send it, addressed to the VIP, back to us.
        }
        let (real, server) = (server.0, if direct { (packet.dst, packet.dport) } else { server });
        let local = if translates {
            self.pick_local(to_server.port, server, packet.proto)
        } else {
            self.client_itself(packet, server)
        };
        let local = local.ok_or(DropReason::NoPort)?;
        let shift = if tcp && translates { self.isn_shift(server, local, packet.seq) } else { 0 };
        if !to_client.hop.resolved() {
            // The answer will need it: asked for now, it is there when the answer comes.
            self.ask_neighbour(to_client.neighbour, to_client.port);
        }
        let new = New {
            client_ip: packet.src,
            client_port: packet.sport,
            vip: packet.dst,
            vip_port: packet.dport,
            local_ip: local.ip,
            local_port: local.port,
            server_ip: server.0,
            server_port: server.1,
            udp: !tcp,
            state,
            tunnel: mode == mode::TUNNEL,
            client_hop: to_client.row,
            client_hop_tag: to_client.hop.tag(),
            server_hop: to_server.row,
            server_hop_tag: to_server.hop.tag(),
            server_id,
            server_tag,
            service: service_index,
            service_id,
            isn_shift: if direct { real } else { shift },
            end: [packet.seq.wrapping_add(packet.segment_len()), 0],
            ack: [0, packet.seq.wrapping_add(1)], // What the server must acknowledge at least.
            now_ms: self.now_ms,
            timeout_ms: timeout,
        };
        if tcp
            && translates
            && let Some(frame) = io.frame(place)
        {
            // Two hosts behind one local address have two clocks: timestamps would make the server refuse one (PAWS).
            tcp_options::erase_timestamps(frame, packet);
        }
        let index = self.sessions.create(&new).map_err(|error| match error {
            CreateError::TableFull(_) => DropReason::TableFull,
            CreateError::IndexFull => DropReason::IndexFull,
            CreateError::Exists => DropReason::BadRecord,
        })?;
        Ok((index, shift))
    }

    /// Counts a new session that a service could not have; counts of an earlier use of its row begin from 0.
    #[cold]
    fn count_refused(&self, flight: &Flight, generation: Generation, reason: DropReason) {
        let packet = &flight.packet;
        let published = &self.shared.published;
        // What is no attempt to reach the service (nor a packet of a real host) is not its refusal.
        let its_own = !matches!(reason, DropReason::NoService | DropReason::BadSource | DropReason::TtlExpired);
        if its_own
            && let Some(index) = published.find_service(generation, ip4(packet.dst), packet.dport, packet.proto)
            && let Some(id) = published.service(generation, index).map(|service| service.id.load(Relaxed))
            && let Some(row) = self.slot.services.get(index as usize)
        {
            if row.id.load(Relaxed) != id {
                if row.active.load(Relaxed) != 0 {
                    return; // Still counts its old use's last sessions.
                }
                row.total.store(0, Relaxed);
                row.refused.store(0, Relaxed);
                row.id.store(id, Relaxed);
            }
            row.refused.store(row.refused.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Counts the first packet at its server.
    fn first_packet(&self, index: u32, flight: &Flight) {
        if let Some(row) = self.sessions.row(index)
            && let Some(counts) = self.slot.servers.get(row.server_id.load(Relaxed) as usize)
        {
            counts.packets_in.store(counts.packets_in.load(Relaxed).wrapping_add(1), Relaxed);
            let bytes = u64::from(flight.packet.total_len);
            counts.bytes_in.store(counts.bytes_in.load(Relaxed).wrapping_add(bytes), Relaxed);
        }
    }

    /// Has the service as many sessions as it may? Summed over the slots.
    fn full(&self, service: &ServiceRow, index: u32) -> bool {
        let most = u64::from(service.max_sessions.load(Relaxed));
        let id = service.id.load(Relaxed);
        most > 0 && {
            let rows = self.shared.slots.iter().filter_map(|slot| slot.services.get(index as usize));
            let own = rows.filter(|row| row.id.load(Relaxed) == id);
            own.map(|row| u64::from(row.active.load(Relaxed))).sum::<u64>() >= most
        }
    }

    /// A free local address and port of this slot towards the server.
    fn pick_local(&mut self, port: u8, server: (u32, u16), protocol: u8) -> Option<Local> {
        let pool = self.locals.get(usize::from(port))?;
        self.sessions.pick_port(pool, server.0, server.1, protocol)
    }

    /// The client in place of a local address, unless the same client has a session with this server by another VIP: two
    /// sessions would have one reply key.
    fn client_itself(&self, packet: &V4, server: (u32, u16)) -> Option<Local> {
        let key = Key::new(server.0, server.1, packet.src, packet.sport, packet.proto);
        let hash = self.sessions.hash(key);
        // The client's other connection may have come to another slot.
        let free = self.sessions.find_hashed(key, hash).is_none() && self.elsewhere(key).is_none();
        free.then_some(Local { ip: packet.src, port: packet.sport, hash })
    }

    /// What to add to the client's numbers so that the server sees an ISN as RFC 6528 makes it: a clock of 64 ns plus a
    /// keyed hash of the tuple. A local port used again always opens above what the server still remembers.
    fn isn_shift(&self, server: (u32, u16), local: Local, client_isn: u32) -> u32 {
        let a = u64::from(server.0) << 32 | u64::from(server.1) << 16 | u64::from(local.port);
        let tuple = arch::keyed_hash(a, u64::from(local.ip), &self.isn_key);
        #[allow(clippy::cast_possible_truncation, reason = "a sequence number is the low 32 bits of both")]
        let isn = (tuple as u32).wrapping_add((self.now_ns >> 6) as u32);
        isn.wrapping_sub(client_isn)
    }

    /// No host sends from there.
    pub(crate) fn bad_source(&self, src: u32, generation: Generation) -> bool {
        !ipv4::is_source(src)
            || self.shared.published.is_vip(generation, ip4(src))
            || self.shared.published.find_local(generation, ip4(src)).is_some()
            || self.is_port_address(src)
    }

    /// Is it an address of one of our ports?
    pub(crate) fn is_port_address(&self, address: u32) -> bool {
        self.is_own(ip4(address))
    }
}

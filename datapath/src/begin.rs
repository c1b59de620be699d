//! Packets without a session: begin one, hand them to the slot that has it, or refuse them.

use std::sync::atomic::Ordering::Relaxed; // Published rows do not change; counts of other slots are statistics.

use packet::tcp::{ACK, FIN, RST, SYN};
use packet::{V4, tcp_options};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::failpoint::{self, Bug};
use shm_layout::neighbours::{Ip, as_v4, ip4};
use shm_layout::published::{
    Generation, ServiceRow, directory_flag, mode, owner_slot, protocol, scheduler, service_flag,
};
use shm_layout::ring::RecordKind;
use shm_layout::session::State;

use crate::burst::Flight;
use crate::family::Packet;
use crate::io::Io;
use crate::one_packet::Alone;
use crate::runner::{Origin, SlotRunner};
use crate::schedule::{Client, Unschedulable};
use crate::session::{Address, CreateError, Direction, Local, LocalPool, New, SessionTable, Wanted, Wide};

/// What a packet without a session has begun.
enum Begun {
    /// A session: its record, its shift.
    Session(u32, u32),
    /// Nothing: another slot has its session.
    Elsewhere(u32),
    /// Nothing: it goes on alone.
    Alone(Alone),
}

impl SlotRunner {
    /// A well-formed TCP or UDP packet that matched no session when the burst was probed.
    #[cold]
    pub(crate) fn unknown<I: Io, P: Packet>(&mut self, io: &mut I, place: usize, flight: &Flight<P>, origin: Origin) {
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
        if published.is_vip(generation, packet.destination()) {
            return self.at_vip(io, place, flight, origin);
        }
        if published.find_local(generation, packet.destination()).is_some() {
            return self.at_local(io, place, flight, origin);
        }
        // A reply to a client whose address was kept may have come to any slot.
        let nat = published.directory(generation).head.flags.load(Relaxed) & directory_flag::NAT != 0;
        if origin == Origin::Port
            && nat
            && !self.is_port_address(packet.destination())
            && let Some(target) = self.elsewhere(flight.key)
        {
            return self.pass_on(io, place, target, RecordKind::Redirect);
        }
        self.for_kernel_or(io, place, packet, origin, DropReason::NotForUs);
    }

    /// Another slot that has a session of this key.
    pub(crate) fn elsewhere(&self, wanted: impl Wanted) -> Option<u32> {
        self.others.iter().find(|(_, reader)| reader.find(wanted).is_some()).map(|(slot, _)| *slot)
    }

    fn at_vip<I: Io, P: Packet>(&mut self, io: &mut I, place: usize, flight: &Flight<P>, origin: Origin) {
        let packet = flight.packet.head();
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
    fn at_local<I: Io, P: Packet>(&mut self, io: &mut I, place: usize, flight: &Flight<P>, origin: Origin) {
        let owner = owner_slot(flight.packet.head().dport, self.shared.slot_count());
        if owner != self.number && origin == Origin::Port {
            return self.pass_on(io, place, owner, RecordKind::Redirect);
        }
        self.stray(io, place, flight, origin);
    }

    /// Belongs to no session here and may not begin one: is it another slot's? Never a reset before that is known.
    fn stray<I: Io, P: Packet>(&mut self, io: &mut I, place: usize, flight: &Flight<P>, origin: Origin) {
        if origin == Origin::Port && !failpoint::planted(Bug::StrayReset) {
            if let Some(target) = self.elsewhere(flight.key) {
                return self.pass_on(io, place, target, RecordKind::Redirect);
            }
            // A table that is being made anew holds sessions nobody finds: silence, its sender tries again.
            if self.others.iter().any(|(_, reader)| reader.slot().table.rebuilding.load(Relaxed) != 0) {
                return self.refuse(io, place, DropReason::NoSession);
            }
        }
        if flight.packet.head().tcp_flags & (SYN | RST) == 0 && self.goes_by_hash(&flight.packet) {
            // Perhaps begun by another node, which chose as we do: its server knows whether there is such a connection. What
            // is not goes as fast as a SYN nobody answers.
            return self.begin(io, place, flight);
        }
        self.answer_reset(io, place, flight, DropReason::NoSession);
    }

    /// Does a packet to a VIP without session go to the server the hash says? Where servers know their connections by the
    /// client's own numbers (modes dr and tunnel), and all nodes choose alike.
    fn goes_by_hash(&self, packet: &impl Packet) -> bool {
        let published = &self.shared.published;
        let find = |generation| {
            let (to, head) = (packet.destination(), packet.head());
            let index = published.find_service(generation, to, head.dport, head.proto)?;
            published.service(generation, index)
        };
        self.generation.and_then(find).is_some_and(|service| {
            let by_hash = matches!(
                service.scheduler.load(Relaxed),
                scheduler::SOURCE_IP | scheduler::SOURCE_IP_PORT | scheduler::MAGLEV
            );
            by_hash && matches!(service.mode.load(Relaxed), mode::DR | mode::TUNNEL)
        })
    }

    /// Begins a session: service, server, local port, numbers, record; then forwards its first packet.
    pub(crate) fn begin<I: Io, P: Packet>(&mut self, io: &mut I, place: usize, flight: &Flight<P>) {
        let Some(generation) = self.generation else { return self.refuse(io, place, DropReason::NotForUs) };
        match self.try_begin(io, place, flight, generation) {
            Ok(Begun::Elsewhere(target)) => self.pass_on(io, place, target, RecordKind::Redirect),
            Ok(Begun::Alone(alone)) => self.send_alone(io, place, &flight.packet, &alone),
            Ok(Begun::Session(index, shift)) => {
                self.counts.add(Flow::Created, 1);
                self.first_packet(index, flight.packet.head().total_len);
                flight.packet.forward(self, io, place, (index, Direction::Client), shift);
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

    fn try_begin<I: Io, P: Packet>(
        &mut self,
        io: &mut I,
        place: usize,
        flight: &Flight<P>,
        generation: Generation,
    ) -> Result<Begun, DropReason> {
        let (whole, packet) = (&flight.packet, flight.packet.head());
        let published = &self.shared.published;
        if packet.ttl <= 1 {
            return Err(DropReason::TtlExpired);
        }
        if self.bad_source(whole, generation) {
            return Err(DropReason::BadSource);
        }
        let found = published.find_service(generation, whole.destination(), packet.dport, packet.proto);
        let service_index = found.ok_or(DropReason::NoService)?;
        let service = published.service(generation, service_index).ok_or(DropReason::NoService)?;
        if service.flags.load(Relaxed) & service_flag::REMOVED != 0 {
            return Err(DropReason::NoService);
        }
        let mode = service.mode.load(Relaxed);
        let direct = mode == mode::DR || mode == mode::TUNNEL;
        // Of a server that replies past us any packet may come to any slot: first whoever has its session is asked.
        if direct && let Some(slot) = self.elsewhere(flight.key) {
            return Ok(Begun::Elsewhere(slot));
        }
        if self.full(service, service_index) {
            return Err(DropReason::ServiceFull);
        }
        let client = Client { ip: whole.source(), port: packet.sport };
        let member = self.schedulers.pick(&self.shared, generation, service_index, service, &client, self.now_ms);
        let member = member.map_err(|error| match error {
            Unschedulable::NoServer => DropReason::NoServer,
            Unschedulable::Damaged => DropReason::BadRecord,
        })?;
        let real = ([member.ip[0].load(Relaxed), member.ip[1].load(Relaxed)], member.port.load(Relaxed));
        let (server_id, server_tag) = (member.id.load(Relaxed), member.tag.load(Relaxed));
        let tcp = packet.proto == protocol::TCP;
        let state = if tcp { State::SynSent } else { State::Udp };
        let timeout = service.timeouts.get(state as usize).map_or(0, |t| t.load(Relaxed));
        let service_id = service.id.load(Relaxed);
        let to_server = self.shared.next_hop(real.0).ok_or(DropReason::NoRoute)?;
        if mode == mode::DR && to_server.neighbour != real.0 {
            return Err(DropReason::NoRoute); // A router would send it, addressed to the VIP, back to us.
        }
        if direct && !tcp && service.flags.load(Relaxed) & service_flag::ONE_PACKET != 0 {
            self.sessions.claim_counts((server_id, server_tag), (service_index, service_id));
            let tunnel = mode == mode::TUNNEL;
            return Ok(Begun::Alone(Alone { server: real.0, server_id, tunnel, next: to_server }));
        }
        let to_client = self.shared.next_hop(whole.source()).ok_or(DropReason::NoRoute)?;
        let mut new = New {
            client_ip: 0,
            client_port: packet.sport,
            vip: 0,
            vip_port: packet.dport,
            local_ip: 0,
            local_port: 0,
            server_ip: 0,
            server_port: 0,
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
            isn_shift: 0,
            end: [packet.seq.wrapping_add(packet.segment_len()), 0],
            ack: [0, packet.seq.wrapping_add(1)], // What the server must acknowledge at least.
            now_ms: self.now_ms,
            timeout_ms: timeout,
            wide: None,
        };
        match (P::V6, as_v4(real.0)) {
            (false, Some(server)) => self.narrow(packet, (server, real.1), mode, to_server.port, &mut new),
            _ => self.wide(whole, real, mode, to_server.port, &mut new),
        }?;
        let shift = if mode == mode::FULLNAT { new.isn_shift } else { 0 };
        if !to_client.hop.resolved() {
            // The answer will need it: asked for now, it is there when the answer comes.
            self.ask_neighbour(to_client.neighbour, to_client.port);
        }
        if tcp
            && mode == mode::FULLNAT
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
        Ok(Begun::Session(index, shift))
    }

    /// Both sides of an IPv4 session towards an IPv4 server.
    #[inline]
    fn narrow(&mut self, packet: &V4, real: (u32, u16), mode: u8, port: u8, new: &mut New) -> Result<(), DropReason> {
        let direct = mode == mode::DR || mode == mode::TUNNEL;
        let server = if direct { (packet.dst, packet.dport) } else { real };
        let local = if mode == mode::FULLNAT {
            pick_local(&mut self.sessions, &self.locals, port, server, packet.proto)
        } else {
            self.client_itself((packet.src, packet.sport), server, packet.proto)
        };
        let local = local.ok_or(DropReason::NoPort)?;
        (new.client_ip, new.vip) = (packet.src, packet.dst);
        (new.local_ip, new.local_port) = (local.ip, local.port);
        (new.server_ip, new.server_port) = server;
        new.isn_shift = match mode {
            // What stands in the shift's place: see `flag::DIRECT`.
            _ if direct => real.0,
            mode::FULLNAT if packet.proto == protocol::TCP => self.isn_shift(server, local, packet.seq),
            _ => 0,
        };
        Ok(())
    }

    /// Both sides of any other.
    #[cold]
    fn wide(
        &mut self,
        whole: &impl Packet,
        (real, real_port): (Ip, u16),
        mode: u8,
        port: u8,
        new: &mut New,
    ) -> Result<(), DropReason> {
        let packet = whole.head();
        let (client, vip) = (whole.source(), whole.destination());
        let (client_v4, real_v4) = (as_v4(client), as_v4(real));
        let direct = mode == mode::DR || mode == mode::TUNNEL;
        // Between the families: NAT64, and tunnels.
        let possible = match (client_v4, real_v4) {
            (None, Some(_)) => mode == mode::FULLNAT || mode == mode::TUNNEL,
            (Some(_), None) => mode == mode::TUNNEL,
            _ => true,
        };
        if !possible {
            return Err(DropReason::NoRoute);
        }
        let proto = packet.proto;
        let (local, local_port) = match (mode, real_v4) {
            (mode::FULLNAT, Some(server)) => {
                let local = pick_local(&mut self.sessions, &self.locals, port, (server, real_port), proto);
                local.map(|local| (ip4(local.ip), local.port))
            }
            (mode::FULLNAT, None) => {
                let local = pick_local(&mut self.sessions, &self.locals_v6, port, (real, real_port), proto);
                local.map(|local| (local.ip, local.port))
            }
            _ if direct => Some((client, packet.sport)),
            _ => {
                let local = self.client_itself((client, packet.sport), (real, real_port), proto);
                local.map(|local| (local.ip, local.port))
            }
        }
        .ok_or(DropReason::NoPort)?;
        let wide = Wide { client, vip, local, server: real, direct };
        let words = wide.words(self.sessions.hash_key());
        let shifted = mode == mode::FULLNAT && proto == protocol::TCP;
        // Of IPv6 the words are a hash of both addresses.
        let local = Local { ip: words[2], port: local_port, hash: 0 };
        new.isn_shift = if shifted { self.isn_shift((words[3], real_port), local, packet.seq) } else { 0 };
        [new.client_ip, new.vip, new.local_ip, new.server_ip] = words;
        (new.local_port, new.server_port) = (local_port, if direct { packet.dport } else { real_port });
        new.wide = Some(wide);
        Ok(())
    }

    /// Counts a new session that a service could not have; counts of an earlier use of its row begin from 0.
    #[cold]
    fn count_refused(&self, flight: &Flight<impl Packet>, generation: Generation, reason: DropReason) {
        let (whole, packet) = (&flight.packet, flight.packet.head());
        let published = &self.shared.published;
        // What is no attempt to reach the service (nor a packet of a real host) is not its refusal.
        let its_own = !matches!(reason, DropReason::NoService | DropReason::BadSource | DropReason::TtlExpired);
        if its_own
            && let Some(index) = published.find_service(generation, whole.destination(), packet.dport, packet.proto)
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
    fn first_packet(&self, index: u32, bytes: u16) {
        if let Some(row) = self.sessions.row(index)
            && let Some(counts) = self.slot.servers.get(row.server_id.load(Relaxed) as usize)
        {
            counts.packets_in.store(counts.packets_in.load(Relaxed).wrapping_add(1), Relaxed);
            counts.bytes_in.store(counts.bytes_in.load(Relaxed).wrapping_add(bytes.into()), Relaxed);
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

    /// The client in place of a local address, unless the same client has a session with this server by another VIP: two
    /// sessions would have one reply key.
    fn client_itself<A: Address>(&self, client: (A, u16), server: (A, u16), protocol: u8) -> Option<Local<A>> {
        let wanted = A::wanted(server, client, protocol, self.sessions.hash_key());
        let hash = self.sessions.hash(wanted);
        // The client's other connection may have come to another slot.
        let free = self.sessions.find_hashed(wanted, hash).is_none() && self.elsewhere(wanted).is_none();
        free.then_some(Local { ip: client.0, port: client.1, hash })
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
    pub(crate) fn bad_source(&self, packet: &impl Packet, generation: Generation) -> bool {
        let source = packet.source();
        !packet.is_sourced()
            || self.shared.published.is_vip(generation, source)
            || self.shared.published.find_local(generation, source).is_some()
            || self.is_port_address(source)
    }

    /// Is it an address of one of our ports?
    pub(crate) fn is_port_address(&self, address: Ip) -> bool {
        let is = |row: &shm_layout::published::AddressRow| row.get().is_some_and(|(ip, _)| ip == address);
        self.shared.ports().any(|(_, port)| port.addresses.iter().any(is))
    }
}

/// A free local address and port of this slot towards the server, by the port it is reached by.
fn pick_local<A: Address>(
    sessions: &mut SessionTable,
    pools: &[LocalPool<A>],
    port: u8,
    server: (A, u16),
    protocol: u8,
) -> Option<Local<A>> {
    sessions.pick_port(pools.get(usize::from(port))?, server.0, server.1, protocol)
}

//! Sessions whose addresses lie in a line of their own: IPv6, and NAT64 both ways.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed}; // Session rows have one writer, this slot.

use packet::{Rewrite, V4, V6, ipv4, nat64, rewrite_v6, tcp, tcp_options};
use shm_layout::counters::DropReason;
use shm_layout::neighbours::{Hop, Ip, as_v4, ip4};
use shm_layout::published::protocol;
use shm_layout::session::{AddressLine, SessionRow, flag};

use crate::family::Packet;
use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::Direction;

/// IPv6 and TCP headers: what a client's MSS leaves of its link's MTU.
const HEADERS_V6: u32 = 60;
/// [`nat64::LONGER`] in the type of an IP length.
const LONGER: u16 = 20;
const _: () = assert!(LONGER as usize == nat64::LONGER);

impl SlotRunner {
    /// An IPv6 packet of a session: translated, to IPv4 if its server is, or passed on as the mode says.
    #[cold]
    pub(crate) fn forward_v6<I: Io>(
        &mut self,
        io: &mut I,
        place: usize,
        packet: &V6,
        index: u32,
        direction: Direction,
        shift: u32,
    ) {
        let (Some(row), Some(line)) = (self.slot.sessions.get(index as usize), self.slot.line(index)) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let flags = row.flags.load(Relaxed);
        let (direct, tunnel) = (flags & flag::DIRECT != 0, flags & flag::TUNNEL != 0);
        if direct && tunnel && direction == Direction::Client {
            return self.forward_wrapped(io, place, packet, index);
        }
        let to_v4 = tunnel && !direct;
        // Extension headers do not go to IPv4.
        let gone = usize::from(packet.head.l4 - packet.head.l3) - ipv4::HEADER;
        let gone = if to_v4 { u16::try_from(gone).unwrap_or(0) } else { 0 };
        let total_len = packet.head.total_len - gone;
        let mtu = self.mtu_towards(index, row, direction);
        if u32::from(total_len) > mtu {
            return self.too_big(io, place, packet, mtu + u32::from(gone));
        }
        let (to, numbers) = (Ends::of(row, line, direction), Numbers::of(direction, shift));
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        if direction == Direction::Server && packet.head.proto == protocol::TCP && shift != 0 {
            tcp_options::shift_sack(frame, &packet.head, shift);
        }
        let done = if direct {
            packet.one_hop(frame)
        } else if to_v4 {
            let mss = self.mss_of(index, row);
            self.ident = self.ident.wrapping_add(1);
            translate_to_v4(io, place, packet, &to, numbers, (mss, self.ident))
        } else {
            rewrite_v6(frame, packet, &to.rewrite(numbers, |ip| ip))
        };
        if done.is_none() {
            return self.refuse(io, place, DropReason::BadRecord);
        }
        self.send_on(io, place, index, direction, &V4 { total_len, ..packet.head });
    }

    /// An IPv4 server's packet to an IPv6 client.
    #[cold]
    pub(crate) fn forward_to_v6<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, index: u32, shift: u32) {
        let direction = Direction::Server;
        let (Some(row), Some(line)) = (self.slot.sessions.get(index as usize), self.slot.line(index)) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let options = u16::from(packet.l4 - packet.l3) - LONGER;
        let total_len = (packet.total_len - options).saturating_add(LONGER);
        let mtu = self.mtu_towards(index, row, direction);
        if u32::from(total_len) > mtu {
            return self.too_big(io, place, packet, mtu.saturating_sub(LONGER.into()) + u32::from(options));
        }
        let to = Ends::of(row, line, direction).rewrite(Numbers::of(direction, shift), |ip| ip);
        let mss = self.mss_of(index, row);
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        if packet.proto == protocol::TCP {
            tcp_options::shift_sack(frame, packet, shift);
            if packet.tcp_flags & tcp::SYN != 0 {
                tcp_options::clamp_mss(frame, packet, mss);
            }
        }
        // What pads the frame would lie within the IPv6 packet's: cut off.
        if !io.resize(place, packet.end()) || !io.prepend(place, nat64::LONGER) {
            return self.refuse(io, place, DropReason::NoBuffer);
        }
        let cut = io.frame(place).and_then(|frame| nat64::to_v6(frame, packet, &to));
        if !cut.is_some_and(|cut| io.cut(place, cut)) {
            return self.refuse(io, place, DropReason::BadIpHeader); // Source-routed.
        }
        self.send_on(io, place, index, direction, &V4 { total_len, ..*packet });
    }

    /// Sends a packet that is ready but for its link addresses to the session's next hop. `head`: its lengths.
    pub(crate) fn send_on<I: Io>(&mut self, io: &mut I, place: usize, index: u32, direction: Direction, head: &V4) {
        let Some(row) = self.slot.sessions.get(index as usize) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let known = self.known_hop(row, direction).filter(|hop| hop.resolved());
        if let Some(hop) = known.or_else(|| self.find_hop(io, place, index, direction)) {
            self.leave(io, place, hop, head);
        }
    }

    /// The hop that the session remembers towards the receiver of what `direction` sends, if it is still that neighbour's.
    fn known_hop(&self, row: &SessionRow, direction: Direction) -> Option<Hop> {
        let side = direction.other() as usize;
        let (at, tag) = (row.hop[side].load(Relaxed), row.hop_tag[side].load(Relaxed));
        let hop = self.shared.neighbours.hop(at);
        (at != 0 && hop.tag() == tag).then_some(hop)
    }

    /// Whom a session's packets are sent to: by `direction`, of their sender.
    pub(crate) fn receiver(&self, index: u32, row: &SessionRow, direction: Direction) -> Ip {
        match (self.slot.line(index), direction) {
            (Some(line), Direction::Client) => load(&line.server),
            (Some(line), Direction::Server) => load(&line.client),
            (None, Direction::Client) => ip4(row.real_server()),
            (None, Direction::Server) => ip4(row.client_ip.load(Relaxed)),
        }
    }

    /// The port a session's packets leave by, also when the next hop is not known yet.
    pub(crate) fn port_towards(&self, index: u32, row: &SessionRow, direction: Direction) -> u8 {
        if let Some(hop) = self.known_hop(row, direction) {
            return hop.port();
        }
        self.shared.next_hop(self.receiver(index, row, direction)).map_or(self.port.number, |next| next.port)
    }

    /// That port's MTU.
    pub(crate) fn mtu_towards(&self, index: u32, row: &SessionRow, direction: Direction) -> u32 {
        let port = self.port_towards(index, row, direction);
        if port == self.port.number {
            return self.port.mtu;
        }
        self.shared.published.ports.get(usize::from(port)).map_or(self.port.mtu, |port| port.mtu.load(Relaxed))
    }

    /// The largest segment of a NAT64 session: as IPv6 it must fit the client's port, whoever sends it.
    fn mss_of(&self, index: u32, row: &SessionRow) -> u16 {
        let mtu = self.mtu_towards(index, row, Direction::Server);
        u16::try_from(mtu.saturating_sub(HEADERS_V6)).unwrap_or(u16::MAX)
    }

    /// Drops a packet that does not fit, and tells its sender that `most` bytes do.
    pub(crate) fn too_big<I: Io>(&mut self, io: &mut I, place: usize, packet: &impl Packet, most: u32) {
        let scratch = self.scratch.as_mut_slice();
        let built = io.frame(place).and_then(|frame| packet.too_big(scratch, frame, most));
        if let Some(len) = built
            && self.answerable(io, place, packet)
            && self.answers.allow(self.now_ms)
        {
            self.originate_from_scratch(io, len);
        }
        self.refuse(io, place, DropReason::TooBig);
    }
}

/// Does a wide session keep its client's address (modes nat, dr, tunnel)?
pub(crate) fn keeps_client(line: &AddressLine) -> bool {
    load(&line.local) == load(&line.client)
}

pub(crate) fn load(words: &[AtomicU64; 2]) -> Ip {
    words.each_ref().map(|word| word.load(Relaxed))
}

/// Ends of a packet that goes on.
#[derive(Clone, Copy)]
struct Ends {
    src: (Ip, u16),
    dst: (Ip, u16),
}

impl Ends {
    /// Of what `direction` sends, on the other side.
    fn of(row: &SessionRow, line: &AddressLine, direction: Direction) -> Self {
        let (src, dst, sport, dport) = match direction {
            Direction::Client => (&line.local, &line.server, &row.local_port, &row.server_port),
            Direction::Server => (&line.vip, &line.client, &row.vip_port, &row.client_port),
        };
        Self { src: (load(src), sport.load(Relaxed)), dst: (load(dst), dport.load(Relaxed)) }
    }

    fn rewrite<A>(&self, numbers: Numbers, address: impl Fn(Ip) -> A) -> Rewrite<A> {
        let Numbers { seq_add, ack_sub } = numbers;
        let (src, dst) = (address(self.src.0), address(self.dst.0));
        Rewrite { src, dst, sport: self.src.1, dport: self.dst.1, seq_add, ack_sub }
    }
}

/// What is done to TCP numbers.
#[derive(Clone, Copy)]
struct Numbers {
    seq_add: u32,
    ack_sub: u32,
}

impl Numbers {
    fn of(direction: Direction, shift: u32) -> Self {
        match direction {
            Direction::Client => Self { seq_add: shift, ack_sub: 0 },
            Direction::Server => Self { seq_add: 0, ack_sub: shift },
        }
    }
}

/// To IPv4, in place. `None`: no such frame, or no IPv4 addresses in the line.
fn translate_to_v4<I: Io>(
    io: &mut I,
    place: usize,
    packet: &V6,
    to: &Ends,
    numbers: Numbers,
    (mss, id): (u16, u16),
) -> Option<()> {
    as_v4(to.src.0).and(as_v4(to.dst.0))?;
    let to = to.rewrite(numbers, |ip| as_v4(ip).unwrap_or(0));
    // What pads the frame would lie within the IPv4 packet's: cut off.
    if !io.resize(place, packet.head.end()) {
        return None;
    }
    let frame = io.frame(place)?;
    if packet.head.proto == protocol::TCP && packet.head.tcp_flags & tcp::SYN != 0 {
        tcp_options::clamp_mss(frame, &packet.head, mss);
    }
    let cut = nat64::to_v4(frame, packet, &to, id)?;
    io.cut(place, cut).then_some(())
}

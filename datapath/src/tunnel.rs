//! Mode tunnel: the client's packets go on as they came (but for a TTL of one less), wrapped into packets to the real server.

use std::sync::atomic::Ordering::Relaxed; // Session and published rows: see `forward`.

use packet::tunnel::{IPIP, wrap};
use packet::{Rewrite, V4, build, icmp, ipv4, rewrite_v4};
use shm_layout::counters::DropReason;
use shm_layout::neighbours::{as_v4, ip4};
use shm_layout::session::SessionRow;

use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::Direction;

/// [`IPIP`] in the type of an IP length.
const MORE: u16 = 20;
const _: () = assert!(MORE as usize == IPIP);

impl SlotRunner {
    /// A client's packet of a session in a tunnel.
    #[cold]
    pub(crate) fn forward_wrapped<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, index: u32) {
        let Some(row) = self.slot.sessions.get(index as usize) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let mtu = self.mtu_towards_server(row);
        if u32::from(packet.total_len) + u32::from(MORE) > mtu {
            return self.too_big_for_tunnel(io, place, packet, mtu);
        }
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        let (src, dst, sport, dport) = (packet.src, packet.dst, packet.sport, packet.dport);
        rewrite_v4(frame, packet, &Rewrite { src, dst, sport, dport, seq_add: 0, ack_sub: 0 });
        self.wrap_and_leave(io, place, packet, index);
    }

    /// Wraps what a session's server is to get, and sends it.
    pub(crate) fn wrap_and_leave<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, index: u32) {
        let Some(row) = self.slot.sessions.get(index as usize) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let hop = self.shared.neighbours.hop(row.hop[1].load(Relaxed));
        let Some(src) = self.tunnel_source(row, self.port_towards_server(row)) else {
            return self.refuse(io, place, DropReason::NoPort);
        };
        let dst = row.real_server();
        // What pads the frame would lie within the outer packet's frame: cut off.
        let room = io.resize(place, packet.end()) && io.prepend(place, IPIP);
        if !room || io.frame(place).and_then(|frame| wrap(frame, packet.l3, src, dst)).is_none() {
            return self.refuse(io, place, DropReason::NoBuffer);
        }
        let outer = V4 { total_len: packet.total_len.saturating_add(MORE), ..*packet };
        let usable = hop.resolved() && hop.tag() == row.hop_tag[1].load(Relaxed);
        let hop = if usable { Some(hop) } else { self.find_hop(io, place, index, Direction::Client) };
        if let Some(hop) = hop {
            self.leave(io, place, hop, &outer);
        }
    }

    /// Outer source: of all local addresses of the port, or its own if it has none, by the client, so that a server's queues
    /// share the load and one connection stays on one of them.
    fn tunnel_source(&self, row: &SessionRow, port: u8) -> Option<u32> {
        let client = u64::from(row.client_ip.load(Relaxed)) << 16 | u64::from(row.client_port.load(Relaxed));
        let pool = self.locals.get(usize::from(port)).filter(|pool| !pool.is_empty());
        if let Some(pool) = pool {
            let spread = client.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            return pool.get(spread % pool.len()).map(|(ip, _)| ip);
        }
        let port = self.shared.published.ports.get(usize::from(port))?;
        port.addresses.iter().filter_map(|row| row.get()).find_map(|(ip, _)| as_v4(ip))
    }

    /// Also of a server whose next hop is not known yet.
    fn port_towards_server(&self, row: &SessionRow) -> u8 {
        let (at, tag) = (row.hop[1].load(Relaxed), row.hop_tag[1].load(Relaxed));
        let hop = self.shared.neighbours.hop(at);
        if at != 0 && hop.tag() == tag {
            return hop.port();
        }
        self.shared.next_hop(ip4(row.real_server())).map_or(self.port.number, |next| next.port)
    }

    fn mtu_towards_server(&self, row: &SessionRow) -> u32 {
        let port = self.port_towards_server(row);
        if port == self.port.number {
            return self.port.mtu;
        }
        self.shared.published.ports.get(usize::from(port)).map_or(self.port.mtu, |port| port.mtu.load(Relaxed))
    }

    /// Says so to the client if it asked not to be cut up (RFC 1191), from the VIP.
    fn too_big_for_tunnel<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, mtu: u32) {
        let kind = (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED);
        let most = u16::try_from(mtu.saturating_sub(MORE.into())).unwrap_or(u16::MAX);
        let asked = |frame: &[u8]| frame.get(usize::from(packet.l3)..).is_some_and(ipv4::dont_fragment);
        let built = io
            .frame(place)
            .filter(|frame| asked(frame))
            .and_then(|frame| build::icmp_error(self.scratch.as_mut_slice(), frame, packet, packet.dst, kind, most));
        if let Some(len) = built
            && self.answerable(io, place, packet)
            && self.answers.allow(self.now_ms)
        {
            self.originate_from_scratch(io, len);
        }
        self.refuse(io, place, DropReason::TooBig);
    }
}

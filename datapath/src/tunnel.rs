//! Mode tunnel: the client's packets go on as they came (but for a TTL of one less), wrapped into packets to the real server.

use std::sync::atomic::Ordering::Relaxed; // Session and published rows: see `forward`.

use packet::tunnel::{IPIP, wrap};
use packet::{Rewrite, V4, rewrite_v4};
use shm_layout::counters::DropReason;
use shm_layout::neighbours::{as_v4, ip4};
use shm_layout::session::SessionRow;

use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::Direction;

/// [`IPIP`] in the type of an IP length.
pub(crate) const MORE: u16 = 20;
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
            return self.too_big(io, place, packet, mtu.saturating_sub(MORE.into()));
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
        let client = (row.client_ip.load(Relaxed), row.client_port.load(Relaxed));
        let Some(src) = self.tunnel_source(client, self.port_towards_server(row)) else {
            return self.refuse(io, place, DropReason::NoPort);
        };
        let dst = row.real_server();
        let Some(outer) = self.wrap(io, place, packet, (src, dst)) else {
            return self.refuse(io, place, DropReason::NoBuffer);
        };
        let usable = hop.resolved() && hop.tag() == row.hop_tag[1].load(Relaxed);
        let hop = if usable { Some(hop) } else { self.find_hop(io, place, index, Direction::Client) };
        if let Some(hop) = hop {
            self.leave(io, place, hop, &outer);
        }
    }

    /// Wraps a packet; what it is now. `None`: its buffer has no room.
    pub(crate) fn wrap<I: Io>(&self, io: &mut I, place: usize, packet: &V4, (src, dst): (u32, u32)) -> Option<V4> {
        // What pads the frame would lie within the outer packet's frame: cut off.
        let room = io.resize(place, packet.end()) && io.prepend(place, IPIP);
        io.frame(place).filter(|_| room).and_then(|frame| wrap(frame, packet.l3, src, dst))?;
        Some(V4 { total_len: packet.total_len.saturating_add(MORE), ..*packet })
    }

    /// Outer source: of all local addresses of the port, or its own if it has none, by the client, so that a server's queues
    /// share the load and one connection stays on one of them.
    pub(crate) fn tunnel_source(&self, client: (u32, u16), port: u8) -> Option<u32> {
        let client = u64::from(client.0) << 16 | u64::from(client.1);
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
        self.mtu_of(self.port_towards_server(row))
    }
}

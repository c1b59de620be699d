//! Mode tunnel: the client's packets go on as they came (but for a TTL of one less), wrapped into packets to the real server.
//! Inner and outer packet are of either family.

use std::sync::atomic::Ordering::Relaxed; // Session and published rows: see `forward`.

use packet::V4;
use packet::tunnel::{Outer, wrap};
use shm_layout::counters::DropReason;
use shm_layout::neighbours::{Ip, as_v4};
use shm_layout::session::SessionRow;

use crate::family::Packet;
use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::{Direction, LocalPool};
use crate::wide::load;

impl SlotRunner {
    /// A client's packet of a session in a tunnel.
    #[cold]
    pub(crate) fn forward_wrapped<I: Io>(&mut self, io: &mut I, place: usize, packet: &impl Packet, index: u32) {
        let Some(row) = self.slot.sessions.get(index as usize) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let mtu = self.mtu_towards(index, row, Direction::Client);
        let more = if as_v4(self.receiver(index, row, Direction::Client)).is_some() { 20 } else { 40 };
        if u32::from(packet.head().total_len) + more > mtu {
            return self.too_big(io, place, packet, mtu.saturating_sub(more));
        }
        if io.frame(place).and_then(|frame| packet.one_hop(frame)).is_none() {
            return self.refuse(io, place, DropReason::MultiSegment);
        }
        self.wrap_and_leave(io, place, packet.head(), index);
    }

    /// Wraps what a session's server is to get, and sends it. `head`: the packet's lengths.
    pub(crate) fn wrap_and_leave<I: Io>(&mut self, io: &mut I, place: usize, head: &V4, index: u32) {
        let Some(row) = self.slot.sessions.get(index as usize) else {
            return self.refuse(io, place, DropReason::BadRecord);
        };
        let Some(outer) = self.outer(index, row) else {
            return self.refuse(io, place, DropReason::NoPort);
        };
        // What pads the frame would lie within the outer packet's frame: cut off.
        let room = io.resize(place, head.end()) && io.prepend(place, outer.len().into());
        if !room || io.frame(place).and_then(|frame| wrap(frame, head.l3, outer)).is_none() {
            return self.refuse(io, place, DropReason::NoBuffer);
        }
        let wrapped = V4 { total_len: head.total_len.saturating_add(outer.len()), ..*head };
        self.send_on(io, place, index, Direction::Client, &wrapped);
    }

    /// Outer source: of all local addresses of the port and of the server's family, or the port's own if it has none, by the
    /// client, so that a server's queues share the load and one connection stays on one of them. Destination: the real server.
    fn outer(&self, index: u32, row: &SessionRow) -> Option<Outer> {
        let server = self.receiver(index, row, Direction::Client);
        let port = usize::from(self.port_towards(index, row, Direction::Client));
        let client = match self.slot.line(index) {
            Some(line) => load(&line.client).into_iter().fold(0, |sum, word| sum ^ word ^ word >> 32),
            None => row.client_ip.load(Relaxed).into(),
        };
        let spread =
            (client << 16 | u64::from(row.client_port.load(Relaxed))).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let own = |is: fn(&Ip) -> bool| {
            let port = self.shared.published.ports.get(port)?;
            port.addresses.iter().filter_map(|row| row.get()).map(|(ip, _)| ip).find(is)
        };
        Some(match as_v4(server) {
            Some(server) => {
                let local = self.locals.get(port).and_then(|pool| spread_over(pool, spread));
                Outer::V4(local.or_else(|| own(|ip| as_v4(*ip).is_some()).and_then(as_v4))?, server)
            }
            None => {
                let local = self.locals_v6.get(port).and_then(|pool| spread_over(pool, spread));
                Outer::V6(local.or_else(|| own(|ip| as_v4(*ip).is_none()))?, server)
            }
        })
    }
}

/// One of the pool's addresses.
fn spread_over<A: Copy>(pool: &LocalPool<A>, spread: u64) -> Option<A> {
    if pool.is_empty() { None } else { pool.get(spread % pool.len()).map(|(ip, _)| ip) }
}

//! One-packet scheduling (ADR 0016): every datagram is scheduled for itself, and nothing is remembered of it.

use std::sync::atomic::Ordering::Relaxed; // Counter rows have one writer, this slot.

use shm_layout::counters::DropReason;
use shm_layout::neighbours::Ip;

use crate::family::Packet;
use crate::io::Io;
use crate::runner::SlotRunner;
use crate::shared::NextHop;
use crate::tunnel::more_towards;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone {
    /// Its server.
    pub server: Ip,
    /// Row of its counts.
    pub server_id: u32,
    /// Wrapped (mode tunnel), else as it is (dr).
    pub tunnel: bool,
    /// The way there.
    pub next: NextHop,
}

impl SlotRunner {
    /// Sends a datagram to the server chosen for it.
    pub(crate) fn send_alone<I: Io>(&mut self, io: &mut I, place: usize, packet: &impl Packet, alone: &Alone) {
        let more = if alone.tunnel { more_towards(alone.server) } else { 0 };
        let mtu = self.mtu_of(alone.next.port);
        let mut head = *packet.head();
        if u32::from(head.total_len) + u32::from(more) > mtu {
            return self.too_big(io, place, packet, mtu.saturating_sub(more.into()));
        }
        if io.frame(place).and_then(|frame| packet.one_hop(frame)).is_none() {
            return self.refuse(io, place, DropReason::MultiSegment);
        }
        if let Some(counts) = self.slot.servers.get(alone.server_id as usize) {
            let more = |word: &shm_layout::sync::AtomicU64, n| word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
            more(&counts.total, 1);
            more(&counts.packets_in, 1);
            more(&counts.bytes_in, head.total_len.into());
        }
        if alone.tunnel {
            let outer = self.outer_to(alone.server, (packet.source(), head.sport), alone.next.port);
            let Some(outer) = outer else { return self.refuse(io, place, DropReason::NoPort) };
            match self.wrap(io, place, &head, outer) {
                Some(wrapped) => head = wrapped,
                None => return self.refuse(io, place, DropReason::NoBuffer),
            }
        }
        if alone.next.hop.resolved() {
            return self.leave(io, place, alone.next.hop, &head);
        }
        self.wait_for(io, place, &alone.next);
    }
}

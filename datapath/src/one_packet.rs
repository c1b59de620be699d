//! One-packet scheduling (ADR 0016): every datagram is scheduled for itself, and nothing is remembered of it.

use std::sync::atomic::Ordering::Relaxed; // Counter rows have one writer, this slot.

use packet::{Rewrite, V4, rewrite_v4};
use shm_layout::counters::DropReason;

use crate::io::Io;
use crate::runner::SlotRunner;
use crate::shared::NextHop;
use crate::tunnel::MORE;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone {
    /// Its server.
    pub server: u32,
    /// Row of its counts.
    pub server_id: u32,
    /// Wrapped (mode tunnel), else as it is (dr).
    pub tunnel: bool,
    /// The way there.
    pub next: NextHop,
}

impl SlotRunner {
    /// Sends a datagram to the server chosen for it.
    pub(crate) fn send_alone<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, alone: &Alone) {
        let more = if alone.tunnel { MORE } else { 0 };
        let mtu = self.mtu_of(alone.next.port);
        if u32::from(packet.total_len) + u32::from(more) > mtu {
            return self.too_big(io, place, packet, mtu.saturating_sub(more.into()));
        }
        let Some(frame) = io.frame(place) else { return self.refuse(io, place, DropReason::MultiSegment) };
        let (src, dst, sport, dport) = (packet.src, packet.dst, packet.sport, packet.dport);
        rewrite_v4(frame, packet, &Rewrite { src, dst, sport, dport, seq_add: 0, ack_sub: 0 });
        if let Some(counts) = self.slot.servers.get(alone.server_id as usize) {
            let more = |word: &shm_layout::sync::AtomicU64, n| word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
            more(&counts.total, 1);
            more(&counts.packets_in, 1);
            more(&counts.bytes_in, packet.total_len.into());
        }
        let mut packet = *packet;
        if alone.tunnel {
            let src = self.tunnel_source((packet.src, packet.sport), alone.next.port);
            let Some(src) = src else { return self.refuse(io, place, DropReason::NoPort) };
            match self.wrap(io, place, &packet, (src, alone.server)) {
                Some(outer) => packet = outer,
                None => return self.refuse(io, place, DropReason::NoBuffer),
            }
        }
        if alone.next.hop.resolved() {
            return self.leave(io, place, alone.next.hop, &packet);
        }
        self.wait_for(io, place, &alone.next);
    }
}

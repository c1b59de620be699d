//! Packets longer than the link they would leave by takes: their sender is told the size that fits (RFC 1191, RFC 4443), if it asked
//! not to be cut up. Nobody is cut up here: without DF they are dropped and counted.

use std::sync::atomic::Ordering::Relaxed; // Session and published rows: see `forward`.

use packet::V4;
use shm_layout::counters::DropReason;
use shm_layout::neighbours::{Ip, as_v4};

use crate::family::Packet;
use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::Direction;

impl SlotRunner {
    /// Is the session's packet, not yet rewritten, too long for the port it would leave by? Then it is refused.
    #[cold]
    pub(crate) fn too_long<I: Io>(
        &mut self,
        io: &mut I,
        place: usize,
        packet: &V4,
        index: u32,
        direction: Direction,
    ) -> bool {
        let Some(row) = self.slot.sessions.get(index as usize) else { return false };
        let mtu = self.mtu_towards(index, row, direction);
        if u32::from(packet.total_len) <= mtu {
            return false;
        }
        self.too_big(io, place, packet, mtu);
        true
    }

    /// Drops a packet that does not fit, and tells its sender that `most` bytes do.
    #[cold]
    pub(crate) fn too_big<I: Io>(&mut self, io: &mut I, place: usize, packet: &impl Packet, most: u32) {
        if !self.answerable(io, place, packet) {
            return self.refuse(io, place, DropReason::TooBig);
        }
        let from = self.own_address_towards(packet);
        let scratch = self.scratch.as_mut_slice();
        let built = io.frame(place).and_then(|frame| packet.too_big(scratch, frame, from, most));
        if let Some(len) = built
            && self.answers.allow(self.now_ms)
        {
            self.originate_from_scratch(io, len);
        }
        self.refuse(io, place, DropReason::TooBig);
    }

    /// Who tells: the address the packet was sent to if it is ours, else (a server's to a client it sees) the port's own.
    fn own_address_towards(&self, packet: &impl Packet) -> Ip {
        let (published, to) = (&self.shared.published, packet.destination());
        let ours = self.generation.is_some_and(|generation| {
            published.is_vip(generation, to) || published.find_local(generation, to).is_some()
        });
        let own = || {
            let addresses = &published.ports.get(usize::from(self.port.number))?.addresses;
            let of_family = |ip: &Ip| as_v4(*ip).is_some() == as_v4(to).is_some();
            addresses.iter().filter_map(|row| row.get()).map(|(ip, _)| ip).find(of_family)
        };
        if ours { to } else { own().unwrap_or(to) }
    }

    /// The longest packet a port sends, bytes.
    pub(crate) fn mtu_of(&self, port: u8) -> u32 {
        if port == self.port.number {
            return self.port.mtu;
        }
        self.shared.published.ports.get(usize::from(port)).map_or(self.port.mtu, |port| port.mtu.load(Relaxed))
    }
}

//! Packets longer than the link they would leave by takes: their sender is told the size that fits (RFC 1191), if it asked not
//! to be cut up. Nobody is cut up here: without DF they are dropped and counted.

use std::sync::atomic::Ordering::Relaxed; // Session and published rows: see `forward`.

use packet::{V4, build, icmp, ipv4};
use shm_layout::counters::DropReason;
use shm_layout::neighbours::{as_v4, ip4};

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
        let (side, address) = match direction {
            Direction::Client => (1, row.real_server()),
            Direction::Server => (0, row.client_ip.load(Relaxed)),
        };
        let hop = self.shared.neighbours.hop(row.hop[side].load(Relaxed));
        let known = hop.resolved() && hop.tag() == row.hop_tag[side].load(Relaxed);
        let next = || self.shared.next_hop(ip4(address)).map_or(self.port.number, |next| next.port);
        let mtu = self.mtu_of(if known { hop.port() } else { next() });
        if u32::from(packet.total_len) <= mtu {
            return false;
        }
        self.too_big(io, place, packet, mtu);
        true
    }

    /// Refuses a packet of which `most` bytes would fit.
    #[cold]
    pub(crate) fn too_big<I: Io>(&mut self, io: &mut I, place: usize, packet: &V4, most: u32) {
        let kind = (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED);
        let most = u16::try_from(most).unwrap_or(u16::MAX);
        let from = self.own_address_towards(packet);
        let asked = |frame: &[u8]| frame.get(usize::from(packet.l3)..).is_some_and(ipv4::dont_fragment);
        let built = io
            .frame(place)
            .filter(|frame| asked(frame))
            .and_then(|frame| build::icmp_error(self.scratch.as_mut_slice(), frame, packet, from, kind, most));
        if let Some(len) = built
            && self.answerable(io, place, packet)
            && self.answers.allow(self.now_ms)
        {
            self.originate_from_scratch(io, len);
        }
        self.refuse(io, place, DropReason::TooBig);
    }

    /// Who tells: the address the packet was sent to if it is ours, else (a server's to a client it sees) the port's own.
    fn own_address_towards(&self, packet: &V4) -> u32 {
        let published = &self.shared.published;
        let ours = self.generation.is_some_and(|generation| {
            published.is_vip(generation, ip4(packet.dst)) || published.find_local(generation, ip4(packet.dst)).is_some()
        });
        let own = || published.ports.get(usize::from(self.port.number))?.addresses.iter().find_map(|row| row.get());
        if ours { packet.dst } else { own().and_then(|(ip, _)| as_v4(ip)).unwrap_or(packet.dst) }
    }

    /// The longest packet a port sends, bytes.
    pub(crate) fn mtu_of(&self, port: u8) -> u32 {
        if port == self.port.number {
            return self.port.mtu;
        }
        self.shared.published.ports.get(usize::from(port)).map_or(self.port.mtu, |port| port.mtu.load(Relaxed))
    }
}

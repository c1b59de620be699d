//! ICMP errors about the outer packets of tunnels (RFC 2003 §4): the client, whose packet is within, is told what it can use.

use std::sync::atomic::Ordering::Relaxed; // Session rows have one writer, this slot.

use packet::quote::{self, Quote};
use packet::{V4, icmp};
use shm_layout::counters::DropReason;
use shm_layout::neighbours::ip4;
use shm_layout::published::protocol;
use shm_layout::ring::RecordKind;
use shm_layout::session::{SessionRow, flag};

use crate::io::Io;
use crate::runner::{Origin, SlotRunner};
use crate::session::{Direction, Key};
use crate::tunnel;

impl SlotRunner {
    /// An error about a packet of a tunnel, sent to the end we are: its session's client is told.
    #[cold]
    pub(crate) fn tunnel_error<I: Io>(
        &mut self,
        io: &mut I,
        place: usize,
        packet: &V4,
        (far, quote): (u32, &Quote),
        origin: Origin,
    ) {
        let key = Key::new(quote.src, quote.sport, quote.dst, quote.dport, quote.proto);
        let Some((index, _)) = self.sessions.find(key) else {
            return match self.elsewhere(key).filter(|_| origin == Origin::Port) {
                Some(target) => self.pass_on(io, place, target, RecordKind::Redirect),
                None => self.for_kernel_or(io, place, packet, origin, DropReason::NoSession),
            };
        };
        let row = self.slot.sessions.get(index as usize).filter(|row| wrapped_in_v4(row));
        let Some(row) = row.filter(|row| self.receiver(index, row, Direction::Client) == ip4(far)) else {
            return self.refuse(io, place, DropReason::BadIcmp);
        };
        // What was sent lately (RFC 5927 §4.1): of what the server has acknowledged nothing is known here.
        let lately = row.end[0].load(Relaxed).wrapping_sub(quote.seq) < LATELY;
        let [kind, code] = packet.dport.to_be_bytes();
        let Some(kind) = told(kind, code).filter(|_| quote.proto != protocol::TCP || lately) else {
            return self.refuse(io, place, DropReason::BadIcmp);
        };
        if packet.ttl <= 1 {
            return self.refuse(io, place, DropReason::TtlExpired);
        }
        if !self.errors.allow(self.now_ms) {
            return self.refuse(io, place, DropReason::RateLimited);
        }
        let (vip, client) = (row.vip.load(Relaxed), row.client_ip.load(Relaxed));
        let mtu =
            |frame: &[u8]| frame.get(usize::from(packet.l4) + 6..)?.first_chunk().copied().map(u16::from_be_bytes);
        let untunnelled = io.frame(place).and_then(|frame| {
            let too_big = kind.1 == icmp::FRAGMENTATION_NEEDED;
            let most = mtu(frame).filter(|_| too_big).map_or(0, |mtu| mtu.saturating_sub(tunnel::MORE));
            quote::untunnel(frame, packet, quote, (vip, client), kind, most)
        });
        let Some(len) = untunnelled.filter(|len| io.resize(place, *len)) else {
            return self.refuse(io, place, DropReason::BadIcmp);
        };
        let total_len = u16::try_from(len - usize::from(packet.l3)).unwrap_or(u16::MAX);
        if let Some(hop) = self.find_hop(io, place, index, Direction::Server) {
            self.leave(io, place, hop, &V4 { total_len, ..*packet });
        }
    }
}

/// Are the session's packets wrapped, IPv4 in IPv4?
fn wrapped_in_v4(row: &SessionRow) -> bool {
    row.flags.load(Relaxed) & (flag::TUNNEL | flag::DIRECT | flag::V6) == flag::TUNNEL | flag::DIRECT
}

/// How far back a segment may lie to be believed to be on its way, bytes.
const LATELY: u32 = 1 << 24;

/// What a client is told of an error about the packet its own was wrapped into (RFC 2003 §4): that it is too big, or that the
/// host is not reached. `None`: nothing.
const fn told(kind: u8, code: u8) -> Option<(u8, u8)> {
    match (kind, code) {
        (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED) => Some((icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED)),
        (icmp::UNREACHABLE, 0 | 1 | 2 | 13) | (icmp::TIME_EXCEEDED, 0) => {
            Some((icmp::UNREACHABLE, icmp::HOST_UNREACHABLE))
        }
        _ => None,
    }
}

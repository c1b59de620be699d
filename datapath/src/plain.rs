//! The straight way of nearly all packets: plain ones (`packet::plain`) of an established session whose next hop is known.
//!
//! All that must hold is found out before the first byte or word is changed. What does not hold sends the packet the
//! general way (`forward`), which does the same for any packet; `tests/ways.rs` shows that nobody can tell them apart.

use std::sync::atomic::Ordering::Relaxed; // Session and counter rows have one writer, this slot.

use arch::load32;
use packet::plain::{self, Numbers};
use shm_layout::session::{SessionRow, State, flag};

use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::translate;
use crate::tcp;

const _: () = assert!(std::mem::offset_of!(SessionRow, state) == 28 && std::mem::offset_of!(SessionRow, flags) == 29);

/// What decides whether packets go straight: state, protocol, in the index, translated as IPv4.
/// Below 0x8000.
#[allow(clippy::cast_possible_truncation, reason = "state and flags are the lower half")]
#[inline(always)]
fn standing(row: &SessionRow) -> u16 {
    load32::<28, _>(row) as u16 & (0xff | ((flag::UDP | flag::V6 | flag::INDEXED | flag::DIRECT) as u16) << 8)
}

/// [`standing`] of a record whose plain TCP packets go straight.
pub(crate) const TCP: u16 = State::Established as u16 | (flag::INDEXED as u16) << 8;
/// The same of UDP.
pub(crate) const UDP: u16 = State::Udp as u16 | ((flag::UDP | flag::INDEXED) as u16) << 8;

impl SlotRunner {
    /// Tracks, counts and rewrites a plain packet, which is then to be sent. `false`: it is not for here, and nothing has
    /// happened to it.
    ///
    /// `record` may be the packet's, it is not verified; `state` is the one it must have ([`TCP`], [`UDP`]; else: none).
    #[inline(always)]
    pub(crate) fn forward_plain<I: Io>(&self, io: &mut I, place: usize, record: u32, state: u16) -> bool {
        let Some(row) = self.slot.sessions.get(record as usize) else { return false };
        let Some(frame) = io.frame(place) else { return false };
        let fits = frame.len() <= self.port.longest;
        let Some(window) = frame.first_chunk_mut::<{ plain::WINDOW }>() else { return false };
        let Some((side, onward)) = translate(row, plain::ends(window)) else { return false };
        let (me, peer) = (side.index(), side.other());
        let hop = self.shared.neighbours.hop(row.hop[peer].load(Relaxed));
        let leads = hop.leads_by(self.port.way, row.hop_tag[peer].load(Relaxed));
        if !fits || standing(row) != state || !leads {
            return false;
        }
        plain::set_link(window, hop.0, self.port.source);
        let total_len = plain::total_len(window);
        if state == TCP {
            let numbers = Numbers::of(window);
            let shift = row.isn_shift.load(Relaxed);
            // The client's numbers are shifted up for the server, the server's acknowledgements down for the client.
            let up = side.either(shift, 0);
            let (seq, ack) = (numbers.seq.wrapping_add(up), numbers.ack.wrapping_sub(shift ^ up));
            plain::translate_tcp(window, onward, (numbers, Numbers { seq, ack }));
            let end = numbers.seq.wrapping_add(u32::from(total_len)).wrapping_sub(plain::TCP_HEADERS);
            tcp::advance_acked(row, me, peer, end, ack);
        } else {
            plain::translate_udp(window, onward);
        }
        #[allow(clippy::cast_possible_truncation, reason = "the tables' clock wraps by design")]
        row.last_seen.store(self.now_ms as u32, Relaxed);
        self.count(row, me, u64::from(total_len));
        true
    }
}

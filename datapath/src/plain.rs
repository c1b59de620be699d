//! The straight way of nearly all packets: plain ones (`packet::plain`) of an established session whose next hop is known.
//!
//! All that must hold is found out before the first byte or word is changed. What does not hold sends the packet the
//! general way (`forward`), which does the same for any packet; `tests/ways.rs` shows that nobody can tell them apart.

use std::sync::atomic::Ordering::Relaxed; // Session and counter rows have one writer, this slot.

use arch::load64;
use packet::plain::{self, Numbers};
use shm_layout::counters::DropReason;
use shm_layout::session::{SessionRow, State, flag};

use crate::io::Io;
use crate::runner::SlotRunner;
use crate::session::{Side, Tuples};
use crate::tcp;

/// State, flags, next hops of a record and their tags, in one load.
#[derive(Clone, Copy)]
struct Standing(u64);

const _: () = assert!(std::mem::offset_of!(SessionRow, state) == 28 && std::mem::offset_of!(SessionRow, flags) == 29);
const _: () = assert!(std::mem::offset_of!(SessionRow, client_hop) == 30);
const _: () = assert!(std::mem::offset_of!(SessionRow, server_hop) == 32);
const _: () = assert!(std::mem::offset_of!(SessionRow, client_hop_tag) == 34);
const _: () = assert!(std::mem::offset_of!(SessionRow, server_hop_tag) == 35);

#[allow(clippy::cast_possible_truncation, reason = "cuts fields out of a word")]
impl Standing {
    #[inline(always)]
    fn of(row: &SessionRow) -> Self {
        Self(load64::<28, _>(row))
    }

    /// What decides whether packets go straight: state, protocol, in the index, translated by a shift in the record itself.
    /// Below 0x8000.
    #[inline(always)]
    const fn state(self) -> u16 {
        self.0 as u16 & (0xff | ((flag::UDP | flag::EXTENSION | flag::INDEXED | flag::DIRECT) as u16) << 8)
    }

    /// Row and tag of the hop that a packet of this side goes to.
    #[inline(always)]
    const fn hop(self, side: Side) -> (u16, u8) {
        ((self.0 >> side.either(32, 16)) as u16, (self.0 >> side.either(56, 48)) as u8)
    }
}

/// [`Standing::state`] of a record whose plain TCP packets go straight.
pub(crate) const TCP: u16 = State::Established as u16 | (flag::INDEXED as u16) << 8;
/// The same of UDP.
pub(crate) const UDP: u16 = State::Udp as u16 | ((flag::UDP | flag::INDEXED) as u16) << 8;

impl SlotRunner {
    /// Tracks, counts, rewrites and sends a plain packet. `false`: it is not for here, and nothing has happened to it.
    ///
    /// `record` may be the packet's, it is not verified; `state` is the one it must have ([`TCP`], [`UDP`]; else: none).
    #[inline(always)]
    pub(crate) fn forward_plain<I: Io>(&mut self, io: &mut I, place: usize, record: u32, state: u16) -> bool {
        let Some(row) = self.slot.sessions.get(record as usize) else { return false };
        let standing = Standing::of(row);
        let Some(frame) = io.frame(place) else { return false };
        let fits = frame.len() <= packet::ethernet::HEADER + self.port.mtu as usize;
        let Some(window) = frame.first_chunk_mut::<{ plain::WINDOW }>() else { return false };
        let tuple = plain::tuple(window);
        let Some((side, onward)) = Tuples::of(row).translate(tuple) else { return false };
        let (hop_row, hop_tag) = standing.hop(side);
        let hop = self.shared.neighbours.hop(hop_row);
        if !fits || standing.state() != state || !hop.leads_out(hop_tag, self.port.number) {
            return false;
        }
        let total_len = plain::total_len(window);
        if state == TCP {
            let numbers = Numbers::of(window);
            let shift = row.isn_shift.load(Relaxed);
            // The client's numbers are shifted up for the server, the server's acknowledgements down for the client.
            let up = side.either(shift, 0);
            let (seq, ack) = (numbers.seq.wrapping_add(up), numbers.ack.wrapping_sub(shift ^ up));
            plain::translate_tcp(window, (tuple, onward), (numbers, Numbers { seq, ack }));
            let end = numbers.seq.wrapping_add(u32::from(total_len)).wrapping_sub(plain::TCP_HEADERS);
            tcp::advance_acked(row, side.index(), 1 - side.index(), end, ack);
        } else {
            plain::translate_udp(window, (tuple, onward));
        }
        #[allow(clippy::cast_possible_truncation, reason = "the tables' clock wraps by design")]
        row.last_seen.store(self.now_ms as u32, Relaxed);
        self.count(row, side.index(), u64::from(total_len));
        plain::set_link(window, hop.0, self.port.source);
        if !io.send(place) {
            self.refuse(io, place, DropReason::TxFull);
        }
        true
    }
}

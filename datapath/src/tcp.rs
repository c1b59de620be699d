//! TCP tracking: states, sequence ends and acks of both sides, which reset is believed.
//!
//! Windows are not kept. What protects a session is RFC 5961's rule for the middle: a reset closes only if its number is
//! exactly the sender's end or what the peer has acknowledged; everything else is forwarded and changes nothing.

use std::sync::atomic::Ordering::Relaxed; // All fields have one writer, the slot's owner; readers tolerate any mix.

use packet::tcp::{ACK, FIN, RST, SYN};
use shm_layout::session::{SessionRow, State, flag};

use crate::session::Direction;

/// How far a segment may lie beyond what was seen, bytes: data in flight when earlier segments were lost. More than any
/// window in use, less than a random number hits.
const REACH: u32 = 1 << 28;

/// What a segment says, in the numbers of the side of the wire it was seen on.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Payload + SYN + FIN.
    pub len: u32,
}

/// What the segment does to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that a timeout depends on, or a new state already stored.
    Stay,
    /// The session is over; its port may be used again after the state's (short) timeout.
    Closing,
    /// A SYN on a session that is over: a new connection with the same numbers.
    Reopen,
}

fn after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// Follows one segment. `shift` is the ISN shift: the server's acknowledgements carry it.
#[inline]
pub fn track(row: &SessionRow, direction: Direction, segment: &Segment, shift: u32) -> Step {
    let (me, peer) = match direction {
        Direction::Client => (0, 1),
        Direction::Server => (1, 0),
    };
    let state = row.state.load(Relaxed);
    // What this side acknowledges, in the peer's own numbers.
    let ack = if me == 1 { segment.ack.wrapping_sub(shift) } else { segment.ack };
    let established = state == State::Established as u8;
    if !established || segment.flags & (SYN | RST | FIN) != 0 {
        return track_rare(row, me, peer, segment, ack, State::of(state).unwrap_or(State::Free));
    }
    advance(row, me, peer, segment, ack);
    Step::Stay
}

/// Moves the sender's end and ack forward, if the segment is plausible.
#[inline(always)]
fn advance(row: &SessionRow, me: usize, peer: usize, segment: &Segment, ack: u32) {
    let end = segment.seq.wrapping_add(segment.len);
    let seen = row.end[me].load(Relaxed);
    if after(end, seen) && end.wrapping_sub(seen) < REACH {
        row.end[me].store(end, Relaxed);
    }
    let acked = row.ack[me].load(Relaxed);
    // Nobody acknowledges what was not sent: an ack beyond the peer's end is not believed.
    if segment.flags & ACK != 0 && after(ack, acked) && !after(ack, row.end[peer].load(Relaxed)) {
        row.ack[me].store(ack, Relaxed);
    }
}

#[cold]
fn track_rare(row: &SessionRow, me: usize, peer: usize, segment: &Segment, ack: u32, state: State) -> Step {
    let set = |state: State| row.state.store(state as u8, Relaxed);
    let over = matches!(state, State::TimeWait | State::Close);
    if segment.flags & RST != 0 {
        return reset(row, me, peer, segment, ack, state);
    }
    match (me, segment.flags & (SYN | ACK)) {
        // A client's SYN: again (same number: nothing changes), anew on a dead session, or suspicious (forwarded; the
        // server answers a challenge ACK, RFC 5961 §4).
        (0, SYN) => {
            let end = segment.seq.wrapping_add(segment.len);
            let same = row.end[0].load(Relaxed) == end;
            return match state {
                _ if over => Step::Reopen,
                State::SynSent if !same => {
                    row.end[0].store(end, Relaxed); // The client gave up and began again.
                    Step::Stay
                }
                _ => Step::Stay,
            };
        }
        // The server's SYN-ACK counts if it answers our SYN; an old one is forwarded and changes nothing.
        (1, flags) if flags == SYN | ACK => {
            if state == State::SynSent && ack == row.end[0].load(Relaxed) {
                row.end[1].store(segment.seq.wrapping_add(segment.len), Relaxed);
                row.ack[1].store(ack, Relaxed);
                set(State::SynRecv);
            }
            return Step::Stay;
        }
        (_, flags) if flags & SYN != 0 => return Step::Stay,
        _ => {}
    }
    if over || state == State::SynSent {
        return Step::Stay;
    }
    if state == State::SynRecv {
        if me == 0 && ack == row.end[1].load(Relaxed) {
            row.ack[0].store(ack, Relaxed);
            set(State::Established);
        } else if me == 0 {
            return Step::Stay;
        }
    }
    advance(row, me, peer, segment, ack);
    finish(row, me, segment)
}

/// FINs and their acknowledgements.
fn finish(row: &SessionRow, me: usize, segment: &Segment) -> Step {
    let fins = [flag::CLIENT_FIN, flag::SERVER_FIN];
    let mut flags = row.flags.load(Relaxed);
    // The FIN of a segment whose end was believed.
    if segment.flags & FIN != 0 && row.end[me].load(Relaxed) == segment.seq.wrapping_add(segment.len) {
        flags |= fins[me];
        row.flags.store(flags, Relaxed);
    }
    let sent = |side: usize| flags & fins[side] != 0;
    let acked = |side: usize| row.ack[1 - side].load(Relaxed) == row.end[side].load(Relaxed);
    let next = match (sent(0), sent(1)) {
        (false, false) => return Step::Stay,
        (true, true) if acked(0) && acked(1) => State::TimeWait,
        (true, true) => State::LastAck,
        (client, _) if acked(usize::from(!client)) => State::CloseWait,
        _ => State::FinWait,
    };
    let before = row.state.load(Relaxed);
    if before == State::SynRecv as u8 {
        return Step::Stay;
    }
    row.state.store(next as u8, Relaxed);
    if next == State::TimeWait && before != next as u8 { Step::Closing } else { Step::Stay }
}

/// A reset closes if its number is the sender's end or what the peer acknowledged; one that answers a SYN must
/// acknowledge it (RFC 9293 §3.10.7.3).
fn reset(row: &SessionRow, me: usize, peer: usize, segment: &Segment, ack: u32, state: State) -> Step {
    let believed = match state {
        State::SynSent if me == 1 => segment.flags & ACK != 0 && ack == row.end[0].load(Relaxed),
        State::TimeWait | State::Close => false,
        _ => segment.seq == row.end[me].load(Relaxed) || segment.seq == row.ack[peer].load(Relaxed),
    };
    if !believed {
        return Step::Stay;
    }
    row.state.store(State::Close as u8, Relaxed);
    Step::Closing
}

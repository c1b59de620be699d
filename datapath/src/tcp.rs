//! TCP tracking: states, sequence ends and acks of both sides, which reset is believed.
//!
//! Windows are not kept. What protects a session is RFC 5961's rule for the middle: a reset closes only if its number is
//! exactly the sender's end or what the peer has acknowledged; everything else is forwarded and changes nothing, timers
//! included. So that nobody moves an end to a number of his own and then resets by it, an end moves only with a segment
//! whose acknowledgement is one its sender can have (RFC 5961 §5): whoever does not see the session must guess both.
//!
//! Acks begin with the least that may be acknowledged: `ack[server]` with the client's ISN + 1, `ack[client]` with the
//! server's.

use std::hint::select_unpredictable;
use std::sync::atomic::Ordering::Relaxed; // All fields have one writer, the slot's owner; readers tolerate any mix.

use packet::tcp::{ACK, FIN, RST, SYN};
use shm_layout::session::{SessionRow, State, flag};

use crate::session::Direction;

/// How far a segment may lie beyond what was seen, bytes: data in flight when earlier segments were lost. More than any
/// window in use, less than a random number hits.
const REACH: u32 = 1 << 28;
/// "Has sent FIN", by side.
const FINS: [u8; 2] = [flag::CLIENT_FIN, flag::SERVER_FIN];

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
    /// Forwarded, and nothing else: the session does not count as used.
    Ignore,
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
    if segment.flags & ACK != 0 {
        advance_acked(row, me, peer, segment.seq.wrapping_add(segment.len), ack);
    }
}

/// [`advance`] for a segment with ACK that ends before `end`. Without a branch: who is ahead cannot be guessed.
#[inline(always)]
pub(crate) fn advance_acked(row: &SessionRow, me: usize, peer: usize, end: u32, ack: u32) {
    let (acked, seen) = (row.ack[me].load(Relaxed), row.end[me].load(Relaxed));
    // Nobody acknowledges what was not sent, and who sends something new acknowledges no less than before.
    let known = ack.wrapping_sub(acked) <= row.end[peer].load(Relaxed).wrapping_sub(acked);
    row.ack[me].store(select_unpredictable(known, ack, acked), Relaxed);
    // An end before what was seen is more than REACH away.
    let moves = known & (end.wrapping_sub(seen) < REACH);
    row.end[me].store(select_unpredictable(moves, end, seen), Relaxed);
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
            return match state {
                _ if over => Step::Reopen,
                State::SynSent => {
                    // The same (perhaps without its payload now), or the client gave up and began again.
                    let least = segment.seq.wrapping_add(1);
                    if row.ack[1].load(Relaxed) != least || after(end, row.end[0].load(Relaxed)) {
                        row.end[0].store(end, Relaxed);
                        row.ack[1].store(least, Relaxed);
                    }
                    Step::Stay
                }
                State::SynRecv if row.end[0].load(Relaxed) == end => Step::Stay,
                _ => Step::Ignore,
            };
        }
        // The server's SYN-ACK counts if it answers our SYN; an old one is forwarded and changes nothing. It need not
        // acknowledge the SYN's payload (RFC 7413 §4.2), and a server that keeps no state (SYN cookies) may answer a
        // retransmitted SYN with another number.
        (1, flags) if flags == SYN | ACK => {
            if !matches!(state, State::SynSent | State::SynRecv) || !answers_syn(row, ack) {
                return Step::Ignore;
            }
            // The same once more, late: what a server that need not wait for the client's ACK (RFC 7413) said since stands.
            let (begin, end) = (segment.seq.wrapping_add(1), segment.seq.wrapping_add(segment.len));
            let again = state == State::SynRecv && row.ack[0].load(Relaxed) == begin;
            if !again || after(end, row.end[1].load(Relaxed)) {
                row.end[1].store(end, Relaxed);
            }
            if !again || after(ack, row.ack[1].load(Relaxed)) {
                row.ack[1].store(ack, Relaxed);
            }
            row.ack[0].store(begin, Relaxed);
            set(State::SynRecv);
            return Step::Stay;
        }
        (_, flags) if flags & SYN != 0 => return Step::Ignore,
        _ => {}
    }
    if over {
        return Step::Stay; // A retransmitted FIN begins its time anew (RFC 9293 §3.10.7.4).
    }
    let finished = row.flags.load(Relaxed) & FINS[me] != 0;
    if state == State::SynSent || finished && after(segment.seq.wrapping_add(segment.len), row.end[me].load(Relaxed)) {
        return Step::Ignore; // Nothing follows a FIN.
    }
    if state == State::SynRecv {
        let acked = segment.flags & ACK != 0 && between(row.ack[0].load(Relaxed), ack, row.end[1].load(Relaxed));
        if me == 0 && acked {
            set(State::Established);
        } else if me == 0 {
            return Step::Ignore;
        }
    }
    advance(row, me, peer, segment, ack);
    finish(row, me, segment)
}

/// As [`REACH`], where only one side is seen: nothing of the other tells a guess from the truth, so less is believed.
const REACH_ALONE: u32 = 1 << 24;

/// Follows one segment of a client whose server replies past us: the handshake is believed to be over when the client
/// acknowledges, the connection when the client has sent its FIN or an exact reset, and neither when it goes on afterwards. A
/// segment counts if it lies near what the client sent and what it acknowledged before. What it acknowledges is kept: it is
/// where a reset of ours must be.
pub fn track_client(row: &SessionRow, segment: &Segment) -> Step {
    let set = |state: State| row.state.store(state as u8, Relaxed);
    let state = State::of(row.state.load(Relaxed)).unwrap_or(State::Free);
    let (seen, acked) = (row.end[0].load(Relaxed), row.ack[0].load(Relaxed));
    let end = segment.seq.wrapping_add(segment.len);
    if segment.flags & RST != 0 {
        if state == State::Close || segment.seq != seen {
            return Step::Ignore;
        }
        set(State::Close);
        return Step::Stay;
    }
    if segment.flags & SYN != 0 {
        // A new connection of the same numbers begins above the old one (RFC 9293 §3.6.1).
        let above = after(segment.seq.wrapping_add(1), seen);
        return match state {
            State::Close => Step::Reopen,
            State::FinWait if above => Step::Reopen,
            State::SynSent => {
                row.end[0].store(end, Relaxed);
                Step::Stay
            }
            _ => Step::Ignore,
        };
    }
    let near = end.wrapping_sub(seen) < REACH_ALONE
        && (state == State::SynSent || segment.ack.wrapping_sub(acked) < REACH_ALONE);
    if segment.flags & ACK == 0 || !near {
        return Step::Ignore;
    }
    row.end[0].store(end, Relaxed);
    row.ack[0].store(segment.ack, Relaxed);
    let goes_on = state != State::FinWait || end != seen;
    if segment.flags & FIN != 0 {
        set(State::FinWait);
    } else if goes_on {
        set(State::Established);
    }
    Step::Stay
}

/// Does the server acknowledge the SYN, with or without its payload?
fn answers_syn(row: &SessionRow, ack: u32) -> bool {
    between(row.ack[1].load(Relaxed), ack, row.end[0].load(Relaxed))
}

/// Is `least <= number <= most`, modulo 2^32?
fn between(least: u32, number: u32, most: u32) -> bool {
    !after(least, number) && !after(number, most)
}

/// FINs and their acknowledgements.
fn finish(row: &SessionRow, me: usize, segment: &Segment) -> Step {
    let mut flags = row.flags.load(Relaxed);
    // The FIN of a segment whose end was believed.
    if segment.flags & FIN != 0 && row.end[me].load(Relaxed) == segment.seq.wrapping_add(segment.len) {
        flags |= FINS[me];
        row.flags.store(flags, Relaxed);
    }
    let sent = |side: usize| flags & FINS[side] != 0;
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
        return Step::Stay; // The server's FIN overtook the client's ACK: its retransmission counts.
    }
    row.state.store(next as u8, Relaxed);
    if next == State::TimeWait && before != next as u8 { Step::Closing } else { Step::Stay }
}

/// A reset closes if its number is the sender's end or what the peer acknowledged; one that answers a SYN must
/// acknowledge it (RFC 9293 §3.10.7.3).
fn reset(row: &SessionRow, me: usize, peer: usize, segment: &Segment, ack: u32, state: State) -> Step {
    let believed = match state {
        State::SynSent if me == 1 => segment.flags & ACK != 0 && answers_syn(row, ack),
        State::TimeWait | State::Close => false,
        _ => segment.seq == row.end[me].load(Relaxed) || segment.seq == row.ack[peer].load(Relaxed),
    };
    if !believed {
        return Step::Ignore;
    }
    row.state.store(State::Close as u8, Relaxed);
    Step::Closing
}

//! TCP options (RFC 9293 §3.2): walked without ever leaving the header, changed in place with the checksum.

use crate::checksum::Delta;
use crate::parse::Parsed;
use crate::{be16, be32, put};

/// End of the list.
const END: u8 = 0;
/// No operation, one byte.
const NOP: u8 = 1;
/// SACK blocks (RFC 2018).
const SACK: u8 = 5;
/// Timestamps (RFC 7323).
const TIMESTAMPS: u8 = 8;

/// Calls `visit(kind, offset in the frame, length)` for every whole option; stops at the first broken one.
fn walk(frame: &mut [u8], parsed: &Parsed, mut visit: impl FnMut(&mut [u8], u8, usize, usize)) {
    let mut at = usize::from(parsed.l4) + 20;
    let end = usize::from(parsed.payload).min(frame.len());
    while at < end {
        match frame[at] {
            END => return,
            NOP => at += 1,
            kind => {
                let Some(len) = frame.get(at + 1).map(|len| usize::from(*len)).filter(|len| *len >= 2) else { return };
                if at + len > end {
                    return;
                }
                visit(frame, kind, at, len);
                at += len;
            }
        }
    }
}

/// Adds the change of bytes `at..at + N` to the segment's checksum, whatever their alignment: the 16-bit words they lie
/// in are compared before and after.
fn change<const N: usize>(frame: &mut [u8], parsed: &Parsed, at: usize, new: [u8; N]) {
    let l4 = usize::from(parsed.l4);
    let first = at - (at - l4) % 2;
    let last = (at + N).next_multiple_of(2) + l4 % 2;
    let words = || (first..last).step_by(2);
    let before: [u16; 16] = collect(words().map(|word| be16(frame, word)));
    put(frame, at, new);
    let mut delta = Delta::default();
    for (word, old) in words().zip(before) {
        delta = delta.change16(old, be16(frame, word));
    }
    let checksum = be16(frame, l4 + 16);
    put(frame, l4 + 16, delta.apply(checksum).to_be_bytes());
}

fn collect(words: impl Iterator<Item = u16>) -> [u16; 16] {
    let mut all = [0; 16];
    for (to, word) in all.iter_mut().zip(words) {
        *to = word;
    }
    all
}

/// Subtracts `shift` from every edge of the segment's SACK blocks: they name the peer's numbers as the sender knows them.
#[cold]
pub fn shift_sack(frame: &mut [u8], parsed: &Parsed, shift: u32) {
    walk(frame, parsed, |frame, kind, at, len| {
        if kind == SACK {
            for edge in (at + 2..at + len).step_by(4).filter(|edge| edge + 4 <= at + len) {
                let moved = be32(frame, edge).wrapping_sub(shift);
                change(frame, parsed, edge, moved.to_be_bytes());
            }
        }
    });
}

/// Overwrites timestamp options with NOPs, so that neither side uses them.
pub fn blank_timestamps(frame: &mut [u8], parsed: &Parsed) {
    walk(frame, parsed, |frame, kind, at, len| {
        if kind == TIMESTAMPS && len == 10 {
            change(frame, parsed, at, [NOP; 10]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::Mac;
    use crate::parse;
    use crate::rewrite::transport_checksum_ok;
    use etherparse::TcpOptionElement as Option_;

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn segment(options: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let mut padded = options.to_vec();
        padded.resize(padded.len().next_multiple_of(4), END);
        etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], US.0)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1, 2, 3, 4)
            .ack(5)
            .options_raw(&padded)
            .unwrap()
            .write(&mut frame, b"odd")
            .unwrap();
        frame
    }

    #[test]
    fn sack_edges_move_at_every_alignment() {
        for nops in 0..4 {
            let mut options = vec![NOP; nops];
            options.extend([SACK, 18]);
            for edge in [100_u32, 200, 5, 0xffff_fff0] {
                options.extend(edge.to_be_bytes());
            }
            let mut frame = segment(&options);
            let parsed = parse::transport(&frame, US).unwrap();
            shift_sack(&mut frame, &parsed, 50);
            assert!(transport_checksum_ok(&frame, &parsed), "nops {nops}");
            let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!() };
            let found = tcp.options_iterator().find_map(|o| match o {
                Ok(Option_::SelectiveAcknowledgement(first, rest)) => Some((first, rest[0])),
                _ => None,
            });
            assert_eq!(found, Some(((50, 150), Some((5_u32.wrapping_sub(50), 0xffff_ffbe)))));
        }
    }

    #[test]
    fn timestamps_become_nops() {
        for nops in 0..3 {
            let mut options = vec![2, 4, 5, 0xb4];
            options.extend(vec![NOP; nops]);
            options.extend([TIMESTAMPS, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
            let mut frame = segment(&options);
            let parsed = parse::transport(&frame, US).unwrap();
            blank_timestamps(&mut frame, &parsed);
            assert!(transport_checksum_ok(&frame, &parsed));
            let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!() };
            let left: Vec<_> = tcp.options_iterator().map(Result::unwrap).filter(|o| *o != Option_::Noop).collect();
            assert_eq!(left, [Option_::MaximumSegmentSize(1460)]);
        }
    }

    #[test]
    fn broken_options_end_the_walk() {
        for options in [&[SACK, 0][..], &[SACK, 1], &[SACK, 200], &[SACK], &[TIMESTAMPS, 10, 0], &[NOP, NOP, NOP, 77]] {
            let mut frame = segment(options);
            let before = frame.clone();
            let parsed = parse::transport(&frame, US).unwrap();
            shift_sack(&mut frame, &parsed, 1);
            blank_timestamps(&mut frame, &parsed);
            assert_eq!(frame, before);
        }
    }
}

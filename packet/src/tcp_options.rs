//! TCP options: read without trust, and the two changes FullNAT makes to them (RFC 9293 §3.1, 7323, 2018).

use std::ops::Range;

use crate::checksum::Delta;
use crate::parse::V4;
use crate::tcp::HEADER;
use crate::wire::{get16, put16};

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// One option. Offsets from the start of the TCP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpOption {
    /// Largest segment the sender takes, bytes.
    Mss(u16),
    /// Shift of the window.
    WindowScale(u8),
    /// Selective acknowledgement may be used.
    SackPermitted,
    /// Where the SACK blocks lie: a multiple of 8 bytes, pairs of left and right edge.
    Sack(Range<usize>),
    /// Timestamps (RFC 7323).
    Timestamps {
        /// Where the option begins (kind byte).
        at: usize,
        /// TSval.
        value: u32,
        /// TSecr.
        echo: u32,
    },
    /// Any other, or a known one of a wrong length.
    Other {
        /// Its kind.
        kind: u8,
        /// Where it lies, kind and length bytes included.
        range: Range<usize>,
    },
}

/// Iterates over the options of a segment (TCP header first); NOPs are skipped. Ends at END, at the header's end, and at
/// the first option whose length is 0, 1 or beyond the header.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    segment: &'a [u8],
    at: usize,
    end: usize,
}

/// The options of a segment. None of a segment whose data offset is wrong.
#[inline]
#[must_use]
pub fn options(segment: &[u8]) -> Options<'_> {
    let end = crate::tcp::header(segment).map_or(HEADER, |header| usize::from(header.len));
    Options { segment, at: HEADER, end }
}

impl Iterator for Options<'_> {
    type Item = TcpOption;

    fn next(&mut self) -> Option<TcpOption> {
        let header = self.segment.get(..self.end)?;
        while *header.get(self.at)? == NOP {
            self.at += 1;
        }
        let at = self.at;
        let kind = header[at];
        let len = usize::from(*header.get(at + 1)?);
        let body = header.get(at + 2..at + len).filter(|_| kind != END && len >= 2)?;
        self.at = at + len;
        Some(match (kind, body) {
            (MSS, &[a, b]) => TcpOption::Mss(u16::from_be_bytes([a, b])),
            (WINDOW_SCALE, &[shift]) => TcpOption::WindowScale(shift),
            (SACK_PERMITTED, []) => TcpOption::SackPermitted,
            (SACK, blocks) if blocks.len().is_multiple_of(8) && !blocks.is_empty() => TcpOption::Sack(at + 2..at + len),
            (TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => TcpOption::Timestamps {
                at,
                value: u32::from_be_bytes([a, b, c, d]),
                echo: u32::from_be_bytes([e, f, g, h]),
            },
            _ => TcpOption::Other { kind, range: at..at + len },
        })
    }
}

/// Takes `sub` (wrapping) from every edge of the SACK blocks, with the checksum: the server's blocks carry shifted
/// numbers towards the client, like its acks. Returns the blocks changed. Call it before or after
/// [`crate::rewrite_v4`].
#[inline]
pub fn shift_sack(frame: &mut [u8], p: &V4, sub: u32) -> usize {
    if usize::from(p.payload) < usize::from(p.l4) + HEADER + 10 || sub == 0 {
        return 0; // No room for a block: most packets.
    }
    shift(p.segment_mut(frame), sub)
}

fn shift(segment: &mut [u8], sub: u32) -> usize {
    let mut delta = Delta::NONE;
    let mut blocks = 0;
    let mut rest = options(segment);
    loop {
        let next = rest.next();
        let (at, end) = (rest.at, rest.end);
        match next {
            None => break,
            Some(TcpOption::Sack(range)) => {
                let (edges, _) = segment.get_mut(range.clone()).unwrap_or_default().as_chunks_mut::<4>();
                for (edge, offset) in edges.iter_mut().zip(range.step_by(4)) {
                    let new = u32::from_be_bytes(*edge).wrapping_sub(sub).to_be_bytes();
                    delta = delta.bytes(offset, edge, &new);
                    *edge = new;
                }
                blocks += edges.len() / 2;
            }
            Some(_) => {}
        }
        rest = Options { segment, at, end };
    }
    update(segment, delta);
    blocks
}

/// Overwrites the timestamps option with NOPs, with the checksum: on a SYN the two sides then do without (else PAWS at the
/// server defeats the reuse of a local port, RFC 7323 §5). Returns whether there was one.
#[inline]
pub fn erase_timestamps(frame: &mut [u8], p: &V4) -> bool {
    if usize::from(p.payload) < usize::from(p.l4) + HEADER + 10 {
        return false;
    }
    let segment = p.segment_mut(frame);
    let found = options(segment).find_map(|option| match option {
        TcpOption::Timestamps { at, .. } => Some(at),
        _ => None,
    });
    let Some(at) = found else { return false };
    let Some(option) = segment.get_mut(at..at + 10) else { return false };
    let delta = Delta::NONE.bytes(at, option, &[NOP; 10]);
    option.fill(NOP);
    update(segment, delta);
    true
}

/// Lowers the MSS that a SYN tells to `most`, with the checksum. Returns whether it was larger.
pub fn clamp_mss(frame: &mut [u8], p: &V4, most: u16) -> bool {
    let segment = p.segment_mut(frame);
    let mut rest = options(segment);
    let found = loop {
        match rest.next() {
            None => return false,
            // The option ends where the rest begins.
            Some(TcpOption::Mss(mss)) => break (rest.at - 2, mss),
            Some(_) => {}
        }
    };
    let (at, mss) = found;
    let Some(value) = segment.get_mut(at..at + 2).filter(|_| mss > most) else { return false };
    let delta = Delta::NONE.bytes(at, value, &most.to_be_bytes());
    value.copy_from_slice(&most.to_be_bytes());
    update(segment, delta);
    true
}

fn update(segment: &mut [u8], delta: Delta) {
    if delta != Delta::NONE
        && let Some(window) = segment.first_chunk_mut::<HEADER>()
    {
        put16(window, 16, delta.apply(get16(window, 16)));
    }
}

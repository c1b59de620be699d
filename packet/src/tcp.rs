//! The TCP header (RFC 9293 §3.1). Options: [`crate::tcp_options`].

use crate::parse::ParseError;
use crate::wire::{get16, get32};

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// FIN flag.
pub const FIN: u8 = 0x01;
/// SYN flag.
pub const SYN: u8 = 0x02;
/// RST flag.
pub const RST: u8 = 0x04;
/// PSH flag.
pub const PSH: u8 = 0x08;
/// ACK flag.
pub const ACK: u8 = 0x10;
/// URG flag.
pub const URG: u8 = 0x20;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// From.
    pub sport: u16,
    /// To.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; means something only with [`ACK`].
    pub ack: u32,
    /// Bytes of the header with options, 20–60, within the data.
    pub len: u8,
    /// Flags.
    pub flags: u8,
    /// Window, unscaled.
    pub window: u16,
    /// Checksum.
    pub checksum: u16,
}

/// Reads and checks the header of `segment`, the IP packet's payload.
///
/// # Errors
/// [`ParseError::TcpTooShort`], `BadTcpOffset`.
#[inline(always)]
pub fn header(segment: &[u8]) -> Result<Header, ParseError> {
    let window: &[u8; HEADER] = segment.first_chunk().ok_or(ParseError::TcpTooShort)?;
    let len = (window[12] >> 4) * 4;
    if usize::from(len) < HEADER || usize::from(len) > segment.len() {
        return Err(ParseError::BadTcpOffset);
    }
    Ok(Header {
        sport: get16(window, 0),
        dport: get16(window, 2),
        seq: get32(window, 4),
        ack: get32(window, 8),
        len,
        flags: window[13],
        window: get16(window, 14),
        checksum: get16(window, 16),
    })
}

/// What a segment takes of the sequence space: its payload, and one each for SYN and FIN (RFC 9293 §3.4).
#[inline(always)]
#[must_use]
pub const fn segment_len(payload: u32, flags: u8) -> u32 {
    payload.wrapping_add((flags & FIN) as u32).wrapping_add((flags >> 1 & 1) as u32)
}

/// Does the checksum of the segment (header and payload) match?
#[must_use]
pub fn verify(src: u32, dst: u32, segment: &[u8]) -> bool {
    crate::checksum::verify_segment_v4(src, dst, crate::ipv4::TCP, segment)
}

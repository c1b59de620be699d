//! The IPv6 header and its extension headers (RFC 8200).

use crate::parse::ParseError;
use crate::wire::{get16, get64};

/// An address as two big-endian words.
pub type Ip6 = [u64; 2];

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// Next header ICMPv6.
pub const ICMPV6: u8 = 58;
/// Hop limit of what the appliance itself sends.
pub const HOP_LIMIT: u8 = 64;

/// Next header: hop-by-hop options.
const HOP_BY_HOP: u8 = 0;
/// Next header: routing.
const ROUTING: u8 = 43;
/// Next header: fragment.
const FRAGMENT: u8 = 44;
/// Next header: destination options.
const DESTINATION: u8 = 60;

/// Extension headers walked at most.
const HEADERS: usize = 8;
/// Bytes they may have in all: offsets into the frame stay within a byte.
const BYTES: usize = 128;

/// What the header, and the extension headers behind it, say. Lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Fixed header and extension headers.
    pub len: u8,
    /// Header and payload, within the data, which may be longer (Ethernet padding).
    pub total_len: u16,
    /// Hop limit.
    pub hop_limit: u8,
    /// Protocol of the payload: behind all extension headers that are walked over.
    pub proto: u8,
    /// From.
    pub src: Ip6,
    /// To.
    pub dst: Ip6,
}

/// Reads and checks the headers of `packet`, which begins with them and may be padded at its end.
///
/// Walked over are hop-by-hop options (where they may stand: first), destination options, and routing headers that are used up
/// or of a type other than 0 (RFC 5095). Anything else is the payload's protocol: also AH, ESP and mobility, which are left to
/// the caller, as protocols that are not balanced.
///
/// # Errors
/// In this order: [`ParseError::TooShort`], `BadVersion`, `BadTotalLength`; of the extension headers `Fragment`, `BadExtension`.
pub fn header(packet: &[u8]) -> Result<Header, ParseError> {
    let window: &[u8; HEADER] = packet.first_chunk().ok_or(ParseError::TooShort)?;
    if window[0] >> 4 != 6 {
        return Err(ParseError::BadVersion);
    }
    let total_len = get16(window, 4).checked_add(40).ok_or(ParseError::BadTotalLength)?;
    let packet = packet.get(..usize::from(total_len)).ok_or(ParseError::BadTotalLength)?;
    let (proto, len) = walk(packet, window[6])?;
    Ok(Header {
        len,
        total_len,
        hop_limit: window[7],
        proto,
        src: [get64(window, 8), get64(window, 16)],
        dst: [get64(window, 24), get64(window, 32)],
    })
}

/// Where the extension headers of `packet` end, and the protocol behind them; `next` is the fixed header's.
fn walk(packet: &[u8], mut next: u8) -> Result<(u8, u8), ParseError> {
    let mut at = HEADER;
    for number in 0..=HEADERS {
        match next {
            FRAGMENT => return Err(ParseError::Fragment),
            HOP_BY_HOP if number == 0 => {}
            ROUTING | DESTINATION => {}
            HOP_BY_HOP => return Err(ParseError::BadExtension),
            _ => return Ok((next, u8::try_from(at).map_err(|_| ParseError::BadExtension)?)),
        }
        let header = packet.get(at..).and_then(<[u8]>::first_chunk::<8>).ok_or(ParseError::BadExtension)?;
        let [kind, left] = [header[2], header[3]];
        if next == ROUTING && kind == 0 && left != 0 {
            return Err(ParseError::BadExtension);
        }
        at += 8 + 8 * usize::from(header[1]);
        if at > packet.len() || at > HEADER + BYTES {
            return Err(ParseError::BadExtension);
        }
        next = header[0];
    }
    Err(ParseError::BadExtension)
}

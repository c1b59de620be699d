//! UDP (RFC 768).

use crate::checksum::verify_segment_v4;
use crate::parse::ParseError;
use crate::wire::get16;

/// Bytes of the header.
pub const HEADER: usize = 8;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// From.
    pub sport: u16,
    /// To.
    pub dport: u16,
    /// Header and payload, bytes; 8 to the data's length (the IP payload may be longer).
    pub len: u16,
    /// Checksum; 0: none.
    pub checksum: u16,
}

/// Reads and checks the header of `datagram`, the IP packet's payload.
///
/// # Errors
/// [`ParseError::UdpTooShort`], `BadUdpLength`.
#[inline(always)]
pub fn header(datagram: &[u8]) -> Result<Header, ParseError> {
    let window: &[u8; HEADER] = datagram.first_chunk().ok_or(ParseError::UdpTooShort)?;
    let len = get16(window, 4);
    if usize::from(len) < HEADER || usize::from(len) > datagram.len() {
        return Err(ParseError::BadUdpLength);
    }
    Ok(Header { sport: get16(window, 0), dport: get16(window, 2), len, checksum: get16(window, 6) })
}

/// Does the checksum match, or is there none?
#[must_use]
pub fn verify(src: u32, dst: u32, datagram: &[u8]) -> bool {
    match header(datagram) {
        Ok(Header { checksum: 0, .. }) => true,
        Ok(Header { len, .. }) => {
            verify_segment_v4(src, dst, crate::ipv4::UDP, datagram.get(..usize::from(len)).unwrap_or_default())
        }
        Err(_) => false,
    }
}

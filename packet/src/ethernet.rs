//! Ethernet II and the 802.1Q tag.

use std::fmt;
use std::str::FromStr;

use crate::parse::ParseError;
use crate::wire::get16;

/// Bytes of the header without tag.
pub const HEADER: usize = 14;
/// Bytes of the header with one 802.1Q tag.
pub const TAGGED_HEADER: usize = 18;
/// Least frame on the wire without checksum: shorter ones are padded by the sender.
pub const MIN_FRAME: usize = 60;

/// Ethertype IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype ARP.
pub const ARP: u16 = 0x0806;
/// Ethertype IPv6.
pub const IPV6: u16 = 0x86dd;
/// Ethertype of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;

/// A hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// 00:00:00:00:00:00
    pub const ZERO: Self = Self([0; 6]);

    /// To everybody.
    #[inline]
    #[must_use]
    pub const fn is_broadcast(self) -> bool {
        matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }
    /// To a group, broadcast included.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
    /// The address of one station: neither group nor zero.
    #[inline]
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Text that is no hardware address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no MAC address: six bytes in hex are wanted, like 02:00:0a:00:00:01")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    /// Six pairs of hex digits, separated by `:` or `-`.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.into());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut parts = text.split(separator);
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|c| c.is_ascii_hexdigit()));
            *byte = part.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(error)?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

/// What the Ethernet header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// To.
    pub dst: Mac,
    /// From.
    pub src: Mac,
    /// Type of the payload (behind the tag, if there is one).
    pub ethertype: u16,
    /// VLAN id 0–4095 of an 802.1Q tag; 0: none, or a priority tag.
    pub vlan: u16,
    /// Bytes of the header: [`HEADER`] or [`TAGGED_HEADER`].
    pub len: usize,
}

/// Reads the header.
///
/// # Errors
/// [`ParseError::TooShort`].
#[inline]
pub fn header(frame: &[u8]) -> Result<Header, ParseError> {
    let window: &[u8; HEADER] = frame.first_chunk().ok_or(ParseError::TooShort)?;
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *window;
    let (dst, src) = (Mac([d0, d1, d2, d3, d4, d5]), Mac([s0, s1, s2, s3, s4, s5]));
    let ethertype = get16(window, 12);
    if ethertype != VLAN {
        return Ok(Header { dst, src, ethertype, vlan: 0, len: HEADER });
    }
    let tagged: &[u8; TAGGED_HEADER] = frame.first_chunk().ok_or(ParseError::TooShort)?;
    Ok(Header { dst, src, ethertype: get16(tagged, 16), vlan: get16(tagged, 14) & 0xfff, len: TAGGED_HEADER })
}

/// Destination address; `None` for less than 6 bytes.
#[inline(always)]
#[must_use]
pub fn dst(frame: &[u8]) -> Option<Mac> {
    frame.first_chunk().copied().map(Mac)
}

/// Source address; `None` for less than 12 bytes.
#[inline(always)]
#[must_use]
pub fn src(frame: &[u8]) -> Option<Mac> {
    frame.get(6..)?.first_chunk().copied().map(Mac)
}

/// Sets both addresses. A frame too short for them is left alone.
#[inline(always)]
pub fn set_addresses(frame: &mut [u8], dst: Mac, src: Mac) {
    if let Some(window) = frame.first_chunk_mut::<12>() {
        window[..6].copy_from_slice(&dst.0);
        window[6..].copy_from_slice(&src.0);
    }
}

/// Sets the id of the tag, priority bits kept. `false`: the frame has no tag (one can't be added in place).
#[inline]
pub fn set_vlan(frame: &mut [u8], id: u16) -> bool {
    match frame.first_chunk_mut::<TAGGED_HEADER>() {
        Some(window) if get16(window, 12) == VLAN => {
            let tag = get16(window, 14) & 0xf000 | id & 0xfff;
            crate::wire::put16(window, 14, tag);
            true
        }
        _ => false,
    }
}

/// Copies `frame` to `out` with the tag that network `id` wants: none for 0, priority bits kept. Returns the length; `None`: too
/// short to be a frame, or `out` is too small.
pub fn retagged(frame: &[u8], id: u16, out: &mut [u8]) -> Option<usize> {
    const ADDRESSES: usize = 12;
    let header = header(frame).ok()?;
    let (addresses, rest) = (frame.get(..ADDRESSES)?, frame.get(header.len - 2..)?);
    let priority = if header.len == TAGGED_HEADER { frame.get(14)? & 0xf0 } else { 0 };
    let [high, low] = (id & 0xfff).to_be_bytes();
    let [a, b] = VLAN.to_be_bytes();
    let tag = [a, b, priority | high, low];
    let tag = if id == 0 { &tag[..0] } else { &tag[..] };
    let len = ADDRESSES + tag.len() + rest.len();
    let (to, rest_to) = out.get_mut(..len)?.split_at_mut(ADDRESSES);
    let (tag_to, rest_to) = rest_to.split_at_mut(tag.len());
    to.copy_from_slice(addresses);
    tag_to.copy_from_slice(tag);
    rest_to.copy_from_slice(rest);
    Some(len)
}

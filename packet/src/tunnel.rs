//! IP in IP: a packet of either family as the payload of another (RFC 2003, 2473, 4213).

use crate::ipv6::{self, Ip6};
use crate::{ethernet, ipv4};

/// Protocol of a payload that is an IPv4 packet.
pub const OF_IPV4: u8 = 4;
/// Protocol of a payload that is an IPv6 packet.
pub const OF_IPV6: u8 = 41;

/// Source and destination of the outer packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// Over IPv4.
    V4(u32, u32),
    /// Over IPv6.
    V6(Ip6, Ip6),
}

impl Outer {
    /// Bytes the outer header takes.
    #[must_use]
    pub const fn len(self) -> u16 {
        match self {
            Self::V4(..) => 20,
            Self::V6(..) => 40,
        }
    }

    /// Never.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// Wraps the IP packet of a frame that has [`Outer::len`] free bytes in front: the Ethernet header (`l3` bytes, its tag included)
/// moves to the front, an outer header goes behind it, with the inner packet's type of service (RFC 2983: the uniform way) and, over
/// IPv4, DF, so that a link too small for it is reported and not made up for in fragments. Nothing of the inner packet changes.
/// `None`: no such frame; it may be half changed.
pub fn wrap(frame: &mut [u8], l3: u8, outer: Outer) -> Option<()> {
    let (l3, room) = (usize::from(l3), usize::from(outer.len()));
    frame.get(..l3 + room)?;
    frame.copy_within(room..room + l3, 0);
    let inner = frame.get(l3 + room..)?;
    let (proto, total, class) = match inner.first()? >> 4 {
        4 => (OF_IPV4, ipv4::header(inner).ok()?.total_len, *inner.get(1)?),
        6 => (OF_IPV6, ipv6::header(inner).ok()?.total_len, inner[0] << 4 | inner.get(1)? >> 4),
        _ => return None,
    };
    let (link, rest) = frame.split_at_mut_checked(l3)?;
    let ethertype = match outer {
        Outer::V4(src, dst) => {
            let header = rest.first_chunk_mut()?;
            ipv4::emit(header, total.checked_add(outer.len())?, proto, src, dst);
            ipv4::set_tos(header, class);
            ethernet::IPV4
        }
        Outer::V6(src, dst) => {
            let header: &mut [u8; ipv6::HEADER] = rest.first_chunk_mut()?;
            ipv6::emit(header, total, proto, ipv6::HOP_LIMIT, src, dst);
            (header[0], header[1]) = (0x60 | class >> 4, class << 4);
            ethernet::IPV6
        }
    };
    link.last_chunk_mut::<2>()?.copy_from_slice(&ethertype.to_be_bytes());
    Some(())
}

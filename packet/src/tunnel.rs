//! IP in IP (RFC 2003): a packet as the payload of another.

use crate::ipv4;

/// Bytes the outer header takes.
pub const IPIP: usize = ipv4::HEADER;
/// Protocol IP in IP.
pub const PROTOCOL: u8 = 4;

/// Wraps the IPv4 packet of a frame that has [`IPIP`] free bytes in front: the Ethernet header (`l3` bytes, its tag included)
/// moves to the front, an outer header from `src` to `dst` goes behind it, with the inner packet's type of service (RFC 2983: the
/// uniform way) and DF, so that a link too small for it is reported and not made up for in fragments. Nothing of the inner
/// packet changes. `None`: no such frame; it may be half changed.
pub fn wrap(frame: &mut [u8], l3: u8, src: u32, dst: u32) -> Option<()> {
    let l3 = usize::from(l3);
    frame.get(..l3 + IPIP)?;
    frame.copy_within(IPIP..IPIP + l3, 0);
    let (outer, inner) = frame.get_mut(l3..)?.split_first_chunk_mut::<IPIP>()?;
    let header = ipv4::header(inner).ok()?;
    let total = header.total_len.checked_add(u16::try_from(IPIP).ok()?)?;
    ipv4::emit(outer, total, PROTOCOL, src, dst);
    ipv4::set_tos(outer, *inner.get(1)?);
    Some(())
}

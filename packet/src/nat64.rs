//! TCP and UDP between the families (RFC 7915), for NAT64: the IP header is replaced in front of layer 4, which does not move.
//! What was in front of it and is not needed is told to the caller, who cuts it off.

use crate::checksum::{Delta, fold, sum, udp_nonzero};
use crate::ipv6::{self, Ip6};
use crate::parse::{V4, V6};
use crate::rewrite::Rewrite;
use crate::rewrite6::layer_4;
use crate::wire::{get16, put16};
use crate::{ethernet, ipv4, udp};

/// What an IPv6 header is longer than one of IPv4 without options: the room [`to_v6`] needs in front of the frame.
pub const LONGER: usize = ipv6::HEADER - ipv4::HEADER;
/// Packets up to this may be cut up on their way (RFC 7915 §5.1): IPv6's least MTU, less what the header shrinks by.
const MAY_FRAGMENT: u16 = 1260;
/// IPv4 options that name a way the packet has not gone to its end (RFC 7915 §4.1: refused).
const SOURCE_ROUTES: [u8; 2] = [131, 137];

/// Turns the IPv6 packet `p` of `frame` into IPv4, translated to `to`, hop limit one less; extension headers go. `id`: where the
/// packet may be cut up, different for packets that are on their way together. Returns the bytes to cut off in front. `None`: the
/// frame is another one; it may be half changed.
pub fn to_v4(frame: &mut [u8], p: &V6, to: &Rewrite, id: u16) -> Option<usize> {
    let (l3, l4) = (usize::from(p.head.l3), usize::from(p.head.l4));
    let total = u16::try_from(p.head.l4_len() + ipv4::HEADER).ok()?;
    let old: &[u8; ipv6::HEADER] = frame.get(l3..)?.first_chunk()?;
    let class = old[0] << 4 | old[1] >> 4;
    let delta = Delta::added(&old[8..]).reversed().long(0, to.src).long(0, to.dst);
    layer_4(p.head.segment_mut(frame), &p.head, delta, to)?;
    let cut = l4.checked_sub(ipv4::HEADER + l3)?;
    let ip: &mut [u8; ipv4::HEADER] = link(frame, l3, cut, ethernet::IPV4)?.first_chunk_mut()?;
    ipv4::emit(ip, total, p.head.proto, to.src, to.dst);
    ipv4::set_tos(ip, class);
    if total <= MAY_FRAGMENT {
        let delta = Delta::NONE.word(get16(ip, 4), id).word(get16(ip, 6), 0);
        put16(ip, 4, id);
        put16(ip, 6, 0);
        put16(ip, 10, delta.apply(get16(ip, 10)));
    }
    ipv4::set_ttl(ip, p.head.ttl.saturating_sub(1));
    Some(cut)
}

/// Turns the IPv4 packet `p` of `frame`, in front of which [`LONGER`] bytes have been put since, into IPv6, translated to `to`, TTL
/// one less, type of service kept, flow label 0, without a fragment header. A UDP checksum it does not have is computed. Returns the
/// bytes to cut off in front (IPv4 options). `None`: the frame is another one, or is source-routed; it may be half changed.
pub fn to_v6(frame: &mut [u8], p: &V4, to: &Rewrite<Ip6>) -> Option<usize> {
    let (l3, l4) = (usize::from(p.l3), usize::from(p.l4) + LONGER);
    let old = frame.get(LONGER + l3..l4)?;
    let [class, header] = [*old.get(1)?, u8::try_from(old.len()).ok()?];
    if source_routed(old.get(ipv4::HEADER..)?) {
        return None;
    }
    let len = p.total_len.checked_sub(header.into())?;
    let pseudo = [ipv6::bytes(to.src), ipv6::bytes(to.dst)];
    let delta = Delta::NONE.long(p.src, 0).long(p.dst, 0).and(Delta::added(pseudo.as_flattened()));
    let segment = frame.get_mut(l4..l4 + usize::from(len))?;
    layer_4(segment, p, delta, to)?;
    if p.proto == ipv4::UDP {
        let (window, _) = segment.split_first_chunk_mut::<{ udp::HEADER }>()?;
        if get16(window, 6) == 0 {
            let length = get16(window, 4);
            let datagram = segment.get(..usize::from(length))?;
            let checksum = !fold(ipv6::pseudo(to.src, to.dst, ipv4::UDP, length.into()) + sum(datagram));
            segment.get_mut(6..8)?.copy_from_slice(&udp_nonzero(checksum).to_be_bytes());
        }
    }
    let cut = l4.checked_sub(ipv6::HEADER + l3)?;
    frame.copy_within(LONGER..LONGER + l3, 0);
    let ip: &mut [u8; ipv6::HEADER] = link(frame, l3, cut, ethernet::IPV6)?.first_chunk_mut()?;
    ipv6::emit(ip, len, p.proto, p.ttl.saturating_sub(1), to.src, to.dst);
    (ip[0], ip[1]) = (0x60 | class >> 4, class << 4);
    Some(cut)
}

/// Moves the Ethernet header (`l3` bytes) forward by `cut`, to say `ethertype`; returns what is behind it.
fn link(frame: &mut [u8], l3: usize, cut: usize, ethertype: u16) -> Option<&mut [u8]> {
    frame.get(..cut + l3)?;
    frame.copy_within(..l3, cut);
    let (header, rest) = frame.get_mut(cut..)?.split_at_mut_checked(l3)?;
    header.last_chunk_mut::<2>()?.copy_from_slice(&ethertype.to_be_bytes());
    Some(rest)
}

/// Is there a source route that is not used up among these options?
fn source_routed(mut options: &[u8]) -> bool {
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            (0, _) => return false,
            (1, _) => options = rest,
            (kind, [len, ..]) if *len >= 2 => {
                // Used up: its pointer lies behind its end.
                if SOURCE_ROUTES.contains(kind) && options.get(2).is_none_or(|pointer| pointer <= len) {
                    return true;
                }
                options = options.get(usize::from(*len)..).unwrap_or_default();
            }
            _ => return false,
        }
    }
    false
}

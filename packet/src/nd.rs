//! Neighbour discovery for IPv6 over Ethernet (RFC 4861): what ARP is for IPv4.

use crate::build::Link;
use crate::ethernet::{self, Mac};
use crate::icmpv6::{self, checksum};
use crate::ipv6::{self, Ip6};

/// Hop limit of every message: one that crossed a router has less (RFC 4861 §3.1, its only protection).
pub const HOP_LIMIT: u8 = 255;
/// All nodes of the link.
pub const ALL_NODES: Ip6 = [0xff02 << 48, 1];
/// Of a host that has no address yet.
const UNSPECIFIED: Ip6 = [0; 2];
/// Type: a host asks for routers.
pub const ROUTER_SOLICITATION: u8 = 133;
/// Type: a router tells of itself and the link's prefixes.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type: who has the target address?
pub const SOLICITATION: u8 = 135;
/// Type: the sender has the target address.
pub const ADVERTISEMENT: u8 = 136;
/// Type: a router tells of a better first hop.
pub const REDIRECT: u8 = 137;

/// Bytes up to the options.
const MESSAGE: usize = 24;
/// Bytes of a message with the option of a link-layer address, as the appliance sends them all.
pub const WHOLE: usize = MESSAGE + 8;
/// Options: the sender's address; the target's.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// Flags of an advertisement.
pub mod flag {
    /// The sender is a router.
    pub const ROUTER: u8 = 0x80;
    /// It answers a solicitation.
    pub const SOLICITED: u8 = 0x40;
    /// It replaces what is known.
    pub const OVERRIDE: u8 = 0x20;
}

/// What is asked or said of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nd {
    /// Who has the target address?
    Solicitation {
        /// The address asked for.
        target: Ip6,
        /// The asker's hardware address, if it tells.
        source: Option<Mac>,
    },
    /// The sender has the target address.
    Advertisement {
        /// The address.
        target: Ip6,
        /// Its hardware address, if it tells (an answer to one who has it need not).
        mac: Option<Mac>,
        /// [`flag`] bits.
        flags: u8,
    },
}

/// Why a message is not believed (RFC 4861 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NdError {
    /// Neither a neighbour solicitation nor an advertisement.
    #[error("ICMPv6 message is no neighbour discovery of an address")]
    BadKind,
    /// Less than 24 bytes.
    #[error("neighbour discovery message below 24 bytes")]
    TooShort,
    /// It crossed a router.
    #[error("neighbour discovery message whose hop limit is not 255")]
    BadHopLimit,
    /// The code is not 0.
    #[error("neighbour discovery message whose code is not 0")]
    BadCode,
    /// The checksum does not match.
    #[error("neighbour discovery message whose checksum does not match")]
    BadChecksum,
    /// The target is a group.
    #[error("neighbour discovery message about a group's address")]
    BadTarget,
    /// An option of length 0, beyond the message, or with a hardware address that no station has.
    #[error("neighbour discovery option of length 0, beyond the message, or with a group's hardware address")]
    BadOption,
    /// Of a probe: not to the solicited-node group, or with a source address option. Of an answer: to a group.
    #[error("neighbour discovery message from or to an address that its kind may not have")]
    BadAddresses,
}

/// Reads the ICMPv6 message `message`, which was sent from `src` to `dst` and came with `hop_limit`. All checks of RFC 4861
/// §7.1.1 and §7.1.2.
///
/// # Errors
/// Any of them.
pub fn parse(src: Ip6, dst: Ip6, hop_limit: u8, message: &[u8]) -> Result<Nd, NdError> {
    let kind = *message.first().ok_or(NdError::TooShort)?;
    let (head, options) = message.split_first_chunk::<MESSAGE>().ok_or(NdError::TooShort)?;
    if kind != SOLICITATION && kind != ADVERTISEMENT {
        return Err(NdError::BadKind);
    }
    if hop_limit != HOP_LIMIT {
        return Err(NdError::BadHopLimit);
    }
    if head[1] != 0 {
        return Err(NdError::BadCode);
    }
    if !icmpv6::verify(src, dst, message) {
        return Err(NdError::BadChecksum);
    }
    let target = ipv6::from_bytes(*head.last_chunk().ok_or(NdError::TooShort)?);
    // IPv4 in IPv6's clothes is nobody's on a wire (RFC 4291 §2.5.5).
    if ipv6::is_multicast(target) || ipv6::is_v4_mapped(target) {
        return Err(NdError::BadTarget);
    }
    if ipv6::is_multicast(src) {
        return Err(NdError::BadAddresses);
    }
    if kind == SOLICITATION {
        let source = link_layer(options, SOURCE_LINK_LAYER)?;
        if src == UNSPECIFIED && (dst != solicited_node(target) || source.is_some()) {
            return Err(NdError::BadAddresses);
        }
        return Ok(Nd::Solicitation { target, source });
    }
    let flags = head[4] & (flag::ROUTER | flag::SOLICITED | flag::OVERRIDE);
    if ipv6::is_multicast(dst) && flags & flag::SOLICITED != 0 {
        return Err(NdError::BadAddresses);
    }
    Ok(Nd::Advertisement { target, mac: link_layer(options, TARGET_LINK_LAYER)?, flags })
}

/// The link-layer address in option `wanted`. All options are looked at: a malformed one spoils the message.
fn link_layer(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, NdError> {
    let mut found = None;
    while let Some((&kind, rest)) = options.split_first() {
        let len = 8 * usize::from(*rest.first().ok_or(NdError::BadOption)?);
        let option = options.get(..len).filter(|option| !option.is_empty()).ok_or(NdError::BadOption)?;
        if kind == wanted && found.is_none() {
            let mac = Mac(option.get(2..).and_then(<[u8]>::first_chunk).copied().ok_or(NdError::BadOption)?);
            found = Some(Some(mac).filter(|mac| mac.is_unicast() && len == 8).ok_or(NdError::BadOption)?);
        }
        options = options.get(len..).unwrap_or_default();
    }
    Ok(found)
}

/// The group of the stations that may have `address` (RFC 4291 §2.7.1).
#[must_use]
pub const fn solicited_node(address: Ip6) -> Ip6 {
    [ALL_NODES[0], 0x1_ff00_0000 | address[1] & 0xff_ffff]
}

/// The hardware address of a group (RFC 2464 §7).
#[must_use]
pub const fn multicast_mac(group: Ip6) -> Mac {
    let [.., a, b, c, d] = group[1].to_be_bytes();
    Mac([0x33, 0x33, a, b, c, d])
}

/// Link-local address made of a hardware address (RFC 4291 appendix A).
#[must_use]
pub const fn link_local(mac: Mac) -> Ip6 {
    let [a, b, c, d, e, f] = mac.0;
    [0xfe80 << 48, u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])]
}

/// Asks the stations that may have `target` for its hardware address, from `src` at `mac`. Returns the frame's length; `None`: `buf`
/// is too small, as for all that follow.
pub fn solicit(buf: &mut [u8], mac: Mac, src: Ip6, target: Ip6, vlan: u16) -> Option<usize> {
    let group = solicited_node(target);
    let link = Link { dst: multicast_mac(group), src: mac, vlan };
    emit(buf, link, (src, group), SOLICITATION, 0, target, (SOURCE_LINK_LAYER, mac))
}

/// Asks the one who had `target` whether it still has (RFC 4861 §7.3).
pub fn probe(buf: &mut [u8], to: Mac, mac: Mac, src: Ip6, target: Ip6, vlan: u16) -> Option<usize> {
    let link = Link { dst: to, src: mac, vlan };
    emit(buf, link, (src, target), SOLICITATION, 0, target, (SOURCE_LINK_LAYER, mac))
}

/// Tells all stations that `mac` has `target`, unasked (RFC 4861 §7.2.6).
pub fn announce(buf: &mut [u8], mac: Mac, target: Ip6, vlan: u16) -> Option<usize> {
    let link = Link { dst: multicast_mac(ALL_NODES), src: mac, vlan };
    emit(buf, link, (target, ALL_NODES), ADVERTISEMENT, flag::OVERRIDE, target, (TARGET_LINK_LAYER, mac))
}

/// Tells the asker `src` of a frame from station `from` that `mac` has `target` (RFC 4861 §7.2.4). Who has no address yet (`src` unspecified,
/// a probe for duplicates) is told by way of all.
pub fn answer(buf: &mut [u8], from: Mac, src: Ip6, mac: Mac, target: Ip6, vlan: u16) -> Option<usize> {
    if src == UNSPECIFIED {
        return announce(buf, mac, target, vlan);
    }
    let flags = flag::SOLICITED | flag::OVERRIDE;
    emit(buf, Link { dst: from, src: mac, vlan }, (target, src), ADVERTISEMENT, flags, target, (TARGET_LINK_LAYER, mac))
}

fn emit(
    buf: &mut [u8],
    link: Link,
    (src, dst): (Ip6, Ip6),
    kind: u8,
    flags: u8,
    target: Ip6,
    (option, mac): (u8, Mac),
) -> Option<usize> {
    let (rest, len) = link.emit(buf, ethernet::IPV6)?;
    let (ip, rest) = rest.split_first_chunk_mut()?;
    let message: &mut [u8; WHOLE] = rest.first_chunk_mut()?;
    #[allow(clippy::cast_possible_truncation, reason = "32")]
    ipv6::emit(ip, WHOLE as u16, ipv6::ICMPV6, HOP_LIMIT, src, dst);
    *message = [0; WHOLE];
    (message[0], message[4]) = (kind, flags);
    message[8..24].copy_from_slice(&ipv6::bytes(target));
    (message[24], message[25]) = (option, 1);
    message[26..].copy_from_slice(&mac.0);
    let sum = checksum(src, dst, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(len + ipv6::HEADER + WHOLE)
}

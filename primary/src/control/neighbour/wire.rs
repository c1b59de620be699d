//! Questions and answers as frames: ARP for IPv4, neighbour discovery for IPv6.

use packet::arp::{self, Operation};
use packet::nd::{self, Nd, flag};
use packet::{Mac, Parsed, build, classify, ipv6};
use shm_layout::neighbours::{Ip, as_v4, ip4};

/// Ethernet, tag, IPv6, a message with one option.
const FRAME: usize = 18 + 40 + nd::WHOLE;

/// A port as far as neighbours are concerned. Prefix lengths are as if all was IPv6: an IPv4 /24 is 120.
#[derive(Debug, Clone)]
pub struct PortNet {
    /// Its MAC.
    pub mac: Mac,
    /// Tag of its frames, 0 none.
    pub vlan: u16,
    /// Addresses with prefix lengths.
    pub addresses: Vec<(Ip, u8)>,
    /// Gateways.
    pub gateways: Vec<Ip>,
}

impl PortNet {
    /// What `target` is asked from: an address on its network, else any of its family. An IPv6 link is asked from its own kind.
    pub(super) fn source_for(&self, target: Ip) -> Option<Ip> {
        let of_family = self.addresses.iter().filter(|(own, _)| as_v4(*own).is_some() == as_v4(target).is_some());
        if ipv6::is_link_local(target) {
            return of_family.clone().next().map(|_| nd::link_local(self.mac));
        }
        let covering = of_family.clone().find(|(own, prefix)| same_network(*own, target, *prefix));
        covering.or_else(|| of_family.clone().next()).map(|(own, _)| *own)
    }

    /// May `target` be a neighbour here?
    pub(super) fn on_link(&self, target: Ip) -> bool {
        let ours = self.addresses.iter().any(|(own, _)| *own == target);
        let connected = self.addresses.iter().any(|(own, prefix)| same_network(*own, target, *prefix));
        !ours && !ipv6::is_multicast(target) && (connected || self.gateways.contains(&target))
    }
}

fn same_network(a: Ip, b: Ip, prefix: u8) -> bool {
    let bits = |ip: Ip| u128::from(ip[0]) << 64 | u128::from(ip[1]);
    (bits(a) ^ bits(b)).leading_zeros() >= u32::from(prefix)
}

/// The frame that asks for `target`: all who may have it, or `to`, who had it.
pub(super) fn question(port: &PortNet, target: Ip, to: Option<Mac>) -> Option<Vec<u8>> {
    let mut frame = [0; FRAME];
    let (mac, vlan) = (port.mac, port.vlan);
    let source = port.source_for(target)?;
    let len = match (as_v4(source), as_v4(target)) {
        (Some(source), Some(target)) => {
            build::arp_request(&mut frame, to.unwrap_or(Mac::BROADCAST), mac, source, target, vlan)?
        }
        (None, None) => match to {
            Some(to) => nd::probe(&mut frame, to, mac, source, target, vlan)?,
            None => nd::solicit(&mut frame, mac, source, target, vlan)?,
        },
        _ => return None,
    };
    Some(frame[..len].to_vec())
}

/// What a neighbour says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// Its address.
    pub ip: Ip,
    /// Its MAC; `None`: what is known of it.
    pub mac: Option<Mac>,
    /// It answers a question of this port's.
    pub to_us: bool,
    /// It may replace another MAC that is known.
    pub replaces: bool,
}

/// Reads a frame a worker took for control; `None`: it says nothing.
pub(super) fn said(port: &PortNet, frame: &[u8]) -> Option<Said> {
    match classify(frame).ok()? {
        Parsed::Arp(link) => {
            let message = arp::parse(frame.get(usize::from(link.l3)..)?).ok()?;
            let to_us = message.operation == Operation::Reply && message.target_mac == port.mac;
            Some(Said { ip: ip4(message.sender_ip), mac: Some(message.sender_mac), to_us, replaces: true })
        }
        Parsed::V6(packet) => {
            let message = packet.head.segment(frame);
            match nd::parse(packet.src, packet.dst, packet.head.ttl, message).ok()? {
                Nd::Advertisement { target, mac, flags } => Some(Said {
                    ip: target,
                    mac,
                    to_us: flags & flag::SOLICITED != 0 && packet::ethernet::dst(frame) == Some(port.mac),
                    replaces: flags & flag::OVERRIDE != 0,
                }),
                Nd::Solicitation { .. } => None,
            }
        }
        _ => None,
    }
}

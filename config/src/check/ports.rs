//! Ports: names, devices, who serves them, their addresses.

use std::net::IpAddr;

use super::{Checker, is_link_local, unusable};
use crate::codes;
use crate::diag::Diagnostic;
use crate::limits::{MAX_PORT_ADDRESSES, MAX_PORT_GATEWAYS, MAX_PORTS, MAX_SLOTS, MAX_TAP_SLOTS};
use crate::model::Port;
use crate::text::nearest;
use crate::values::{Cidr, Device, IfName};

/// Least MTU of a link that carries IPv6 (RFC 8200 §5).
const IPV6_MIN_MTU: u16 = 1280;

pub(super) fn check(c: &mut Checker<'_>) {
    let config = c.config;
    if config.ports.len() > MAX_PORTS {
        let message = format!("{} ports, the tables hold {MAX_PORTS}", config.ports.len());
        c.say(Diagnostic::new(codes::TOO_MANY, format!("port[{MAX_PORTS}]"), message));
    }
    unique(c);
    for (i, port) in config.ports.iter().enumerate() {
        zones(c, i, port);
        slots(c, i, port);
        addresses(c, i, port);
    }
    let slots: usize = config.ports.iter().map(|p| usize::from(config.slots_of(p))).sum();
    if slots > MAX_SLOTS {
        let message = format!("{slots} slots over all ports, the tables hold {MAX_SLOTS}");
        let last = config.ports.len().saturating_sub(1);
        c.say(Diagnostic::new(codes::TOO_MANY, format!("port[{last}].slots"), message).hint("set slots lower"));
    }
}

/// The interface a vdev makes or takes in the kernel.
fn iface(port: &Port) -> Option<&str> {
    match &port.device {
        Device::Vdev(vdev) => vdev.argument("iface"),
        Device::Pci(_) => None,
    }
}

fn unique(c: &mut Checker<'_>) {
    let ports = &c.config.ports;
    let all = || ports.iter().enumerate();
    let same = |path: String| path;
    let names = all().map(|(i, p)| (p.name.as_str(), format!("port[{i}].name")));
    c.unique(codes::DUPLICATE, names, same, |name| format!("port \"{name}\" is configured twice"));
    let devices = all().map(|(i, p)| (p.device.name(), format!("port[{i}].device")));
    c.unique(codes::DUPLICATE, devices, same, |name| format!("device \"{name}\" belongs to two ports"));
    let kernel = all().filter_map(|(i, p)| Some((p.kernel.as_ref()?.as_str(), format!("port[{i}].kernel"))));
    let made = all().filter_map(|(i, p)| Some((iface(p)?, format!("port[{i}].device"))));
    c.unique(codes::DUPLICATE, made.chain(kernel), same, |name| format!("interface \"{name}\" is used twice"));
    let addresses = all().flat_map(|(i, p)| {
        p.addresses.iter().enumerate().map(move |(k, a)| (a.address, format!("port[{i}].addresses[{k}]")))
    });
    c.unique(codes::DUPLICATE, addresses, same, |address| format!("address {address} is configured twice"));
    let macs = all().filter_map(|(i, p)| Some((p.mac?, format!("port[{i}].mac"))));
    c.unique(codes::DUPLICATE, macs, same, |mac| format!("MAC {mac} belongs to two ports"));
    for (i, port) in all() {
        if let Some(why) = iface(port).and_then(|name| name.parse::<IfName>().err()) {
            let error =
                Diagnostic::new(codes::BAD_VALUE, format!("port[{i}].device"), format!("iface: {}", why.message));
            c.say(error.hint(why.hint.unwrap_or_default()));
        }
    }
}

fn zones(c: &mut Checker<'_>, i: usize, port: &Port) {
    if port.zones.is_empty() {
        let message = format!("port \"{}\" has no zone: nobody would serve it", port.name);
        c.say(Diagnostic::new(codes::OUT_OF_RANGE, format!("port[{i}].zones"), message).hint("such as zones = [0]"));
    }
    c.unique(
        codes::DUPLICATE,
        port.zones.iter().enumerate().map(|(k, id)| (id, k)),
        |k| format!("port[{i}].zones[{k}]"),
        |id| format!("zone {id} is listed twice"),
    );
    for (k, id) in port.zones.iter().enumerate() {
        if c.config.zone(*id).is_none() && !c.unsure("zone") {
            let known: Vec<String> = c.config.zones.iter().map(|z| z.id.to_string()).collect();
            let error =
                Diagnostic::new(codes::UNKNOWN_REFERENCE, format!("port[{i}].zones[{k}]"), format!("no zone {id}"));
            c.say(error.hint(format!("configured: {}", known.join(", "))));
        }
    }
}

fn slots(c: &mut Checker<'_>, i: usize, port: &Port) {
    let slots = c.config.slots_of(port);
    if port.device.driver() == Some("net_tap") && slots > MAX_TAP_SLOTS {
        let message = format!("{slots} slots on net_tap device \"{}\", it offers {MAX_TAP_SLOTS}", port.device.name());
        let error = Diagnostic::new(codes::TOO_MANY, format!("port[{i}].slots"), message);
        c.say(error.hint(format!("set slots = {MAX_TAP_SLOTS}: DPDK 22.11 aborts at more queue pairs on a tap")));
    }
}

fn addresses(c: &mut Checker<'_>, i: usize, port: &Port) {
    for (what, count, most) in
        [("addresses", port.addresses.len(), MAX_PORT_ADDRESSES), ("gateways", port.gateways.len(), MAX_PORT_GATEWAYS)]
    {
        if count > most {
            let message = format!("{count} {what} on port \"{}\", the tables hold {most}", port.name);
            c.say(Diagnostic::new(codes::TOO_MANY, format!("port[{i}].{what}[{most}]"), message));
        }
    }
    if let Some(k) = port.addresses.iter().position(|net| net.address.is_ipv6()).filter(|_| port.mtu < IPV6_MIN_MTU) {
        let message = format!("mtu {} on port \"{}\", which has an IPv6 address", port.mtu, port.name);
        let error = Diagnostic::new(codes::OUT_OF_RANGE, format!("port[{i}].mtu"), message);
        let error = error.hint(format!("at least {IPV6_MIN_MTU}: IPv6 counts on it"));
        c.say(error.related(format!("port[{i}].addresses[{k}]"), "the address"));
    }
    for (k, net) in port.addresses.iter().enumerate() {
        let path = || format!("port[{i}].addresses[{k}]");
        if let Some(why) = unusable(net.address) {
            c.say(Diagnostic::new(codes::BAD_ADDRESS, path(), format!("{} {why}", net.address)));
        } else if is_network_end(*net, net.address) {
            let message = format!("{net} is the network's own or its broadcast address");
            c.say(
                Diagnostic::new(codes::BAD_ADDRESS, path(), message).hint("give the port's address within the network"),
            );
        }
    }
    for (k, gateway) in port.gateways.iter().enumerate() {
        let path = format!("port[{i}].gateways[{k}]");
        if is_link_local(*gateway) {
            // On the port's own link, and asked from its own address there.
            if !port.addresses.iter().any(|net| net.address.is_ipv6()) && !c.unsure(&format!("port[{i}].addresses")) {
                let message = format!("gateway {gateway} on port \"{}\", which has no IPv6 address", port.name);
                let error = Diagnostic::new(codes::BAD_ADDRESS, path, message);
                c.say(error.hint("give the port an address with its network, such as \"fd00::2/64\""));
            }
        } else if let Some(why) = unusable(*gateway) {
            c.say(Diagnostic::new(codes::BAD_ADDRESS, path, format!("gateway {gateway} {why}")));
        } else if port.addresses.iter().any(|net| net.address == *gateway) {
            c.say(Diagnostic::new(codes::OVERLAP, path, format!("gateway {gateway} is the port's own address")));
        } else if !port.addresses.iter().any(|net| net.contains(*gateway)) && !c.unsure(&format!("port[{i}].addresses"))
        {
            let message = format!("gateway {gateway} lies in no network of port \"{}\"", port.name);
            let nets: Vec<String> = port.addresses.iter().map(|net| net.network().to_string()).collect();
            let hint = match nets.is_empty() {
                true => "give the port an address with its network, such as addresses = [\"10.0.0.2/24\"]".to_owned(),
                false => format!("its networks: {}", nets.join(", ")),
            };
            c.say(Diagnostic::new(codes::BAD_ADDRESS, path, message).hint(hint));
        }
    }
}

/// The first or last address of an IPv4 network that has both (RFC 3021: a /31 has neither).
pub(super) fn is_network_end(net: Cidr, address: IpAddr) -> bool {
    net.address.is_ipv4() && net.prefix <= 30 && (address == net.first() || address == net.last())
}

/// What to say of a port that does not exist.
pub(super) fn unknown_port(c: &Checker<'_>, name: &str, path: String) -> Diagnostic {
    let known: Vec<&str> = c.config.ports.iter().map(|p| p.name.as_str()).collect();
    let error = Diagnostic::new(codes::UNKNOWN_REFERENCE, path, format!("no port \"{name}\""));
    error.hint(match nearest(name, known.iter().copied()) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("configured: {}", known.join(", ")),
    })
}

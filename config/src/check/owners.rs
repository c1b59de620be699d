//! Whose an address is. A VIP is answered for by the appliance: one that is somebody else's takes that one off the network;
//! a server that is the appliance itself is a black hole that passes its checks.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Checker;
use crate::codes;
use crate::diag::Diagnostic;
use crate::model::Service;

pub(super) fn check(c: &mut Checker<'_>) {
    let services = &c.config.services;
    let vips: HashMap<IpAddr, usize> = services.iter().enumerate().rev().map(|(i, s)| (s.vip.ip(), i)).collect();
    for (i, service) in services.iter().enumerate() {
        // One address, many services: said once.
        if vips.get(&service.vip.ip()) == Some(&i) {
            vip(c, i, service.vip.ip());
        }
        servers(c, i, service, &vips);
    }
}

fn vip(c: &mut Checker<'_>, i: usize, ip: IpAddr) {
    let mut said = Vec::new();
    for (n, port) in c.config.ports.iter().enumerate() {
        if let Some(k) = port.gateways.iter().position(|g| *g == ip) {
            said.push(("a gateway".to_owned(), Some(format!("port[{n}].gateways[{k}]"))));
        }
        for (k, net) in port.addresses.iter().enumerate() {
            if net.address == ip && port.kernel.is_some() {
                let what =
                    format!("the address of kernel interface \"{}\"", port.kernel.as_ref().map_or("", |k| k.as_str()));
                said.push((what, Some(format!("port[{n}].addresses[{k}]"))));
            }
            let ends = net.count() > 2 && ip.is_ipv4() && (net.first() == ip || net.last() == ip);
            if ends {
                let network = net.network();
                said.push((format!("an end of the network {network}"), Some(format!("port[{n}].addresses[{k}]"))));
            }
        }
    }
    if c.config.healthcheck.source == Some(ip) {
        said.push(("the source of the health checks".into(), Some("healthcheck.source".into())));
    } else if c.facts.is_own(ip) {
        said.push(("an address of this machine's kernel".into(), None));
    }
    for (what, place) in said {
        let error = Diagnostic::new(codes::OVERLAP, format!("service[{i}].vip"), format!("VIP {ip} is {what}"));
        let error = error.hint("a VIP is answered for by the appliance's ports: take an address that nobody has");
        c.say(match place {
            Some(place) => error.related(place, "named here"),
            None => error,
        });
    }
}

fn servers(c: &mut Checker<'_>, i: usize, service: &Service, vips: &HashMap<IpAddr, usize>) {
    for (n, rs) in service.rs.iter().enumerate() {
        let ip = rs.address.ip();
        let path = format!("service[{i}].rs[{n}].address");
        let mut ports = c.config.ports.iter().enumerate();
        let own = ports.find_map(|(p, port)| {
            let k = port.addresses.iter().position(|a| a.address == ip)?;
            Some(("the appliance's own address", format!("port[{p}].addresses[{k}]")))
        });
        // Its own service's VIP has been said.
        let vip = vips.get(&ip).filter(|_| rs.address != service.vip);
        let taken = own.or_else(|| vip.map(|k| ("a VIP", format!("service[{k}].vip"))));
        if let Some((what, place)) = taken {
            let error = Diagnostic::new(codes::OVERLAP, path, format!("server {ip} is {what}"));
            let error = error.hint("packets to it would go round within the appliance, though its checks may succeed");
            c.say(error.related(place, "named here"));
        }
    }
}

//! Local addresses: on a known port, and nothing else's.

use std::net::IpAddr;

use super::ports::{is_network_end, unknown_port};
use super::{Checker, unusable};
use crate::codes;
use crate::diag::Diagnostic;
use crate::limits::MAX_LADDRS;
use crate::model::Config;

pub(super) fn check(c: &mut Checker<'_>) {
    let config = c.config;
    for (i, laddr) in config.laddrs.iter().enumerate() {
        let path = || format!("laddr[{i}].address");
        let block = laddr.address;
        let port = config.port(&laddr.port);
        if port.is_none() && !c.unsure("port") {
            c.say(unknown_port(c, laddr.port.as_str(), format!("laddr[{i}].port")));
        }
        if block != block.network() {
            let error =
                Diagnostic::new(codes::BAD_ADDRESS, path(), format!("block {block} does not begin at its address"));
            c.say(error.hint(format!("did you mean \"{}\", or \"{}\" alone?", block.network(), block.address)));
            continue;
        }
        if let Some(why) = unusable(block.first()).or_else(|| unusable(block.last())) {
            c.say(Diagnostic::new(codes::BAD_ADDRESS, path(), format!("local address {block} {why}")));
        }
        let ends = port.into_iter().flat_map(|p| &p.addresses);
        let ends = ends.flat_map(|net| [(net, net.first()), (net, net.last())]);
        for (net, end) in ends.filter(|(net, end)| is_network_end(**net, *end) && block.contains(*end)) {
            let message = format!("local addresses {block} hold {end}, an end of the network {}", net.network());
            c.say(Diagnostic::new(codes::OVERLAP, path(), message).hint("choose a block inside the network"));
        }
        if let Some(port) = port {
            let slots = u32::from(config.slots_of(port));
            if laddr.ports.count() < slots {
                let message = format!("{} ports cannot be shared among {slots} slots", laddr.ports.count());
                c.say(Diagnostic::new(codes::OUT_OF_RANGE, format!("laddr[{i}].ports"), message));
            }
        }
        for (k, other) in config.laddrs[..i].iter().enumerate() {
            if other.address.overlaps(block) {
                let error = Diagnostic::new(codes::OVERLAP, path(), format!("{block} overlaps {}", other.address));
                c.say(error.related(format!("laddr[{k}].address"), "first used here"));
            }
        }
    }
    let count = config.laddrs.iter().fold(0u128, |n, l| n.saturating_add(l.address.count()));
    if count > MAX_LADDRS {
        let last = config.laddrs.len().saturating_sub(1);
        let message = format!("{count} local addresses, the tables hold {MAX_LADDRS}");
        let error = Diagnostic::new(codes::TOO_MANY, format!("laddr[{last}].address"), message);
        c.say(error.hint("each serves 64,512 sessions per real server: a smaller block will do"));
    }
    owners(c);
}

/// No local address may be somebody's: a reply to it would be taken for that one's, or the other way round.
fn owners(c: &mut Checker<'_>) {
    let config = c.config;
    let blocks = Blocks::of(config);
    let ports = config.ports.iter().enumerate().flat_map(|(i, p)| {
        let own = p.addresses.iter().enumerate();
        let own = own.map(move |(k, a)| (a.address, "the port's own address", format!("port[{i}].addresses[{k}]")));
        let hops = p.gateways.iter().enumerate();
        own.chain(hops.map(move |(k, g)| (*g, "a gateway", format!("port[{i}].gateways[{k}]"))))
    });
    for (address, what, path) in ports {
        if let Some(i) = blocks.find(address) {
            overlap(c, i, address, what, path);
        }
    }
    for (i, service) in config.services.iter().enumerate() {
        if let Some(k) = blocks.find(service.vip.ip()) {
            overlap(c, k, service.vip.ip(), "a VIP", format!("service[{i}].vip"));
        }
        for (n, rs) in service.rs.iter().enumerate() {
            if let Some(k) = blocks.find(rs.address.ip()) {
                overlap(c, k, rs.address.ip(), "a real server", format!("service[{i}].rs[{n}].address"));
            }
        }
    }
}

fn overlap(c: &mut Checker<'_>, laddr: usize, address: IpAddr, what: &str, path: String) {
    let block = c.config.laddrs[laddr].address;
    let error =
        Diagnostic::new(codes::OVERLAP, path, format!("{address} is {what} and in the local addresses {block}"));
    c.say(
        error
            .hint("local addresses must be nobody else's")
            .related(format!("laddr[{laddr}].address"), "local addresses"),
    );
}

/// The blocks of local addresses, sorted: a configuration may have 100,000 servers to look up.
struct Blocks(Vec<(IpAddr, IpAddr, usize)>);

impl Blocks {
    fn of(config: &Config) -> Self {
        let blocks = config.laddrs.iter().enumerate();
        let mut blocks: Vec<_> = blocks.map(|(i, l)| (l.address.first(), l.address.last(), i)).collect();
        blocks.sort_unstable();
        Self(blocks)
    }

    /// The index of the block that holds an address. Blocks are prefixes: of those that begin at or before the address,
    /// the last one holds it, or one around that one (then the overlap has been said, too).
    fn find(&self, address: IpAddr) -> Option<usize> {
        let after = self.0.partition_point(|(first, ..)| *first <= address);
        let (_, last, index) = self.0.get(after.checked_sub(1)?)?;
        (address <= *last && last.is_ipv4() == address.is_ipv4()).then_some(*index)
    }
}

//! What a check must know about the machine, injected so that checks are pure and tests need no machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Facts about the machine a configuration is for.
pub trait Facts {
    /// Whether the CPU exists and is online.
    fn cpu_online(&self, cpu: u16) -> bool;
    /// Whether the NUMA node exists and is online.
    fn numa_online(&self, node: u8) -> bool;
    /// Whether the kernel has a route to the address in the caller's network namespace.
    fn has_route(&self, to: IpAddr) -> bool;
    /// Whether the kernel of the caller's network namespace has the address as its own.
    fn is_own(&self, _: IpAddr) -> bool {
        false
    }
}

/// A machine that has everything: for tools that look at a configuration of another machine, and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllFacts;

impl Facts for AllFacts {
    fn cpu_online(&self, _: u16) -> bool {
        true
    }
    fn numa_online(&self, _: u8) -> bool {
        true
    }
    fn has_route(&self, _: IpAddr) -> bool {
        true
    }
}

/// This machine, in this process's network namespace. CPUs are read once, routes at each question.
#[derive(Debug, Clone)]
pub struct SystemFacts {
    cpus: Option<BTreeSet<u32>>,
    nodes: Option<BTreeSet<u32>>,
}

impl SystemFacts {
    /// Reads `/sys/devices/system/{cpu,node}/online`; what cannot be read is not held against anybody.
    #[must_use]
    pub fn read() -> Self {
        let list = |path| std::fs::read_to_string(path).ok().and_then(|text| parse_list(&text));
        Self { cpus: list("/sys/devices/system/cpu/online"), nodes: list("/sys/devices/system/node/online") }
    }
}

impl Facts for SystemFacts {
    fn cpu_online(&self, cpu: u16) -> bool {
        self.cpus.as_ref().is_none_or(|c| c.contains(&u32::from(cpu)))
    }

    fn numa_online(&self, node: u8) -> bool {
        match &self.nodes {
            Some(nodes) => nodes.contains(&u32::from(node)),
            None => node == 0, // a kernel without NUMA has the one node
        }
    }

    /// `connect` of a datagram socket asks the routing table and sends nothing (connect(2)); needs no privilege.
    fn has_route(&self, to: IpAddr) -> bool {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| socket.connect(SocketAddr::new(to, 9))).is_ok()
    }

    /// `bind` takes only own addresses (ip(7), unless `ip_nonlocal_bind` is set: then nothing is known).
    fn is_own(&self, address: IpAddr) -> bool {
        let nobody = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)); // TEST-NET-1, RFC 5737.
        let binds = |ip| UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok();
        binds(address) && !binds(nobody)
    }
}

/// The kernel's list format, `0-3,8`.
fn parse_list(text: &str) -> Option<BTreeSet<u32>> {
    let mut set = BTreeSet::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        set.extend(a.parse::<u32>().ok()?..=b.parse::<u32>().ok()?);
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(parse_list("0-2,8\n"), Some([0, 1, 2, 8].into()));
        assert_eq!(parse_list("0"), Some([0].into()));
        assert_eq!(parse_list("x"), None);
    }

    #[test]
    fn this_machine_has_cpu_zero_and_a_route_to_itself() {
        let facts = SystemFacts::read();
        assert!(facts.cpu_online(0) && facts.numa_online(0));
        assert!(!facts.cpu_online(u16::MAX));
        assert!(facts.has_route(IpAddr::V4(Ipv4Addr::LOCALHOST)), "lo is up where tests run");
    }
}

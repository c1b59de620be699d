//! Node, holder, zones and limits.

use std::collections::HashMap;

use super::Checker;
use crate::codes;
use crate::diag::Diagnostic;
use crate::limits::{MAX_SOCKET_PATH, MAX_ZONES};
use crate::values::{Millis, Poll};

pub(super) fn check(c: &mut Checker<'_>) {
    let node = &c.config.node;
    c.within(node.hang_after, Millis::new(100), Millis::secs(60), || "node.hang_after".into());
    let socket = node.socket();
    let length = socket.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let message = format!("{} is {length} bytes, a socket's path at most {MAX_SOCKET_PATH}", socket.display());
        let path = if node.run_dir.is_some() { "node.run_dir" } else { "node.name" };
        c.say(Diagnostic::new(codes::OUT_OF_RANGE, path, message).hint("choose a shorter run_dir"));
    }
    zones(c);
    cpus(c);
    limits(c);
}

fn zones(c: &mut Checker<'_>) {
    let config = c.config;
    if config.zones.len() > MAX_ZONES {
        let message = format!("{} zones, the tables hold {MAX_ZONES}", config.zones.len());
        c.say(Diagnostic::new(codes::TOO_MANY, format!("zone[{MAX_ZONES}]"), message));
    }
    let ids = config.zones.iter().enumerate().map(|(i, z)| (z.id, i));
    c.unique(codes::DUPLICATE, ids, |i| format!("zone[{i}].id"), |id| format!("zone {id} is configured twice"));
    for (i, zone) in config.zones.iter().enumerate() {
        if !c.facts.numa_online(zone.numa) {
            let message = format!("NUMA node {} does not exist on this machine", zone.numa);
            c.say(Diagnostic::new(codes::NO_SUCH_CPU, format!("zone[{i}].numa"), message).hint("see lscpu"));
        }
        if zone.cpus.is_empty() {
            let message = format!("zone {} has no CPU: its worker would have no thread", zone.id);
            c.say(Diagnostic::new(codes::OUT_OF_RANGE, format!("zone[{i}].cpus"), message).hint("such as cpus = [1]"));
        }
        if !c.unsure("port") && !config.ports.iter().any(|p| p.zones.contains(&zone.id)) {
            let message = format!("no port is served by zone {}: its worker would have nothing to do", zone.id);
            let hint = format!("add {} to the zones of a port", zone.id);
            c.say(Diagnostic::new(codes::IDLE_ZONE, format!("zone[{i}]"), message).hint(hint));
        }
    }
}

/// Every CPU exists; sharing one is said, and refused where threads never sleep.
fn cpus(c: &mut Checker<'_>) {
    let config = c.config;
    let busy = config.node.poll == Poll::Busy;
    let mut users: HashMap<u16, (String, String)> = HashMap::new();
    let primary = std::iter::once((config.primary.cpu, "the holder".to_owned(), "primary.cpu".to_owned()));
    let io = config.primary.io_cpus.iter().enumerate();
    let io = io.map(|(i, cpu)| (*cpu, "pipeline I/O".to_owned(), format!("primary.io_cpus[{i}]")));
    let zones = config.zones.iter().enumerate().flat_map(|(i, z)| {
        let name = format!("zone {}", z.id);
        z.cpus.iter().enumerate().map(move |(k, cpu)| (*cpu, name.clone(), format!("zone[{i}].cpus[{k}]")))
    });
    for (cpu, user, path) in primary.chain(io).chain(zones) {
        if !c.facts.cpu_online(cpu) {
            let error = Diagnostic::new(codes::NO_SUCH_CPU, path, format!("CPU {cpu} does not exist on this machine"));
            c.say(error.hint("the CPUs online are listed in /sys/devices/system/cpu/online"));
            continue;
        }
        let Some((other, first)) = users.get(&cpu) else {
            users.insert(cpu, (user, path));
            continue;
        };
        let found = if *other == user {
            Diagnostic::new(codes::DUPLICATE, path, format!("CPU {cpu} is listed twice for {user}"))
                .hint("one thread each: list every CPU once")
        } else if busy {
            Diagnostic::new(codes::CPU_SHARED_BUSY, path, format!("CPU {cpu} is shared by {other} and {user}"))
                .hint("with poll = \"busy\" one would starve the other: give each its own, or poll = \"adaptive\"")
        } else {
            Diagnostic::new(codes::CPU_SHARED, path, format!("CPU {cpu} is shared by {other} and {user}"))
                .hint("both run, slower; give each its own for full speed")
        };
        c.say(found.related(first.clone(), format!("used by {other} here")));
    }
}

fn limits(c: &mut Checker<'_>) {
    let (services, most) = (c.size.services, c.config.limits.services as usize);
    if services > most {
        let message = format!("{services} services, limits.services is {most}");
        let hint = format!("raise limits.services to {services} (needs a restart)");
        c.say(Diagnostic::new(codes::TOO_MANY, format!("service[{most}]"), message).hint(hint));
    }
    let servers = c.size.servers;
    let (hashing, most) =
        (c.config.services.iter().filter(|s| s.hashes()).count(), c.config.limits.hash_services as usize);
    if hashing > most {
        let message = format!("{hashing} services choose by hash or persist, limits.hash_services is {most}");
        let hint = format!("raise limits.hash_services to {hashing} (needs a restart)");
        c.say(Diagnostic::new(codes::TOO_MANY, "limits.hash_services", message).hint(hint));
    }
    let most = c.config.limits.real_servers as usize;
    if servers > most {
        let message = format!("{servers} real servers, limits.real_servers is {most}");
        let hint = format!("raise limits.real_servers to {servers} (needs a restart)");
        c.say(Diagnostic::new(codes::TOO_MANY, "limits.real_servers", message).hint(hint));
    }
}

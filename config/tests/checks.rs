//! Each check with an example it refuses and one it lets pass.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::IpAddr;

use config::{AllFacts, Facts, codes, load_text};

/// A good configuration; each case replaces one part of it.
const GOOD: &str = r#"
[node]
name = "lb1"
poll = "adaptive"
[primary]
cpu = 0
io_cpus = []
[[zone]]
id = 0
numa = 0
cpus = [1]
[[zone]]
id = 1
cpus = [2]
[[port]]
name = "net0"
device = "net_tap0,iface=lb1net0"
zones = [0, 1]
slots = 2
mac = ""
addresses = ["10.0.0.2/24"]
gateways = ["10.0.0.1"]
mtu = 1500
vlan = 0
[[port]]
name = "net1"
device = "net_tap1,iface=lb1net1"
zones = [0]
addresses = ["10.1.0.2/24"]
kernel = "lb1k1"
[healthcheck]
source = ""
[limits]
services = 10
real_servers = 10
[[laddr]]
port = "net0"
address = "10.0.0.128/30"
ports = "1024-65535"
[[laddr]]
port = "net1"
address = "10.1.0.128/30"
[[service]]
name = "web"
vip = "10.0.0.100:80"
protocol = "tcp"
mode = "fullnat"
scheduler = "rr"
persistence = "0s"
client_address = "none"
syn_proxy = false
timeouts = { established = "90s" }
health = { type = "tcp", interval = "2s", timeout = "1s" }
  [[service.rs]]
  address = "10.0.0.21:8080"
  weight = 1
  [[service.rs]]
  address = "10.0.0.22:8080"
[[service]]
name = "dns"
vip = "10.0.0.100:53"
protocol = "udp"
health = { type = "none" }
  [[service.rs]]
  address = "10.0.0.21:53"
"#;

/// Codes and paths after replacing `from` (which must be there) by `to`.
fn found(from: &str, to: &str, facts: &dyn Facts) -> Vec<(String, String)> {
    assert!(GOOD.contains(from), "{from}");
    let text = GOOD.replacen(from, to, 1);
    let report = match load_text("lb.toml", &text, facts) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    for d in report.diagnostics() {
        assert!(d.line > 0, "every diagnostic of a file has a place: {d}");
    }
    report.diagnostics().map(|d| (d.code.clone(), d.path.clone())).collect()
}

#[track_caller]
fn refused(from: &str, to: &str, code: &str, path: &str) {
    assert_eq!(found(from, to, &AllFacts), [(code.to_owned(), path.to_owned())], "{to}");
}

#[track_caller]
fn passes(from: &str, to: &str) {
    assert_eq!(found(from, to, &AllFacts), [], "{to}");
}

#[test]
fn the_good_one_is_good() {
    passes("", "");
}

#[test]
fn names_and_ids_are_unique() {
    refused("name = \"dns\"", "name = \"web\"", codes::DUPLICATE, "service[1].name");
    let twice = found("name = \"net1\"", "name = \"net0\"", &AllFacts);
    assert_eq!(twice[0], (codes::DUPLICATE.to_owned(), "port[1].name".to_owned()));
    refused("net_tap1,iface=lb1net1", "net_tap0,iface=lb1net1", codes::DUPLICATE, "port[1].device");
    refused("iface=lb1net1", "iface=lb1net0", codes::DUPLICATE, "port[1].device");
    refused("kernel = \"lb1k1\"", "kernel = \"lb1net0\"", codes::DUPLICATE, "port[1].kernel");
    assert_eq!(found("id = 1", "id = 0", &AllFacts)[0], (codes::DUPLICATE.to_owned(), "zone[1].id".to_owned()));
    refused("zones = [0, 1]", "zones = [0, 1, 0]", codes::DUPLICATE, "port[0].zones[2]");
    refused("cpus = [1]", "cpus = [1, 1]", codes::DUPLICATE, "zone[0].cpus[1]");
    passes("zones = [0, 1]", "zones = [1, 0]");
}

#[test]
fn vips_servers_and_addresses_are_unique() {
    refused("10.0.0.100:53\"\nprotocol = \"udp\"", "10.0.0.100:80\"", codes::DUPLICATE_VIP, "service[1].vip");
    passes("10.0.0.100:53", "10.0.0.100:80");
    refused("10.0.0.22:8080", "10.0.0.21:8080", codes::DUPLICATE_RS, "service[0].rs[1].address");
    passes("10.0.0.22:8080", "10.0.0.21:8081");
    refused("10.1.0.2/24", "10.0.0.2/24", codes::DUPLICATE, "port[1].addresses[0]");
}

#[test]
fn local_addresses_are_nobody_elses() {
    refused("10.1.0.128/30", "10.0.0.128/29", codes::OVERLAP, "laddr[1].address");
    refused("10.0.0.100:80", "10.0.0.129:80", codes::OVERLAP, "service[0].vip");
    refused("10.0.0.22:8080", "10.0.0.130:8080", codes::OVERLAP, "service[0].rs[1].address");
    refused("10.0.0.2/24", "10.0.0.128/24", codes::OVERLAP, "port[0].addresses[0]");
    refused("gateways = [\"10.0.0.1\"]", "gateways = [\"10.0.0.131\"]", codes::OVERLAP, "port[0].gateways[0]");
    refused("10.0.0.128/30", "10.0.0.252/30", codes::OVERLAP, "laddr[0].address");
    refused("10.0.0.128/30", "10.0.0.129/30", codes::BAD_ADDRESS, "laddr[0].address");
    refused("10.1.0.128/30", "10.2.0.0/20", codes::TOO_MANY, "laddr[1].address");
    passes("10.0.0.128/30", "10.0.0.132");
}

#[test]
fn references_are_known() {
    refused("port = \"net1\"", "port = \"net2\"", codes::UNKNOWN_REFERENCE, "laddr[1].port");
    refused("zones = [0]", "zones = [5]", codes::UNKNOWN_REFERENCE, "port[1].zones[0]");
    refused("zones = [0]", "zones = []", codes::OUT_OF_RANGE, "port[1].zones");
    passes("zones = [0]", "zones = [1]");
}

#[test]
fn fullnat_needs_a_local_address() {
    let laddrs = &GOOD[GOOD.find("[[laddr]]").unwrap()..GOOD.find("[[service]]").unwrap()];
    let expected = ["service[0].vip", "service[1].vip"].map(|p| (codes::NO_LADDR.to_owned(), p.to_owned()));
    assert_eq!(found(laddrs, "", &AllFacts), expected);
    // A local address that could not be read is one mistake, not three.
    refused("10.0.0.128/30", "10.0.0.428/30", codes::BAD_ADDRESS, "laddr[0].address");
}

#[test]
fn cpus_exist_and_sharing_them_is_said() {
    struct Two;
    impl Facts for Two {
        fn cpu_online(&self, cpu: u16) -> bool {
            cpu < 3
        }
        fn numa_online(&self, node: u8) -> bool {
            node == 0
        }
        fn has_route(&self, _: IpAddr) -> bool {
            true
        }
    }
    let one = |code: &str, path: &str| vec![(code.to_owned(), path.to_owned())];
    assert_eq!(found("cpus = [1]", "cpus = [3]", &Two), one(codes::NO_SUCH_CPU, "zone[0].cpus[0]"));
    assert_eq!(found("numa = 0", "numa = 1", &Two), one(codes::NO_SUCH_CPU, "zone[0].numa"));
    assert_eq!(found("", "", &Two), []);
    refused("cpus = [1]", "cpus = [2]", codes::CPU_SHARED, "zone[1].cpus[0]");
    refused("cpu = 0", "cpu = 1", codes::CPU_SHARED, "zone[0].cpus[0]");
    let busy = "poll = \"busy\"\n[primary]\ncpu = 1";
    refused("poll = \"adaptive\"\n[primary]\ncpu = 0", busy, codes::CPU_SHARED_BUSY, "zone[0].cpus[0]");
    refused("cpus = [1]", "cpus = []", codes::OUT_OF_RANGE, "zone[0].cpus");
    refused("zones = [0, 1]", "zones = [0]", codes::IDLE_ZONE, "zone[1]");
}

#[test]
fn the_tables_hold_it() {
    refused("slots = 2", "slots = 5", codes::TOO_MANY, "port[0].slots");
    passes("slots = 2", "slots = 4");
    refused(
        "net_tap0,iface=lb1net0\"\nzones = [0, 1]\nslots = 2",
        "net_null0\"\nzones = [0, 1]\nslots = 64",
        codes::TOO_MANY,
        "port[1].slots",
    );
    refused("services = 10", "services = 1", codes::TOO_MANY, "service[1]");
    refused("real_servers = 10", "real_servers = 2", codes::TOO_MANY, "limits.real_servers");
    refused("ports = \"1024-65535\"", "ports = \"1024-1024\"", codes::OUT_OF_RANGE, "laddr[0].ports");
    let many = "gateways = [\"10.0.0.1\", \"10.0.0.3\", \"10.0.0.4\", \"10.0.0.5\", \"10.0.0.6\"]";
    refused("gateways = [\"10.0.0.1\"]", many, codes::TOO_MANY, "port[0].gateways[4]");
}

#[test]
fn port_addresses_make_sense() {
    refused("10.0.0.2/24", "10.0.0.0/24", codes::BAD_ADDRESS, "port[0].addresses[0]");
    refused("10.1.0.2/24", "224.0.0.1/24", codes::BAD_ADDRESS, "port[1].addresses[0]");
    refused("gateways = [\"10.0.0.1\"]", "gateways = [\"10.9.0.1\"]", codes::BAD_ADDRESS, "port[0].gateways[0]");
    refused("gateways = [\"10.0.0.1\"]", "gateways = [\"10.0.0.2\"]", codes::OVERLAP, "port[0].gateways[0]");
    refused("mtu = 1500", "mtu = 100", codes::OUT_OF_RANGE, "port[0].mtu");
    refused("mac = \"\"", "mac = \"01:00:00:00:00:01\"", codes::BAD_VALUE, "port[0].mac");
    passes("mac = \"\"", "mac = \"02:00:00:00:00:01\"");
    passes("net_tap0,iface=lb1net0", "0000:03:00.0");
    refused("net_tap0,iface=lb1net0", "eth0", codes::BAD_VALUE, "port[0].device");
    refused("iface=lb1net0", "iface=much-too-long-a-name", codes::BAD_VALUE, "port[0].device");
}

#[test]
fn vips_and_servers_are_usable() {
    refused("10.0.0.100:80", "0.0.0.0:80", codes::BAD_ADDRESS, "service[0].vip");
    refused("10.0.0.100:80", "10.0.0.100:0", codes::BAD_ADDRESS, "service[0].vip");
    refused("10.0.0.22:8080", "127.0.0.1:8080", codes::BAD_ADDRESS, "service[0].rs[1].address");
    refused("10.0.0.22:8080", "10.0.0.22:0", codes::BAD_ADDRESS, "service[0].rs[1].address");
    refused("10.0.0.22:8080", "10.0.0.100:80", codes::BAD_ADDRESS, "service[0].rs[1].address");
    refused("10.0.0.22:8080", "[fd00::1]:80", codes::BAD_ADDRESS, "service[0].rs[1].address");
    passes("10.0.0.22:8080", "192.168.7.1:8080");
    let gone = GOOD.replace("gateways = [\"10.0.0.1\"]\n", "").replace("10.0.0.22:8080", "192.168.7.1:8080");
    let warnings = load_text("lb.toml", &gone, &AllFacts).unwrap().warnings;
    let said = warnings.diagnostics().next();
    assert_eq!(said.unwrap().code, codes::NO_NEXT_HOP);
}

#[test]
fn keys_that_exclude_each_other() {
    refused("mode = \"fullnat\"", "tunnel = \"gue\"", codes::CONFLICT, "service[0].tunnel");
    refused("client_address = \"none\"", "client_address = \"uoa\"", codes::CONFLICT, "service[0].client_address");
    let udp = "protocol = \"udp\"\nsyn_proxy = true";
    refused("protocol = \"udp\"", udp, codes::CONFLICT, "service[1].syn_proxy");
    let udp = "protocol = \"udp\"\nclient_address = \"toa\"";
    refused("protocol = \"udp\"", udp, codes::CONFLICT, "service[1].client_address");
    // Without a session no reply finds its client: in dr and tunnel alone.
    let alone = |rest: &str| format!("protocol = \"udp\"\none_packet = true\n{rest}");
    refused("protocol = \"udp\"", &alone(""), codes::CONFLICT, "service[1].one_packet");
    refused("protocol = \"udp\"", &alone("mode = \"nat\""), codes::CONFLICT, "service[1].one_packet");
    passes("protocol = \"udp\"", &alone("mode = \"dr\""));
    passes("protocol = \"udp\"", &alone("mode = \"tunnel\""));
    let persistent = alone("mode = \"dr\"\npersistence = \"5m\"");
    refused("protocol = \"udp\"", &persistent, codes::CONFLICT, "service[1].persistence");
    let limited = alone("mode = \"dr\"\nmax_sessions = 9");
    refused("protocol = \"udp\"", &limited, codes::CONFLICT, "service[1].max_sessions");
    refused("type = \"tcp\"", "type = \"tcp\", path = \"/\"", codes::CONFLICT, "service[0].health.path");
    refused("type = \"tcp\"", "type = \"http\", send = \"x\"", codes::CONFLICT, "service[0].health.send");
}

#[test]
fn times_are_within_their_limits() {
    refused("established = \"90s\"", "established = \"99ms\"", codes::OUT_OF_RANGE, "service[0].timeouts.established");
    refused("established = \"90s\"", "established = \"25h\"", codes::OUT_OF_RANGE, "service[0].timeouts.established");
    refused("established = \"90s\"", "established = \"90\"", codes::BAD_DURATION, "service[0].timeouts.established");
    refused(
        "established = \"90s\"",
        "established = \"90 sec\"",
        codes::BAD_DURATION,
        "service[0].timeouts.established",
    );
    refused("established = \"90s\"", "estabished = \"90s\"", codes::UNKNOWN_KEY, "service[0].timeouts.estabished");
    passes("established = \"90s\"", "established = \"24h\"");
    refused("timeout = \"1s\"", "timeout = \"3s\"", codes::CONFLICT, "service[0].health.timeout");
    refused("timeout = \"1s\"", "fast_interval = \"3s\"", codes::CONFLICT, "service[0].health.fast_interval");
    refused("interval = \"2s\"", "interval = \"2h\"", codes::OUT_OF_RANGE, "service[0].health.interval");
}

#[test]
fn checks_are_well_formed() {
    passes(
        "type = \"tcp\"",
        "type = \"http\", path = \"/up\", host = \"a.b\", expect = \"200,204,300-399\", port = 81",
    );
    refused("type = \"tcp\"", "type = \"http\", path = \"up\"", codes::BAD_VALUE, "service[0].health.path");
    refused("type = \"tcp\"", "type = \"http\", expect = \"ok\"", codes::BAD_VALUE, "service[0].health.expect");
    refused("type = \"tcp\"", "type = \"tcp\", rise = 0", codes::OUT_OF_RANGE, "service[0].health.rise");
    refused("type = \"tcp\"", "type = \"tcp\", fall = 256", codes::OUT_OF_RANGE, "service[0].health.fall");
    refused("health = { type = \"none\" }\n", "", codes::UNCHECKED, "service[1]");
    refused("weight = 1", "weight = 65536", codes::OUT_OF_RANGE, "service[0].rs[0].weight");
    refused("weight = 1", "weight = \"1\"", codes::WRONG_TYPE, "service[0].rs[0].weight");
    passes("weight = 1", "weight = 0");
}

#[test]
fn checked_servers_have_a_route() {
    struct NoRoutes;
    impl Facts for NoRoutes {
        fn cpu_online(&self, _: u16) -> bool {
            true
        }
        fn numa_online(&self, _: u8) -> bool {
            true
        }
        fn has_route(&self, _: IpAddr) -> bool {
            false
        }
    }
    let expected = [0, 1].map(|n| (codes::NO_ROUTE.to_owned(), format!("service[0].rs[{n}].address")));
    assert_eq!(found("", "", &NoRoutes), expected);
    assert_eq!(found("type = \"tcp\"", "type = \"none\"", &NoRoutes), []);
    // A port's kernel interface brings the route once it is up.
    assert_eq!(found("gateways =", "kernel = \"lb1k0\"\ngateways =", &NoRoutes), []);
}

#[test]
fn what_is_not_built_yet_is_refused_honestly() {
    let not_yet = |from: &str, to: &str, path: &str| {
        refused(from, to, codes::NOT_YET, path);
        let report = load_text("lb.toml", &GOOD.replacen(from, to, 1), &AllFacts).unwrap_err();
        assert!(report.to_string().contains("not in this version"), "{report}");
    };
    let gue = GOOD.replace("10.0.0.100:80\"", "10.0.0.100:8080\"").replacen(
        "mode = \"fullnat\"",
        "mode = \"tunnel\"\ntunnel = \"gue\"",
        1,
    );
    let report = load_text("lb.toml", &gue, &AllFacts).unwrap_err();
    let said: Vec<_> = report.diagnostics().map(|d| (d.code.as_str(), d.path.as_str())).collect();
    assert_eq!(said, [(codes::NOT_YET, "service[0].tunnel")]);
    passes("mode = \"fullnat\"", "mode = \"nat\"");
    let routed =
        GOOD.replace("10.0.0.100:80\"", "10.0.0.100:8080\"").replacen("mode = \"fullnat\"", "mode = \"dr\"", 1);
    assert!(load_text("lb.toml", &routed, &AllFacts).is_ok());
    let routed = routed.replace("10.0.0.22:8080", "192.168.7.1:8080");
    let report = load_text("lb.toml", &routed, &AllFacts).unwrap_err();
    assert!(report.to_string().contains("on no port's network"), "{report}");
    for mode in ["dr", "tunnel"] {
        let elsewhere = format!("mode = \"{mode}\"");
        let report = load_text("lb.toml", &GOOD.replacen("mode = \"fullnat\"", &elsewhere, 1), &AllFacts).unwrap_err();
        assert!(report.to_string().contains(&format!("must have the VIP's port 80 in mode {mode}")), "{report}");
    }
    for check in ["https", "udp", "dns", "ping"] {
        not_yet("type = \"tcp\"", &format!("type = \"{check}\""), "service[0].health.type");
    }
    not_yet("client_address = \"none\"", "client_address = \"toa\"", "service[0].client_address");
    not_yet("syn_proxy = false", "syn_proxy = true", "service[0].syn_proxy");
    not_yet("io_cpus = []", "io_cpus = [3]", "primary.io_cpus");
}

#[test]
fn choices_by_hash() {
    for scheduler in ["rr", "wrr", "lc", "wlc", "source-ip", "source-ip-port", "maglev"] {
        passes("scheduler = \"rr\"", &format!("scheduler = \"{scheduler}\""));
    }
    let with = |keys: &str| format!("persistence = \"5m\"\n{keys}");
    let zero = "persistence = \"0s\"";
    passes(zero, &with("persistence_prefix = 24\nhash_key = \"0123456789abcdef\""));
    refused(zero, "persistence = \"500ms\"", codes::OUT_OF_RANGE, "service[0].persistence");
    refused(zero, &with("persistence_prefix = 33"), codes::BAD_VALUE, "service[0].persistence_prefix");
    refused(zero, &with("persistence_prefix = 0"), codes::OUT_OF_RANGE, "service[0].persistence_prefix");
    refused(zero, &with("hash_key = \"short\""), codes::BAD_VALUE, "service[0].hash_key");
    refused(zero, &with("hash_key = \"with blanks in between\""), codes::BAD_VALUE, "service[0].hash_key");
    // Each service that chooses by hash has a table.
    let limits =
        |text: &str| GOOD.replacen("services = 10", "services = 10\nhash_services = 1", 1).replacen(zero, text, 1);
    assert_eq!(load_text("lb.toml", &limits(&with("")), &AllFacts).err().map(|e| e.to_string()), None);
    let two = limits(&with("")).replacen("name = \"dns\"", "name = \"dns\"\nscheduler = \"maglev\"", 1);
    let report = load_text("lb.toml", &two, &AllFacts).unwrap_err().to_string();
    assert!(report.contains("limits.hash_services") && report.contains("raise limits.hash_services to 2"), "{report}");
}

/// A machine whose kernel has one address of its own.
struct Owns(IpAddr);

impl Facts for Owns {
    fn cpu_online(&self, _: u16) -> bool {
        true
    }
    fn numa_online(&self, _: u8) -> bool {
        true
    }
    fn has_route(&self, _: IpAddr) -> bool {
        true
    }
    fn is_own(&self, address: IpAddr) -> bool {
        address == self.0
    }
}

#[test]
fn a_vip_is_nobody_elses() {
    let vip = "vip = \"10.0.0.100:80\"";
    for (to, path) in
        [("10.0.0.1:80", "service[0].vip"), ("10.0.0.0:80", "service[0].vip"), ("10.0.0.255:80", "service[0].vip")]
    {
        refused(vip, &format!("vip = \"{to}\""), codes::OVERLAP, path);
    }
    // A server of any service; told where the server is named.
    refused(vip, "vip = \"10.0.0.22:80\"", codes::OVERLAP, "service[0].rs[1].address");
    passes(vip, "vip = \"10.0.0.99:80\"");
    let own = Owns("10.0.0.100".parse().unwrap());
    assert_eq!(found("", "", &own), [(codes::OVERLAP.to_owned(), "service[0].vip".to_owned())]);
    // The source of the probes: its answers would come to the ports.
    refused("source = \"\"", "source = \"10.0.0.100\"", codes::OVERLAP, "service[0].vip");
}

#[test]
fn a_server_is_not_the_appliance() {
    let rs = "address = \"10.0.0.22:8080\"";
    refused(rs, "address = \"10.0.0.2:80\"", codes::OVERLAP, "service[0].rs[1].address");
    refused(rs, "address = \"10.0.0.100:7003\"", codes::OVERLAP, "service[0].rs[1].address");
}

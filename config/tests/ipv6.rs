//! Addresses of both families in one configuration: what fits together, and what does not.
#![allow(clippy::unwrap_used, reason = "tests")]

use config::{AllFacts, codes, load_text};

/// IPv6, NAT64 and tunnels across families, all good; each case replaces one part of it.
const GOOD: &str = r#"
[node]
name = "lb1"
[primary]
cpu = 0
[[zone]]
id = 0
cpus = [1]
[[port]]
name = "net0"
device = "net_tap0,iface=lb1net0"
zones = [0]
mtu = 1500
addresses = ["10.0.0.2/24", "fd00::2/64"]
gateways = ["10.0.0.1", "fe80::1"]
[[laddr]]
port = "net0"
address = "10.0.0.128/30"
[[laddr]]
port = "net0"
address = "fd00::80/126"
[[service]]
name = "web6"
vip = "[fd00::100]:80"
  [[service.rs]]
  address = "[fd00::21]:8080"
  [[service.rs]]
  address = "10.0.0.22:8080"
[[service]]
name = "nat6"
vip = "[fd00::101]:80"
mode = "nat"
  [[service.rs]]
  address = "[2001:db8::21]:80"
[[service]]
name = "tunnel6"
vip = "[fd00::102]:80"
mode = "tunnel"
  [[service.rs]]
  address = "10.0.0.21:80"
  [[service.rs]]
  address = "[fd00::24]:80"
[[service]]
name = "tunnel4"
vip = "10.0.0.100:80"
mode = "tunnel"
  [[service.rs]]
  address = "[fd00::25]:80"
"#;

fn found(from: &str, to: &str) -> Vec<(String, String)> {
    assert!(GOOD.contains(from), "{from}");
    let report = match load_text("lb.toml", &GOOD.replacen(from, to, 1), &AllFacts) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    };
    report.diagnostics().map(|d| (d.code.clone(), d.path.clone())).collect()
}

#[track_caller]
fn refused(from: &str, to: &str, code: &str, path: &str) {
    assert_eq!(found(from, to), [(code.to_owned(), path.to_owned())], "{to}");
}

#[track_caller]
fn passes(from: &str, to: &str) {
    assert_eq!(found(from, to), [], "{to}");
}

#[test]
fn families_fit_together() {
    passes("", "");
    let v4_server = "\"[fd00::21]:8080\"";
    refused("vip = \"[fd00::100]:80\"", "vip = \"10.0.0.101:80\"", codes::BAD_ADDRESS, "service[0].rs[0].address");
    refused(
        "mode = \"nat\"\n",
        "mode = \"nat\"\n[[service.rs]]\naddress = \"10.0.0.9:80\"\n",
        codes::BAD_ADDRESS,
        "service[1].rs[0].address",
    );
    let dr = |server: &str| format!("mode = \"dr\"\n  [[service.rs]]\n  address = \"{server}\"\n");
    let tunnel = "mode = \"tunnel\"\n  [[service.rs]]\n  address = \"10.0.0.21:80\"\n";
    passes(tunnel, &dr("[fd00::23]:80"));
    refused(tunnel, &dr("10.0.0.21:80"), codes::BAD_ADDRESS, "service[2].rs[0].address");
    passes(v4_server, "\"10.0.0.21:8080\"");
}

#[test]
fn fullnat_needs_a_local_address_of_each_family_its_servers_have() {
    refused("address = \"10.0.0.128/30\"", "address = \"fd00::90/126\"", codes::NO_LADDR, "service[0].vip");
    refused("address = \"fd00::80/126\"", "address = \"10.0.0.132/30\"", codes::NO_LADDR, "service[0].vip");
    let only_v4 = GOOD.replacen("fd00::80/126", "10.0.0.132/30", 1).replacen("[fd00::21]:8080", "10.0.0.21:8080", 1);
    assert!(load_text("lb.toml", &only_v4, &AllFacts).is_ok(), "NAT64 alone needs none of IPv6");
}

#[test]
fn ipv6_sessions_need_room() {
    let node = "name = \"lb1\"";
    passes(node, "name = \"lb1\"\nsessions_ipv6 = 1000");
    let all = found(node, "name = \"lb1\"\nsessions_ipv6 = 0");
    let paths: Vec<&str> = all.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(paths, ["service[0].vip", "service[1].vip", "service[2].vip", "service[3].vip"]);
    assert!(all.iter().all(|(code, _)| code == codes::CONFLICT));
}

#[test]
fn addresses_that_name_nobody_are_refused() {
    for (bad, why) in [
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("ff02::1", "multicast"),
        ("fe80::5", "link-local"),
        ("::ffff:10.0.0.7", "IPv4 address written as IPv6"),
        ("::10.0.0.7", "IPv4 address written as IPv6"),
    ] {
        let text = GOOD.replacen("[fd00::100]:80", &format!("[{bad}]:80"), 1);
        let report = load_text("lb.toml", &text, &AllFacts).unwrap_err().to_string();
        assert!(report.contains(why) && report.contains("vip = "), "{bad}: {report}");
        refused("[fd00::21]:8080", &format!("[{bad}]:8080"), codes::BAD_ADDRESS, "service[0].rs[0].address");
        let two = found("fd00::80/126", &format!("{bad}/128"));
        assert!(two.contains(&(codes::BAD_ADDRESS.to_owned(), "laddr[1].address".to_owned())), "{bad}: {two:?}");
    }
}

#[test]
fn gateways_of_a_link_need_a_port_that_is_on_it() {
    passes("\"fe80::1\"", "\"fd00::1\"");
    refused("\"fe80::1\"", "\"2001:db8::1\"", codes::BAD_ADDRESS, "port[0].gateways[1]");
    let without = found("\"10.0.0.2/24\", \"fd00::2/64\"", "\"10.0.0.2/24\"");
    assert!(without.contains(&(codes::BAD_ADDRESS.to_owned(), "port[0].gateways[1]".to_owned())), "{without:?}");
    // What lies behind the gateway cannot be reached without one of its family.
    refused(", \"fe80::1\"", "", codes::NO_NEXT_HOP, "service[1].rs[0].address");
}

#[test]
fn links_below_the_least_mtu_carry_no_ipv6() {
    passes("mtu = 1500", "mtu = 1280");
    refused("mtu = 1500", "mtu = 1279", codes::OUT_OF_RANGE, "port[0].mtu");
}

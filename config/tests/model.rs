//! Defaults, derived values, export, diff and edits.
#![allow(clippy::unwrap_used, reason = "tests")]

use config::{
    AllFacts, Change, Config, Diagnostic, Edit, HealthKind, Level, Millis, RealServer, Report, Timeouts, codes, diff,
    export, hugepages_needed, load_text, validate,
};

const SMALL: &str = r#"
[node]
name = "lb1"
[[zone]]
id = 0
cpus = [0, 1]
[[zone]]
id = 1
cpus = [2]
[[port]]
name = "net0"
device = "net_tap0,iface=lb1net0"
zones = [0, 1]
addresses = ["10.0.0.2/24"]
[[laddr]]
port = "net0"
address = "10.0.0.128/30"
[[service]]
name = "web"
vip = "10.0.0.100:80"
  [[service.rs]]
  address = "10.0.0.21:8080"
"#;

fn config(text: &str) -> Config {
    load_text("lb.toml", text, &AllFacts).unwrap_or_else(|report| panic!("{report}")).config
}

#[test]
fn every_default() {
    let c = config(SMALL);
    let n = &c.node;
    assert_eq!((n.poll.as_str(), n.dpdk_mb, n.sessions), ("adaptive", 192, 1_000_000));
    assert_eq!((n.on_primary_death.as_str(), n.hang_after), ("hold", Millis::secs(1)));
    assert_eq!((c.primary.cpu, c.primary.io_cpus.len(), c.zones[0].numa), (0, 0, 0));
    let p = &c.ports[0];
    assert_eq!((p.slots, p.mac, p.mtu, p.vlan, &p.kernel), (None, None, 1500, 0, &None));
    assert!(p.gateways.is_empty() && c.healthcheck.source.is_none());
    assert_eq!((c.limits.services, c.limits.real_servers, c.limits.neighbours), (1024, 16384, 4096));
    assert_eq!(c.laddrs[0].ports.to_string(), "1024-65535");
    let s = &c.services[0];
    let words =
        [s.protocol.as_str(), s.mode.as_str(), s.scheduler.as_str(), s.client_address.as_str(), s.panic.as_str()];
    assert_eq!(words, ["tcp", "fullnat", "rr", "none", "on"]);
    assert_eq!((s.tunnel, s.persistence, s.syn_proxy, s.max_sessions), (None, Millis::new(0), false, 0));
    let t = &s.timeouts;
    assert_eq!(*t, Timeouts::default());
    let all =
        [t.syn_sent, t.syn_recv, t.established, t.fin_wait, t.close_wait, t.last_ack, t.time_wait, t.close, t.udp];
    assert_eq!(all.map(|t| t.to_string()), ["5s", "10s", "90s", "30s", "30s", "5s", "3s", "1s", "30s"]);
    let h = &s.health;
    assert_eq!(
        (h.kind, h.interval, h.timeout, h.fast_interval),
        (HealthKind::Tcp, Millis::secs(2), Millis::secs(1), Millis::secs(1))
    );
    assert_eq!((h.rise, h.fall, h.port), (2, 3, None));
    assert_eq!(h.statuses().unwrap(), [(200, 399)]);
    assert_eq!((s.rs[0].weight, s.rs[0].admin.as_str()), (1, "enabled"));
}

#[test]
fn what_is_not_given_of_a_check_follows_its_interval() {
    let short = config(&SMALL.replace("name = \"web\"", "name = \"web\"\nhealth = { interval = \"400ms\" }"));
    let h = &short.services[0].health;
    assert_eq!((h.timeout, h.fast_interval), (Millis::new(400), Millis::new(400)));
    let quick = config(&SMALL.replace("name = \"web\"", "name = \"web\"\nhealth = { timeout = \"100ms\" }"));
    assert_eq!(quick.services[0].health.fast_interval, Millis::secs(1));
}

#[test]
fn paths_follow_from_the_name_or_are_taken_whole() {
    let mut node = config(SMALL).node;
    let path = |p: std::path::PathBuf| p.display().to_string();
    assert_eq!(path(node.socket()), "/run/containerlb/lb1/control.sock");
    assert_eq!(path(node.lock_file()), "/run/containerlb/lb1/primary.lock");
    assert_eq!(path(node.eal_huge_dir()), "/run/containerlb/lb1/huge/eal");
    assert_eq!(path(node.tables_dir()), "/run/containerlb/lb1/huge/tables");
    assert_eq!(path(node.ipc_dir()), "/run/containerlb/lb1/ipc");
    assert_eq!(path(node.state_dir()), "/var/lib/containerlb/lb1");
    assert_eq!((node.board_name().as_str(), node.file_prefix().as_str()), ("/containerlb-lb1-health", "lb-lb1"));
    node.run_dir = Some("/x".into());
    assert_eq!(path(node.socket()), "/x/control.sock");
}

#[test]
fn macs_are_derived_stable_and_distinct() {
    let c = config(SMALL);
    let mac = c.node.mac_for(&c.ports[0]).unwrap();
    // A golden value: a MAC that changes with a version would break every neighbour's table at an upgrade.
    assert_eq!(mac.to_string(), "4a:c5:44:ab:c1:36");
    assert_eq!(mac.0[0] & 0x03, 0x02, "locally administered, one station");
    let mut other = c.node.clone();
    other.name = "lb2".parse().unwrap();
    assert_ne!(other.mac_for(&c.ports[0]), Some(mac));
    let mut pci = c.ports[0].clone();
    pci.device = "0000:03:00.0".parse().unwrap();
    assert_eq!(c.node.mac_for(&pci), None);
}

#[test]
fn slots_have_homes_and_keep_their_number() {
    let mut c = config(SMALL);
    let homes: Vec<_> = c.slot_homes().iter().map(|h| (h.slot, h.queue, h.zone, h.cpu)).collect();
    assert_eq!(homes, [(0, 0, 0, 0), (1, 1, 1, 2), (2, 2, 0, 1)]);
    c.fix_slots(None);
    assert_eq!(c.ports[0].slots, Some(3));
    // One CPU less: the tables stay, slots move.
    let mut less = config(&SMALL.replace("[0, 1]\n[[zone]]", "[0]\n[[zone]]"));
    assert_eq!(less.slots_of(&less.ports[0]), 2);
    less.fix_slots(Some(&c));
    assert_eq!(less.slots_of(&less.ports[0]), 3);
    let homes: Vec<_> = less.slot_homes().iter().map(|h| (h.slot, h.zone, h.cpu)).collect();
    assert_eq!(homes, [(0, 0, 0), (1, 1, 2), (2, 0, 0)]);
}

#[test]
fn hugepages_are_told_for_eal_and_tables() {
    let pages = hugepages_needed(&config(SMALL), |sizes| {
        assert_eq!((sizes.slots, sizes.sessions, sizes.ports), (3, 1_000_000, 1));
        (4 << 20) + 1
    });
    assert_eq!((pages.eal_pages, pages.table_pages, pages.total()), (96, 3, 99));
}

#[test]
fn json_reads_back_and_says_it_as_the_file_does() {
    let c = config(SMALL);
    let json = serde_json::to_value(&c).unwrap();
    assert_eq!(json["services"][0]["timeouts"]["established"], "90s");
    assert_eq!(json["services"][0]["health"]["type"], "tcp");
    assert_eq!(serde_json::from_value::<Config>(json).unwrap(), c);
    assert!(serde_json::from_str::<Millis>("\"90\"").is_err());
}

#[test]
fn diff_tells_every_change_in_a_line() {
    let old = config(SMALL);
    let more = SMALL
        .replace("8080\"", "8080\"\n  weight = 3\n  admin = \"drain\"\n[[service.rs]]\naddress = \"10.0.0.22:80\"");
    let more = more.replace("name = \"web\"", "name = \"web\"\nscheduler = \"wrr\"").replace("128/30", "132/30");
    let more = more.replace("name = \"lb1\"", "name = \"lb1\"\npoll = \"busy\"").replace("cpus = [0, 1]", "cpus = [1]");
    let more = more + "[[service]]\nname = \"api\"\nvip = \"10.0.0.100:81\"\n";
    let new = config(&more);
    let lines: Vec<_> = diff(&old, &new).iter().map(Change::to_string).collect();
    assert_eq!(
        lines,
        [
            "node: poll adaptive → busy (needs a restart)",
            "zone 0: cpus [0, 1] → [1] (needs a restart)",
            "laddr 10.0.0.128/30 ports 1024-65535 on net0 removed",
            "laddr 10.0.0.132/30 ports 1024-65535 on net0 added",
            "service web: scheduler rr → wrr",
            "service web: rs 10.0.0.21:8080 weight 1 → 3",
            "service web: rs 10.0.0.21:8080 enabled → drain",
            "service web: rs 10.0.0.22:80 added, weight 1",
            "service api: added (10.0.0.100:81/tcp, rr, 0 rs)",
        ]
    );
    assert_eq!(diff(&old, &new).iter().filter(|c| c.needs_restart()).count(), 2);
    let back: Vec<_> = diff(&new, &old).iter().map(Change::to_string).collect();
    assert!(back.contains(&"service api: removed".to_owned()), "{back:?}");
    assert!(back.contains(&"service web: rs 10.0.0.22:80 removed".to_owned()), "{back:?}");
}

#[test]
fn equal_configurations_differ_in_nothing() {
    let mut fixed = config(SMALL);
    fixed.fix_slots(None);
    assert_eq!(diff(&fixed, &config(SMALL)), []);
    assert_eq!(diff(&config(SMALL), &fixed), []);
}

fn words(keys: &[(&str, &str)]) -> Vec<(String, String)> {
    keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn edits_follow_the_rules_of_the_file() {
    let c = config(SMALL);
    let do_it = |c: &Config, edit: Edit| c.edited(&edit, &AllFacts).map(|(c, _)| c);
    let add = |keys: &[(&str, &str)]| Edit::ServiceAdd { service: "api".into(), keys: words(keys) };
    let with = do_it(&c, add(&[("vip", "10.0.0.100:81"), ("health.type", "http"), ("health.rise", "5")])).unwrap();
    assert_eq!((with.services[1].health.rise, with.services[1].health.kind), (5, HealthKind::Http));
    let rs = "10.0.0.33:80".parse().unwrap();
    let rs_add = Edit::RsAdd { service: "api".into(), rs, keys: words(&[("weight", "7")]) };
    let with = do_it(&with, rs_add.clone()).unwrap();
    assert_eq!(with.services[1].rs[0].weight, 7);
    let set = Edit::ServiceSet { service: "api".into(), keys: words(&[("scheduler", "wrr"), ("health.rise", "")]) };
    let with = do_it(&with, set).unwrap();
    assert_eq!((with.services[1].scheduler.as_str(), with.services[1].health.rise), ("wrr", 2));
    assert_eq!(with.services[1].rs.len(), 1, "servers stay");
    let drain = Edit::RsSet { service: "api".into(), rs, keys: words(&[("admin", "drain")]) };
    let with = do_it(&with, drain).unwrap();
    assert_eq!((with.services[1].rs[0].admin.as_str(), with.services[1].rs[0].weight), ("drain", 7));
    let lines: Vec<_> = diff(&c, &with).iter().map(Change::to_string).collect();
    assert_eq!(lines, ["service api: added (10.0.0.100:81/tcp, wrr, 1 rs)"]);
    let without = do_it(&with, Edit::RsDel { service: "api".into(), rs }).unwrap();
    assert!(without.services[1].rs.is_empty());
    assert_eq!(do_it(&without, Edit::ServiceDel { service: "api".into() }).unwrap(), c);

    let code = |c: &Config, edit: Edit| {
        let report = do_it(c, edit).unwrap_err();
        report.diagnostics().map(|d| d.code.clone()).collect::<Vec<_>>()
    };
    assert_eq!(code(&c, add(&[])), [codes::MISSING_KEY]);
    assert_eq!(code(&c, add(&[("vip", "10.0.0.100:80")])), [codes::DUPLICATE_VIP]);
    assert_eq!(code(&c, add(&[("vip", "10.0.0.100:82"), ("shceduler", "rr")])), [codes::UNKNOWN_KEY]);
    assert_eq!(code(&c, add(&[("vip", "10.0.0.100:82"), ("a b", "rr")])), [codes::UNKNOWN_KEY]);
    assert_eq!(code(&c, add(&[("vip", "10.0.0.100:82"), ("client_address", "toa")])), [codes::NOT_YET]);
    assert_eq!(code(&with, rs_add), [codes::DUPLICATE_RS]);
    assert_eq!(code(&c, Edit::ServiceDel { service: "wbe".into() }), [codes::NOT_FOUND]);
    assert_eq!(code(&c, Edit::RsDel { service: "web".into(), rs }), [codes::NOT_FOUND]);
    let rename = Edit::ServiceSet { service: "web".into(), keys: words(&[("name", "wob")]) };
    assert_eq!(code(&c, rename), [codes::CONFLICT]);
    let heavy =
        Edit::RsSet { service: "web".into(), rs: c.services[0].rs[0].address, keys: words(&[("weight", "70000")]) };
    assert_eq!(code(&c, heavy), [codes::OUT_OF_RANGE]);
}

/// An edit is judged among those services alone that it can collide with. Whatever it collides with, the answer must be
/// the one that the whole configuration gets.
#[test]
fn a_part_is_judged_as_the_whole() {
    let mut text = SMALL.replace("[[laddr]]", "[limits]\nservices = 8\nreal_servers = 12\n[[laddr]]");
    for i in 0..6 {
        text += &format!("[[service]]\nname = \"s{i}\"\nvip = \"10.0.0.{}:80\"\nprotocol = \"tcp\"\n", 101 + i);
        text += &format!("health = {{ type = \"none\" }}\n[[service.rs]]\naddress = \"10.0.0.{}:80\"\n", 41 + i);
    }
    let c = config(&text);
    let mut refused = 0;
    // Free addresses, VIPs, servers, the port's own, its gateway, a local address, none.
    let addresses = ["10.0.0.120", "10.0.0.103", "10.0.0.43", "10.0.0.2", "10.0.0.1", "10.0.0.128", "0.0.0.0"];
    for address in addresses {
        for name in ["s2", "s5", "new"] {
            let at = |port: u16| format!("{address}:{port}").parse().unwrap();
            let mut edits = Vec::new();
            for (vip, protocol) in [(at(80), "tcp"), (at(81), "tcp"), (at(80), "udp")] {
                let keys = words(&[("vip", &format!("{vip}")), ("protocol", protocol), ("health.type", "none")]);
                let mut whole = c.clone();
                if let Some(service) = whole.services.iter_mut().find(|s| s.name.as_str() == name) {
                    (service.vip, service.protocol) = (vip, protocol.parse().unwrap());
                    edits.push((Edit::ServiceSet { service: name.into(), keys: keys.clone() }, whole));
                } else {
                    let mut service = c.services[6].clone();
                    (service.name, service.vip, service.rs) = (name.parse().unwrap(), vip, Vec::new());
                    service.protocol = protocol.parse().unwrap();
                    whole.services.push(service);
                    edits.push((Edit::ServiceAdd { service: name.into(), keys }, whole));
                }
            }
            let mut whole = c.clone();
            if let Some(service) = whole.services.iter_mut().find(|s| s.name.as_str() == name) {
                service.rs.push(RealServer::new(at(80)));
                edits.push((Edit::RsAdd { service: name.into(), rs: at(80), keys: Vec::new() }, whole));
            }
            for (edit, whole) in edits {
                let mut expected: Vec<Diagnostic> = validate(&whole, &AllFacts);
                expected.retain(|d| d.level == Level::Error);
                let told = c.edited(&edit, &AllFacts);
                refused += usize::from(told.is_err());
                match told {
                    Ok((config, _)) => assert_eq!((config, expected), (whole, Vec::new()), "{edit:?}"),
                    Err(report) => {
                        let mut told: Vec<_> = report.diagnostics().cloned().collect();
                        told.retain(|d| d.level == Level::Error);
                        assert_eq!(told, expected, "{edit:?}");
                    }
                }
            }
        }
    }
    assert!((20..75).contains(&refused), "{refused} of the edits are refused");
    // The limits are those of the whole.
    let add = |c: &Config, n: u8| {
        let keys = words(&[("vip", &format!("10.0.0.{n}:80")), ("health.type", "none")]);
        c.edited(&Edit::ServiceAdd { service: format!("more{n}"), keys }, &AllFacts).map(|(c, _)| c)
    };
    let full = add(&c, 111).unwrap();
    assert_eq!(full.services.len(), 8);
    let told = |r: Report| r.diagnostics().map(|d| (d.code.clone(), d.path.clone())).collect::<Vec<_>>();
    let place = (codes::TOO_MANY.to_owned(), "service[8]".to_owned());
    assert_eq!(told(add(&full, 112).unwrap_err()), [place]);
    let servers: usize = full.services.iter().map(|s| s.rs.len()).sum();
    let mut last = full;
    for n in 0..=12 - servers {
        let rs = format!("10.0.0.{}:80", 60 + n).parse().unwrap();
        match last.edited(&Edit::RsAdd { service: "s1".into(), rs, keys: Vec::new() }, &AllFacts) {
            Ok((next, _)) => last = next,
            Err(report) => {
                assert_eq!(n, 12 - servers);
                assert_eq!(told(report)[0].0, codes::TOO_MANY);
                return;
            }
        }
    }
    panic!("more servers than the limit");
}

#[test]
fn ten_thousand_services_are_read_compared_and_edited_in_time() {
    let mut text = SMALL.replace("[[laddr]]", "[limits]\nservices = 20000\nreal_servers = 100000\n[[laddr]]");
    for i in 0..10_000 {
        text += &format!("[[service]]\nname = \"s{i}\"\nvip = \"10.7.{}.{}:80\"\n", i / 250, i % 250 + 1);
        text += "[[service.rs]]\naddress = \"10.0.0.31:80\"\n[[service.rs]]\naddress = \"10.0.0.32:80\"\n";
    }
    let begun = std::time::Instant::now();
    let c = config(&text);
    let read = begun.elapsed();
    let rs = "10.0.0.33:80".parse().unwrap();
    let edit = Edit::RsAdd { service: "s9999".into(), rs, keys: Vec::new() };
    let begun = std::time::Instant::now();
    let (new, _) = c.edited(&edit, &AllFacts).unwrap();
    let edited = begun.elapsed();
    let begun = std::time::Instant::now();
    assert_eq!(diff(&c, &new).len(), 1);
    println!("10,000 services: read {read:?}, edit {edited:?}, diff {:?}", begun.elapsed());
    assert_eq!(config(&export(&new)), new);
}

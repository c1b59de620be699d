//! What a person sees: everything wrong at once, each with place, caret and hint.
#![allow(clippy::unwrap_used, reason = "tests")]

use config::{AllFacts, Level, codes, load, load_node, load_text};

const FIVE: &str = r#"[node]
name = "lb1"
[[zone]]
id = 0
cpus = [1]
[[port]]
name = "net0"
device = "net_tap0,iface=lb1net0"
zones = [0]
addresses = ["10.0.0.2/24"]
[[laddr]]
port = "net0"
address = "10.0.0.128/30"
[[service]]
name = "web"
vip = "10.0.0.100:80"
schedular = "rr"
timeouts = { established = 90 }
[[service.rs]]
address = "10.0.0.421:8080"
[[service]]
name = "api"
vip = "10.0.0.100:80"
scheduler = "wwrr"
"#;

#[test]
fn five_mistakes_are_listed_at_once() {
    let report = load_text("lb.toml", FIVE, &AllFacts).unwrap_err();
    let codes: Vec<_> = report.diagnostics().map(|d| (d.code.as_str(), d.line, d.path.as_str())).collect();
    assert_eq!(
        codes,
        [
            (codes::UNKNOWN_KEY, 17, "service[0].schedular"),
            (codes::BAD_DURATION, 18, "service[0].timeouts.established"),
            (codes::BAD_ADDRESS, 20, "service[0].rs[0].address"),
            (codes::DUPLICATE_VIP, 23, "service[1].vip"),
            (codes::BAD_VALUE, 24, "service[1].scheduler"),
        ]
    );
    assert_eq!(report.to_string(), include_str!("golden/five.txt").trim_end());
}

#[test]
fn the_machine_form_has_place_and_hint() {
    let report = load_text("lb.toml", FIVE, &AllFacts).unwrap_err();
    let first = report.diagnostics().next().unwrap();
    assert_eq!((first.level, first.line, first.column), (Level::Error, 17, 1));
    assert_eq!(first.hint.as_deref(), Some("did you mean \"scheduler\"?"));
    let json = serde_json::to_value(first).unwrap();
    assert_eq!(json["code"], "LB-E003");
    assert_eq!(json["path"], "service[0].schedular");
}

#[test]
fn a_syntax_error_ends_early_with_its_place() {
    let report = load_text("lb.toml", "[node]\nname = \"lb1\nsesions = 1\n", &AllFacts).unwrap_err();
    let first = report.diagnostics().next().unwrap();
    assert_eq!((first.code.as_str(), first.line), (codes::SYNTAX, 2));
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let report = load_text("lb.toml", "", &AllFacts).unwrap_err();
    let paths: Vec<_> = report.diagnostics().map(|d| d.path.as_str()).collect();
    assert_eq!(paths, ["node", "zone", "port"]);
}

#[test]
fn a_missing_file_is_an_error_with_a_hint() {
    let report = load("/nonexistent/lb.toml".as_ref(), &AllFacts).unwrap_err();
    assert!(report.to_string().contains("cannot read /nonexistent/lb.toml"), "{report}");
    assert!(report.to_string().ends_with("1 error"));
}

#[test]
fn the_example_is_good_and_says_only_that_the_holder_shares_a_cpu() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/containerlb.toml");
    let loaded = load(path.as_ref(), &AllFacts).unwrap_or_else(|report| panic!("{report}"));
    let codes: Vec<_> = loaded.warnings.diagnostics().map(|d| d.code.as_str()).collect();
    assert_eq!(codes, [codes::CPU_SHARED], "{}", loaded.warnings);
    assert_eq!(loaded.source_digest.len(), 32);
    assert_eq!(load_node(path.as_ref()).unwrap(), loaded.config.node);
}

#[test]
fn a_worker_reads_its_node_from_a_file_with_mistakes_elsewhere() {
    let path = std::env::temp_dir().join(format!("config-test-{}.toml", std::process::id()));
    std::fs::write(&path, FIVE).unwrap();
    let node = load_node(&path);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(node.unwrap().name.as_str(), "lb1");
}

#[test]
fn every_kind_of_value_of_the_wrong_type_is_reported_and_nothing_panics() {
    let text = r#"
node = 3
primary = []
zone = "x"
port = [1, { name = true, device = 1, zones = 1, addresses = 1, gateways = [1], mac = "x", slots = 0 }]
laddr = { }
limits = "many"
healthcheck = { source = 1 }
service = [{ health = 1, timeouts = 1, rs = 1, vip = 1, name = 1 }]
"#;
    let report = load_text("lb.toml", text, &AllFacts).unwrap_err();
    let paths: Vec<_> = report.diagnostics().map(|d| d.path.as_str()).collect();
    for path in [
        "node",
        "primary",
        "zone",
        "port[0]",
        "port[1].name",
        "port[1].addresses",
        "port[1].gateways[0]",
        "port[1].mac",
        "port[1].slots",
        "laddr",
        "limits",
        "healthcheck.source",
        "service[0].health",
        "service[0].rs",
    ] {
        assert_eq!(paths.iter().filter(|p| **p == path).count(), 1, "{path} once in {paths:?}");
    }
}

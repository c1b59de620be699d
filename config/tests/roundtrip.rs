//! export ∘ parse = identity, for any valid configuration; and nothing that a file can hold makes the reader panic.
#![allow(clippy::unwrap_used, reason = "tests")]

use config::{
    Admin, AllFacts, Config, Health, HealthKind, Healthcheck, Laddr, Limits, Millis, Node, Panic, Port, Primary,
    Protocol, RealServer, Scheduler, Service, Zone, diff, export, load_text,
};
use proptest::prelude::*;

fn time(low: u32, high: u32) -> impl Strategy<Value = Millis> {
    (low..=high).prop_map(Millis::new)
}

fn health() -> impl Strategy<Value = Health> {
    let kinds = prop::sample::select(vec![HealthKind::Tcp, HealthKind::Http, HealthKind::None]);
    let texts = (prop::option::of("/[!-~]{0,20}"), prop::option::of("[!-~]{1,20}"));
    (kinds, time(1000, 60_000), time(100, 1000), time(10, 1000), 1u8.., 1u8.., texts, prop::option::of(1u16..))
        .prop_map(|(kind, interval, fast_interval, timeout, rise, fall, (path, host), port)| {
            let http = kind == HealthKind::Http;
            let expect = http.then(|| "200-299,301".to_owned());
            let (path, host) = (path.filter(|_| http), host.filter(|_| http));
            Health { interval, fast_interval, timeout, rise, fall, path, host, expect, port, ..Health::of_kind(kind) }
        })
}

fn service(i: u8) -> impl Strategy<Value = Service> {
    let schedulers = prop::sample::select(vec![Scheduler::Rr, Scheduler::Wrr, Scheduler::Lc]);
    let admin = prop::sample::select(Admin::ALL.to_vec());
    let servers = prop::collection::vec((any::<u16>(), admin), 0..5);
    let words = (prop::sample::select(Protocol::ALL.to_vec()), schedulers, prop::sample::select(Panic::ALL.to_vec()));
    (words, any::<u32>(), prop::array::uniform9(time(100, 86_400_000)), health(), servers).prop_map(
        move |((protocol, scheduler, panic), max_sessions, t, health, servers)| {
            let vip = format!("10.0.0.{}:80", 100 + i).parse().unwrap();
            let mut s = Service::new(format!("s{i}").parse().unwrap(), vip, protocol);
            (s.scheduler, s.panic, s.max_sessions, s.health) = (scheduler, panic, max_sessions, health);
            let o = &mut s.timeouts;
            [
                o.syn_sent,
                o.syn_recv,
                o.established,
                o.fin_wait,
                o.close_wait,
                o.last_ack,
                o.time_wait,
                o.close,
                o.udp,
            ] = t;
            s.rs = (20..)
                .zip(servers)
                .map(|(n, (weight, admin))| RealServer {
                    address: format!("10.0.0.{n}:{}", u16::from(i) + 1).parse().unwrap(),
                    weight,
                    admin,
                })
                .collect();
            s
        },
    )
}

fn any_config() -> impl Strategy<Value = Config> {
    let services = (0u8..6).prop_flat_map(|n| (0..n).map(service).collect::<Vec<_>>());
    let port = (prop::option::of(1u16..=4), 576u16..=9600, prop::option::of("[a-z]{1,15}"), any::<bool>());
    let node = (64u32..4096, 64u32..200_000_000, prop::option::of("/[ -~é]{0,30}"), "[a-z0-9][a-z0-9._-]{0,31}");
    let source = prop::option::of(any::<[u8; 4]>());
    (node, port, services, (10u32..=65_535, 100u32..1_000_000), source).prop_map(
        |(node, port, services, limits, source)| {
            let mut n = Node::named(node.3.parse().unwrap());
            (n.dpdk_mb, n.sessions, n.state_dir) = (node.0, node.1, node.2.map(Into::into));
            Config {
                node: n,
                primary: Primary { cpu: 0, io_cpus: vec![] },
                zones: vec![Zone { id: 0, numa: 0, cpus: vec![1, 2] }, Zone { id: 3, numa: 1, cpus: vec![3] }],
                ports: vec![Port {
                    name: "net0".parse().unwrap(),
                    device: "net_tap0,iface=x0".parse().unwrap(),
                    zones: vec![0, 3],
                    slots: port.0,
                    mac: port.3.then(|| "02:00:00:00:00:01".parse().unwrap()),
                    addresses: vec!["10.0.0.2/24".parse().unwrap()],
                    gateways: vec!["10.0.0.1".parse().unwrap()],
                    mtu: port.1,
                    vlan: 0,
                    kernel: port.2.map(|k| k.parse().unwrap()),
                }],
                healthcheck: Healthcheck { source: source.map(Into::into) },
                limits: Limits { services: limits.0, real_servers: limits.1, neighbours: 16, hash_services: 4 },
                laddrs: vec![Laddr {
                    port: "net0".parse().unwrap(),
                    address: "10.0.0.128/30".parse().unwrap(),
                    ports: "1024-65535".parse().unwrap(),
                }],
                services,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn export_reads_back_equal(config in any_config()) {
        let text = export(&config);
        let loaded = load_text("lb.toml", &text, &AllFacts).map_err(|r| TestCaseError::fail(format!("{r}\n{text}")))?;
        prop_assert_eq!(&loaded.config, &config);
        prop_assert!(diff(&loaded.config, &config).is_empty());
        let json = serde_json::to_string(&config).unwrap();
        prop_assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
    }

    #[test]
    fn a_damaged_file_never_panics(config in any_config(), at in any::<prop::sample::Index>(), put in ".{0,3}") {
        let mut text: Vec<char> = export(&config).chars().collect();
        let at = at.index(text.len());
        text.splice(at..(at + 2).min(text.len()), put.chars());
        if let Err(report) = load_text("lb.toml", &text.iter().collect::<String>(), &AllFacts) {
            prop_assert!(report.errors() > 0);
            prop_assert!(!report.to_string().is_empty() && !report.styled().is_empty());
        }
    }
}

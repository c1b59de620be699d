//! `cargo xtask demo`: the whole appliance between real clients and servers, in one minute.
#![forbid(unsafe_code)]

mod summary;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tests::claims;
use tests::conf::VIP;
use tests::interrupt::{self, Interrupt};
use tests::load::LoadReport;
use tests::rig::CLIENT;
use tests::{Result, Rig, RigSpec};

use summary::Summary;

/// Requests of each kind.
const REQUESTS: u64 = 10_000;
/// How far a server may be from its equal share, percent of the share.
const SHARE_PERCENT: f64 = 1.0;
/// Each worker's part of all packets, percent.
const WORKER_PERCENT: std::ops::RangeInclusive<f64> = 30.0..=70.0;

#[derive(Clone, Copy, Default)]
struct Options {
    keep: bool,
    json: bool,
    /// When the user pressed Enter (before the build), milliseconds since 1970.
    started_ms: Option<u64>,
}

fn main() {
    let options = options().unwrap_or_else(|word| {
        eprintln!("demo: unknown word {word:?}\nusage: cargo xtask demo [--keep] [--json]");
        std::process::exit(2);
    });
    let body = move |interrupt: &Interrupt| match demo(options, interrupt) {
        Ok(summary) => i32::from(!summary.ok),
        Err(error) => {
            eprintln!("demo: {error}");
            1
        }
    };
    std::process::exit(interrupt::run(body, || eprintln!("\ninterrupted: cleaning up")));
}

fn options() -> std::result::Result<Options, String> {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep" => options.keep = true,
            "--json" => options.json = true,
            "--started-ms" => options.started_ms = words.next().and_then(|w| w.parse().ok()),
            _ => return Err(word),
        }
    }
    Ok(options)
}

fn demo(options: Options, interrupt: &Interrupt) -> Result<Summary> {
    let begin = Instant::now();
    let say = |text: &str| eprintln!("[{:5.1} s] {text}", begin.elapsed().as_secs_f64());

    say("laying the network: client, three server hosts, bridge, appliance");
    let mut rig = Rig::new(&RigSpec::new("demo"))?;
    rig.add_service("web", "tcp", 80, tests::servers::HTTP_PORT);
    rig.add_service("dns", "udp", 53, tests::servers::DNS_PORT);
    say("starting lb-primary, two lb-worker, lb-healthcheck");
    rig.start()?;

    let mut summary = traffic(&rig, &say)?;
    rig.appliance.expect_alive()?;
    summary.seconds = seconds_since(options, begin);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&summary).expect("a summary is plain data"));
    } else {
        print!("{summary}");
    }
    if options.keep {
        keep(&rig, interrupt)?;
    }
    say("stopping");
    rig.appliance.stop()?;
    drop(rig);
    say("stopped; namespaces, mounts and files are removed");
    if !options.json {
        println!("{} in {:.1} s", verdict(&summary), seconds_since(options, begin));
    }
    Ok(summary)
}

/// Sends all requests and checks every claim; a claim that fails is told, not returned.
fn traffic(rig: &Rig, say: &impl Fn(&str)) -> Result<Summary> {
    let lbctl = rig.lbctl()?;
    let mut summary = Summary::default();
    let requests = REQUESTS.to_string();

    say("10,000 HTTP requests, each on a new connection, to the TCP VIP");
    let web = format!("{VIP}:80");
    let load = rig.load("http-load", &["--target", &web, "--requests", &requests, "--concurrency", "32"])?;
    summary.claim("conservation holds under load", law_under_load(&lbctl));
    let http: LoadReport = load.report(Duration::from_secs(120))?;

    say("10,000 DNS queries, several in flight, to the UDP VIP");
    let dns = format!("{VIP}:53");
    let udp: LoadReport = rig
        .load("udp-load", &["--target", &dns, "--queries", &requests, "--sockets", "2000"])?
        .report(Duration::from_secs(120))?;

    say("reading counters");
    for (what, report) in [("HTTP", &http), ("DNS", &udp)] {
        summary.claim(&format!("{what}: all answered"), claims::all_answered(what, report));
        let shares = claims::equal_shares(what, report, rig.servers.len(), SHARE_PERCENT);
        summary.claim(&format!("{what}: round-robin shares within {SHARE_PERCENT} %"), shares);
    }
    match claims::kernel_agrees(rig, &lbctl, None) {
        Ok(agreed) => {
            summary.kernel = Some((agreed.received, agreed.sent));
            summary.claim("port and slots count the same packets", Ok(()));
        }
        Err(error) => summary.claim("port and slots count the same packets", Err(error)),
    }
    let stats = lbctl.stats()?;
    summary.claim("conservation holds per slot and in sum", claims::law_holds(&stats));
    summary.claim("rings are empty", claims::rings_are_empty(&stats));
    let zones = claims::zone_percent(&stats);
    let even = zones.len() == 2 && zones.iter().all(|(_, percent)| WORKER_PERCENT.contains(percent));
    let told = tests::error::ensure(even, || format!("the zones have {zones:?} percent of the packets"));
    summary.claim("each worker has 30–70 % of the packets", told);
    summary.claim("lbctl's sessions agree with the traffic", sessions_agree(&lbctl, &http));
    summary.fill(http, udp, &stats);
    Ok(summary)
}

/// A few dozen answers of `stats show` while packets flow.
fn law_under_load(lbctl: &tests::lbctl::Lbctl) -> Result<()> {
    for _ in 0..25 {
        claims::law_holds(&lbctl.stats()?)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Each connection is a session; the health checks go past the slots.
fn sessions_agree(lbctl: &tests::lbctl::Lbctl, http: &LoadReport) -> Result<()> {
    let services = lbctl.services()?;
    let web = services.iter().find(|s| s.name == "web");
    let created = web.map_or(0, |s| s.sessions_total);
    tests::error::ensure(created >= http.ok && created <= http.requested + http.failed, || {
        format!("web has {created} sessions in total, {} connections were made", http.requested)
    })
}

fn keep(rig: &Rig, interrupt: &Interrupt) -> Result<()> {
    let lbctl = rig.lbctl()?;
    let client = rig.client.path();
    println!(
        "\nThe appliance stays up until Ctrl-C. In another terminal (as root):\n\n\
         \x20 alias lbctl='{}'\n\
         \x20 lbctl service list; lbctl session list; lbctl stats show; lbctl -o json worker list\n\n\
         Traffic from the client ({CLIENT}):\n\n\
         \x20 nsenter --net={} curl -i http://{VIP}/\n\n\
         Logs and configuration: {}\n",
        lbctl.shown(),
        client.display(),
        rig.folder.display()
    );
    interrupt.wait();
    Ok(())
}

fn verdict(summary: &Summary) -> &'static str {
    if summary.ok { "all claims hold" } else { "SOME CLAIMS DO NOT HOLD" }
}

fn seconds_since(options: Options, begin: Instant) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = options.started_ms.map(|ms| now.saturating_sub(Duration::from_millis(ms)));
    whole.unwrap_or_else(|| begin.elapsed()).as_secs_f64()
}

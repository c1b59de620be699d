//! What lbctl prints: INTERFACE §5 word for word, and true.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::conf::VIP;
use tests::error::ensure;
use tests::janitor::beside_me;
use tests::load::{LoadReport, TalkReport};
use tests::netns::run;
use tests::views::LocalAddress;
use tests::{Error, Result, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(60);
const REQUESTS: u64 = 900;
const TALKERS: usize = 20;

/// Every list parses with the promised fields and agrees with the traffic that was sent.
pub fn lbctl_json(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let (web, talk) = (format!("{VIP}:80"), format!("{VIP}:9000"));
    let requests = REQUESTS.to_string();
    let http: LoadReport = rig.load("http-load", &["--target", &web, "--requests", &requests])?.report(LIMIT)?;
    claims::all_answered("http", &http)?;
    let talkers = TALKERS.to_string();
    let load = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", &talkers])?;
    std::thread::sleep(Duration::from_secs(1));

    let services = lbctl.services()?;
    let names: BTreeSet<&str> = services.iter().map(|s| s.name.as_str()).collect();
    ensure(names == BTreeSet::from(["dns", "talk", "web"]), || format!("services are {names:?}"))?;
    let of_web = services.iter().find(|s| s.name == "web").ok_or_else(|| Error::claim("no web"))?;
    let shape = (of_web.vip.as_str(), of_web.protocol.as_str(), of_web.mode.as_str(), of_web.scheduler.as_str());
    ensure(shape == (web.as_str(), "tcp", "fullnat", "rr"), || format!("web is {shape:?}"))?;
    ensure(of_web.sessions_total == REQUESTS, || {
        format!("web has {} sessions in total, {REQUESTS} connections were made", of_web.sessions_total)
    })?;
    let by_rs: u64 = of_web.rs.iter().map(|rs| rs.sessions_total).sum();
    ensure(of_web.rs.len() == 3 && by_rs == REQUESTS, || format!("web's servers: {:?}", of_web.rs))?;
    // A request is at least SYN, ACK, data, FIN one way and as many back.
    ensure(of_web.packets_in >= 4 * REQUESTS && of_web.packets_out >= 3 * REQUESTS, || {
        format!("web counts {} packets in, {} out", of_web.packets_in, of_web.packets_out)
    })?;
    ensure(of_web.bytes_in > 60 * REQUESTS && of_web.bytes_out > 60 * REQUESTS, || {
        format!("web counts {} bytes in, {} out", of_web.bytes_in, of_web.bytes_out)
    })?;

    let servers = lbctl.real_servers()?;
    let ids: BTreeSet<u64> = servers.iter().map(|rs| rs.id).collect();
    ensure(servers.len() == 9 && ids.len() == 9, || format!("9 servers with ids of their own: {ids:?}"))?;
    for rs in &servers {
        let expected = if rs.service == "dns" { ["unknown", "up"] } else { ["up", "up"] };
        ensure(rs.admin == "enabled" && rs.weight == 1 && expected.contains(&rs.health.as_str()), || {
            format!("{rs:?}")
        })?;
    }

    let sessions = lbctl.sessions(&["--service", "talk"])?;
    ensure(sessions.len() == TALKERS, || format!("{} talk sessions, not {TALKERS}", sessions.len()))?;
    for session in &sessions {
        let laddr = session.laddr.as_deref().unwrap_or_default();
        let fits = session.protocol == "tcp"
            && session.client.starts_with("10.0.0.11:")
            && session.vip == talk
            && ["10.0.0.128:", "10.0.0.129:", "10.0.0.130:", "10.0.0.131:"].iter().any(|a| laddr.starts_with(a))
            && session.rs.ends_with(":9000")
            && session.idle_ms < 5000;
        ensure(fits, || format!("{session:?}"))?;
    }
    ensure(lbctl.sessions(&["--service", "talk", "--limit", "5"])?.len() == 5, || "--limit 5".into())?;
    let of_s1 = lbctl.sessions(&["--service", "talk", "--rs", "10.0.0.21:9000"])?;
    ensure(!of_s1.is_empty() && of_s1.iter().all(|s| s.rs == "10.0.0.21:9000"), || format!("--rs: {of_s1:?}"))?;
    let count = lbctl.session_count()?;
    ensure(count.active >= 20 && count.capacity >= 2 * 65_536 && count.created_total >= REQUESTS + 20, || {
        format!("{count:?}")
    })?;

    let workers = lbctl.workers()?;
    let slots: BTreeSet<u32> = workers.iter().flat_map(|w| w.slots.iter().map(|s| s.slot)).collect();
    ensure(workers.len() == 2 && slots == BTreeSet::from([0, 1]), || format!("{workers:?}"))?;
    for worker in &workers {
        let name = format!("{}{}", worker.zone, worker.lane);
        let pid = rig.appliance.workers.get(&name).map(tests::daemon::Daemon::pid);
        ensure(pid == Some(worker.pid) && worker.state == "serving", || format!("{worker:?}, started as {pid:?}"))?;
        ensure(worker.slots.iter().all(|s| s.heartbeat_ms < 2000), || format!("{worker:?}"))?;
    }
    let ports = lbctl.ports()?;
    let port_fits = ports.len() == 1 && ports[0].name == "net0" && ports[0].mode == "rtc" && ports[0].queues == 2;
    ensure(port_fits && ports[0].rx_packets > 0 && ports[0].mbufs_free > 0, || format!("{ports:?}"))?;
    let locals: Vec<LocalAddress> = lbctl.json(&["laddr", "list"])?;
    ensure(locals.len() == 4 && locals.iter().all(|l| l.port == "net0"), || format!("{locals:?}"))?;
    let neighbours: Value = lbctl.json(&["neigh", "list"])?;
    let told = neighbours.to_string();
    ensure(told.contains("10.0.0.21") && told.contains("10.0.0.11"), || format!("neigh list: {told}"))?;
    claims::law_holds(&lbctl.stats()?)?;

    // The same as tables: one line per object, and no JSON.
    for (object, verb, lines) in [("service", "list", 3), ("rs", "list", 9), ("worker", "list", 2), ("port", "list", 1)]
    {
        let text = lbctl.ok(&[object, verb])?;
        ensure(text.lines().count() >= lines && !text.trim_start().starts_with(['[', '{']), || {
            format!("{object} {verb}:\n{text}")
        })?;
    }
    let report: TalkReport = load.finish(LIMIT)?;
    ensure(report.broken.is_empty(), || format!("{report:?}"))
}

/// INTERFACE §2: exit statuses, `--version`, `--help`.
pub fn exit_codes(ctx: &mut Ctx) -> Result<()> {
    let rig = ctx.rig()?;
    rig.appliance.write_conf()?;
    let lbctl = rig.lbctl()?;
    let expect = |arguments: &[&str], code: i32| {
        let answer = lbctl.call(arguments)?;
        ensure(answer.code == code, || {
            format!("lbctl {} ended with {}, not {code}: {}", arguments.join(" "), answer.code, answer.err)
        })?;
        ensure(code == 0 || answer.err.starts_with("error: ") || code == 2, || {
            format!("lbctl {}: no `error: …` but {:?}", arguments.join(" "), answer.err)
        })
    };
    expect(&["service", "list"], 3)?; // nobody runs
    expect(&["service", "fly"], 2)?;
    expect(&["--no-such-option"], 2)?;
    let path = rig.appliance.conf_path.display().to_string();
    // Inside the namespace: the check asks the kernel for routes to the servers.
    run(&mut rig.appliance.command("lbctl", &["config", "check", &path])?)?;
    let answer = lbctl.call(&["-o", "json", "stats", "show"])?;
    let error: Value = serde_json::from_str(&answer.err).map_err(|source| Error::Json {
        what: "error of lbctl".into(),
        source,
        text: answer.err.clone(),
    })?;
    for key in ["code", "message", "path", "hint"] {
        ensure(error.get(key).is_some(), || format!("the error has no {key}: {error}"))?;
    }
    for program in ["lb-primary", "lb-worker", "lb-healthcheck", "lbctl"] {
        let path = beside_me(program)?;
        let version = run(Command::new(&path).arg("--version"))?;
        let text = String::from_utf8_lossy(&version.stdout).into_owned();
        ensure(text.starts_with(program) && text.to_lowercase().contains("layout") && text.contains("DPDK"), || {
            format!("{program} --version: {text:?} lacks program, layout or DPDK version")
        })?;
        run(Command::new(&path).arg("--help"))?;
        let wrong = Command::new(&path).arg("--no-such-option").output();
        let code = wrong.ok().and_then(|o| o.status.code());
        ensure(code == Some(2), || format!("{program} --no-such-option ended with {code:?}, not 2"))?;
    }
    Ok(())
}

//! Every scheduler: changes move nobody's sessions, choices by hash outlive a restart, clients keep their server.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::Duration;

use tests::conf::{Service, VIP};
use tests::error::ensure;
use tests::lbctl::Lbctl;
use tests::load::TalkReport;
use tests::netns::run;
use tests::servers::{HTTP_PORT, TALK_PORT};
use tests::{Error, Result, Rig, claims};

use crate::Ctx;

const SCHEDULERS: [&str; 7] = ["rr", "wrr", "lc", "wlc", "source-ip", "source-ip-port", "maglev"];
/// Of each scheduler's service: 5,040 in all.
const CONNECTIONS: usize = 720;
const LIMIT: Duration = Duration::from_secs(90);

fn vip(at: usize) -> String {
    format!("{VIP}:{}", 9100 + at)
}

/// Server of each session, by client and VIP.
fn placed(lbctl: &Lbctl) -> Result<BTreeMap<(String, String), String>> {
    let sessions = lbctl.sessions(&[])?;
    Ok(sessions
        .into_iter()
        .filter(|s| s.vip.starts_with(&format!("{VIP}:91")))
        .map(|s| ((s.client, s.vip), s.rs))
        .collect())
}

/// 5,040 connections over seven services; servers are added, weighed, drained, enabled, removed, and one is disabled: of
/// the connections of the others none moves, none breaks.
pub fn changes_move_nobody(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig_of(4)?;
    let server = |rig: &Rig, n: usize| rig.servers[n].at(TALK_PORT);
    for (at, scheduler) in SCHEDULERS.iter().enumerate() {
        let mut service = Service::new(scheduler, vip(at), "tcp");
        service.scheduler = scheduler;
        (0..3).for_each(|n| service = service.clone().with(server(&rig, n), 1 + u32::from(n == 2)));
        rig.appliance.conf.services.push(service);
    }
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let count = CONNECTIONS.to_string();
    let begin = |at: usize| {
        let target = vip(at);
        let arguments = ["client", "--target", &target, "--connections", &count, "--period-ms", "2000"];
        rig.load("tcp-talk", &arguments)
    };
    let loads = (0..SCHEDULERS.len()).map(begin).collect::<Result<Vec<_>>>()?;
    claims::eventually("all connections are there", Duration::from_secs(30), || {
        let there = placed(&lbctl)?.len();
        ensure(there == CONNECTIONS * SCHEDULERS.len(), || format!("{there}"))
    })?;
    let before = placed(&lbctl)?;
    // One client address: source-ip has one server for it, every other uses all three.
    for (at, scheduler) in SCHEDULERS.iter().enumerate() {
        let used: BTreeSet<&String> = before.iter().filter(|((_, v), _)| *v == vip(at)).map(|(_, rs)| rs).collect();
        let wanted = if *scheduler == "source-ip" { 1 } else { 3 };
        ensure(used.len() == wanted, || format!("{scheduler} uses {used:?}"))?;
    }
    let (first, second, third, fourth) = (server(&rig, 0), server(&rig, 1), server(&rig, 2), server(&rig, 3));
    let all = |words: &[&str], rest: &[&str]| -> Result<()> {
        SCHEDULERS.iter().try_for_each(|name| lbctl.ok(&[words, &[*name], rest].concat()).map(drop))
    };
    let mut moved = 0;
    let mut still = |what: &str| -> Result<()> {
        sleep(Duration::from_millis(300));
        let now = placed(&lbctl)?;
        let gone: Vec<_> = before.iter().filter(|(key, rs)| now.get(*key) != Some(rs)).collect();
        moved += gone.len();
        ensure(gone.is_empty(), || format!("{what}: {} sessions are gone or moved: {:?}", gone.len(), gone[0]))
    };
    all(&["rs", "add"], &[&fourth, "--weight", "3"])?;
    still("a server added")?;
    all(&["rs", "set"], &[&first, "--weight", "5"])?;
    still("another weight")?;
    all(&["rs", "drain"], &[&first])?;
    still("drained")?;
    all(&["rs", "enable"], &[&first])?;
    still("enabled")?;
    all(&["rs", "del"], &[&fourth])?;
    still("removed again")?;
    all(&["rs", "del"], &[&second])?;
    still("removed with its sessions")?;
    // Disabled: its own sessions end, and only they.
    all(&["rs", "disable"], &[&third])?;
    let theirs = before.values().filter(|rs| **rs == third).count();
    claims::eventually("no session of the disabled servers", Duration::from_secs(10), || {
        let now = placed(&lbctl)?;
        let others = before.iter().filter(|(_, rs)| **rs != third);
        let lost = others.filter(|(key, rs)| now.get(*key) != Some(rs)).count();
        let left = now.values().filter(|rs| **rs == third).count();
        ensure(left == 0 && lost == 0, || format!("{left} are left, {lost} of others are gone"))
    })?;
    sleep(Duration::from_secs(3)); // Every connection speaks once more.
    let mut broken = 0;
    for load in loads {
        let report: TalkReport = load.finish(LIMIT)?;
        ensure(report.opened == CONNECTIONS as u64, || format!("{report:?}"))?;
        broken += report.broken.len();
    }
    ensure(broken == theirs, || format!("{broken} connections broke, {theirs} were on the disabled servers"))?;
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.expect_alive()?;
    ctx.note(format!("{} sessions, 6 changes of 7 services: {moved} moved; disable ended {theirs}", before.len()));
    Ok(())
}

/// The server that answers the client's port `from`.
fn answer(rig: &Rig, from: u16) -> Result<String> {
    let (port, url) = (from.to_string(), format!("http://{VIP}:80/"));
    let arguments = ["-sS", "--max-time", "5", "--local-port", &port, "-H", "Connection: close", &url];
    let output = run(rig.client.command("curl").args(arguments))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A restart with the servers written in another order: every client has the server it had.
pub fn equal_after_a_restart(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.appliance.conf.service("web").scheduler = "maglev";
    rig.appliance.conf.service("web").rs[1].weight = 2;
    // Both ends closing at once leaves the client's port in TIME_WAIT, and it is asked for again.
    run(rig.client.command("sysctl").args(["-qw", "net.ipv4.tcp_max_tw_buckets=0"]))?;
    rig.start()?;
    let ports = || 20_001..20_081;
    let before: Vec<String> = ports().map(|port| answer(&rig, port)).collect::<Result<_>>()?;
    let used: BTreeSet<&String> = before.iter().collect();
    ensure(used.len() == 3, || format!("80 clients use {used:?}"))?;
    rig.appliance.stop()?;
    rig.appliance.conf.service("web").rs.reverse();
    rig.start()?;
    sleep(Duration::from_secs(4)); // What was closed before is over (time_wait).
    let after: Vec<String> = ports().map(|port| answer(&rig, port)).collect::<Result<_>>()?;
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    ensure(moved == 0, || format!("{moved} of 80 clients have another server"))?;
    ctx.note("80 of 80 clients have the server they had");
    Ok(())
}

/// A client keeps its server through both workers, a server more, a killed worker and a restart; it moves when the server
/// goes.
pub fn clients_keep_their_server(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.appliance.conf.service("web").rs.pop();
    rig.appliance.conf.service("web").extra = vec!["persistence = \"5m\"".into()];
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let first = answer(&rig, 21_000)?;
    let mut next = 21_001..;
    let mut stays = |rig: &Rig, what: &str| -> Result<()> {
        let got = next.by_ref().take(12).map(|port| answer(rig, port)).collect::<Result<BTreeSet<_>>>()?;
        ensure(got.len() == 1 && got.contains(&first), || format!("{what}: {got:?}, it had {first}"))
    };
    stays(&rig, "through both workers")?;
    rig.appliance.workers.get_mut("0a").ok_or_else(|| Error::claim("no worker of zone 0"))?.kill()?;
    rig.appliance.start_worker(0, 'a', &[])?;
    stays(&rig, "after a kill")?;
    // Whatever the hash says now: the memory holds.
    for weight in ["1", "7", "30", "60000"] {
        if weight == "1" {
            lbctl.ok(&["rs", "add", "web", &rig.servers[2].at(HTTP_PORT)])?;
        }
        lbctl.ok(&["rs", "set", "web", &rig.servers[2].at(HTTP_PORT), "--weight", weight])?;
        stays(&rig, "a server more")?;
    }
    rig.appliance.stop()?;
    let third = rig.servers[2].at(HTTP_PORT);
    let service = rig.appliance.conf.service("web").clone().with(third, 60_000);
    *rig.appliance.conf.service("web") = service;
    rig.start()?;
    stays(&rig, "a restart")?;
    let number = usize::from(first == "s2");
    lbctl.ok(&["rs", "drain", "web", &rig.servers[number].at(HTTP_PORT)])?;
    let moved = answer(&rig, 22_000)?;
    ensure(moved != first, || format!("drained {first} still gets sessions"))?;
    ctx.note(format!("{first} through 6 changes and a restart, then {moved}"));
    Ok(())
}

//! The holder killed, stopped, replaced too early: the workers go on, the sessions stay.

use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::clock::now_us;
use tests::conf::VIP;
use tests::daemon::Daemon;
use tests::error::ensure;
use tests::gaps::Gap;
use tests::heavy::{Heavy, Weight, stream};
use tests::load::{Load, LoadReport};
use tests::netns::run;
use tests::servers::HTTP_PORT;
use tests::stream::StreamReport;
use tests::talk::TalkReport;
use tests::{Error, Result, Rig, claims};

use crate::Ctx;

/// Time without a holder.
const HOLD: Duration = Duration::from_secs(60);
/// Sessions open over the restart.
const SESSIONS: u64 = 10_000;
/// Promised time from the last to the first forwarded packet of a planned restart.
const RESTART_US: u64 = 1_000_000;

/// kill -9 of the holder under the full load, and all neighbours forgotten by clients and servers:
/// for a minute nothing is lost, ARP is answered, health states change, control answers. Then the
/// whole appliance is started again with ten thousand sessions, all of which live.
pub fn killed(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.add_stream_service();
    rig.start()?;
    let heavy = Heavy::start(&rig, Weight::default())?;
    sleep(Duration::from_secs(1));
    kill_holder(&mut rig)?;
    let end = Instant::now() + HOLD;
    forget_neighbours(&rig)?;
    missed(&rig, true)?;
    answers(&mut rig)?;
    health_goes_on(ctx, &mut rig)?;
    forget_neighbours(&rig)?;
    sleep(end.saturating_duration_since(Instant::now()));
    answers(&mut rig)?;
    let report = heavy.finish(&rig)?;
    report.notes().iter().for_each(|note| ctx.note(note));
    report.nothing_broke()?;
    report.no_datagram_lost()?;
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    restart_with_sessions(ctx, &mut rig)
}

fn kill_holder(rig: &mut Rig) -> Result<()> {
    let mut holder = rig.appliance.primary.take().ok_or_else(|| Error::claim("lb-primary does not run"))?;
    holder.kill()
}

/// Empties the neighbour tables of client and servers: the next packet of each asks by ARP.
fn forget_neighbours(rig: &Rig) -> Result<()> {
    let hosts = rig.servers.iter().map(|host| &host.ns).chain([&rig.client]);
    for ns in hosts {
        run(Command::new("ip").args(["-n", ns.name(), "neigh", "flush", "all"]))?;
    }
    Ok(())
}

/// Do the lists say that there is no holder, in time, if and only if there is none?
fn missed(rig: &Rig, missed: bool) -> Result<()> {
    let lbctl = rig.lbctl()?;
    claims::eventually(&format!("missing the holder: {missed}"), Duration::from_secs(5), || {
        let degraded = lbctl.degraded()?;
        ensure(degraded.contains("no primary") == missed, || format!("lbctl says {degraded:?}"))
    })
}

/// What users and operators ask, asked without a holder.
fn answers(rig: &mut Rig) -> Result<()> {
    let lbctl = rig.lbctl()?;
    let states: Vec<String> = lbctl.workers()?.into_iter().map(|w| w.state).collect();
    ensure(states == ["serving", "serving"], || format!("worker list says {states:?}"))?;
    let ports = lbctl.ports()?;
    ensure(ports.len() == 1 && ports[0].rx_packets > 0, || format!("port list says {ports:?}"))?;
    rig.wait_all_up(Duration::from_secs(5))?;
    run(rig.client.command("ping").args(["-c", "2", "-i", "0.2", "-W", "2", VIP]))?;
    rig.appliance.expect_alive()
}

/// A server that dies is seen and avoided, and seen again when it is back.
fn health_goes_on(ctx: &Ctx, rig: &mut Rig) -> Result<()> {
    let lbctl = rig.lbctl()?;
    let address = rig.servers[1].at(HTTP_PORT);
    // Drained first: the load's own requests must not meet the dying server before it is known dead.
    lbctl.ok(&["rs", "drain", "web", &address])?;
    sleep(Duration::from_millis(500));
    rig.servers[1].stop_nginx()?;
    let begin = Instant::now();
    let state = |wanted: &str| {
        claims::eventually(&format!("{address} {wanted}"), Duration::from_secs(6), || {
            let rs = lbctl.real_server("web", &address)?;
            ensure(rs.health == wanted, || format!("{rs:?}"))
        })
    };
    state("down")?;
    let down = begin.elapsed();
    lbctl.ok(&["rs", "enable", "web", &address])?;
    let web = format!("{VIP}:80");
    let http: LoadReport =
        rig.load("http-load", &["--target", &web, "--requests", "100"])?.report(Duration::from_secs(30))?;
    claims::all_answered("while s2 is down, without a holder", &http)?;
    ensure(!http.by_server.contains_key("s2"), || format!("s2 is down and answers: {:?}", http.by_server))?;
    let folder = rig.folder.clone();
    rig.servers[1].start_nginx(&folder)?;
    state("up")?;
    ctx.note(format!("without a holder: a dead server is seen after {:.1} s", down.as_secs_f64()));
    Ok(())
}

/// The planned restart after the death of the holder: workers stop, all starts again.
fn restart_with_sessions(ctx: &Ctx, rig: &mut Rig) -> Result<()> {
    let weight = Weight { flows: 8, gap_us: 20_000, ..Weight::default() };
    let talk = open_sessions(rig)?;
    let flow = stream(rig, 2000, weight)?;
    sleep(Duration::from_secs(2));
    let before = rig.lbctl()?.session_count()?;
    let begin_us = now_us();
    rig.appliance.stop()?;
    let stopped_us = now_us();
    rig.appliance.start_primary(&[])?;
    let ready_us = now_us();
    rig.plumb()?;
    let plumbed_us = now_us();
    rig.appliance.start_workers(&[0, 1])?;
    let served_us = now_us();
    rig.appliance.start_healthcheck()?;
    rig.wait_all_up(Duration::from_secs(15))?;
    let after = rig.lbctl()?.session_count()?;
    // All have had their turn once more, those that were cut off in it too.
    sleep(Duration::from_secs(9));
    let flow: StreamReport = flow.finish(Duration::from_secs(60))?;
    let talk: TalkReport = talk.finish(Duration::from_secs(90))?;

    let silence = longest(&flow.gaps).ok_or_else(|| Error::claim("a restart of the appliance was felt by no flow"))?;
    let plumbing = plumbed_us - ready_us;
    let own = silence.gap_us.saturating_sub(plumbing);
    ctx.note(format!(
        "planned restart with {SESSIONS} sessions: last to first packet {} ms, of that the rig's plumbing {} ms: {} ms; \
         stop {} ms, lb-primary {} ms, workers {} ms",
        silence.gap_us / 1000,
        plumbing / 1000,
        own / 1000,
        (stopped_us - begin_us) / 1000,
        (ready_us - stopped_us) / 1000,
        (served_us - plumbed_us) / 1000,
    ));
    ctx.note(talk.summary());
    ensure(before.active >= SESSIONS && after.active >= SESSIONS, || {
        format!("sessions before the restart {}, after it {}", before.active, after.active)
    })?;
    ensure(talk.opened == SESSIONS && talk.broken.is_empty(), || {
        format!("{}; first: {:?}", talk.summary(), talk.broken.iter().take(5).collect::<Vec<_>>())
    })?;
    ensure(talk.oldest_answer_us > served_us, || "a connection was not heard of after the restart".into())?;
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    ensure(own <= RESTART_US, || format!("a planned restart forwards nothing for {} ms; promised 1000", own / 1000))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

fn longest(gaps: &[Gap]) -> Option<Gap> {
    gaps.iter().copied().max_by_key(|gap| gap.gap_us)
}

/// [`SESSIONS`] connections that speak every five seconds each.
fn open_sessions(rig: &Rig) -> Result<Load> {
    let (talk, count) = (format!("{VIP}:9000"), SESSIONS.to_string());
    let load = rig.load(
        "tcp-talk",
        &[
            "client",
            "--target",
            &talk,
            "--connections",
            &count,
            "--period-ms",
            "5000",
            "--timeout-ms",
            "60000",
            "--open-rate",
            "2000",
        ],
    )?;
    let lbctl = rig.lbctl()?;
    claims::eventually("ten thousand sessions", Duration::from_secs(40), || {
        let services = lbctl.services()?;
        let there = services.iter().find(|s| s.name == "talk").map_or(0, |s| s.sessions);
        ensure(there >= SESSIONS, || format!("{there} are there"))
    })?;
    Ok(load)
}

/// The holder stopped for a minute under the full load, then continued: it lives (each packet that
/// raised a signal meanwhile could have killed it), nothing was lost, and it still admits workers.
pub fn stopped(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.add_stream_service();
    rig.start()?;
    let heavy = Heavy::start(&rig, Weight::default())?;
    sleep(Duration::from_secs(1));
    let signal = |rig: &Rig, signal| rig.appliance.primary.iter().for_each(|holder| holder.signal(signal));
    signal(&rig, Signal::SIGSTOP);
    let end = Instant::now() + HOLD;
    forget_neighbours(&rig)?;
    missed(&rig, true)?;
    answers(&mut rig)?;
    sleep(end.saturating_duration_since(Instant::now()));
    signal(&rig, Signal::SIGCONT);
    missed(&rig, false)?;
    answers(&mut rig)?;
    let report = heavy.finish(&rig)?;
    report.notes().iter().for_each(|note| ctx.note(note));
    report.nothing_broke()?;
    report.no_datagram_lost()?;
    if let Some(mut worker) = rig.appliance.workers.remove("1a") {
        worker.stop(tests::appliance::STOP_LIMIT)?;
    }
    rig.appliance.start_worker(1, 'a', &[])?;
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// After the death of the holder, a new one is refused while workers live: before EAL, which would
/// destroy their memory configuration, with the worker named; nothing of theirs changes.
pub fn second_primary_refused_while_workers_live(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let talk = format!("{VIP}:9000");
    let load = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "100", "--period-ms", "100"])?;
    sleep(Duration::from_secs(1));
    kill_holder(&mut rig)?;
    let before = eal_files(&rig)?;
    ensure(!before.is_empty(), || "EAL's configuration file is not where it is looked for".into())?;
    for _ in 0..3 {
        let mut second = Daemon::spawn("second", &rig.folder, rig.appliance.command("lb-primary", &[])?, true)?;
        let begin = Instant::now();
        let status = second.wait_end(Duration::from_secs(15))?;
        let told = second.log_text();
        ensure(status.code() == Some(1), || format!("the second lb-primary ended with {status}:\n{told}"))?;
        let pids: Vec<String> = rig.appliance.workers.values().map(|w| w.pid().to_string()).collect();
        ensure(pids.iter().any(|pid| told.contains(pid)), || format!("no worker of {pids:?} is named:\n{told}"))?;
        ensure(!told.contains("EAL:"), || format!("it came as far as EAL:\n{told}"))?;
        ctx.note(format!("refused after {} ms", begin.elapsed().as_millis()));
    }
    let after = eal_files(&rig)?;
    ensure(before == after, || format!("EAL's files changed from {before:?} to {after:?}"))?;
    let web = format!("{VIP}:80");
    let http: LoadReport =
        rig.load("http-load", &["--target", &web, "--requests", "500"])?.report(Duration::from_secs(30))?;
    claims::all_answered("http afterwards", &http)?;
    let report: TalkReport = load.finish(Duration::from_secs(60))?;
    ensure(report.opened == 100 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    rig.appliance.expect_alive()?;
    claims::law_holds(&rig.lbctl()?.stats()?)
}

/// EAL's configuration files of this appliance with their MD5.
fn eal_files(rig: &Rig) -> Result<Vec<(PathBuf, String)>> {
    let folder = rig.appliance.conf.run_dir.join("dpdk");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(Error::file("list", &folder))?.flatten() {
        let path = entry.path().join("config");
        if path.is_file() {
            let sum = run(Command::new("md5sum").arg(&path))?;
            let text = String::from_utf8_lossy(&sum.stdout).into_owned();
            files.push((path, text.split(' ').next().unwrap_or_default().to_string()));
        }
    }
    files.sort();
    Ok(files)
}

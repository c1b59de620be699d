//! The units under a real systemd: they start, carry traffic, come back when killed, are restarted and upgraded.

use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::conf::VIP;
use tests::error::ensure;
use tests::load::{Load, LoadReport, PulseReport, TalkReport};
use tests::netns::run;
use tests::systemd::Systemd;
use tests::{Error, Result, Rig, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(30);
/// Connections that must live through everything.
const TALKERS: u64 = 40;
const WORKERS: [&str; 2] = ["lb-worker@0a", "lb-worker@1a"];
const SERVICES: [&str; 4] = ["lb-primary", WORKERS[0], WORKERS[1], "lb-healthcheck"];

/// A booted box whose `lb.target` serves.
fn serving(ctx: &mut Ctx) -> Result<(Rig, Systemd)> {
    let mut rig = ctx.rig()?;
    let systemd = Systemd::boot(&mut rig)?;
    systemd.ctl(&["start", "lb.target"])?;
    rig.plumb()?;
    rig.wait_all_up(LIMIT)?;
    Ok((rig, systemd))
}

fn talk(rig: &Rig) -> Result<Load> {
    let (talk, connections) = (format!("{VIP}:9000"), TALKERS.to_string());
    rig.load("tcp-talk", &["client", "--target", &talk, "--connections", &connections, "--timeout-ms", "20000"])
}

fn pulse(rig: &Rig) -> Result<Load> {
    rig.load("udp-pulse", &["--target", &format!("{VIP}:53"), "--sockets", "16"])
}

fn none_broke(report: &TalkReport) -> Result<()> {
    ensure(report.opened == TALKERS && report.broken.is_empty(), || format!("connections broke: {report:?}"))
}

fn answered(rig: &Rig, what: &str) -> Result<()> {
    let web = format!("{VIP}:80");
    let http: LoadReport = rig.load("http-load", &["--target", &web, "--requests", "200"])?.report(LIMIT)?;
    claims::all_answered(what, &http)
}

fn both_serve(rig: &Rig) -> Result<()> {
    let lbctl = rig.lbctl()?;
    claims::eventually("both workers", LIMIT, || {
        let workers = lbctl.workers()?;
        let serving = workers.iter().filter(|w| w.state == "serving" && !w.slots.is_empty()).count();
        ensure(serving == 2, || format!("{workers:?}"))
    })
}

/// `systemctl start lb.target` on a fresh machine serves; stopping it leaves nothing running and nothing failed.
pub fn target_serves(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    let start = Instant::now();
    let systemd = Systemd::boot(&mut rig)?;
    let booted = start.elapsed();
    systemd.ctl(&["start", "lb.target"])?;
    rig.plumb()?;
    rig.wait_all_up(LIMIT)?;
    let up = start.elapsed();
    answered(&rig, "http")?;
    for unit in [WORKERS[0], WORKERS[1], "lb-healthcheck"] {
        let pid = systemd.outside_pid(systemd.main_pid(unit)?)?;
        crate::privileges::bare(unit, pid)?;
    }
    crate::privileges::no_hugepages("lb-healthcheck", systemd.outside_pid(systemd.main_pid("lb-healthcheck")?)?)?;
    for unit in SERVICES {
        let (state, restarts) = (systemd.show(unit, "SubState")?, systemd.show(unit, "NRestarts")?);
        ensure(state == "running" && restarts == "0", || {
            format!("{unit} is {state} after {restarts} restarts\n{}", systemd.journal(unit, 15))
        })?;
    }
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    systemd.ctl(&["stop", "lb.target"])?;
    for unit in SERVICES {
        systemd.wait_state(unit, "inactive", 0, LIMIT)?;
        let result = systemd.show(unit, "Result")?;
        ensure(result == "success", || format!("{unit}: {result}\n{}", systemd.journal(unit, 15)))?;
    }
    ctx.note(format!("systemd up after {} ms, all servers up after {} ms", booted.as_millis(), up.as_millis()));
    Ok(())
}

/// Each service is killed in turn: systemd brings it back, and no connection breaks.
pub fn killed_come_back(ctx: &mut Ctx) -> Result<()> {
    let (rig, systemd) = serving(ctx)?;
    let talkers = talk(&rig)?;
    sleep(Duration::from_millis(500));
    let mut told = Vec::new();
    for unit in [WORKERS[0], WORKERS[1], "lb-healthcheck"] {
        let (before, pulse) = (systemd.main_pid(unit)?, pulse(&rig)?);
        sleep(Duration::from_millis(300));
        systemd.kill(unit)?;
        systemd.wait_state(unit, "active", before, LIMIT)?;
        both_serve(&rig)?;
        sleep(Duration::from_millis(300));
        let report: PulseReport = pulse.finish(LIMIT)?;
        told.push(format!("{unit} {} ms", report.max_gap_ms));
        ensure(report.answered > 0 && report.max_gap_ms < 20_000, || format!("{unit} killed: {report:?}"))?;
    }
    // Control is the holder's to bring back.
    let (lbctl, holder) = (rig.lbctl()?, systemd.main_pid("lb-primary")?);
    let control = children(&systemd, holder)?;
    run(systemd.command("kill").arg("-KILL").arg(&control))?;
    claims::eventually("control's return", LIMIT, || {
        let now = children(&systemd, holder)?;
        ensure(now != control, || "the killed one is still there".into())?;
        lbctl.services().map(drop)
    })?;
    answered(&rig, "http after all kills")?;
    none_broke(&talkers.finish(LIMIT)?)?;
    ensure(systemd.main_pid("lb-primary")? == holder, || "the holder did not live through it".into())?;
    ctx.note(format!("longest silence by the killed one: {}", told.join(", ")));
    Ok(())
}

fn children(systemd: &Systemd, pid: u32) -> Result<String> {
    let output = run(systemd.command("pgrep").args(["--parent", &pid.to_string()]))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `systemctl restart lb-primary` and `restart lb.target`: workers come back by themselves, sessions are found again.
pub fn planned_restart(ctx: &mut Ctx) -> Result<()> {
    let (rig, systemd) = serving(ctx)?;
    let talkers = talk(&rig)?;
    for unit in ["lb-primary", "lb.target"] {
        let before: Vec<u32> = SERVICES.iter().map(|u| systemd.main_pid(u)).collect::<Result<_>>()?;
        let pulse = pulse(&rig)?;
        sleep(Duration::from_millis(500));
        let plumbing = restart(&rig, &systemd, unit)?;
        both_serve(&rig)?;
        sleep(Duration::from_millis(500));
        let report: PulseReport = pulse.finish(LIMIT)?;
        let workers_anew = (1..3).all(|i| systemd.main_pid(SERVICES[i]).is_ok_and(|pid| pid != before[i] && pid != 0));
        ensure(workers_anew, || format!("after {unit}, workers are those of before"))?;
        let gap = report.max_gap_ms.saturating_sub(u64::try_from(plumbing.as_millis()).unwrap_or(0));
        ctx.note(format!(
            "restart of {unit}: {} ms from the last to the first forwarded packet, {gap} without the rig's plumbing",
            report.max_gap_ms
        ));
        ensure(report.answered > 0 && gap < 30_000, || format!("{unit}: {report:?}"))?;
    }
    none_broke(&talkers.finish(LIMIT)?)?;
    claims::law_holds(&rig.lbctl()?.stats()?)
}

/// As soon as a new lb-primary is ready, plumbs its tap. Returns the time the plumbing took.
fn plumb_new(rig: &Rig, systemd: &Systemd) -> Result<Duration> {
    tests::wait::until("the new tap", LIMIT, Duration::from_millis(2), || {
        Ok(rig.app.has_link(&rig.tap()).then_some(()))
    })?;
    tests::wait::until("lb-primary", LIMIT, Duration::from_millis(2), || {
        Ok((systemd.show("lb-primary", "ActiveState")? == "active").then_some(()))
    })?;
    let start = Instant::now();
    rig.plumb()?;
    Ok(start.elapsed())
}

/// Restarts a unit and, as soon as lb-primary is ready, plumbs its new tap. Returns the time the plumbing took.
fn restart(rig: &Rig, systemd: &Systemd, unit: &str) -> Result<Duration> {
    let spawn = |source| Error::Spawn { program: "systemctl".into(), source };
    let mut restarting = systemd.command("systemctl").args(["restart", unit]).spawn().map_err(spawn)?;
    let plumbing = plumb_new(rig, systemd)?;
    let status = restarting.wait().map_err(spawn)?;
    ensure(status.success(), || format!("systemctl restart {unit}: {status}\n{}", systemd.journal("", 30)))?;
    Ok(plumbing)
}

/// The holder dies: workers forward on, old connections and new ones, control answers. A worker that dies then is started
/// again by systemd, which asks for lb-primary too: that is the planned restart.
pub fn holder_killed(ctx: &mut Ctx) -> Result<()> {
    let (rig, systemd) = serving(ctx)?;
    let talkers = talk(&rig)?;
    sleep(Duration::from_millis(300));
    systemd.kill("lb-primary")?;
    systemd.wait_state("lb-primary", "failed", 0, LIMIT)?;
    answered(&rig, "http without a holder")?;
    both_serve(&rig)?;
    // Control goes on, and with it neighbours and health targets.
    rig.lbctl()?.services()?;
    // Without a holder none can take a dead worker's place: the other one leaves, and systemd starts all anew. Until it has
    // left, an lb-primary that is asked for is refused, and disturbs nobody.
    systemd.kill(WORKERS[0])?;
    let plumbing = plumb_new(&rig, &systemd)?;
    both_serve(&rig)?;
    answered(&rig, "http afterwards")?;
    let again = SERVICES.iter().map(|u| systemd.show(u, "ActiveState")).collect::<Result<Vec<_>>>()?;
    ensure(again.iter().all(|state| state == "active"), || format!("{SERVICES:?}: {again:?}"))?;
    let refused = systemd.journal("lb-primary", 200).matches("still forwards").count();
    ctx.note(format!("planned restart by a worker's death; lb-primary refused {refused} times; plumbing {plumbing:?}"));
    none_broke(&talkers.finish(LIMIT)?)
}

/// `systemctl start lb-worker@0b` while `lb-worker@0a` serves is the rolling upgrade, here to another file, which a drop-in
/// names; the relieved one leaves with status 0 and stays away. Then back again.
pub fn rolling_upgrade(ctx: &mut Ctx) -> Result<()> {
    const OTHER: &str = "/usr/bin/lb-worker-new";
    let (rig, systemd) = serving(ctx)?;
    let (talkers, pulse) = (talk(&rig)?, pulse(&rig)?);
    run(systemd.command("cp").args(["/usr/bin/lb-worker", OTHER]))?;
    let folder = "/run/systemd/system/lb-worker@0b.service.d";
    run(systemd.command("mkdir").args(["-p", folder]))?;
    let drop_in = systemd.outside(&format!("{folder}/binary.conf"));
    let text = format!("[Service]\nEnvironment=LB_WORKER={OTHER}\n");
    std::fs::write(&drop_in, text).map_err(Error::file("write", &drop_in))?;
    systemd.ctl(&["daemon-reload"])?;
    for (new, old, program) in
        [("lb-worker@0b", "lb-worker@0a", OTHER), ("lb-worker@0a", "lb-worker@0b", "/usr/bin/lb-worker")]
    {
        systemd.ctl(&["start", new])?;
        let link = run(systemd.command("readlink").arg(format!("/proc/{}/exe", systemd.main_pid(new)?)))?;
        let runs = String::from_utf8_lossy(&link.stdout).trim().to_owned();
        ensure(runs == program, || format!("{new} runs {runs}, not {program}"))?;
        systemd.wait_state(old, "inactive", 0, LIMIT)?;
        let (result, restarts) = (systemd.show(old, "Result")?, systemd.show(old, "NRestarts")?);
        ensure(result == "success" && restarts == "0", || {
            format!("{old}: {result}, {restarts} restarts\n{}", systemd.journal(old, 15))
        })?;
        both_serve(&rig)?;
        let lane = &new[new.len() - 1..];
        let workers = rig.lbctl()?.workers()?;
        ensure(workers.iter().any(|w| w.zone == 0 && w.lane == lane && w.state == "serving"), || {
            format!("{workers:?}")
        })?;
        sleep(Duration::from_millis(300));
        ensure(systemd.show(old, "ActiveState")? == "inactive", || format!("{old} came back"))?;
    }
    let report: PulseReport = pulse.finish(LIMIT)?;
    ctx.note(format!(
        "{} of {} UDP queries answered, longest gap {} ms",
        report.answered, report.sent, report.max_gap_ms
    ));
    none_broke(&talkers.finish(LIMIT)?)?;
    answered(&rig, "http after both")
}

//! Workers replaced under load: nobody notices.

use std::time::Duration;

use tests::conf::VIP;
use tests::error::ensure;
use tests::load::{LoadReport, TalkReport};
use tests::{Result, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(60);

/// Each zone's worker is relieved twice, so that both lanes have been used, while connections talk and new ones arrive.
pub fn take_over_keeps_every_connection(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.appliance.conf.slots = 4;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let (web, talk) = (format!("{VIP}:80"), format!("{VIP}:9000"));
    let talkers = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "60", "--period-ms", "20"])?;
    let http = rig.load("http-load", &["--target", &web, "--concurrency", "8", "--rate", "300"])?;
    for (from, to) in [('a', 'b'), ('b', 'a')] {
        for zone in 0..2 {
            rig.appliance.start_worker(zone, to, &["--take-over"])?;
            let (old, new) = (format!("{zone}{from}"), format!("{zone}{to}"));
            let fresh = rig.appliance.workers.get(&new).map_or(0, |d| d.pid());
            let shown = lbctl.workers()?;
            let serving: Vec<_> = shown.iter().filter(|w| w.pid == fresh).collect();
            ensure(serving.len() == 1 && serving[0].lane == to.to_string() && serving[0].slots.len() == 2, || {
                format!("process {fresh} is not shown as serving lane {to} of zone {zone}: {shown:?}")
            })?;
            let Some(mut relieved) = rig.appliance.workers.remove(&old) else { continue };
            let status = relieved.wait_end(Duration::from_secs(10))?;
            ensure(status.success(), || {
                format!("the relieved worker ended with {status}:\n{}", relieved.log_tail(15))
            })?;
        }
    }
    let http: LoadReport = http.finish(LIMIT)?;
    let report: TalkReport = talkers.finish(LIMIT)?;
    claims::all_answered("http", &http)?;
    ensure(report.opened == 60 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    ctx.note(format!("{} rounds, {} requests, longest wait {} ms", report.rounds, http.ok, report.max_gap_ms));
    let stats = lbctl.stats()?;
    claims::law_holds(&stats)?;
    let lost = stats.sum.drops.get("lost_in_crash").copied().unwrap_or(0);
    ensure(lost == 0, || format!("{lost} packets were lost in a hand-over in order"))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// A successor that dies on trial: the old worker has its slots back at once.
pub fn successor_killed_on_trial(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let talk = format!("{VIP}:9000");
    let talkers = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "60", "--period-ms", "20"])?;
    let old = rig.appliance.workers.get("0a").map_or(0, |d| d.pid());
    for _ in 0..3 {
        rig.appliance.start_worker(0, 'b', &["--take-over"])?;
        std::thread::sleep(Duration::from_millis(300));
        if let Some(mut successor) = rig.appliance.workers.remove("0b") {
            successor.kill()?;
        }
        claims::eventually("the old worker's return", Duration::from_secs(2), || {
            let shown = lbctl.workers()?;
            let serves = shown.iter().any(|w| w.pid == old && w.state == "serving" && !w.slots.is_empty());
            ensure(serves, || format!("process {old} does not serve: {shown:?}"))
        })?;
    }
    let report: TalkReport = talkers.finish(LIMIT)?;
    ensure(report.opened == 60 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    ctx.note(format!("3 successors killed; longest wait {} ms", report.max_gap_ms));
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// A zone whose worker is kept from starting: the other zone's worker adopts its slots, and gives them back when it comes.
pub fn orphans_are_adopted(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let (web, talk) = (format!("{VIP}:80"), format!("{VIP}:9000"));
    let arguments = ["client", "--target", &talk, "--connections", "60", "--period-ms", "50", "--timeout-ms", "20000"];
    let talkers = rig.load("tcp-talk", &arguments)?;
    std::thread::sleep(Duration::from_secs(1));
    if let Some(mut worker) = rig.appliance.workers.remove("0a") {
        worker.kill()?;
    }
    let degraded = lbctl.degraded()?;
    ensure(degraded.contains("no worker serves slots [0]"), || {
        format!("nobody says that slot 0 is not served: {degraded:?}")
    })?;
    let other = rig.appliance.workers.get("1a").map_or(0, |d| d.pid());
    claims::eventually("the adoption", Duration::from_secs(5), || {
        let shown = lbctl.workers()?;
        let has = shown.iter().find(|w| w.pid == other).map_or(0, |w| w.slots.len());
        ensure(has == 2, || format!("process {other} serves {has} slots: {shown:?}"))
    })?;
    let http: LoadReport = rig.load("http-load", &["--target", &web, "--requests", "500"])?.report(LIMIT)?;
    claims::all_answered("http while adopted", &http)?;
    let degraded = lbctl.degraded()?;
    ensure(degraded.is_empty(), || format!("all slots are served, and yet: {degraded}"))?;
    rig.appliance.start_worker(0, 'a', &[])?;
    let home = rig.appliance.workers.get("0a").map_or(0, |d| d.pid());
    let shown = lbctl.workers()?;
    let has = |pid| shown.iter().find(|w| w.pid == pid).map_or(0, |w| w.slots.len());
    ensure(has(home) == 1 && has(other) == 1, || format!("the slots have not gone home: {shown:?}"))?;
    let report: TalkReport = talkers.finish(LIMIT)?;
    ensure(report.opened == 60 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    ctx.note(format!("longest wait {} ms", report.max_gap_ms));
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.stop()
}

/// `lbctl worker upgrade` for a worker that is no unit: a detached successor, which outlives the command; a program that
/// is none is refused and changes nothing.
pub fn by_lbctl(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let talk = format!("{VIP}:9000");
    let talkers = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "60", "--period-ms", "20"])?;
    let before = pid_of(&lbctl.workers()?, 0)?;
    let wrong = lbctl.call(&["worker", "upgrade", "0", "--binary", "/bin/true"])?;
    ensure(wrong.code == 1 && wrong.err.contains("cannot be used"), || format!("{wrong:?}"))?;
    let missing = lbctl.call(&["worker", "upgrade", "7"])?;
    ensure(missing.code == 1 && missing.err.contains("zone 7"), || format!("{missing:?}"))?;
    let told = lbctl.ok(&["worker", "upgrade", "0"])?;
    let after = pid_of(&lbctl.workers()?, 0)?;
    ensure(before != after, || format!("process {before} still serves; lbctl said: {told}"))?;
    if let Some(mut relieved) = rig.appliance.workers.remove("0a") {
        let status = relieved.wait_end(Duration::from_secs(5))?;
        ensure(status.success(), || format!("the relieved worker ended with {status}"))?;
    }
    let report: TalkReport = talkers.finish(LIMIT)?;
    ensure(report.opened == 60 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    ctx.note(told.trim());
    claims::law_holds(&lbctl.stats()?)
}

/// A worker that is stopped is killed and replaced; a connection of its slots waits and goes on.
pub fn stopped_worker_is_killed(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let talk = format!("{VIP}:9000");
    let arguments = ["client", "--target", &talk, "--connections", "60", "--period-ms", "50", "--timeout-ms", "20000"];
    let talkers = rig.load("tcp-talk", &arguments)?;
    std::thread::sleep(Duration::from_secs(1));
    if let Some(mut worker) = rig.appliance.workers.remove("0a") {
        worker.signal(nix::sys::signal::Signal::SIGSTOP);
        let begin = std::time::Instant::now();
        worker.wait_end(Duration::from_secs(5))?;
        ctx.note(format!("killed {} ms after it was stopped", begin.elapsed().as_millis()));
    }
    let told = rig.appliance.primary.as_ref().map_or_else(String::new, tests::daemon::Daemon::log_text);
    ensure(told.contains("hangs") && told.contains("stopped"), || format!("the holder does not say why:\n{told}"))?;
    rig.appliance.start_worker(0, 'a', &[])?;
    let report: TalkReport = talkers.finish(LIMIT)?;
    ensure(report.opened == 60 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.stop()
}

fn pid_of(workers: &[tests::views::Worker], zone: u32) -> Result<u32> {
    let serving = workers.iter().find(|w| w.zone == zone && w.state == "serving" && !w.slots.is_empty());
    serving.map(|w| w.pid).ok_or_else(|| tests::Error::claim(format!("nobody serves zone {zone}: {workers:?}")))
}

/// A successor that drops packets, one that hears none and one that runs in circles: the old worker has its slots back in
/// time, connections wait and go on.
pub fn bad_successors(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let talk = format!("{VIP}:9000");
    let arguments = ["client", "--target", &talk, "--connections", "60", "--period-ms", "10", "--timeout-ms", "20000"];
    let talkers = rig.load("tcp-talk", &arguments)?;
    std::thread::sleep(Duration::from_secs(4)); // What is compared with: three seconds of the old worker's own.
    let old = pid_of(&lbctl.workers()?, 0)?;
    for (fault, word) in [("drop", "it drops"), ("deaf", "receives nothing"), ("spin@200", "has died on trial")] {
        rig.appliance.instead.insert("lb-worker".into(), tests::janitor::with_failpoints("lb-worker")?);
        rig.appliance.environment = vec![("LB_FAULT".into(), fault.into())];
        rig.appliance.start_worker(0, 'b', &["--take-over"])?;
        let begin = std::time::Instant::now();
        if let Some(mut successor) = rig.appliance.workers.remove("0b") {
            let status = successor.wait_end(Duration::from_secs(10))?;
            ensure(!status.success(), || format!("a successor that is bad ({fault}) ended with {status}"))?;
        }
        let after = begin.elapsed().as_millis();
        claims::eventually("the old worker's return", Duration::from_secs(3), || {
            let now = pid_of(&lbctl.workers()?, 0)?;
            ensure(now == old, || format!("process {now} serves, not {old}"))
        })?;
        let told = rig.appliance.workers.get("0a").map_or_else(String::new, tests::daemon::Daemon::log_text);
        ensure(told.contains(word), || format!("{fault}: the old worker does not say {word:?}:\n{told}"))?;
        ctx.note(format!("{fault}: gone after {after} ms"));
        std::thread::sleep(Duration::from_secs(4));
    }
    let report: TalkReport = talkers.finish(LIMIT)?;
    ensure(report.opened == 60 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    ctx.note(format!("longest wait {} ms", report.max_gap_ms));
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.stop()
}

/// This build's layout version, or so many minor versions above it.
fn layout(above: u32) -> String {
    let own = shm_layout::limits::LAYOUT_VERSION;
    format!("{}.{}", own >> 16, (own & 0xffff) + above)
}

/// Builds of other layouts: a minor one takes over and hands back; a major one is refused at once and the old serves on.
pub fn other_layouts(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let talk = format!("{VIP}:9000");
    let talkers = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "60", "--period-ms", "20"])?;
    rig.appliance.instead.insert("lb-worker".into(), tests::janitor::with_failpoints("lb-worker")?);
    rig.appliance.environment = vec![("LB_LAYOUT".into(), "2.0".into())];
    let begin = std::time::Instant::now();
    let command = rig.appliance.command("lb-worker", &["--zone", "0", "--take-over"])?;
    let mut foreign = tests::daemon::Daemon::spawn("foreign", &rig.folder, command, true)?;
    let status = foreign.wait_end(Duration::from_secs(10))?;
    let (told, took) = (foreign.log_text(), begin.elapsed());
    ensure(status.code() == Some(1) && told.contains(&layout(0)) && told.contains("2.0"), || {
        format!("a worker of layout 2.0 ended with {status}:\n{told}")
    })?;
    ctx.note(format!("layout 2.0 refused after {} ms", took.as_millis()));
    for (layout, from, to) in [(layout(1), 'a', 'b'), (layout(0), 'b', 'a')] {
        rig.appliance.environment = vec![("LB_LAYOUT".into(), layout.clone())];
        rig.appliance.start_worker(0, to, &["--take-over"])?;
        if let Some(mut relieved) = rig.appliance.workers.remove(&format!("0{from}")) {
            let status = relieved.wait_end(Duration::from_secs(10))?;
            ensure(status.success(), || format!("the worker relieved by layout {layout} ended with {status}"))?;
        }
    }
    let report: TalkReport = talkers.finish(LIMIT)?;
    ensure(report.opened == 60 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.stop()
}

//! Workers that are killed: what it costs the users.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::clock::now_us;
use tests::conf::VIP;
use tests::error::ensure;
use tests::gaps::{percentile, served_again_after};
use tests::heavy::{Heavy, Weight};
use tests::lbctl::Lbctl;
use tests::supervisor::{Life, RESTART, Supervisor};
use tests::talk::TalkReport;
use tests::{Error, Result, Rig, claims};

use crate::Ctx;
use crate::random::Random;

/// Kills of serving workers.
const KILLS: usize = 20;
/// Promised time from a kill to the first packet forwarded again, median and worst of [`KILLS`].
const P50_US: u64 = 200_000;
const P99_US: u64 = 500_000;
/// Packet buffers a kill may cost.
const BUFFERS_PER_KILL: u64 = 2;

/// One kill and what followed.
struct Kill {
    unit: String,
    at_us: u64,
    next: Life,
    ended_us: u64,
}

/// Twenty kills at random times, of random workers, under the full load: no established
/// connection is lost, no new one fails, service is back in time, buffers are not lost.
pub fn workers_killed_under_load(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.add_stream_service();
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let free = buffers_at_rest(&lbctl)?;
    let supervisor = Supervisor::watch(&mut rig.appliance, RESTART);
    let heavy = Heavy::start(&rig, Weight::default())?;
    ctx.note(format!("loss-free rate {}/s, stream at its half", heavy.search.rate));
    sleep(Duration::from_secs(2));
    let mut random = Random::new(ctx);
    let mut kills = Vec::new();
    for _ in 0..KILLS {
        let units = supervisor.units();
        let unit = random.pick(&units).clone();
        kills.push(kill(&supervisor, &unit)?);
        sleep(Duration::from_micros(random.within(700_000, 1_700_000)));
    }
    sleep(Duration::from_secs(2));
    let report = heavy.finish(&rig)?;
    supervisor.end(&mut rig.appliance)?;
    report.notes().iter().for_each(|note| ctx.note(note));
    report.nothing_broke()?;

    let back = kills.iter().map(|kill| {
        // A flow's own rhythm is a few ms; a cut takes tens.
        served_again_after(&report.stream.gaps, kill.at_us, 20_000, 20_000)
            .ok_or_else(|| Error::claim(format!("the kill of worker {} was felt by no flow", kill.unit)))
    });
    let back = back.collect::<Result<Vec<_>>>()?;
    tell_times(ctx, &kills, &back);
    let (p50, p99) = (percentile(&back, 50), percentile(&back, 99));
    let lost = lost_buffers(&lbctl, free)?;
    ctx.note(format!("packet buffers lost by {KILLS} kills: {lost}"));
    claims::eventually("the law after the kills", Duration::from_secs(5), || claims::law_holds(&lbctl.stats()?))?;
    ensure(lost <= BUFFERS_PER_KILL * KILLS as u64, || format!("{KILLS} kills cost {lost} packet buffers"))?;
    ensure(p50 <= P50_US && p99 <= P99_US, || {
        format!("service came back after {} ms (p50), {} ms (p99); promised 200 and 500", p50 / 1000, p99 / 1000)
    })?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

fn kill(supervisor: &Supervisor, unit: &str) -> Result<Kill> {
    let at_us = supervisor.signal(unit, Signal::SIGKILL)?;
    let next = supervisor.wait_ready(unit, at_us, Duration::from_secs(10))?;
    let lives = supervisor.lives(unit);
    let ended_us = lives.iter().rev().find(|l| l.ended_us >= at_us).map_or(at_us, |l| l.ended_us);
    Ok(Kill { unit: unit.into(), at_us, next, ended_us })
}

/// Where the time of a kill goes.
fn tell_times(ctx: &Ctx, kills: &[Kill], back: &[u64]) {
    let part = |of: &dyn Fn(&Kill) -> u64| {
        let all: Vec<u64> = kills.iter().map(of).collect();
        format!("{}/{}", percentile(&all, 50) / 1000, percentile(&all, 99) / 1000)
    };
    ctx.note(format!(
        "service back after p50/p99 {}/{} ms; of that: its end seen after {} ms, pause {} ms, start to ready {} ms \
         (of which the attaching thread ran {} ms and waited for a CPU {} ms)",
        percentile(back, 50) / 1000,
        percentile(back, 99) / 1000,
        part(&|k| k.ended_us.saturating_sub(k.at_us)),
        part(&|k| k.next.started_us.saturating_sub(k.ended_us)),
        part(&|k| k.next.ready_us.saturating_sub(k.next.started_us)),
        part(&|k| k.next.until_ready.ran_us),
        part(&|k| k.next.until_ready.waited_us),
    ));
    let all: Vec<String> =
        kills.iter().zip(back).map(|(kill, back)| format!("{} {}", kill.unit, back / 1000)).collect();
    ctx.note(format!("each (worker, ms): {}", all.join(", ")));
}

/// Free packet buffers once nothing flows: the same in two readings of the holder, a second apart.
fn buffers_at_rest(lbctl: &Lbctl) -> Result<u64> {
    let mut last = None;
    tests::wait::until("packet buffers at rest", Duration::from_secs(15), Duration::from_millis(2200), || {
        let free = lbctl.ports()?.iter().map(|p| p.mbufs_free).sum::<u64>();
        Ok((last.replace(free) == Some(free)).then_some(free))
    })
}

fn lost_buffers(lbctl: &Lbctl, before: u64) -> Result<u64> {
    Ok(before.saturating_sub(buffers_at_rest(lbctl)?))
}

/// Attaches that are killed.
const ATTACH_KILLS: u64 = 100;

/// A hundred kills between 5 ms after its start and the end of its attach: every later attach
/// works, the connections of the zone wait but live, and lb-primary still ends in order (it would
/// not if one of the killed had left EAL's lock taken).
pub fn kills_during_attach(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let talk = format!("{VIP}:9000");
    let arguments = ["client", "--target", &talk, "--connections", "50", "--period-ms", "200", "--timeout-ms", "60000"];
    let load = rig.load("tcp-talk", &arguments)?;
    sleep(Duration::from_secs(1));
    let mut random = Random::new(ctx);
    let launcher = rig.appliance.launcher();
    let mut early = 0;
    let mut attach_us = vec![again(&mut rig)?];
    for number in 0..ATTACH_KILLS {
        stop_worker(&mut rig)?;
        // From the entry of the program on, which takes some ms, over its whole attach.
        let usual = percentile(&attach_us, 50);
        let begin = now_us();
        let mut victim = launcher.worker(0, 'a', &[])?;
        let delay = random.within(5000, usual.max(70_000));
        sleep(Duration::from_micros(delay.saturating_sub(now_us() - begin)));
        early += u64::from(!victim.notified().ready);
        victim.kill()?;
        let back = again(&mut rig)
            .map_err(|error| Error::claim(format!("after kill {number}, {delay} µs into its start: {error}")))?;
        attach_us.push(back);
    }
    ctx.note(format!(
        "{ATTACH_KILLS} kills, {early} of them before READY; start to READY p50 {} ms, p99 {} ms",
        percentile(&attach_us, 50) / 1000,
        percentile(&attach_us, 99) / 1000
    ));
    ensure(early >= ATTACH_KILLS / 2, || format!("only {early} kills came within the attach"))?;
    let report: TalkReport = load.finish(Duration::from_secs(90))?;
    ctx.note(report.summary());
    ensure(report.broken.is_empty() && report.opened == 50, || format!("connections broke: {report:?}"))?;
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

fn stop_worker(rig: &mut Rig) -> Result<()> {
    match rig.appliance.workers.remove("0a") {
        Some(mut worker) => worker.stop(tests::appliance::STOP_LIMIT).map(drop),
        None => Ok(()),
    }
}

/// Worker 0 stopped, if it runs, and started; the time to READY, microseconds.
fn again(rig: &mut Rig) -> Result<u64> {
    stop_worker(rig)?;
    let begin = now_us();
    rig.appliance.start_worker(0, 'a', &[])?;
    Ok(now_us() - begin)
}

/// Three deaths of a zone's workers within ten seconds: the fourth checks the tables whole before it serves, and tells what
/// the dead had in hand. Connections live.
pub fn three_deaths(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let (talk, web) = (format!("{VIP}:9000"), format!("{VIP}:80"));
    let arguments = ["client", "--target", &talk, "--connections", "50", "--period-ms", "50", "--timeout-ms", "30000"];
    let load = rig.load("tcp-talk", &arguments)?;
    let http = rig.load("http-load", &["--target", &web, "--concurrency", "8", "--timeout-ms", "20000"])?;
    sleep(Duration::from_secs(1));
    let before = deaths_of(&lbctl, 0)?;
    for _ in 0..3 {
        if let Some(mut worker) = rig.appliance.workers.remove("0a") {
            worker.kill()?;
        }
        rig.appliance.start_worker(0, 'a', &[])?;
        sleep(Duration::from_millis(300));
    }
    let told = rig.appliance.workers.get("0a").map_or_else(String::new, tests::daemon::Daemon::log_text);
    ensure(told.contains("checked whole") && told.contains("all in order"), || {
        format!("the tables were not checked, or not in order:\n{told}")
    })?;
    let deaths = deaths_of(&lbctl, 0)? - before;
    ensure(deaths == 3, || format!("{deaths} deaths are counted, not 3"))?;
    let report: TalkReport = load.finish(Duration::from_secs(60))?;
    ensure(report.broken.is_empty() && report.opened == 50, || format!("connections broke: {report:?}"))?;
    let http: tests::load::LoadReport = http.finish(Duration::from_secs(60))?;
    claims::all_answered("http", &http)?;
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.stop()
}

/// Deaths counted in the slots at home in `zone`, as `worker list` tells.
fn deaths_of(lbctl: &Lbctl, zone: u64) -> Result<u64> {
    let workers: serde_json::Value = lbctl.json(&["worker", "list"])?;
    let of = |w: &serde_json::Value| -> u64 {
        w["slots"].as_array().into_iter().flatten().filter_map(|s| s["deaths"].as_u64()).sum()
    };
    Ok(workers.as_array().into_iter().flatten().filter(|w| w["zone"] == zone).map(of).sum())
}

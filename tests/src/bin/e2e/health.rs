//! Dead servers get no new session, and come back; whoever of the control side lives or dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::conf::VIP;
use tests::error::ensure;
use tests::load::LoadReport;
use tests::{Result, Rig, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(60);
/// interval × fall + timeout of `conf::Service::new`.
const DETECTION: Duration = Duration::from_millis(3 * 500 + 300);
/// interval × rise, likewise.
const RECOVERY: Duration = Duration::from_millis(2 * 500 + 300);
/// Jitter of the checks (a tenth) and a loaded machine.
const MARGIN: Duration = Duration::from_millis(500);

fn requests(rig: &Rig, count: u64) -> Result<LoadReport> {
    let (web, count) = (format!("{VIP}:80"), count.to_string());
    let arguments = ["--target", &web, "--requests", &count, "--concurrency", "8", "--timeout-ms", "3000"];
    rig.load("http-load", &arguments)?.report(LIMIT)
}

/// Stops nginx of s2, waits the promised time and shows that s2 gets nothing; and back.
fn down_and_up(ctx: &Ctx, rig: &mut Rig) -> Result<()> {
    let before = requests(rig, 300)?;
    claims::all_answered("before", &before)?;
    claims::equal_shares("before", &before, 3, 5.0)?;

    rig.servers[1].stop_nginx()?;
    sleep(DETECTION + MARGIN);
    let without = requests(rig, 300)?;
    claims::all_answered("while s2 is down", &without)?;
    ensure(!without.by_server.contains_key("s2"), || format!("s2 is down and answers: {without:?}"))?;
    claims::equal_shares("while s2 is down", &without, 2, 5.0)?;

    let folder = rig.folder.clone();
    rig.servers[1].start_nginx(&folder)?;
    let start = Instant::now();
    sleep(RECOVERY + MARGIN);
    let after = requests(rig, 300)?;
    claims::all_answered("after", &after)?;
    claims::equal_shares("after", &after, 3, 5.0)?;
    ctx.note(format!("s2 back {:.1} s after its start", (start.elapsed()).as_secs_f64() - after.seconds));
    Ok(())
}

/// One nginx stopped and started again, all processes alive; `rs list` tells.
pub fn server_down_and_up(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    down_and_up(ctx, &mut rig)?;
    // Once more, for what is shown: the exact count, the state and the reason.
    let address = rig.servers[1].at(tests::servers::HTTP_PORT);
    rig.servers[1].stop_nginx()?;
    claims::eventually("rs list shows s2 down", DETECTION + MARGIN, || {
        let rs = lbctl.real_server("web", &address)?;
        ensure(rs.health == "down", || format!("{rs:?}"))
    })?;
    let then = lbctl.real_server("web", &address)?;
    ensure(then.last_check_error.as_ref().is_some_and(|e| !e.is_empty()), || {
        format!("down, and no reason is told: {then:?}")
    })?;
    claims::all_answered("requests", &requests(&rig, 300)?)?;
    let now = lbctl.real_server("web", &address)?;
    ensure(now.sessions_total == then.sessions_total, || {
        format!("{} new sessions went to a dead server", now.sessions_total - then.sessions_total)
    })?;
    let folder = rig.folder.clone();
    rig.servers[1].start_nginx(&folder)?;
    rig.wait_all_up(RECOVERY + MARGIN)
}

/// The same while control is killed as often as it comes back.
pub fn without_control(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    // The last good state: next hops of client and servers are known. Who is new on the link needs control.
    requests(&rig, 100)?;
    let first = rig.appliance.control_pid()?;
    let primary = rig.appliance.primary.as_ref().map_or(0, tests::daemon::Daemon::pid);
    let over = Arc::new(AtomicBool::new(false));
    let killer = {
        let over = over.clone();
        spawn(move || {
            let mut kills: u32 = 0;
            while !over.load(Relaxed) {
                for child in children(primary) {
                    if kill(Pid::from_raw(child), Signal::SIGKILL).is_ok() {
                        kills += 1;
                    }
                }
                sleep(Duration::from_millis(10));
            }
            kills
        })
    };
    let result = down_and_up(ctx, &mut rig);
    over.store(true, Relaxed);
    let kills = killer.join().unwrap_or(0);
    result?;
    ctx.note(format!("control was killed {kills} times meanwhile"));
    rig.appliance.expect_alive()?;
    let lbctl = rig.lbctl()?;
    claims::eventually("control's return", Duration::from_secs(15), || lbctl.services().map(drop))?;
    let second = rig.appliance.control_pid()?;
    ensure(kills > 0 && first != second, || format!("control was {first} and is {second} after {kills} kills"))
}

fn children(pid: u32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|w| w.parse().ok()).collect()
}

/// A dead health-checker: the states stay as they were, traffic flows, and its return changes
/// nothing either.
pub fn checker_killed(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    // One is down, so that both states are there to be kept.
    rig.servers[2].stop_nginx()?;
    let down = rig.servers[2].at(tests::servers::HTTP_PORT);
    claims::eventually("s3 down", DETECTION + MARGIN, || {
        let rs = lbctl.real_server("web", &down)?;
        ensure(rs.health == "down", || format!("{rs:?}"))
    })?;
    let states = || -> Result<Vec<(String, String, String)>> {
        Ok(lbctl.real_servers()?.into_iter().map(|rs| (rs.service, rs.address, rs.health)).collect())
    };
    let before = states()?;
    let same = |during: &str, seconds: u64| -> Result<()> {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let now = states()?;
            ensure(now == before, || format!("{during} the states changed from {before:?} to {now:?}"))?;
            sleep(Duration::from_millis(100));
        }
        Ok(())
    };
    if let Some(mut checker) = rig.appliance.healthcheck.take() {
        checker.kill()?;
    }
    same("while the health-checker was dead", 5)?;
    let report = requests(&rig, 200)?;
    claims::all_answered("without health-checker", &report)?;
    ensure(!report.by_server.contains_key("s3"), || format!("{report:?}"))?;
    rig.appliance.start_healthcheck()?;
    same("after its return", 3)?;
    let folder = rig.folder.clone();
    rig.servers[2].start_nginx(&folder)?;
    rig.wait_all_up(RECOVERY + MARGIN + Duration::from_secs(1))
}

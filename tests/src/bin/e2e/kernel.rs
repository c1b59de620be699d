//! The kernel interface: the machine's own traffic by way of the port.

use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::conf::{APPLIANCE, PREFIX, VIP};
use tests::daemon::Daemon;
use tests::error::ensure;
use tests::heavy::{Weight, loss_free_rate};
use tests::janitor::beside_me;
use tests::load::{Load, LoadReport, TalkReport};
use tests::netns::run;
use tests::{Result, Rig, claims};

use crate::Ctx;

const INTERFACE: &str = "lbk0";
const LIMIT: Duration = Duration::from_secs(60);
/// Time of each flood.
const FLOOD: Duration = Duration::from_secs(30);
/// What a BGP-like session may wait for an answer, ms.
const PATIENCE_MS: u64 = 1000;

/// Probes, and a session on BGP's port, by the kernel interface alone (the management leg is down): under a flood to the host's
/// address, under one to a VIP, through an upgrade of the worker that speaks with the kernel, and after the death of the holder.
pub fn session_holds(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.add_stream_service();
    rig.appliance.conf.kernel = Some(INTERFACE.into());
    rig.start_primary(&[])?;
    rig.app.ip(&[
        "link set mgmt0 down",
        &format!("addr add {APPLIANCE}/{PREFIX} dev {INTERFACE}"),
        &format!("link set {INTERFACE} up"),
    ])?;
    rig.appliance.start_worker(0, 'a', &[])?;
    rig.appliance.start_worker(1, 'a', &[])?;
    rig.appliance.start_healthcheck()?;
    rig.wait_all_up(Duration::from_secs(15))?;
    run(rig.app.command("ping").args(["-c", "3", "-i", "0.2", "-W", "2", &rig.servers[0].address]))?;

    let speaker = format!("{APPLIANCE}:179");
    let mut listen = rig.app.command(beside_me("tcp-talk")?);
    listen.args(["server", "--listen", &speaker]);
    let mut bgp = Daemon::spawn("bgp", &rig.folder, listen, false)?;
    sleep(Duration::from_millis(300));
    let weight = Weight { flows: 8, ..Weight::default() };
    let search = loss_free_rate(&rig, weight)?;
    let rate = search.rate * 7 / 10;
    for (what, target) in [("the host's address", format!("{APPLIANCE}:9999")), ("a VIP", format!("{VIP}:7000"))] {
        let session = peer(&rig, &speaker)?;
        let flood = flood(&rig, &target, rate)?;
        let end = Instant::now() + FLOOD;
        while Instant::now() < end {
            // No probe's answer drowns.
            rig.wait_all_up(Duration::from_millis(100))?;
            sleep(Duration::from_millis(500));
        }
        let flooded = flood.finish::<tests::stream::StreamReport>(LIMIT)?;
        let report: TalkReport = session.finish(LIMIT)?;
        holds(&report).map_err(|error| tests::Error::claim(format!("under a flood to {what}: {error}")))?;
        let rate = flooded.sent * 1_000_000 / (flooded.end_us - flooded.begin_us).max(1);
        ctx.note(format!("{rate}/s to {what}: {} rounds, longest wait {} ms", report.rounds, report.max_gap_ms));
    }

    let session = peer(&rig, &speaker)?;
    rig.appliance.start_worker(0, 'b', &["--take-over"])?;
    if let Some(mut relieved) = rig.appliance.workers.remove("0a") {
        relieved.wait_end(Duration::from_secs(20))?;
    }
    if let Some(mut holder) = rig.appliance.primary.take() {
        holder.kill()?;
    }
    sleep(Duration::from_secs(3));
    rig.servers[1].stop_nginx()?;
    let lbctl = rig.lbctl()?;
    let address = rig.servers[1].at(tests::servers::HTTP_PORT);
    claims::eventually("a probe that fails", Duration::from_secs(6), || {
        let server = lbctl.real_server("web", &address)?;
        ensure(server.health == "down", || format!("{server:?}"))
    })?;
    let web = format!("{VIP}:80");
    let http: LoadReport = rig.load("http-load", &["--target", &web, "--requests", "300"])?.report(LIMIT)?;
    claims::all_answered("http without a holder", &http)?;
    let report: TalkReport = session.finish(LIMIT)?;
    holds(&report)?;
    ctx.note(format!("upgrade and death of the holder: longest wait {} ms", report.max_gap_ms));
    let stats = lbctl.stats()?;
    claims::law_holds(&stats)?;
    ensure(stats.sum.to_kernel > 0 && stats.sum.from_kernel > 0, || format!("{:?}", stats.sum))?;
    bgp.expect_alive()?;
    bgp.stop(Duration::from_secs(5))?;
    rig.appliance.stop()
}

/// A session that asks ten times a second.
fn peer(rig: &Rig, speaker: &str) -> Result<Load> {
    rig.load(
        "tcp-talk",
        &["client", "--target", speaker, "--connections", "1", "--period-ms", "100", "--timeout-ms", "20000"],
    )
}

fn holds(report: &TalkReport) -> Result<()> {
    ensure(
        report.opened == 1 && report.broken.is_empty() && report.rounds > 20 && report.max_gap_ms < PATIENCE_MS,
        || format!("the session: {report:?}"),
    )
}

fn flood(rig: &Rig, target: &str, rate: u64) -> Result<Load> {
    rig.load(
        "udp-stream",
        &["client", "--target", target, "--flows", "8", "--rate", &rate.to_string(), "--gap-us", "1000000"],
    )
}

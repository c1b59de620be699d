//! The whole appliance stopped and started again: its sessions are there.

use std::thread::sleep;
use std::time::Duration;

use tests::conf::VIP;
use tests::error::ensure;
use tests::load::TalkReport;
use tests::{Result, claims};

use crate::Ctx;

/// Connections are checked byte by byte through two restarts: one CPU more, one less. Slots stay,
/// threads move.
pub fn one_cpu_more_and_less(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.appliance.conf.slots = 4;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let talk = format!("{VIP}:9000");
    let arguments = ["client", "--target", &talk, "--connections", "60", "--period-ms", "100", "--timeout-ms", "30000"];
    let load = rig.load("tcp-talk", &arguments)?;
    sleep(Duration::from_secs(2));
    // The two CPUs may serve several zones: three threads, then one.
    for (what, zones) in [("one CPU more", vec![vec![0, 1], vec![1]]), ("one CPU less", vec![vec![0]])] {
        let before = lbctl.sessions(&["--service", "talk"])?.len();
        rig.appliance.stop()?;
        rig.appliance.conf.zones = zones;
        rig.start()?;
        claims::eventually(what, Duration::from_secs(5), || {
            let sessions = lbctl.sessions(&["--service", "talk"])?.len();
            ensure(sessions == before && before == 60, || format!("{what}: {before} sessions became {sessions}"))
        })?;
        sleep(Duration::from_secs(2));
        claims::law_holds(&lbctl.stats()?)?;
    }
    let report: TalkReport = load.finish(Duration::from_secs(60))?;
    ensure(report.opened == 60 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    ctx.note(format!("60 connections, {} rounds, longest wait {} ms", report.rounds, report.max_gap_ms));
    Ok(())
}

//! Promises that several tests and the demo check.

use std::path::Path;
use std::time::Duration;

use crate::conf::VIP;
use crate::error::ensure;
use crate::lbctl::Lbctl;
use crate::load::LoadReport;
use crate::netns::{Netns, run};
use crate::rig::Rig;
use crate::servers::BIG;
use crate::views::Stats;
use crate::wait;
use crate::{Error, Result};

/// Every request was answered.
///
/// # Errors
/// With the counts and kinds of failure.
pub fn all_answered(what: &str, report: &LoadReport) -> Result<()> {
    ensure(report.ok == report.requested && report.failed == 0 && report.requested > 0, || {
        format!("{what}: {} of {} answered; failures: {:?}", report.ok, report.requested, report.errors)
    })
}

/// `client` downloads nginx's file `/files/big` from the VIP within `seconds`, byte for byte.
///
/// # Errors
/// curl's, or that they differ.
pub fn download_is_whole(rig: &Rig, client: &Netns, seconds: u32) -> Result<()> {
    download_from_is_whole(rig, client, VIP, seconds)
}

/// The same from another VIP, as it stands in a URL.
///
/// # Errors
/// As [`download_is_whole`].
pub fn download_from_is_whole(rig: &Rig, client: &Netns, vip: &str, seconds: u32) -> Result<()> {
    let output = rig.folder.join("downloaded");
    let mut curl = client.command("curl");
    curl.args(["-gsS", "--max-time", &seconds.to_string(), &format!("http://{vip}/files/big"), "-o"]).arg(&output);
    run(&mut curl)?;
    let read = |path: &Path| std::fs::read(path).map_err(Error::file("read", path));
    let (there, sent) = (read(&output)?, read(&rig.folder.join("nginx-s1/files/big"))?);
    ensure(there.len() == BIG && there == sent, || format!("the download differs: {} bytes", there.len()))
}

/// Each of `servers` answered its equal share, within `percent` of that share.
///
/// # Errors
/// With the counts.
pub fn equal_shares(what: &str, report: &LoadReport, servers: usize, percent: f64) -> Result<()> {
    let share = report.ok as f64 / servers as f64;
    let off = |count: u64| (count as f64 - share).abs() > share * percent / 100.0;
    let wrong = report.by_server.len() != servers || report.by_server.values().any(|c| off(*c));
    ensure(!wrong, || format!("{what}: shares {:?} are not within {percent} % of {share:.1}", report.by_server))
}

/// The conservation law, per slot and in sum.
///
/// # Errors
/// With every slot where it does not hold.
pub fn law_holds(stats: &Stats) -> Result<()> {
    let found = stats.violations();
    ensure(found.is_empty(), || format!("conservation law broken: {}", found.join("; ")))
}

/// Second law, when nothing flows: what was put into rings was taken out.
///
/// # Errors
/// With both counts.
pub fn rings_are_empty(stats: &Stats) -> Result<()> {
    ensure(stats.sum.to_ring == stats.sum.from_ring, || {
        format!("{} packets were put into rings, {} taken out", stats.sum.to_ring, stats.sum.from_ring)
    })
}

/// What port and slots counted, once they agree.
#[derive(Debug, Clone, Copy)]
pub struct Agreed {
    /// Frames the kernel gave to the port = Σ rx of the slots.
    pub received: u64,
    /// Frames the port gave to the kernel = Σ tx of the slots.
    pub sent: u64,
}

/// Third law: after the traffic has ended, the slots' rx and tx equal the counters of the tap's
/// kernel end, both since the last start of lb-primary. `before` are the slots' counters at that
/// start (they outlive it), `None` when they began at 0.
///
/// # Errors
/// With both sides, when they do not come to agree.
pub fn kernel_agrees(rig: &Rig, lbctl: &Lbctl, before: Option<&Stats>) -> Result<Agreed> {
    let (rx0, tx0) = before.map_or((0, 0), |s| (s.sum.rx, s.sum.tx));
    wait::until_ok("agreement of port and slots", Duration::from_secs(5), Duration::from_millis(100), || {
        let first = rig.tap_counters()?;
        let stats = lbctl.stats()?;
        let second = rig.tap_counters()?;
        let quiet = first.rx.packets == second.rx.packets && first.tx.packets == second.tx.packets;
        let (received, sent) = (stats.sum.rx - rx0, stats.sum.tx - tx0);
        ensure(quiet && received == first.tx.packets && sent == first.rx.packets, || {
            format!(
                "slots rx {received} tx {sent}, kernel end gave {} took {} (still moving: {})",
                first.tx.packets, first.rx.packets, !quiet
            )
        })?;
        Ok(Agreed { received, sent })
    })
}

/// Share of each zone in the packets of all, in percent.
#[must_use]
pub fn zone_percent(stats: &Stats) -> Vec<(u32, f64)> {
    let zones = stats.packets_by_zone();
    let total: u64 = zones.values().sum();
    zones.into_iter().map(|(zone, count)| (zone, 100.0 * count as f64 / total.max(1) as f64)).collect()
}

/// Fails with a timeout of its own words unless `probe` comes true within `limit`.
///
/// # Errors
/// As said, with the last reason.
pub fn eventually(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<()>) -> Result<()> {
    wait::until_ok(what, limit, Duration::from_millis(50), &mut probe)
}

/// The count of one drop reason.
///
/// # Errors
/// When no such reason is listed.
pub fn dropped(stats: &Stats, reason: &str) -> Result<u64> {
    stats
        .sum
        .drops
        .get(reason)
        .copied()
        .ok_or_else(|| Error::claim(format!("no drop reason {reason} in {:?}", stats.sum.drops.keys())))
}

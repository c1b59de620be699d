//! Packets go through: real traffic, exact counters, hostile frames.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tests::conf::{APPLIANCE, VIP};
use tests::error::ensure;
use tests::load::{LoadReport, TalkReport};
use tests::netns::run;
use tests::{Error, Result, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(60);

/// New connections and datagrams through both workers: all answered, evenly shared, the servers
/// see local addresses, and the kernel counts what the slots count.
pub fn tcp_and_udp(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let (web, dns) = (format!("{VIP}:80"), format!("{VIP}:53"));
    let http: LoadReport = rig.load("http-load", &["--target", &web, "--requests", "3000"])?.report(LIMIT)?;
    claims::all_answered("http", &http)?;
    claims::equal_shares("http", &http, 3, 1.0)?;
    let udp: LoadReport =
        rig.load("udp-load", &["--target", &dns, "--queries", "6000", "--sockets", "1500"])?.report(LIMIT)?;
    claims::all_answered("udp", &udp)?;
    claims::equal_shares("udp", &udp, 3, 1.0)?;

    let seen = run(rig.client.command("curl").args(["-sS", &format!("http://{web}/whoami")]))?;
    let text = String::from_utf8_lossy(&seen.stdout).trim().to_string();
    let address = text.split(':').next().and_then(|a| a.parse::<Ipv4Addr>().ok());
    let range = Ipv4Addr::new(10, 0, 0, 128)..=Ipv4Addr::new(10, 0, 0, 131);
    ensure(address.is_some_and(|a| range.contains(&a)), || format!("the server saw the client as {text:?}"))?;

    // ARP and echo are answered for the port's address and the VIP.
    for address in [APPLIANCE, VIP] {
        run(rig.client.command("ping").args(["-c", "3", "-i", "0.2", "-W", "2", address]))?;
    }
    let agreed = claims::kernel_agrees(&rig, &lbctl, None)?;
    let stats = lbctl.stats()?;
    claims::law_holds(&stats)?;
    claims::rings_are_empty(&stats)?;
    for (zone, percent) in claims::zone_percent(&stats) {
        ensure((30.0..=70.0).contains(&percent), || format!("zone {zone} has {percent:.1} % of the packets"))?;
    }
    ctx.note(format!("{} frames received, {} sent, counted alike by kernel and slots", agreed.received, agreed.sent));
    ctx.note(format!("http {:.0}/s p50 {} µs p99 {} µs", http.ok as f64 / http.seconds, http.p50_us, http.p99_us));
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// A thousand answers of `stats show` under load: the law holds in each, per slot and in sum.
pub fn law_under_load(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let http = rig.load("http-load", &["--target", &format!("{VIP}:80"), "--concurrency", "8"])?;
    let udp = rig.load("udp-load", &["--target", &format!("{VIP}:53"), "--threads", "4"])?;
    let first = lbctl.stats()?;
    for sample in 0..1000 {
        claims::law_holds(&lbctl.stats()?).map_err(|e| Error::claim(format!("sample {sample}: {e}")))?;
    }
    let last = lbctl.stats()?;
    let (http, udp): (LoadReport, LoadReport) = (http.finish(LIMIT)?, udp.finish(LIMIT)?);
    claims::all_answered("http", &http)?;
    claims::all_answered("udp", &udp)?;
    let moved = last.sum.rx - first.sum.rx;
    ensure(moved > 10_000, || format!("only {moved} packets came during the samples: that is no load"))?;
    ctx.note(format!("1,000 samples over {moved} packets; {} http, {} udp answered", http.ok, udp.ok));
    Ok(())
}

/// After 3 s of silence the tap no longer knows which queue a flow belongs to: what the server
/// then says first arrives anywhere and must reach its session through the ring.
pub fn server_speaks_first(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.appliance.conf.slots = 4;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let talk = format!("{VIP}:9000");
    let arguments = ["client", "--target", &talk, "--connections", "64", "--quiet-ms", "5000"];
    let load = rig.load("tcp-talk", &arguments)?;
    std::thread::sleep(Duration::from_secs(2));
    let before = lbctl.stats()?;
    std::thread::sleep(Duration::from_secs(4));
    let report: TalkReport = load.finish(LIMIT)?;
    ensure(report.opened == 64 && report.broken.is_empty() && report.spoke_first >= 64, || {
        format!("not every server's word arrived: {report:?}")
    })?;
    let stats = lbctl.stats()?;
    let redirected = stats.sum.to_ring - before.sum.to_ring;
    ensure(redirected > 0, || "64 idle connections on 4 slots, and nothing was redirected".into())?;
    claims::law_holds(&stats)?;
    claims::eventually("empty rings", Duration::from_secs(3), || claims::rings_are_empty(&lbctl.stats()?))?;
    ctx.note(format!("{redirected} packets went through rings; slowest word {} ms late", report.max_gap_ms));
    Ok(())
}

/// Frames no honest peer sends: each is dropped by a reason, none makes a session or an answer to
/// a server, and traffic goes on.
pub fn malformed_packets(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    // The client learns the port's MAC.
    run(rig.client.command("ping").args(["-c", "1", "-W", "2", VIP]))?;
    let ports = lbctl.ports()?;
    let mac = &ports.first().ok_or_else(|| Error::claim("port list is empty"))?.mac;
    let (before, sessions) = (lbctl.stats()?, lbctl.session_count()?);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scapy/malformed.py");
    let told = run(rig.client.command("/usr/bin/python3").arg(script).args(["eth0", mac, VIP, "80", "53"]))?;
    let sent: u64 = String::from_utf8_lossy(&told.stdout)
        .trim()
        .parse()
        .map_err(|_| Error::claim("the frame sender did not say how many it sent"))?;
    claims::eventually("all frames", Duration::from_secs(5), || {
        let stats = lbctl.stats()?;
        let more = stats.sum.drops.values().sum::<u64>() - before.sum.drops.values().sum::<u64>();
        ensure(more >= sent, || format!("{more} of {sent} frames are counted as dropped: {:?}", stats.sum.drops))
    })?;
    let (after, count) = (lbctl.stats()?, lbctl.session_count()?);
    claims::law_holds(&after)?;
    ensure(count.created_total == sessions.created_total, || {
        format!("malformed frames made {} sessions", count.created_total - sessions.created_total)
    })?;
    let reasons: Vec<String> = after
        .sum
        .drops
        .iter()
        .map(|(reason, n)| (reason, n - before.sum.drops.get(reason).copied().unwrap_or(0)))
        .filter(|(_, n)| *n > 0)
        .map(|(reason, n)| format!("{reason} {n}"))
        .collect();
    ensure(reasons.len() >= 5, || format!("{sent} kinds of wrong under so few reasons: {reasons:?}"))?;
    ctx.note(format!("{sent} frames dropped as: {}", reasons.join(", ")));
    rig.appliance.expect_alive()?;
    let web = format!("{VIP}:80");
    let http: LoadReport = rig.load("http-load", &["--target", &web, "--requests", "300"])?.report(LIMIT)?;
    claims::all_answered("http afterwards", &http)
}

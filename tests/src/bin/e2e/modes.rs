//! Forwarding modes with real kernels at both ends: long transfers both ways, byte for byte, many short connections.

use std::path::Path;
use std::time::Duration;

use tests::conf::{APPLIANCE, VIP};
use tests::daemon::Daemon;
use tests::error::ensure;
use tests::load::LoadReport;
use tests::netns::run;
use tests::servers::{DNS_PORT, HTTP_PORT, ServerHost};
use tests::{Error, Result, Rig, claims};

use crate::Ctx;
use crate::random::Random;

/// Length of a transfer, bytes.
const LONG: usize = 100 << 20;
const LIMIT: Duration = Duration::from_secs(60);

/// The usual one: nothing is asked of servers.
pub fn fullnat(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    transfers(ctx, &rig, &format!("{VIP}:80"), &format!("{VIP}:53"))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// Servers have the VIP themselves, answer nobody's ARP for it, and reply past the appliance.
pub fn dr(ctx: &mut Ctx) -> Result<()> {
    let mut rig = with_vip_at_servers(ctx, "dr")?;
    rig.appliance.conf.laddrs.clear();
    past_us(ctx, &mut rig)?;
    rig.appliance.stop()
}

/// The same over a tunnel, whose far ends are small programs. The client's full segments do not fit into it: an upload gets
/// on only because the client is told so.
pub fn tunnel(ctx: &mut Ctx) -> Result<()> {
    let mut rig = with_vip_at_servers(ctx, "tunnel")?;
    let mut ends = tunnel_ends(&rig)?;
    past_us(ctx, &mut rig)?;
    ends.iter_mut().try_for_each(Daemon::expect_alive)?;
    rig.appliance.stop()
}

/// Starts the far ends of tunnels: what is in packets of either family comes out at the servers.
pub fn tunnel_ends(rig: &Rig) -> Result<Vec<Daemon>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scapy/ipip_server.py");
    let start = |host: &ServerHost| {
        host.ns.sysctl(&["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"])?;
        let mut end = host.ns.command("/usr/bin/python3");
        end.arg(&script).arg("lbtun0");
        Daemon::spawn(&format!("ipip-{}", host.name), &rig.folder, end, false)
    };
    rig.servers.iter().map(start).collect()
}

/// Services at the servers' own ports, whose address the servers have, too.
fn with_vip_at_servers(ctx: &mut Ctx, mode: &'static str) -> Result<Rig> {
    let mut rig = ctx.bare_rig()?;
    rig.add_service("web", "tcp", HTTP_PORT, HTTP_PORT);
    rig.add_service("dns", "udp", DNS_PORT, DNS_PORT);
    rig.appliance.conf.services.iter_mut().for_each(|service| service.mode = mode);
    let folder = rig.folder.clone();
    for host in &mut rig.servers {
        host.ns.sysctl(&["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"])?;
        host.ns.ip(&[&format!("addr add {VIP}/32 dev lo")])?;
        host.start_dns_at(&folder, VIP)?;
    }
    Ok(rig)
}

fn past_us(ctx: &Ctx, rig: &mut Rig) -> Result<()> {
    rig.start()?;
    let before = rig.lbctl()?.stats()?.sum;
    transfers(ctx, rig, &format!("{VIP}:{HTTP_PORT}"), &format!("{VIP}:{DNS_PORT}"))?;
    let after = rig.lbctl()?.stats()?.sum;
    // 100 MiB came down in full segments, past us; what came by are acknowledgements, and 100 MiB up.
    let (came, full) = (after.rx - before.rx, (LONG / 1448) as u64);
    ensure(came > full && came < 2 * full + full / 2, || format!("{came} packets came by: the servers' replies too?"))?;
    rig.appliance.expect_alive()
}

/// Servers see the client's address and answer by way of the appliance.
pub fn nat(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.appliance.conf.laddrs.clear();
    rig.appliance.conf.services.iter_mut().for_each(|service| service.mode = "nat");
    for host in &rig.servers {
        host.ns.ip(&[&format!("route add {}/32 via {APPLIANCE} dev eth0", tests::rig::CLIENT)])?;
    }
    rig.start()?;
    let seen = run(rig.client.command("curl").args(["-sS", &format!("http://{VIP}/whoami")]))?;
    let seen = String::from_utf8_lossy(&seen.stdout).trim().to_string();
    ensure(seen.starts_with(&format!("{}:", tests::rig::CLIENT)), || format!("the server saw the client as {seen:?}"))?;
    transfers(ctx, &rig, &format!("{VIP}:80"), &format!("{VIP}:53"))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// A download and an upload of [`LONG`], a thousand short connections, a thousand datagrams; the law throughout.
pub fn transfers(ctx: &Ctx, rig: &Rig, web: &str, dns: &str) -> Result<()> {
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).map_err(Error::file("write", path));
    let read = |path: &Path| std::fs::read(path).map_err(Error::file("read", path));
    let homes: Vec<_> = rig.servers.iter().map(|host| rig.folder.join(format!("nginx-{}/files", host.name))).collect();
    let mut random = Random::new(ctx);
    let words = (0..LONG / 8).flat_map(|_| random.next().to_le_bytes());
    let sent: Vec<u8> = words.collect();
    for home in &homes {
        write(&home.join("long"), &sent)?;
    }
    let (down, up) = (rig.folder.join("down"), rig.folder.join("up"));
    // Of an earlier round.
    homes.iter().for_each(|home| drop(std::fs::remove_file(home.join("up"))));
    let begin = std::time::Instant::now();
    run(rig
        .client
        .command("curl")
        .args(["-gsS", "--max-time", "60", &format!("http://{web}/files/long"), "-o"])
        .arg(&down))?;
    let downloaded = begin.elapsed();
    ensure(read(&down)? == sent, || "what was downloaded differs".into())?;
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    write(&up, &sent)?;
    let begin = std::time::Instant::now();
    run(rig
        .client
        .command("curl")
        .args(["-gsSf", "--max-time", "60", &format!("http://{web}/files/up"), "-T"])
        .arg(&up))?;
    let uploaded = begin.elapsed();
    let there: Vec<_> = homes.iter().map(|home| home.join("up")).filter(|path| path.is_file()).collect();
    ensure(there.len() == 1, || format!("the upload is at {} servers", there.len()))?;
    ensure(read(&there[0])? == sent, || "what was uploaded differs".into())?;
    let http: LoadReport = rig.load("http-load", &["--target", web, "--requests", "1000"])?.report(LIMIT)?;
    claims::all_answered("http", &http)?;
    let udp: LoadReport = rig.load("udp-load", &["--target", dns, "--queries", "1000"])?.report(LIMIT)?;
    claims::all_answered("udp", &udp)?;
    let rate = |time: Duration| LONG as f64 / time.as_secs_f64() / (1 << 20) as f64;
    ctx.note(format!("100 MiB down at {:.0} MiB/s, up at {:.0} MiB/s", rate(downloaded), rate(uploaded)));
    claims::law_holds(&rig.lbctl()?.stats()?)
}

//! The rig without an appliance: what it cannot do itself it cannot test.

use std::process::Command;
use std::time::Duration;

use tests::error::ensure;
use tests::load::{LoadReport, TalkReport};
use tests::netns::run;
use tests::servers::{DNS_PORT, HTTP_PORT, TALK_PORT};
use tests::{Result, claims};

use crate::Ctx;

/// Client and servers reach each other, and the load programs count rightly.
pub fn direct_traffic(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.bare_rig()?;
    let limit = Duration::from_secs(30);
    let (http, dns, talk) = {
        let s1 = &rig.servers[0];
        (s1.at(HTTP_PORT), s1.at(DNS_PORT), s1.at(TALK_PORT))
    };
    let report: LoadReport = rig.load("http-load", &["--target", &http, "--requests", "2000"])?.report(limit)?;
    claims::all_answered("http", &report)?;
    ctx.note(format!("http {:.0}/s p50 {} µs", report.ok as f64 / report.seconds, report.p50_us));
    let report: LoadReport =
        rig.load("udp-load", &["--target", &dns, "--queries", "5000", "--sockets", "500"])?.report(limit)?;
    claims::all_answered("udp", &report)?;
    ctx.note(format!("udp {:.0}/s p50 {} µs", report.ok as f64 / report.seconds, report.p50_us));

    let load = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "50"])?;
    std::thread::sleep(Duration::from_secs(1));
    let report: TalkReport = load.finish(limit)?;
    ensure(report.opened == 50 && report.broken.is_empty() && report.rounds > 500, || format!("talk: {report:?}"))?;

    // A stopped server is seen as such: the load program does not count what did not happen.
    rig.servers[0].stop_nginx()?;
    let report: LoadReport = rig.load("http-load", &["--target", &http, "--requests", "20"])?.report(limit)?;
    ensure(report.ok == 0 && report.errors.get("connect refused") == Some(&20), || {
        format!("nginx is stopped, yet: {report:?}")
    })
}

/// The kernel end of a tap goes to the bridge with another MAC, also a second time.
pub fn tap_is_plumbed(ctx: &mut Ctx) -> Result<()> {
    let rig = ctx.bare_rig()?;
    let tap = rig.tap();
    for _ in 0..2 {
        rig.app.ip(&[&format!("tuntap add {tap} mode tap")])?;
        rig.plumb()?;
        let shown = run(rig.bridge.command("ip").args(["link", "show", "dev", &tap]))?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        let right = text.contains("master br0") && text.contains("02:00:00:00:fe:01") && !rig.app.has_link(&tap);
        ensure(right, || text)?;
        let counters = rig.tap_counters()?;
        ensure(counters.rx.packets == 0, || format!("{counters:?}"))?;
        // The holder's end closes it: it is gone wherever it lies.
        rig.bridge.ip(&[&format!("tuntap del {tap} mode tap")])?;
    }
    Ok(())
}

/// After a rig's end, orderly or by SIGKILL, no namespace, process, mount or file of it is left.
pub fn nothing_is_left(ctx: &mut Ctx) -> Result<()> {
    let rig = ctx.bare_rig()?;
    // A mount as the appliance makes it, and files in shared memory.
    let mount = rig.folder.join("run/huge");
    let tag = rig.appliance.conf.name.clone();
    std::fs::create_dir_all(&mount).map_err(tests::Error::file("create", &mount))?;
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&mount))?;
    let shared = std::path::PathBuf::from(format!("/dev/shm/{tag}-board"));
    std::fs::write(&shared, "x").map_err(tests::Error::file("write", &shared))?;
    let folder = rig.folder.clone();
    drop(rig);
    left(&tag, &folder)?;

    // The same, ended by SIGKILL in the middle of a test.
    let me = std::env::current_exe().map_err(tests::Error::file("find", "/proc/self/exe"))?;
    let mut child = Command::new(me)
        .args(["--one", "rig::direct_traffic"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .map_err(|source| tests::Error::Spawn { program: "e2e".into(), source })?;
    let tag = format!("lb{}-", child.id());
    let folder = std::path::PathBuf::from(format!("/run/containerlb-rig/{}-r1", child.id()));
    let limit = Duration::from_secs(10);
    claims::eventually("namespaces of the child", limit, || {
        let list = run(Command::new("ip").args(["netns", "list"]))?;
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        ensure(text.matches(&tag).count() >= 6, || "they are not all there".into())
    })?;
    let _ = child.kill();
    let _ = child.wait();
    claims::eventually("the janitor's work", limit, || left(&tag, &folder))
}

/// Fails if anything whose name holds `tag`, or `folder`, is still there.
fn left(tag: &str, folder: &std::path::Path) -> Result<()> {
    let list = run(Command::new("ip").args(["netns", "list"]))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let shared = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let mut found = Vec::new();
    if String::from_utf8_lossy(&list.stdout).contains(tag) {
        found.push("namespaces");
    }
    if mounts.contains(&*folder.to_string_lossy()) {
        found.push("mounts");
    }
    if shared.into_iter().any(|e| e.file_name().to_string_lossy().contains(tag)) {
        found.push("shared memory");
    }
    if folder.exists() {
        found.push("files");
    }
    let processes = run(Command::new("pgrep").args(["-c", "-f", &*folder.to_string_lossy()]));
    if processes.is_ok() {
        found.push("processes");
    }
    ensure(found.is_empty(), || format!("left behind by {tag}: {found:?}"))
}

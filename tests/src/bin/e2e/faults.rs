//! Processes that die, and processes that must not start.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::conf::VIP;
use tests::daemon::Daemon;
use tests::error::ensure;
use tests::load::{LoadReport, TalkReport};
use tests::netns::run;
use tests::servers::HTTP_PORT;
use tests::{Error, Result, Rig, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(60);

/// Killing control loses no packet, no session and no change; it comes back each time.
pub fn control_killed(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let drained = rig.servers[2].at(HTTP_PORT);
    lbctl.ok(&["rs", "drain", "web", &drained])?;
    let (web, talk) = (format!("{VIP}:80"), format!("{VIP}:9000"));
    let talkers = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "40"])?;
    let http = rig.load("http-load", &["--target", &web, "--concurrency", "8", "--rate", "400"])?;
    for round in 0..5 {
        let pid = rig.appliance.control_pid()?;
        let raw = i32::try_from(pid).map_err(|_| Error::claim("a process id beyond i32"))?;
        kill(Pid::from_raw(raw), Signal::SIGKILL).map_err(|e| Error::claim(format!("kill {pid}: {e}")))?;
        claims::eventually("control's return", Duration::from_secs(10), || {
            let now = rig.appliance.control_pid()?;
            ensure(now != pid, || "the killed one is still there".into())?;
            lbctl.services().map(drop)
        })
        .map_err(|e| Error::claim(format!("after kill {round}: {e}")))?;
        sleep(Duration::from_millis(300));
    }
    let http: LoadReport = http.finish(LIMIT)?;
    let talk: TalkReport = talkers.finish(LIMIT)?;
    claims::all_answered("http", &http)?;
    ensure(talk.opened == 40 && talk.broken.is_empty(), || format!("connections broke: {talk:?}"))?;
    let rs = lbctl.real_server("web", &drained)?;
    ensure(rs.admin == "drain", || format!("a change was lost with control: {rs:?}"))?;
    rig.appliance.expect_alive()?;
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.stop()
}

/// A second primary of the same name is refused before it touches anything (DPDK would destroy
/// the first one's memory while "failing").
pub fn second_primary_refused(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let first = rig.appliance.primary.as_ref().map_or(0, Daemon::pid).to_string();
    refused(&rig, "lb-primary", &[], &first)?;
    still_serving(&mut rig)
}

/// A second worker of a zone takes nothing: its slots' owner lives and is named.
pub fn second_worker_refused(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let first = rig.appliance.workers.get("0a").map_or(0, Daemon::pid).to_string();
    refused(&rig, "lb-worker", &["--zone", "0"], &first)?;
    still_serving(&mut rig)
}

/// A program that must end with status 1 and name the process in its way.
fn refused(rig: &Rig, program: &str, arguments: &[&str], owner: &str) -> Result<()> {
    let mut second = Daemon::spawn("second", &rig.folder, rig.appliance.command(program, arguments)?, true)?;
    let status = second.wait_end(Duration::from_secs(15))?;
    let told = second.log_text();
    ensure(status.code() == Some(1), || format!("the second {program} ended with {status}:\n{told}"))?;
    ensure(told.contains(owner), || format!("the refusal does not name process {owner}:\n{told}"))
}

fn still_serving(rig: &mut Rig) -> Result<()> {
    let web = format!("{VIP}:80");
    let http: LoadReport = rig.load("http-load", &["--target", &web, "--requests", "500"])?.report(LIMIT)?;
    claims::all_answered("http afterwards", &http)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// Tables of another layout version, as an older or newer build would have left: refused before
/// one byte is used, with both versions named; the untouched ones are served again.
pub fn foreign_layout_refused(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    if let Some(mut worker) = rig.appliance.workers.remove("0a") {
        worker.stop(Duration::from_secs(10))?;
    }
    let tables = rig.appliance.conf.run_dir.join("huge/tables");
    let files = slot_files(&tables)?;
    let wrong = 0x7777_u32;
    let old: Vec<u32> = files.iter().map(|f| swap_version(f, wrong)).collect::<Result<_>>()?;
    let mut refused =
        Daemon::spawn("foreign", &rig.folder, rig.appliance.command("lb-worker", &["--zone", "0"])?, true)?;
    let status = refused.wait_end(Duration::from_secs(15))?;
    let told = refused.log_text();
    ensure(!status.success(), || format!("a worker served tables of layout {wrong}"))?;
    let version = |layout: u32| format!("{}.{}", layout >> 16, layout & 0xffff);
    ensure(told.contains(&version(wrong)) && told.contains(&version(old[0])), || {
        format!("the refusal does not name layouts {} and {}:\n{told}", version(wrong), version(old[0]))
    })?;
    for (file, version) in files.iter().zip(&old) {
        swap_version(file, *version)?;
    }
    rig.appliance.start_worker(0, 'a', &[])?;
    still_serving(&mut rig)
}

fn slot_files(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::file("list", folder))?;
    let mut files: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|f| f.file_name().is_some_and(|n| n.to_string_lossy().contains("slot")));
    ensure(!files.is_empty(), || format!("no slot files in {}", folder.display()))?;
    Ok(files)
}

/// Writes the layout version (the u32 after the 8 bytes of magic) of a segment and gives the old
/// one. hugetlbfs knows no write(2), and mapping is unsafe here: Python does it.
fn swap_version(file: &std::path::Path, version: u32) -> Result<u32> {
    let script = "import mmap,struct,sys\n\
        with open(sys.argv[1],'r+b') as f:\n \
        m=mmap.mmap(f.fileno(),2<<20)\n print(struct.unpack_from('<I',m,8)[0])\n \
        struct.pack_into('<I',m,8,int(sys.argv[2]))\n";
    let output = run(Command::new("/usr/bin/python3").args(["-c", script]).arg(file).arg(version.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
    text.parse().map_err(|_| Error::claim(format!("{} has no version: {text}", file.display())))
}

//! A worker killed after every single store of every operation, with real traffic and a real successor.
//!
//! One appliance, started once. For each failpoint a worker built to die (`target/failpoints/lb-worker`, `LB_DIE_AT=create:3@2`)
//! takes zone 0 over from the usual one, which stands by; traffic drives it to its death; the usual one has the slots
//! back, finishes what was half made, and the tables are counted anew. Stores are tried from the first on until none is
//! left: the worker says so, as the number differs by what an operation finds.

use std::collections::BTreeMap;

use std::process::Command;
use std::time::{Duration, Instant};

use tests::conf::VIP;
use tests::daemon::Daemon;
use tests::error::ensure;
use tests::janitor::beside_me;
use tests::load::{LoadReport, TalkReport};
use tests::{Error, Result, Rig, claims};

use crate::Ctx;

/// Its name among the appliance's programs.
const DOOMED: &str = "doomed-worker";
const LIMIT: Duration = Duration::from_secs(60);
/// The old worker takes its slots back while the new one is on trial, 3 s.
const TRIAL: Duration = Duration::from_millis(2500);
/// Operations, the number of the first of each that counts (tables should not be empty, and the first ones of some are
/// those of the start), and every how manyth store is tried: the copies of a flip and of a frame are alike.
const OPERATIONS: &[(&str, u32, usize)] = &[
    ("create", 3, 1),
    ("close", 2, 1),
    ("free", 2, 1),
    ("relink", 2, 1),
    ("tick", 3, 1),
    ("port", 3, 1),
    ("flip", 50, 9),
    ("push", 1, 1),
    ("pop", 1, 1),
    ("own", 1, 1),
    ("recover", 1, 1),
];
/// Stores of an operation at most, lest a test that finds no end runs for ever.
const MOST: usize = 200;

/// What became of a worker that was to die.
#[derive(Debug, PartialEq)]
enum End {
    /// Killed by itself.
    Died,
    /// No operation of the kind has so many stores.
    NoSuchStore,
    /// The operation did not come.
    NotInTime,
}

pub fn every_store(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.appliance.instead.insert(DOOMED.into(), tests::janitor::with_failpoints("lb-worker")?);
    // Closed connections leave the tables within the test, so that records are given back and used again.
    rig.appliance.conf.service("web").extra.push("timeouts = { time_wait = \"1s\", close = \"1s\" }".into());
    // And those that stay are visited often.
    rig.appliance.conf.service("talk").extra.push("timeouts = { established = \"6s\" }".into());
    // The one that is shipped makes successors wait after three that died.
    rig.appliance.instead.insert("lb-primary".into(), tests::janitor::with_failpoints("lb-primary")?);
    rig.start()?;
    let (web, talk) = (format!("{VIP}:80"), format!("{VIP}:9000"));
    let patient = ["client", "--target", &talk, "--connections", "40", "--period-ms", "50", "--timeout-ms", "30000"];
    let talkers = rig.load("tcp-talk", &patient)?;
    // Silent for 4 s, then the server speaks: the kernel has forgotten its queue, and a ring brings it home.
    let quiet = ["client", "--target", &talk, "--connections", "60", "--quiet-ms", "4000", "--timeout-ms", "30000"];
    let redirected = rig.load("tcp-talk", &quiet)?;
    let http = rig.load("http-load", &["--target", &web, "--concurrency", "16", "--rate", "200"])?;
    std::thread::sleep(Duration::from_secs(3));
    let start = Instant::now();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut slow = 0;
    for &(operation, first, step) in OPERATIONS {
        for store in (1..=MOST).step_by(step) {
            let end = die_at(&mut rig, &format!("{operation}:{store}@{first}"))?;
            checked(&rig).map_err(|e| Error::claim(format!("{operation}:{store} ({end:?}): {e}")))?;
            match end {
                End::Died => *counts.entry(operation).or_default() += 1,
                End::NoSuchStore => break,
                // Rare ones (a visit of the wheel, a ring) may stay away; a store that never comes is the end.
                End::NotInTime if slow < 4 => slow += 1,
                End::NotInTime => break,
            }
        }
        slow = 0;
        ensure(counts.contains_key(operation), || format!("no worker died in {operation}: is it built to die?"))?;
    }
    let time = start.elapsed();
    let http: LoadReport = http.finish(LIMIT)?;
    let talk: TalkReport = talkers.finish(LIMIT)?;
    let redirected: TalkReport = redirected.finish(LIMIT)?;
    for report in [&talk, &redirected] {
        ensure(report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    }
    ensure(http.ok > 0, || format!("nothing was served meanwhile: {http:?}"))?;
    claims::eventually("a sound end", Duration::from_secs(10), || checked(&rig))?;
    let deaths: usize = counts.values().sum();
    ctx.note(format!(
        "{deaths} failpoints in {:.1} s, a successor each: {counts:?}; {} connections unharmed through all of it",
        time.as_secs_f64(),
        talk.opened + redirected.opened
    ));
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// Nothing of the failpoints is in what is shipped.
pub fn not_shipped(_: &mut Ctx) -> Result<()> {
    let shipped = ["lb-worker", "lb-primary", "lbctl"].map(beside_me);
    for (path, expected) in
        shipped.into_iter().map(|path| (path, false)).chain([(tests::janitor::with_failpoints("lb-worker"), true)])
    {
        let path = path?;
        let bytes = std::fs::read(&path).map_err(Error::file("read", &path))?;
        let found = bytes.windows(9).any(|window| window == b"LB_DIE_AT");
        ensure(found == expected, || format!("{} knows LB_DIE_AT: {found}", path.display()))?;
    }
    Ok(())
}

/// One worker that is to die, from its start to the return of the one it relieved. To die in recovery, it follows one that
/// was killed; then a fresh one follows it.
fn die_at(rig: &mut Rig, order: &str) -> Result<End> {
    let orphaned = order.starts_with("recover");
    if orphaned && let Some(mut worker) = rig.appliance.workers.remove("0a") {
        worker.kill()?;
    }
    let arguments: &[&str] = if orphaned { &["--zone", "0"] } else { &["--zone", "0", "--take-over"] };
    let mut command: Command = rig.appliance.command(DOOMED, arguments)?;
    command.env("LB_DIE_AT", order);
    // All the doomed have one log.
    let told = std::fs::read(rig.folder.join("doomed.log")).map_or(0, |bytes| bytes.len());
    let mut doomed = Daemon::spawn("doomed", &rig.folder, command, true)?;
    let start = Instant::now();
    let mut ready = None;
    let end = loop {
        if let Some(status) = doomed.ended()? {
            use std::os::unix::process::ExitStatusExt;
            ensure(status.signal() == Some(9), || format!("{order}: ended with {status}:\n{}", doomed.log_tail(15)))?;
            break End::Died;
        }
        if doomed.log_text().get(told..).is_some_and(|text| text.contains("LB_DIE_AT not reached")) {
            break End::NoSuchStore;
        }
        if ready.is_none() && doomed.notified().ready {
            ready = Some(Instant::now());
        }
        if ready.is_some_and(|at| at.elapsed() > TRIAL) || start.elapsed() > LIMIT {
            break End::NotInTime;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    doomed.kill()?;
    if orphaned {
        rig.appliance.start_worker(0, 'a', &[])?;
    }
    let usual = rig.appliance.workers.get("0a").map_or(0, Daemon::pid);
    let lbctl = rig.lbctl()?;
    claims::eventually("the usual worker's return", Duration::from_secs(10), || {
        let shown = lbctl.workers()?;
        let serves = shown.iter().any(|w| w.pid == usual && w.state == "serving" && !w.slots.is_empty());
        ensure(serves, || format!("{order}: process {usual} does not serve: {shown:?}"))
    })?;
    Ok(end)
}

/// Every law of the tables, and the conservation law.
fn checked(rig: &Rig) -> Result<()> {
    let lbctl = rig.lbctl()?;
    lbctl.ok(&["tables", "check"])?;
    claims::law_holds(&lbctl.stats()?)
}

//! The admin socket among hostile clients (issue: predecessor's B6, B7): who is honest is served, and no packet waits.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::conf::VIP;
use tests::error::ensure;
use tests::janitor::beside_me;
use tests::load::{LoadReport, StormReport};
use tests::{Error, Result, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(60);
/// A user who is in the daemon's group: may read.
const READER: [&str; 5] = ["--reuid", "65534", "--regid", "0", "--clear-groups"];
/// Length of the storm, seconds.
const STORM: &str = "12";
/// What honest clients may wait, 99 of 100.
const P99: Duration = Duration::from_millis(100);

/// Silent clients, slow readers, lines without end, a thousand connections at once and nonsense: meanwhile root
/// is served within 100 ms, `lbctl` works, control does not grow, every HTTP request is answered.
pub fn hostile_clients(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let socket = rig.appliance.conf.run_dir.join("control.sock");
    let http = rig.load("http-load", &["--target", &format!("{VIP}:80"), "--concurrency", "4", "--rate", "200"])?;
    // What control needs for the longest honest answers, once.
    for method in ["service.list", "config.export", "laddr.list", "config.history", "stats.show"] {
        ask(&socket, method)?;
    }
    sleep(Duration::from_secs(1));
    let generation = lbctl.json::<Vec<Value>>(&["config", "history"])?.len();
    let control = rig.appliance.control_pid()?;
    let before = resident_kib(control)?;
    let mut quiet = times(&socket, Duration::from_secs(2))?;

    let seed = std::process::id().to_string();
    let path = socket.display().to_string();
    let mut command = Command::new("setpriv");
    command.args(READER).arg(beside_me("admin-storm")?);
    command.args(["--socket", &path, "--seconds", STORM, "--seed", &seed]);
    let storm = tests::load::Load::spawn(command)?;
    sleep(Duration::from_millis(500));
    let mut stormy = times(&socket, Duration::from_secs(8))?;
    let peak = resident_kib(control)?;
    for _ in 0..5 {
        lbctl.ok(&["service", "list"])?;
    }
    let storm: StormReport = storm.report(LIMIT)?;
    let http: LoadReport = http.finish(LIMIT)?;

    claims::all_answered("http", &http)?;
    ensure(storm.wrong.is_empty(), || format!("answers that are none (seed {seed}): {:?}", storm.wrong))?;
    let every = storm.silent > 64 && storm.cut > 0 && storm.crowd >= 1000 && storm.endless_bytes > 8 << 20;
    ensure(every && storm.unread > 0 && storm.fuzzed > 200 && storm.refused > 50, || {
        format!("the storm was none: {storm:?}")
    })?;
    ensure(rig.appliance.control_pid()? == control, || "control died in the storm".into())?;
    let (calm, p99) = (percentile(&mut quiet, 99), percentile(&mut stormy, 99));
    ensure(p99 <= P99, || format!("honest p99 is {p99:?} in the storm, {calm:?} before; {storm:?}"))?;
    sleep(Duration::from_secs(1));
    let after = resident_kib(control)?;
    let grown = peak.max(after).saturating_sub(before);
    ensure(grown <= 4096, || format!("control grew by {grown} KiB: {before}, {peak} in the storm, {after} after"))?;
    let changed = lbctl.json::<Vec<Value>>(&["config", "history"])?.len();
    ensure(changed == generation, || "a reader changed the configuration".into())?;
    rig.appliance.expect_alive()?;
    ctx.note(format!(
        "{} requests of honest clients, p99 {:.1} ms ({:.1} before); {} fuzzed, {} silent cut, {} in crowds, {} MiB without \
         end; control {grown} KiB larger; http longest {} ms",
        stormy.len(),
        p99.as_secs_f64() * 1e3,
        calm.as_secs_f64() * 1e3,
        storm.fuzzed,
        storm.cut,
        storm.crowd,
        storm.endless_bytes >> 20,
        http.max_us / 1000
    ));
    rig.appliance.stop()
}

/// All 64 places held by silent clients, of another user and of root itself: `lbctl` gets in.
pub fn all_places_taken(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start_primary(&[])?;
    let lbctl = rig.lbctl()?;
    let socket = rig.appliance.conf.run_dir.join("control.sock");
    let connect = |_| UnixStream::connect(&socket).map_err(Error::file("connect", &socket));
    for round in 0..3 {
        let held: Vec<UnixStream> = (0..64).map(connect).collect::<Result<_>>()?;
        let begun = Instant::now();
        lbctl.ok(&["service", "list"])?;
        lbctl.ok(&["rs", "drain", "web", &rig.servers[0].at(tests::servers::HTTP_PORT)])?;
        let took = begun.elapsed();
        ensure(took < Duration::from_secs(4), || format!("round {round}: lbctl took {took:?} among silent clients"))?;
        drop(held);
    }
    rig.appliance.stop()
}

/// Who may do what: root everything, members of the group read, others nothing.
pub fn peer_credentials(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start_primary(&[])?;
    let socket = rig.appliance.conf.run_dir.join("control.sock").display().to_string();
    let program = beside_me("lbctl")?;
    let server = rig.servers[0].at(tests::servers::HTTP_PORT);
    // Identity; exit status of a read and of a write.
    let matrix: [(&[&str], i32, i32); 6] = [
        (&["--reuid", "0", "--regid", "0", "--clear-groups"], 0, 0),
        (&["--reuid", "0", "--regid", "65534", "--clear-groups"], 0, 0),
        (&READER, 0, 1),
        (&["--reuid", "1234", "--regid", "1234", "--groups", "0"], 0, 1),
        (&["--reuid", "65534", "--regid", "65534", "--clear-groups"], 3, 3),
        (&["--reuid", "1234", "--regid", "1234", "--clear-groups"], 3, 3),
    ];
    for (identity, read, write) in matrix {
        let run = |arguments: &[&str]| -> Result<(i32, String)> {
            let mut command = Command::new("setpriv");
            command.args(identity).arg(&program).args(["--socket", &socket]).args(arguments);
            let output = command.output().map_err(|source| Error::Spawn { program: "setpriv".into(), source })?;
            Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned()))
        };
        let listed = run(&["service", "list"])?;
        ensure(listed.0 == read, || format!("{identity:?}: a read ended with {}, not {read}: {}", listed.0, listed.1))?;
        for change in [&["rs", "drain", "web", server.as_str()][..], &["config", "confirm"], &["config", "rollback"]] {
            // Root's confirm has nothing to confirm: that is no matter of rights.
            let (code, told) = run(change)?;
            let refused = told.contains("may read, not");
            let fits = if write == 0 { !refused && code != 3 } else { code == write && (refused || write == 3) };
            ensure(fits, || format!("{identity:?}: {change:?} ended with {code}: {told}"))?;
        }
    }
    rig.appliance.stop()
}

/// One request on a connection of its own; the time until the answer is there.
fn ask(socket: &Path, method: &str) -> Result<Duration> {
    let begun = Instant::now();
    let io = |what| Error::file(what, socket);
    let stream = UnixStream::connect(socket).map_err(io("connect"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(io("set up"))?;
    let mut reader = BufReader::new(stream);
    let request = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\"}}\n");
    reader.get_mut().write_all(request.as_bytes()).map_err(io("write"))?;
    let mut reply = String::new();
    reader.read_line(&mut reply).map_err(io("read"))?;
    let value: Value = serde_json::from_str(&reply).map_err(|source| Error::Json {
        what: method.into(),
        source,
        text: reply.clone(),
    })?;
    ensure(value.get("result").is_some(), || format!("{method}: {reply}"))?;
    Ok(begun.elapsed())
}

fn times(socket: &Path, span: Duration) -> Result<Vec<Duration>> {
    let end = Instant::now() + span;
    let mut times = Vec::new();
    while Instant::now() < end {
        for method in ["version", "rs.list", "session.count", "service.list"] {
            times.push(ask(socket, method)?);
            sleep(Duration::from_millis(5));
        }
    }
    Ok(times)
}

fn percentile(times: &mut [Duration], share: usize) -> Duration {
    times.sort_unstable();
    times.get(times.len() * share / 100).copied().unwrap_or_default()
}

fn resident_kib(pid: u32) -> Result<u64> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).ok_or_else(|| Error::claim("no RssAnon"))
}

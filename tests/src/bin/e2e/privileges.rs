//! What the processes may do once they serve, started as root and by hand: nothing that they do not need.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::conf::VIP;
use tests::daemon::Daemon;
use tests::error::ensure;
use tests::load::{LoadReport, TalkReport};
use tests::netns::run;
use tests::{Error, Result, Rig, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(30);
/// Capability bits (capabilities(7)).
const NET_ADMIN: u64 = 1 << 12;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
/// The list of calls of a thread at work, made by somebody else (seccomp(2)).
const FILTERED: &str = "2";

/// The health-checker as root, not as the rig starts it (without privileges from the first).
fn start(rig: &mut Rig) -> Result<()> {
    rig.start()?;
    if let Some(mut checker) = rig.appliance.healthcheck.take() {
        checker.stop(LIMIT)?;
    }
    let command = rig.appliance.command("lb-healthcheck", &[])?;
    let mut checker = Daemon::spawn("healthcheck", &rig.folder, command, true)?;
    checker.wait_ready(LIMIT)?;
    rig.appliance.healthcheck = Some(checker);
    Ok(())
}

fn answered(rig: &Rig) -> Result<()> {
    let web = format!("{VIP}:80");
    let http: LoadReport = rig.load("http-load", &["--target", &web, "--requests", "300"])?.report(LIMIT)?;
    claims::all_answered("http", &http)
}

/// A line of /proc/PID/status or /proc/PID/task/TID/status.
fn field(status: &str, key: &str) -> String {
    let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn mask(status: &str, key: &str) -> u64 {
    u64::from_str_radix(&field(status, key), 16).unwrap_or(u64::MAX)
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let bytes = fs::read(&path).map_err(Error::file("read", path.as_ref()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The status of each thread.
fn threads(pid: u32) -> Result<Vec<String>> {
    let folder = PathBuf::from(format!("/proc/{pid}/task"));
    let entries = fs::read_dir(&folder).map_err(Error::file("list", &folder))?;
    entries.flatten().map(|entry| read(entry.path().join("status"))).collect()
}

/// No capability in any set, none to be had, and a filter, in every thread.
pub fn bare(name: &str, pid: u32) -> Result<()> {
    let all = threads(pid)?;
    ensure(!all.is_empty(), || format!("{name} has no thread"))?;
    for status in all {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let bits = mask(&status, set);
            ensure(bits == 0, || format!("{name}: thread {} has {set} {bits:#x}", field(&status, "Name")))?;
        }
        let (new, seccomp) = (field(&status, "NoNewPrivs"), field(&status, "Seccomp"));
        ensure(new == "1" && seccomp == FILTERED, || {
            format!("{name}: thread {} has NoNewPrivs {new}, Seccomp {seccomp}", field(&status, "Name"))
        })?;
    }
    Ok(())
}

/// No page of hugetlbfs is mapped, no file of it open.
pub fn no_hugepages(name: &str, pid: u32) -> Result<()> {
    let maps = read(format!("/proc/{pid}/smaps"))?;
    let huge = |line: &&str| {
        let of_hugetlbfs = line.contains("/huge/") || line.contains("hugepage");
        of_hugetlbfs || (line.contains("_Hugetlb:") && !line.contains(" 0 kB"))
    };
    let found: Vec<&str> = maps.lines().filter(huge).filter(|l| !l.starts_with("THPeligible")).collect();
    ensure(found.is_empty(), || format!("{name} maps hugepages: {found:?}"))?;
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    for entry in fs::read_dir(&folder).map_err(Error::file("list", &folder))?.flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        ensure(!target.to_string_lossy().contains("/huge/"), || format!("{name} has {} open", target.display()))?;
    }
    Ok(())
}

fn pids(rig: &Rig) -> (u32, Vec<(String, u32)>, u32) {
    let of = |daemon: &Option<Daemon>| daemon.as_ref().map_or(0, Daemon::pid);
    let workers = rig.appliance.workers.iter().map(|(name, d)| (format!("worker {name}"), d.pid())).collect();
    (of(&rig.appliance.primary), workers, of(&rig.appliance.healthcheck))
}

/// Started by root, without a service manager: workers and health-checker end up without any right; holder and control
/// keep what ports and files need; the health-checker sees no hugepage.
pub fn given_up(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    start(&mut rig)?;
    answered(&rig)?;
    let (holder, workers, checker) = pids(&rig);
    for (name, pid) in &workers {
        bare(name, *pid)?;
    }
    bare("health-checker", checker)?;
    no_hugepages("health-checker", checker)?;
    // That the look itself works: a worker does map some.
    ensure(no_hugepages("worker", workers[0].1).is_err(), || "no hugepage is seen in a worker".into())?;
    for (name, pid, none_of) in [
        ("holder", holder, SYS_ADMIN | SYS_PTRACE),
        ("control", rig.appliance.control_pid()?, NET_ADMIN | SYS_ADMIN | SYS_PTRACE),
    ] {
        for status in threads(pid)? {
            // What it could still inherit is of no use to a process that may gain nothing.
            for set in ["CapEff", "CapPrm", "CapAmb"] {
                let bits = mask(&status, set);
                ensure(bits & none_of == 0, || format!("{name} has {set} {bits:#x}"))?;
            }
            ensure(field(&status, "NoNewPrivs") == "1", || format!("{name} may gain privileges"))?;
        }
    }
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// Calls, as code that came by a packet would try them: (name, number, arguments).
const FORBIDDEN: &[(&str, &str, &[&str])] = &[
    ("execve /bin/sh", "59", &["text:/bin/sh", "0", "0"]),
    ("socket AF_INET", "41", &["2", "1", "0"]),
    ("open a file to write", "257", &["-100", "text:/tmp/lb-e2e-forbidden", "0x41", "0x180"]),
    ("mmap code", "9", &["0", "4096", "7", "0x22", "-1", "0"]),
    ("ptrace another process", "101", &["16", "1", "0", "0"]),
];
/// sync(2): harmless, and on no list.
const UNLISTED: (&str, &[&str]) = ("162", &[]);
const ENOSYS: &str = "returned -38";

fn inject(tid: u32, number: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("inject-call.py"));
    command.args([&tid.to_string(), number]).args(arguments);
    let output = run(&mut command)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The thread of a worker that handles packets.
fn packet_thread(pid: u32) -> Result<u32> {
    let folder = PathBuf::from(format!("/proc/{pid}/task"));
    for entry in fs::read_dir(&folder).map_err(Error::file("list", &folder))?.flatten() {
        if read(entry.path().join("comm"))?.starts_with("slots-") {
            return entry.file_name().to_string_lossy().parse().map_err(|_| Error::claim("a thread without number"));
        }
    }
    Err(Error::claim(format!("process {pid} has no thread for slots")))
}

/// A worker that begins to do what only an intruder does is killed by the kernel at that very call, its successor finds the
/// sessions; a call that is merely not on the list is answered with ENOSYS and ends nothing.
pub fn forbidden_calls(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let talk = format!("{VIP}:9000");
    let arguments = ["client", "--target", &talk, "--connections", "30", "--timeout-ms", "20000"];
    let talkers = rig.load("tcp-talk", &arguments)?;
    let pid = rig.appliance.workers.get("0a").map_or(0, Daemon::pid);
    for tid in [pid, packet_thread(pid)?] {
        let told = inject(tid, UNLISTED.0, UNLISTED.1)?;
        ensure(told == ENOSYS, || format!("an unlisted call in thread {tid}: {told}"))?;
    }
    rig.appliance.expect_alive()?;
    for (what, number, arguments) in FORBIDDEN {
        let mut worker = rig.appliance.workers.remove("0a").ok_or_else(|| Error::claim("no worker 0a"))?;
        let told = inject(packet_thread(worker.pid())?, number, arguments)?;
        ensure(told == format!("killed {}", Signal::SIGSYS as i32), || format!("{what}: {told}"))?;
        let status = worker.wait_end(LIMIT)?;
        ensure(std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::SIGSYS as i32), || {
            format!("{what}: the worker ended with {status}")
        })?;
        rig.appliance.start_worker(0, 'a', &[])?;
    }
    ensure(!Path::new("/tmp/lb-e2e-forbidden").exists(), || "a file was made".into())?;
    let report: TalkReport = talkers.finish(LIMIT)?;
    ensure(report.opened == 30 && report.broken.is_empty(), || format!("connections broke: {report:?}"))?;
    answered(&rig)?;
    rig.appliance.stop()
}

/// The keys' file: words of 8 bytes behind the header (`shm-layout`: secrets).
fn keys(file: &Path) -> Result<Vec<[u8; 8]>> {
    let script = "import mmap,sys\nwith open(sys.argv[1],'rb') as f:\n \
        m=mmap.mmap(f.fileno(),2<<20,prot=mmap.PROT_READ)\n print(m[4096:4096+192].hex())\n";
    let output = run(Command::new("/usr/bin/python3").args(["-c", script]).arg(file))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap_or("x"), 16);
    let bytes: Vec<u8> =
        (0..text.len()).step_by(2).map(byte).collect::<std::result::Result<_, _>>().unwrap_or_default();
    let words: Vec<[u8; 8]> = bytes.chunks_exact(8).filter_map(|c| c.try_into().ok()).collect();
    let different: BTreeSet<_> = words.iter().collect();
    ensure(different.len() == 24, || format!("{} holds no 24 random words: {text}", file.display()))?;
    Ok(words)
}

/// A key word in all the shapes it might be printed or copied in.
fn shapes(word: &[u8; 8]) -> Vec<Vec<u8>> {
    let (little, big) = (u64::from_le_bytes(*word), u64::from_be_bytes(*word));
    let mut texts = vec![little.to_string(), big.to_string()];
    for number in [little, big] {
        texts.extend([format!("{number:016x}"), format!("{number:016X}")]);
    }
    for (from, separator) in [(word.iter(), ", "), (word.iter(), " "), (word.iter(), ":")] {
        let decimal: Vec<String> = from.clone().map(u8::to_string).collect();
        let hex: Vec<String> = from.map(|b| format!("{b:02x}")).collect();
        texts.extend([decimal.join(separator), hex.join(separator)]);
    }
    texts.into_iter().map(String::into_bytes).chain([word.to_vec()]).collect()
}

/// All shapes of all words, found by their first eight bytes: logs are long.
struct Needles(HashMap<[u8; 8], Vec<Vec<u8>>>);

impl Needles {
    fn of(words: &[[u8; 8]]) -> Self {
        let mut by_start: HashMap<[u8; 8], Vec<Vec<u8>>> = HashMap::new();
        for needle in words.iter().flat_map(shapes) {
            if let Some(start) = needle.first_chunk::<8>() {
                by_start.entry(*start).or_default().push(needle);
            }
        }
        Self(by_start)
    }

    fn none_in(&self, place: &str, hay: &[u8]) -> Result<()> {
        for at in 0..hay.len() {
            let Some(start) = hay[at..].first_chunk::<8>() else { break };
            let hit = self.0.get(start).is_some_and(|all| all.iter().any(|needle| hay[at..].starts_with(needle)));
            ensure(!hit, || format!("{place} holds key bytes at {at}"))?;
        }
        Ok(())
    }
}

/// What operators copy into tickets: every answer of lbctl.
const ANSWERS: &[&[&str]] = &[
    &["service", "list"],
    &["rs", "list"],
    &["session", "list"],
    &["session", "count"],
    &["stats", "show"],
    &["worker", "list"],
    &["port", "list"],
    &["laddr", "list"],
    &["neigh", "list"],
    &["config", "export"],
    &["config", "history"],
];

/// Keys are in the tables and nowhere else: not in logs (all of them, at `trace`), answers, journal, command lines,
/// environments, files of the run directory, nor in what a crash leaves.
pub fn no_secrets(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    start_loudly(&mut rig)?;
    answered(&rig)?;
    let run_dir = rig.appliance.conf.run_dir.clone();
    let keys = Needles::of(&keys(&run_dir.join("huge/tables/secrets"))?);
    let lbctl = rig.lbctl()?;
    for words_of_call in ANSWERS {
        for format in ["table", "json"] {
            let mut all = vec!["-o", format];
            all.extend(*words_of_call);
            let answer = lbctl.call(&all)?;
            keys.none_in(&format!("lbctl {}", all.join(" ")), format!("{}{}", answer.out, answer.err).as_bytes())?;
        }
    }
    let (holder, workers, checker) = pids(&rig);
    let mut all = workers;
    all.extend([("control".into(), rig.appliance.control_pid()?), ("health-checker".into(), checker)]);
    all.push(("holder".into(), holder)); // Last: control goes with it.
    let mut cores = Vec::new();
    for (name, pid) in &all {
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            keys.none_in(&format!("{file} of {name}"), &text)?;
        }
        cores.push(crash(name, *pid)?);
    }
    // After the crashes: the last words are in the logs, too.
    let mut seen = 0;
    for folder in [rig.folder.clone(), run_dir, rig.appliance.conf.state_dir.clone()] {
        for path in files_below(&folder) {
            let bytes = fs::read(&path).unwrap_or_default(); // Sockets.
            keys.none_in(&path.display().to_string(), &bytes)?;
            seen += bytes.len();
        }
    }
    for (name, core) in cores.iter().filter_map(|c| c.as_ref()) {
        let bytes = fs::read(core).unwrap_or_default();
        let _ = fs::remove_file(core);
        keys.none_in(&format!("the core of {name}"), &bytes)?;
    }
    ctx.note(format!("{} KiB of files, {} dumps", seen >> 10, cores.iter().flatten().count()));
    Ok(())
}

/// As [`Rig::start`], every program at its most talkative.
fn start_loudly(rig: &mut Rig) -> Result<()> {
    rig.appliance.write_conf()?;
    let loud = |rig: &Rig, log: &str, program: &str, arguments: &[&str]| {
        let mut command = rig.appliance.command(program, arguments)?;
        command.env("RUST_LOG", "trace").current_dir(&rig.folder);
        let mut daemon = Daemon::spawn(log, &rig.folder, command, true)?;
        daemon.wait_ready(LIMIT).map(|()| daemon)
    };
    rig.appliance.primary = Some(loud(rig, "primary", "lb-primary", &[])?);
    rig.plumb()?;
    for zone in ["0", "1"] {
        let worker = loud(rig, &format!("worker-{zone}a"), "lb-worker", &["--zone", zone])?;
        rig.appliance.workers.insert(format!("{zone}a"), worker);
    }
    rig.appliance.healthcheck = Some(loud(rig, "healthcheck", "lb-healthcheck", &[])?);
    rig.wait_all_up(LIMIT)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            // The tables themselves are where keys belong.
            Ok(kind) if kind.is_dir() && !path.ends_with("huge") => found.extend(files_below(&path)),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    found
}

/// Makes a process dump, as far as the machine and the process allow; the file, if there is one.
fn crash(name: &str, pid: u32) -> Result<Option<(String, PathBuf)>> {
    run(Command::new("prlimit").args(["--pid", &pid.to_string(), "--core=unlimited:unlimited"]))?;
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).map_err(Error::file("read", format!("/proc/{pid}/cwd")))?;
    let cores = || -> BTreeSet<PathBuf> {
        let all = fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path());
        all.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("core"))).collect()
    };
    let before = cores();
    run(Command::new("kill").args(["-ABRT", &pid.to_string()]))?;
    let raw = i32::try_from(pid).map_err(|_| Error::claim("a process id beyond i32"))?;
    tests::wait::until(&format!("the end of {name}"), LIMIT, Duration::from_millis(10), || {
        Ok((!tests::janitor::alive(raw)).then_some(()))
    })?;
    Ok(cores().difference(&before).next().map(|core| (name.to_owned(), core.clone())))
}

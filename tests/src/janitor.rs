//! The one way of cleaning up: a helper process that outlives the rig.
//!
//! `rig-janitor` runs in a process group of its own and reads lines from a pipe whose writing end only
//! the rig holds. When the pipe closes, because the rig was dropped, was interrupted, panicked or
//! was killed, the janitor ends and removes everything that was told to it. There is no second
//! path for the orderly case, so the emergency path is exercised by every test.
//!
//! Lines: `netns NAME` (with every process in it), `tree PATH` (unmounts below it, then the files),
//! `folder PATH` (removed if empty), `shm PART` (files in /dev/shm whose name contains PART), `cgroup NAME` (an emptied control
//! group with those in it), `trace PATH` (an instance of the kernel's tracing). Processes need no line: all that a rig starts live in its namespaces.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Error, Result};

/// The rig's end of the pipe. Dropping it cleans up and waits until that is done.
pub struct Janitor(Arc<Mutex<Line>>);

struct Line {
    child: Child,
    pipe: Option<ChildStdin>,
}

/// All janitors of this process, for [`close_all`].
static ALL: Mutex<Vec<Weak<Mutex<Line>>>> = Mutex::new(Vec::new());

impl Janitor {
    /// Starts the janitor process, found beside the running program.
    ///
    /// # Errors
    /// When the helper binary `rig-janitor` is not there or cannot start.
    pub fn start() -> Result<Self> {
        let program = beside_me("rig-janitor")?;
        let mut child = Command::new(&program)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Of its own process group: Ctrl-C must not reach it.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn { program: program.display().to_string(), source })?;
        let pipe = child.stdin.take();
        let line = Arc::new(Mutex::new(Line { child, pipe }));
        lock(&ALL).push(Arc::downgrade(&line));
        Ok(Self(line))
    }

    /// A namespace to remove, with every process in it.
    pub fn netns(&self, name: &str) {
        self.tell(&format!("netns {name}"));
    }

    /// A folder to remove, after unmounting what is mounted below it.
    pub fn tree(&self, path: &Path) {
        self.tell(&format!("tree {}", path.display()));
    }

    /// A folder to remove if it is empty then.
    pub fn folder(&self, path: &Path) {
        self.tell(&format!("folder {}", path.display()));
    }

    /// Shared-memory files to remove: those whose name contains `part`.
    pub fn shm(&self, part: &str) {
        self.tell(&format!("shm {part}"));
    }

    /// A control group to remove with those in it, below the root of the cgroup2 hierarchy. Its processes are gone by then.
    pub fn cgroup(&self, name: &str) {
        self.tell(&format!("cgroup {name}"));
    }

    /// An instance of the kernel's tracing to remove.
    pub fn trace(&self, path: &Path) {
        self.tell(&format!("trace {}", path.display()));
    }

    fn tell(&self, text: &str) {
        if let Some(pipe) = &mut lock(&self.0).pipe {
            // The janitor ends only after this pipe; a failure here means it was killed by hand.
            if let Err(error) = writeln!(pipe, "{text}") {
                eprintln!("rig-janitor is gone ({error}); left behind: {text}");
            }
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        lock(&self.0).close();
    }
}

impl Line {
    fn close(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}

/// Cleans up after all rigs of this process at once, while their owners may still be at work:
/// for the way out after a signal. Returns when all is removed.
pub fn close_all() {
    for line in lock(&ALL).drain(..).filter_map(|weak| weak.upgrade()) {
        lock(&line).close();
    }
}

/// A poisoned lock guards a pipe, which is still the right one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Path of a program built into the same folder as the running one.
///
/// # Errors
/// When it is not there.
pub fn beside_me(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?;
    let mut folder = me.parent();
    // Unit-test binaries lie one folder deeper, in deps/.
    while let Some(here) = folder {
        let candidate = here.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
        folder = here.parent().filter(|_| here.ends_with("deps"));
    }
    Err(Error::claim(format!(
        "program {name} is not beside {}; hint: build it into the same folder (`cargo xtask demo` does)",
        me.display()
    )))
}

/// Path of a program built to die or to be bad where it is told to, as `cargo xtask test` makes it besides the one that is
/// shipped.
///
/// # Errors
/// When it is not there.
pub fn with_failpoints(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?;
    // target/release/e2e → target/failpoints/NAME
    let path = me.ancestors().nth(2).unwrap_or(Path::new("/")).join("failpoints").join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::claim(format!("{} is not built; hint: `cargo xtask test` does", path.display())))
}

/// What the janitor process does with its lines once the pipe is closed.
pub fn clean(lines: &[String]) {
    let words: Vec<(&str, &str)> = lines.iter().filter_map(|l| l.split_once(' ')).collect();
    let of = |kind: &'static str| words.iter().filter(move |(k, _)| *k == kind).map(|(_, v)| *v);

    end_all(of("netns").flat_map(netns_pids).collect());
    for path in of("tree") {
        unmount_below(path);
        if let Err(error) = fs::remove_dir_all(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            eprintln!("rig-janitor: remove {path}: {error}");
        }
    }
    // In tracefs removing the folder is what ends the instance.
    for path in of("folder").chain(of("trace")) {
        let _ = fs::remove_dir(path);
    }
    for name in of("netns") {
        let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
    }
    for name in of("cgroup") {
        remove_cgroup(name);
    }
    for part in of("shm") {
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(part) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn netns_pids(name: &str) -> Vec<i32> {
    let output = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output();
    output.map_or_else(
        |_| Vec::new(),
        |o| String::from_utf8_lossy(&o.stdout).lines().filter_map(|l| l.parse().ok()).collect(),
    )
}

/// SIGKILL to all and a bounded wait; the orderly stop, where wanted, came before.
fn end_all(mut pids: Vec<i32>) {
    for pid in &pids {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    for _ in 0..500 {
        pids.retain(|p| alive(*p));
        if pids.is_empty() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    eprintln!("rig-janitor: {pids:?} do not end");
}

/// Whether the process runs. A zombie has given back all it held: it counts as gone.
#[must_use]
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| s.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

/// Where cgroup2 is mounted differs (and some machines have it nowhere): in a mount namespace it is mounted once more.
fn remove_cgroup(name: &str) {
    const SCRIPT: &str = "mount --make-rprivate / && mount -t cgroup2 cgroup2 /sys/fs/cgroup && cd /sys/fs/cgroup &&
        for try in 1 2 3 4 5 6 7 8 9 10; do
            [ -d \"$1\" ] || exit 0
            find \"$1\" -depth -type d -exec rmdir {} + 2>/dev/null
            sleep 0.1
        done; [ ! -d \"$1\" ]";
    let status = Command::new("unshare").args(["--mount", "sh", "-c", SCRIPT, "remove-cgroup", name]).status();
    if !status.is_ok_and(|s| s.success()) {
        eprintln!("rig-janitor: control group {name} stays");
    }
}

fn unmount_below(path: &str) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<&str> =
        table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| Path::new(p).starts_with(path)).collect();
    // Innermost first; a point mounted twice stands twice.
    points.sort_by_key(|p| std::cmp::Reverse(p.len()));
    for point in points {
        if !Command::new("umount").arg(point).status().is_ok_and(|s| s.success()) {
            let _ = Command::new("umount").args(["-l", point]).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_is_a_zombie() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(alive(pid));
        end_all(vec![pid]);
        assert!(!alive(pid));
        child.wait().unwrap();
    }

    #[test]
    fn trees_are_removed_and_missing_ones_are_no_error() {
        let tree = std::env::temp_dir().join(format!("janitor-test-{}", std::process::id()));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        let line = format!("tree {}", tree.display());
        clean(&[line.clone(), line]);
        assert!(!tree.exists());
    }
}

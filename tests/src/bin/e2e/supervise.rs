//! Runs each test in a process of its own, bounded in time.

use std::fs::File;
use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use tests::interrupt;

use crate::ctx::{Ctx, log_folder};
use crate::{TESTS, Test};

/// The test at work, for the signal handler.
static RUNNING: Mutex<Option<i32>> = Mutex::new(None);
/// How long an ended test may take to clean up.
const GRACE: Duration = Duration::from_secs(15);

/// The child's part: runs the one test. Status 0 passed, 1 failed.
pub fn one(name: &str) -> i32 {
    let Some(test) = TESTS.iter().find(|t| t.name == name) else {
        eprintln!("no test {name}");
        return 2;
    };
    let body = test.body;
    let name = test.name;
    let parent = getppid();
    std::thread::spawn(move || {
        while getppid() == parent {
            sleep(Duration::from_millis(200));
        }
        // Nobody would bound this test any more.
        kill(Pid::this(), Signal::SIGTERM)
    });
    interrupt::run(
        move |_| match body(&mut Ctx::new(name)) {
            Ok(()) => 0,
            Err(error) => {
                println!("{error}");
                1
            }
        },
        || {},
    )
}

/// The parent's part: all tests that match, and libtest's last line. Status 0 if all passed.
pub fn all(filters: &[&str]) -> i32 {
    let names: Vec<&'static str> = TESTS
        .iter()
        .map(|t| t.name)
        .filter(|name| filters.is_empty() || filters.iter().any(|f| name.contains(f)))
        .collect();
    if names.is_empty() {
        eprintln!("no test matches {filters:?}; `e2e --list` names them");
        return 2;
    }
    interrupt::run(move |_| run(&names), end_running)
}

fn run(names: &[&str]) -> i32 {
    println!("running {} tests", names.len());
    let (begin, caller) = (Instant::now(), getppid());
    let mut failures: Vec<(&str, String)> = Vec::new();
    for test in TESTS.iter().filter(|t| names.contains(&t.name)) {
        print!("test {} ... ", test.name);
        let _ = std::io::stdout().flush();
        let start = Instant::now();
        match bounded(test, caller) {
            Ok(notes) => {
                println!("ok ({:.1} s)", start.elapsed().as_secs_f64());
                for note in notes.lines().filter_map(|l| l.strip_prefix("note: ")) {
                    println!("     {note}");
                }
                // Logs stay only where something failed.
                let _ = std::fs::remove_dir_all(log_folder(test.name));
            }
            Err(output) => {
                println!("FAILED ({:.1} s)", start.elapsed().as_secs_f64());
                println!("{}", indented(&output));
                failures.push((test.name, output));
            }
        }
    }
    if !failures.is_empty() {
        println!("\nfailures:");
        for (name, output) in &failures {
            let first = output.lines().find(|l| !l.starts_with("note: ")).unwrap_or("no word");
            println!("    {name}: {first}\n        logs: {}", log_folder(name).display());
        }
    }
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        names.len() - failures.len(),
        failures.len(),
        begin.elapsed().as_secs_f64()
    );
    i32::from(!failures.is_empty())
}

/// Runs the test's process; its output, as error if it failed or was ended.
fn bounded(test: &Test, caller: Pid) -> Result<String, String> {
    let folder = log_folder(test.name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(|e| format!("create {}: {e}", folder.display()))?;
    let path = folder.join("output.log");
    let output = || {
        let bytes = std::fs::read(&path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end().to_string()
    };
    let ended = spawn(test, &path).map_err(|e| e.to_string()).and_then(|child| wait(child, test.limit, caller));
    if let Ok(mut running) = RUNNING.lock() {
        *running = None;
    }
    match ended {
        Ok(status) if status.success() => Ok(output()),
        Ok(status) => Err(format!("{}\n({status})", output()).trim_start().to_string()),
        Err(why) => Err(format!("{why}\n{}", output())),
    }
}

fn spawn(test: &Test, log: &std::path::Path) -> std::io::Result<Child> {
    let file = File::create(log)?;
    let child = Command::new(std::env::current_exe()?)
        .args(["--one", test.name])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()?;
    if let (Ok(mut running), Ok(pid)) = (RUNNING.lock(), i32::try_from(child.id())) {
        *running = Some(pid);
    }
    Ok(child)
}

/// Waits for the end; after `limit` SIGTERM (the test cleans up), after [`GRACE`] SIGKILL (its
/// janitor does).
fn wait(mut child: Child, limit: Duration, caller: Pid) -> Result<ExitStatus, String> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match child.try_wait() {
            Err(error) => return Err(format!("wait: {error}")),
            Ok(Some(status)) if !told => return Ok(status),
            Ok(Some(_)) => return Err(format!("ended as hanging after {limit:?}")),
            Ok(None) => {}
        }
        if getppid() != caller {
            // Killed alone, without a signal to us: nobody reads what we would still print.
            end_running();
            std::process::exit(1);
        }
        if start.elapsed() > limit && !told {
            told = true;
            end_running();
        }
        if start.elapsed() > limit + GRACE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("killed as hanging after {limit:?}; it did not follow SIGTERM"));
        }
        sleep(Duration::from_millis(20));
    }
}

/// Ends the test at work and waits until it has cleaned up.
fn end_running() {
    let Some(pid) = RUNNING.lock().ok().and_then(|mut r| r.take()) else { return };
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    for _ in 0..GRACE.as_millis() / 20 {
        // A zombie is waited for by the other thread, or is init's when we leave.
        if !tests::janitor::alive(pid) {
            return;
        }
        sleep(Duration::from_millis(20));
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|l| format!("     {l}")).collect::<Vec<_>>().join("\n")
}

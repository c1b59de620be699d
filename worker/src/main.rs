//! `lb-worker`: one process per zone, a pinned thread per CPU, a DPDK secondary that polls, balances and sends.
//!
//! Start: `[node]` of the configuration → tables checked → the holder admits → EAL → slots taken → threads.
//! It leaves with `_exit`: EAL's clean-up in a secondary resets NICs under the primary.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use links::LinkError;
use worker::error::WorkerError;
use worker::privileges;
use worker::serve::{self, Ended};

/// The appliance's worker process for one zone.
#[derive(Debug, Parser)]
#[command(name = "lb-worker", version = version())]
struct Arguments {
    /// Configuration file; only its `[node]` is read.
    #[arg(long, value_name = "FILE", default_value = "/etc/containerlb/containerlb.toml")]
    config: PathBuf,
    /// Zone to serve.
    #[arg(long, value_name = "N")]
    zone: u8,
    /// Take the slots of the living worker of this zone.
    #[arg(long)]
    take_over: bool,
}

fn version() -> &'static str {
    let layout = shm_layout::header::layout_text(shm_layout::header::layout_version());
    format!("{} (layout {layout}, {})", env!("CARGO_PKG_VERSION"), dpdk::version()).leak()
}

/// Exit status of a successor whose slots were taken back: its unit does not start it again.
const TAKEN_BACK: i32 = 76;
/// A unit starts a dead worker again at once; one that finds no lb-primary or no tables waits so long before it ends.
const FAILED_START: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    links::service::init_log();
    if let Err(missing) = arch::cpu_check() {
        log::error!("{missing}");
        return ExitCode::FAILURE;
    }
    let node = match config::load_node(&arguments.config) {
        Ok(node) => node,
        Err(report) => {
            eprintln!("{report}");
            return ExitCode::from(4);
        }
    };
    let run_dir = node.run_dir();
    if let Err(error) = adopt_environment(&run_dir) {
        log::error!("cannot start again with the instance's environment: {error}");
        return ExitCode::FAILURE;
    }
    if let Err(error) = privileges::give_up(&node.tables_dir()) {
        log::error!("{error}");
        return ExitCode::FAILURE;
    }
    // Not by a return: destructors would unmap what other threads may still look at, and EAL would clean up.
    match serve::run(&node, &run_dir, arguments.zone, arguments.take_over) {
        Ok(Ended::Ordered) | Err(WorkerError::Ordered) => dpdk::exit_now(stopped_status()),
        Ok(Ended::Asked | Ended::Relieved) | Err(WorkerError::Stopped) => dpdk::exit_now(0),
        Err(error) => {
            log::error!("{error}");
            links::service::status(&error.to_string());
            if std::env::var_os("LB_INSTANCE").is_some()
                && matches!(error, WorkerError::Link(_) | WorkerError::Segment(_))
            {
                std::thread::sleep(FAILED_START);
            }
            dpdk::exit_now(match error {
                WorkerError::Link(LinkError::Unreachable { .. }) => 3,
                WorkerError::TakenBack { .. } => TAKEN_BACK,
                _ => 1,
            })
        }
    }
}

/// Exit status of a worker that lb-primary ordered to stop: 0, or what the service unit asks for so that it is started
/// again and waits for the next lb-primary.
fn stopped_status() -> i32 {
    std::env::var("LB_STOPPED_STATUS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// EAL's runtime files and the links' sockets follow these variables, which must be alike in all processes of an instance:
/// if they are not, this program starts itself again with them, under the same process id.
fn adopt_environment(run_dir: &Path) -> std::io::Result<()> {
    let (runtime, links) = (run_dir.to_owned(), run_dir.join("ipc"));
    let is = |name: &str, value: &Path| std::env::var_os(name).is_some_and(|v| v == value.as_os_str());
    if is("RUNTIME_DIRECTORY", &runtime) && is("TMPDIR", &links) {
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    Err(again.args(std::env::args_os().skip(1)).env("RUNTIME_DIRECTORY", runtime).env("TMPDIR", links).exec())
}

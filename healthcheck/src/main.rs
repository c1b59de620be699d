//! `lb-healthcheck`: probes real servers and writes the results on the health board.
//!
//! An ordinary unprivileged process: no DPDK, no hugepages, one file it may write (the board). What it does is in
//! [`checker`]; when a server is up is in [`state`]; when it is asked is in [`schedule`]; how is in [`prober`]. Its death
//! or stop changes nothing: readers keep the last state, and its successor goes on from there.
#![forbid(unsafe_code)]

mod awake;
mod board;
mod checker;
mod expect;
mod link;
mod privileges;
mod prober;
mod random;
mod report;
mod schedule;
mod settings;
mod state;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::Parser;
use settings::{Settings, SettingsError};

/// Refused by validation (INTERFACE §2).
const REFUSED: u8 = 4;

/// Probes the real servers of a ContainerLB instance and writes the results on its health board.
///
/// Reads node.name and healthcheck.source of the configuration; what to probe stands on the board, written by
/// lb-primary. RUST_LOG sets the log level (error, warn, info, debug).
#[derive(Debug, Parser)]
#[command(name = "lb-healthcheck", version = VERSION.as_str(), max_term_width = 100)]
struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Program version, layout, DPDK: the same lines for every program of the appliance; this one links no DPDK.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let layout = shm_layout::header::layout_text(shm_layout::header::layout_version());
    format!("{}\nlayout {layout}\nDPDK none", env!("CARGO_PKG_VERSION"))
});

fn main() -> ExitCode {
    let args = Args::parse();
    links::service::init_log();
    let settings = match Settings::load(&args.config) {
        Ok(settings) => settings,
        Err(error) => {
            log::error!("{error}");
            return match error {
                SettingsError::Read { .. } => ExitCode::FAILURE,
                SettingsError::Wrong { .. } => ExitCode::from(REFUSED),
            };
        }
    };
    if let Err(error) = privileges::give_up(&settings.node.run_dir()) {
        log::error!("{error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log::error!("cannot start the event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(checker::run(&settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

//! `lb-primary`: the holder of ports and tables, and its child, control.
//!
//! One binary, four lives. What the operator starts asks a child in *plan* mode to read the configuration, and then
//! becomes (`exec`) the *holder*, which parses nothing that a user or the network sent; the holder starts *control*.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use control::Prefer;

mod control;
mod failpoint;
mod holder;
mod privileges;

/// The appliance's primary process: owns ports, buffers and tables, and runs control.
#[derive(Debug, Parser)]
#[command(name = "lb-primary", version = version())]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/containerlb/containerlb.toml")]
    config: PathBuf,
    /// Validate the configuration, touch nothing.
    #[arg(long)]
    check: bool,
    /// Take the file even if the journal is newer.
    #[arg(long)]
    from_file: bool,
    /// Go on with the journal, whatever the file says: control that comes back, a planned restart.
    #[arg(long, hide = true)]
    from_journal: bool,
    /// One of the program's other lives; started by itself.
    #[arg(long, hide = true, value_name = "LIFE")]
    internal: Option<Life>,
    /// What the holder tells control.
    #[arg(long, hide = true, value_name = "FILE")]
    facts: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Life {
    Plan,
    Holder,
    Control,
}

fn version() -> &'static str {
    let layout = shm_layout::header::layout_text(shm_layout::header::layout_version());
    format!("{} (layout {layout}, {})", env!("CARGO_PKG_VERSION"), dpdk::version()).leak()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    links::service::init_log();
    if let Err(missing) = arch::cpu_check() {
        log::error!("{missing}");
        return ExitCode::FAILURE;
    }
    let (config, from_file) = (arguments.config, arguments.from_file);
    let prefer = if arguments.from_journal { Prefer::Journal } else { Prefer::at_start(from_file) };
    match arguments.internal {
        Some(Life::Plan) => holder::plan::main(&config, from_file),
        Some(Life::Holder) => holder::main(&config, prefer),
        Some(Life::Control) => holder::child::main(config, prefer, arguments.facts),
        None => holder::plan::start(&config, from_file, arguments.check),
    }
}

//! `config`: check, compare, apply, export.

use clap::Subcommand;
use config::SystemFacts;
use control_api::method;
use control_api::params::{ConfigApply, ConfigSource};
use control_api::views::{Applied, Change, ConfigChecked, ConfigDiff, ConfigExport};

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::input::{File, Input};
use crate::pages::table_bytes;
use crate::text;

const CHECK_ABOUT: &str = "\
Check a file as lb-primary would, and list everything that is wrong. Needs no daemon, touches nothing.

Routes and CPUs are those of this machine and this network namespace. Says how many hugepages the configuration needs.
Exit status 4 if it would be refused.";

const DIFF_ABOUT: &str = "\
What differs between a file and the configuration in force: what `config apply` would change.

Exit status 0 if nothing does, 1 if something does, 4 if the file would be refused.";

const APPLY_ABOUT: &str = "\
Put a file in force, all of it or nothing; workers see it at their next burst. Established sessions stay where they are.

Admin states (drain, disable) of servers that stay are kept. Changes to node, primary, zones, ports and limits need a \
restart and are refused.";

/// Verbs of `config`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// Check a file as lb-primary would; needs no daemon
    #[command(long_about = CHECK_ABOUT)]
    Check(File),
    /// What differs between a file and the configuration in force
    #[command(long_about = DIFF_ABOUT)]
    Diff(File),
    /// Put a file in force, all of it or nothing
    #[command(long_about = APPLY_ABOUT)]
    Apply {
        #[command(flatten)]
        file: File,
        /// Say what would change, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// The configuration in force, as a file with every key
    Export,
}

impl Verb {
    /// Carries it out.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn run(self, context: &mut Context) -> Result<Status, Failure> {
        match self {
            Self::Check(file) => check(context, &Input::read(&file.path)?),
            Self::Diff(file) => diff(context, &Input::read(&file.path)?),
            Self::Apply { file, dry_run } => apply(context, &Input::read(&file.path)?, dry_run),
            Self::Export => {
                let export: ConfigExport = context.get(method::CONFIG_EXPORT)?;
                context.show(&export, |export| vec![export.text.trim_end().to_owned()])?;
                Ok(Status::DONE)
            }
        }
    }
}

fn check(context: &mut Context, input: &Input) -> Result<Status, Failure> {
    let loaded = config::load_text(&input.name, &input.text, &SystemFacts::read())?;
    let services = &loaded.config.services;
    let checked = ConfigChecked {
        services: services.len() as u64,
        real_servers: services.iter().map(|s| s.rs.len() as u64).sum(),
        hugepages: config::hugepages_needed(&loaded.config, table_bytes).total(),
        warnings: loaded.warnings.diagnostics().map(ToString::to_string).collect(),
    };
    if !loaded.warnings.is_empty() {
        context.warn_whole(&loaded.warnings);
    }
    context.show(&checked, |checked| {
        let (services, servers) =
            (text::count(checked.services, "service"), text::count(checked.real_servers, "real server"));
        let pages = text::count(checked.hugepages, "hugepage");
        vec![format!("{} is valid: {services}, {servers}; {pages} of 2 MiB are needed", input.name)]
    })?;
    Ok(Status::DONE)
}

fn diff(context: &mut Context, input: &Input) -> Result<Status, Failure> {
    let text = input.parameter(context)?;
    let diff: ConfigDiff = context.call(method::CONFIG_DIFF, &ConfigSource { file: input.name.clone(), text })?;
    context.show(&diff, |diff| lines(&diff.changes))?;
    Ok(if diff.changes.is_empty() { Status::DONE } else { Status::FAILED })
}

fn apply(context: &mut Context, input: &Input, dry_run: bool) -> Result<Status, Failure> {
    let text = input.parameter(context)?;
    let params = ConfigApply { file: input.name.clone(), text, dry_run };
    let applied: Applied = context.call(method::CONFIG_APPLY, &params)?;
    context.warn(&applied.warnings);
    context.show(&applied, |applied| {
        let mut lines = lines(&applied.changes);
        let changes = text::count(applied.changes.len() as u64, "change");
        lines.push(match (applied.dry_run, applied.changes.is_empty()) {
            (_, true) => format!("nothing to change (generation {})", applied.generation),
            (true, false) => format!("dry run: {changes} not made (generation {})", applied.generation),
            (false, false) => format!("{changes} made (generation {})", applied.generation),
        });
        lines
    })?;
    Ok(Status::DONE)
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| change.text.clone()).collect()
}

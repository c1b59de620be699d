//! `config`: check, compare, apply, confirm, go back, export.

use clap::Subcommand;
use config::{Millis, SystemFacts};
use control_api::method;
use control_api::params::{ConfigApply, ConfigRollback, ConfigSource};
use control_api::views::{Applied, Change, Changed, ConfigChecked, ConfigDiff, ConfigExport, HistoryEntry, Pending};

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::input::{File, Input};
use crate::pages::table_bytes;
use crate::table::{Cell, Table, Tone};
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
restart and are refused.

With --confirm the change is on trial: unless `config confirm` comes in time, the configuration before comes back by \
itself, also when processes or the machine were restarted meanwhile. Until then no other file is applied. Single changes \
(rs add, service set, …) are taken, and undone with the trial; drain, disable and enable stay said.";

const ROLLBACK_ABOUT: &str = "\
Bring back the configuration N lines up in `config history`, as a new generation: history stays a line, and `rollback` \
twice is where you were. Without N: the one before, or, while a change waits to be confirmed, the one before that change.

Established sessions stay where they are: servers the older configuration does not have are drained.";

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
        /// Go back by itself unless `config confirm` comes within this time (1s to 24h)
        #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
        confirm: Option<Millis>,
    },
    /// Keep a change that was applied with --confirm
    Confirm,
    /// Bring back an earlier configuration, as a new generation
    #[command(long_about = ROLLBACK_ABOUT)]
    Rollback {
        /// Lines of `config history` to go back
        #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        generations: Option<u64>,
    },
    /// The configurations there were, oldest first: when, who, what
    History,
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
            Self::Apply { file, dry_run, confirm } => apply(context, &Input::read(&file.path)?, dry_run, confirm),
            Self::Confirm => {
                let kept: Changed = context.get(method::CONFIG_CONFIRM)?;
                context.show(&kept, |kept| vec![format!("confirmed (generation {})", kept.generation)])?;
                Ok(Status::DONE)
            }
            Self::Rollback { generations } => {
                let done: Applied = context.call(method::CONFIG_ROLLBACK, &ConfigRollback { generations })?;
                show(context, &done)
            }
            Self::History => {
                let entries: Vec<HistoryEntry> = context.get(method::CONFIG_HISTORY)?;
                context.show_table(&entries, |entries| history(entries))?;
                Ok(Status::DONE)
            }
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

fn apply(context: &mut Context, input: &Input, dry_run: bool, confirm: Option<Millis>) -> Result<Status, Failure> {
    let text = input.parameter(context)?;
    let confirm_ms = confirm.map(|span| span.get().into());
    let params = ConfigApply { file: input.name.clone(), text, dry_run, confirm_ms };
    let applied: Applied = context.call(method::CONFIG_APPLY, &params)?;
    show(context, &applied)
}

fn show(context: &mut Context, applied: &Applied) -> Result<Status, Failure> {
    context.warn(&applied.warnings);
    context.show(applied, |applied| {
        let mut lines = lines(&applied.changes);
        let changes = text::count(applied.changes.len() as u64, "change");
        lines.push(match (applied.dry_run, applied.changes.is_empty()) {
            (_, true) => format!("nothing to change (generation {})", applied.generation),
            (true, false) => format!("dry run: {changes} not made (generation {})", applied.generation),
            (false, false) => format!("{changes} made (generation {})", applied.generation),
        });
        lines.extend(applied.unconfirmed.as_ref().map(on_trial));
        lines
    })?;
    Ok(Status::DONE)
}

fn on_trial(trial: &Pending) -> String {
    format!(
        "generation {} is on trial: back to generation {} at {} (in {}) unless `lbctl config confirm` comes first",
        trial.applied,
        trial.back_to,
        trial.until,
        text::span(trial.left_ms)
    )
}

fn history(entries: &[HistoryEntry]) -> Table {
    let mut table = Table::new([">GENERATION", "TIME", "USER", "SUMMARY", "CONFIRM UNTIL"]);
    for entry in entries {
        let trial = entry.confirm_until.as_ref();
        table.row([
            Cell::from(entry.generation),
            Cell::from(&entry.time),
            Cell::from(&entry.user),
            Cell::from(&entry.summary),
            trial.map_or_else(|| Cell::from("-"), |until| Cell::toned(until, Tone::Poor)),
        ]);
    }
    table
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| change.text.clone()).collect()
}

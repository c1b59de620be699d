//! The way back: `config confirm`, `config rollback`, `config history`, and what happens to a change nobody confirmed.
//!
//! Going back makes a new generation, so history stays a line. Sessions stay where they are: a server the older
//! configuration does not have is drained, not cut.

use std::collections::HashMap;
use std::net::SocketAddr;

use config::{Admin, Config};
use control_api::params::ConfigRollback;
use control_api::views::{Applied, Changed, HistoryEntry, Pending};
use control_api::{ApiError, Code};

use super::change::{changes, no_restart};
use super::core::{Author, Core, FromFile};
use super::deadline::Now;
use super::journal::{Entry, Head, KEPT};
use super::register::EndNow;
use super::time::rfc3339;

/// A rollback that failed is tried again after this, ms.
const AGAIN_MS: u64 = 1000;

/// The change on trial, if one is in force.
pub fn pending(core: &Core) -> Option<Pending> {
    let unconfirmed = core.entry.unconfirmed.as_ref()?;
    let now = Now::read();
    Some(Pending {
        applied: unconfirmed.applied,
        back_to: unconfirmed.back_to,
        until: rfc3339(unconfirmed.deadline.wall_seconds(&now)),
        left_ms: u64::try_from(unconfirmed.deadline.left(&now).as_millis()).unwrap_or(u64::MAX),
    })
}

/// `config.history`: the configurations there were, oldest first. Control's own tidying is none.
pub fn history(core: &Core) -> Vec<HistoryEntry> {
    let trial = pending(core);
    let view = |head: Head| HistoryEntry {
        generation: head.generation,
        time: rfc3339(head.time),
        user: head.user,
        summary: head.summary,
        confirm_until: trial.as_ref().filter(|t| t.applied == head.generation).map(|t| t.until.clone()),
    };
    lines(core).into_iter().map(view).collect()
}

fn lines(core: &Core) -> Vec<Head> {
    let mut heads = core.journal.heads();
    heads.retain(|h| !h.housekeeping && h.generation <= core.entry.generation);
    heads
}

/// `config.confirm`: the change on trial stays.
///
/// # Errors
/// There is none; the journal cannot be written (it is still on trial then).
pub fn confirm(core: &mut Core) -> Result<Changed, ApiError> {
    if core.entry.unconfirmed.is_none() {
        let error = ApiError::new(Code::Failed, "nothing waits to be confirmed");
        return Err(error.hint("config apply FILE --confirm 60s begins a trial; see config history"));
    }
    core.settle()?;
    Ok(Changed { generation: core.entry.generation, id: None, warnings: core.said.take().into_iter().collect() })
}

/// `config.rollback`.
///
/// # Errors
/// There is no such generation, it is damaged, it would need a restart, or it cannot be published.
pub fn rollback(core: &mut Core, p: &ConfigRollback, user: &str) -> Result<Applied, ApiError> {
    let target = target(core, p)?;
    let trial = core.entry.unconfirmed.clone();
    let undone = trial.as_ref().filter(|t| target < t.applied);
    let what = match undone {
        Some(trial) => format!("rollback to generation {target}, generation {} not confirmed", trial.applied),
        None => format!("rollback to generation {target}"),
    };
    go_back(core, target, undone.map(|t| t.applied), Author { user: user.into(), summary: what })
}

/// Number of the generation to go back to.
fn target(core: &Core, p: &ConfigRollback) -> Result<u64, ApiError> {
    let Some(count) = p.generations else {
        if let Some(trial) = &core.entry.unconfirmed {
            return Ok(trial.back_to);
        }
        return target(core, &ConfigRollback { generations: Some(1) });
    };
    let lines = lines(core);
    let back = usize::try_from(count).unwrap_or(usize::MAX);
    if back == 0 {
        return Err(ApiError::new(Code::InvalidParams, "rollback 0 is where we are; hint: 1 is the one before"));
    }
    let found = lines.len().checked_sub(1).and_then(|last| last.checked_sub(back));
    found.and_then(|at| lines.get(at)).map(|line| line.generation).ok_or_else(|| {
        let most = lines.len().saturating_sub(1);
        let message = format!("there is no configuration {count} generations back, only {most} (of at most {KEPT})");
        ApiError::new(Code::Refused, message).code(config::codes::NOT_FOUND).hint("see config history")
    })
}

/// Brings the configuration of generation `target` in force, as a new generation. `trial`: the generation whose trial
/// ends by this; what the operator said about servers since (drain, disable, enable) stays said.
fn go_back(core: &mut Core, target: u64, trial: Option<u64>, author: Author) -> Result<Applied, ApiError> {
    let read = |core: &Core, number| {
        core.journal.read(number).map_err(|why| {
            let error = ApiError::new(Code::Failed, format!("generation {number} cannot be read: {why}"));
            error.hint("see config history for others, or apply a file")
        })
    };
    let entry = read(core, target)?;
    let mut config = Config { services: entry.config().services, ..entry.skeleton.clone() };
    if let Some(applied) = trial {
        match read(core, applied) {
            Ok(applied) => keep_words(&mut config, &applied.config(), &core.config()),
            Err(error) => log::warn!("drain and disable since are lost: {}", error.message),
        }
    }
    let changes = changes(core, &config);
    no_restart(&changes)?;
    let file = FromFile { config: &file_words(&entry), digest: core.entry.file_digest.clone() };
    let unconfirmed = core.entry.unconfirmed.clone().filter(|_| trial.is_none());
    let generation = core.change(&config, Some(file), &EndNow::default(), author, unconfirmed)?;
    let warnings = core.said.take().into_iter().collect();
    Ok(Applied { generation, changes, dry_run: false, warnings, unconfirmed: pending(core) })
}

/// The configuration of a generation with the admin states of the file it came from.
fn file_words(entry: &Entry) -> Config {
    let mut config = entry.config();
    let servers = entry
        .register
        .services
        .iter()
        .filter(|s| !s.removed)
        .flat_map(|s| s.servers.iter().map(|rs| ((s.service.name.as_str(), rs.rs.address), rs.file_admin)));
    set_words(&mut config, &servers.collect());
    config
}

/// Puts into `config` what was said about servers between `applied` and `now`.
fn keep_words(config: &mut Config, applied: &Config, now: &Config) {
    let words = |config: &Config| -> HashMap<(String, SocketAddr), Admin> {
        let of = |s: &config::Service| {
            let name = s.name.to_string();
            s.rs.iter().map(move |rs| ((name.clone(), rs.address), rs.admin)).collect::<Vec<_>>()
        };
        config.services.iter().flat_map(of).collect()
    };
    let before = words(applied);
    let now = words(now);
    let said = now.iter().filter(|(server, admin)| before.get(*server).is_some_and(|was| was != *admin));
    set_words(config, &said.map(|((service, rs), admin)| ((service.as_str(), *rs), *admin)).collect());
}

fn set_words(config: &mut Config, words: &HashMap<(&str, SocketAddr), Admin>) {
    for service in &mut config.services {
        for rs in &mut service.rs {
            if let Some(admin) = words.get(&(service.name.as_str(), rs.address)) {
                rs.admin = *admin;
            }
        }
    }
}

/// Goes back, if there is a change on trial whose time is over. Called at every turn.
pub fn tend(core: &mut Core, now_ms: u64) {
    let Some(trial) = &core.entry.unconfirmed else { return };
    if now_ms < core.rollback_again_ms || !trial.deadline.left(&Now::read()).is_zero() {
        return;
    }
    let (back_to, applied) = (trial.back_to, trial.applied);
    let summary = format!("rollback to generation {back_to}, generation {applied} not confirmed in time");
    match go_back(core, back_to, Some(applied), Author { user: "control".into(), summary }) {
        Ok(done) => log::warn!(
            "generation {applied} was not confirmed in time: back to the configuration of generation {back_to}, as \
             generation {}; the file {} is as it was: it counts again when it changes",
            done.generation,
            core.config_path.display()
        ),
        Err(error) => {
            log::error!("generation {applied} was not confirmed in time and cannot be undone yet: {}", error.message);
            core.rollback_again_ms = now_ms + AGAIN_MS;
        }
    }
}

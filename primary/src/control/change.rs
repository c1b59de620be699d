//! Everything that changes the configuration: edits of services and servers, `config apply`; and the dry looks at it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::{Config, Edit, Facts, HealthKind, Report, Touched};
use control_api::params::{
    ConfigApply, ConfigSource, Keys, RsAdd, RsDel, RsName, RsSet, ServiceAdd, ServiceDel, ServiceSet,
};
use control_api::views::{Applied, Change, Changed, ConfigChecked, ConfigDiff};
use control_api::{ApiError, Code};

use super::core::{Author, Core, FromFile};
use super::deadline::{Deadline, Now};
use super::journal::{Entry, Unconfirmed};
use super::register::EndNow;
use super::rollback::pending;
use crate::holder::geometry::table_bytes;

/// A report as a refusal: the first error in front, all of them with it.
pub fn refused(report: &Report) -> ApiError {
    let of = |d: &config::Diagnostic| {
        let error = ApiError::new(Code::Refused, d.message.clone()).code(d.code.clone());
        ApiError { path: Some(d.path.clone()).filter(|p| !p.is_empty()), hint: d.hint.clone(), ..error }
    };
    let errors: Vec<ApiError> = report.diagnostics().filter(|d| d.level == config::Level::Error).map(of).collect();
    let mut first = errors.first().cloned().unwrap_or_else(|| ApiError::new(Code::Refused, "refused"));
    first.all = errors;
    first.report = Some(report.to_string());
    first
}

fn warnings(report: &Report) -> Vec<String> {
    report.diagnostics().filter(|d| d.level == config::Level::Warning).map(ToString::to_string).collect()
}

fn address(text: &str) -> Result<SocketAddr, ApiError> {
    text.parse().map_err(|_| {
        let error = ApiError::new(Code::Refused, format!("\"{text}\" is not an address with a port"));
        error.code(config::codes::BAD_ADDRESS).path("rs").hint("such as 10.0.0.21:8080")
    })
}

fn edit(core: &mut Core, edit: &Edit, now: &EndNow, user: &str, summary: String) -> Result<Changed, ApiError> {
    let Entry { skeleton, register, .. } = &core.entry;
    let judged = edit.judge(skeleton, register, core.machine.as_ref());
    let (touched, report) = judged.map_err(|report| refused(&report))?;
    let same = match &touched {
        Touched::Changed(place, service) => register.services[*place].configured() == *service,
        _ => false,
    };
    let generation = if same && now.what.is_none() {
        core.entry.generation // Nothing to do is done.
    } else {
        core.edit(Some(&touched), now, Author { user: user.into(), summary })?
    };
    let mut warnings = warnings(&report);
    warnings.extend(core.said.take());
    if let Some(trial) = pending(core).filter(|_| !only_admin(edit)) {
        warnings.push(format!(
            "generation {} is not confirmed: at {} this change is undone with it; hint: lbctl config confirm",
            trial.applied, trial.until
        ));
    }
    let id = match (edit, &touched) {
        (Edit::RsAdd { rs, .. } | Edit::RsSet { rs, .. }, Touched::Changed(place, _)) => {
            core.entry.register.services[*place].servers.iter().find(|s| s.rs.address == *rs).map(|s| s.id)
        }
        _ => None,
    };
    Ok(Changed { generation, id, warnings })
}

/// Does it change admin states alone, which outlive the trial of a configuration?
fn only_admin(edit: &Edit) -> bool {
    matches!(edit, Edit::RsSet { keys, .. } if keys.iter().all(|(key, _)| key == "admin"))
}

fn words(keys: &Keys) -> String {
    keys.iter().map(|(k, v)| format!(" {k}={v}")).collect()
}

/// `service.add`.
///
/// # Errors
/// Refused by validation, or it cannot be published; as all of these.
pub fn service_add(core: &mut Core, p: ServiceAdd, user: &str) -> Result<Changed, ApiError> {
    let summary = format!("service add {}{}", p.service, words(&p.keys));
    edit(core, &Edit::ServiceAdd { service: p.service, keys: p.keys }, &EndNow::default(), user, summary)
}

/// `service.set`.
///
/// # Errors
/// As [`service_add`].
pub fn service_set(core: &mut Core, p: ServiceSet, user: &str) -> Result<Changed, ApiError> {
    let summary = format!("service set {}{}", p.service, words(&p.keys));
    edit(core, &Edit::ServiceSet { service: p.service, keys: p.keys }, &EndNow::default(), user, summary)
}

/// `service.del`. With `now`, also of one that is deleted already and waits for its sessions.
///
/// # Errors
/// As [`service_add`].
pub fn service_del(core: &mut Core, p: ServiceDel, user: &str) -> Result<Changed, ApiError> {
    let end = EndNow { what: p.now.then(|| (p.service.clone(), None)) };
    let summary = format!("service del {}{}", p.service, if p.now { " --now" } else { "" });
    let waits = core.entry.register.services.iter().any(|s| s.removed && s.service.name.as_str() == p.service);
    if p.now && waits && !core.entry.register.present().any(|s| s.service.name.as_str() == p.service) {
        return end_now(core, &end, user, summary);
    }
    edit(core, &Edit::ServiceDel { service: p.service }, &end, user, summary)
}

/// Ends what is deleted already and waits for its sessions.
fn end_now(core: &mut Core, end: &EndNow, user: &str, summary: String) -> Result<Changed, ApiError> {
    let of = |name: &String| core.entry.register.present().position(|s| s.service.name.as_str() == name);
    let place = end.what.as_ref().and_then(|(name, _)| of(name));
    let touched = place.map(|place| Touched::Changed(place, core.entry.register.services[place].configured()));
    let generation = core.edit(touched.as_ref(), end, Author { user: user.into(), summary })?;
    Ok(Changed { generation, id: None, warnings: core.said.take().into_iter().collect() })
}

/// `rs.add`.
///
/// # Errors
/// As [`service_add`].
pub fn rs_add(core: &mut Core, p: RsAdd, user: &str) -> Result<Changed, ApiError> {
    let rs = address(&p.rs)?;
    let summary = format!("rs add {} {rs}{}", p.service, words(&p.keys));
    edit(core, &Edit::RsAdd { service: p.service, rs, keys: p.keys }, &EndNow::default(), user, summary)
}

/// `rs.set`.
///
/// # Errors
/// As [`service_add`].
pub fn rs_set(core: &mut Core, p: RsSet, user: &str) -> Result<Changed, ApiError> {
    let rs = address(&p.rs)?;
    let summary = format!("rs set {} {rs}{}", p.service, words(&p.keys));
    edit(core, &Edit::RsSet { service: p.service, rs, keys: p.keys }, &EndNow::default(), user, summary)
}

/// `rs.del`. With `now`, also of one that is deleted already and waits for its sessions.
///
/// # Errors
/// As [`service_add`].
pub fn rs_del(core: &mut Core, p: RsDel, user: &str) -> Result<Changed, ApiError> {
    let rs = address(&p.rs)?;
    let end = EndNow { what: p.now.then(|| (p.service.clone(), Some(rs))) };
    let summary = format!("rs del {} {rs}{}", p.service, if p.now { " --now" } else { "" });
    let of = |s: &&Arc<super::register::ServiceEntry>| s.service.name.as_str() == p.service;
    let mut servers = core.entry.register.services.iter().filter(of).flat_map(|s| &s.servers);
    let waits = servers.any(|s| s.rs.address == rs && s.removal != super::register::Removal::Present);
    if p.now && waits {
        return end_now(core, &end, user, summary);
    }
    edit(core, &Edit::RsDel { service: p.service, rs }, &end, user, summary)
}

/// `rs.enable`, `rs.drain`, `rs.disable`.
///
/// # Errors
/// As [`service_add`].
pub fn rs_admin(core: &mut Core, p: RsName, admin: &str, user: &str) -> Result<Changed, ApiError> {
    let rs = address(&p.rs)?;
    let summary = format!("rs {admin} {} {rs}", p.service);
    let keys = vec![("admin".to_owned(), admin.to_owned())];
    edit(core, &Edit::RsSet { service: p.service, rs, keys }, &EndNow::default(), user, summary)
}

/// A file's configuration as it would be in force, and as it stands in the file.
struct Read {
    config: Config,
    file: Config,
    digest: String,
    report: Report,
}

/// The machine as a file asks about it. To servers that are checked there was a route when they came: one that vanished
/// must not hold up other changes, and is not asked for again. Each question is a sign of life: a hundred thousand of them
/// take longer than the holder waits.
struct Machine<'a> {
    core: &'a Core,
    known: HashSet<IpAddr>,
}

impl<'a> Machine<'a> {
    fn of(core: &'a Core) -> Self {
        let checked = core.entry.register.present().filter(|s| s.service.health.kind != HealthKind::None);
        let servers = checked.flat_map(|s| s.present());
        Self { core, known: servers.map(|s| s.rs.address.ip()).collect() }
    }
}

impl Facts for Machine<'_> {
    fn cpu_online(&self, cpu: u16) -> bool {
        self.core.machine.cpu_online(cpu)
    }
    fn numa_online(&self, node: u8) -> bool {
        self.core.machine.numa_online(node)
    }
    fn has_route(&self, to: IpAddr) -> bool {
        self.core.alive();
        self.known.contains(&to) || self.core.machine.has_route(to)
    }
    fn is_own(&self, address: IpAddr) -> bool {
        self.core.machine.is_own(address)
    }
}

fn read(core: &Core, file: &str, text: &str) -> Result<Read, ApiError> {
    core.alive();
    let loaded = config::load_text(file, text, &Machine::of(core)).map_err(|report| refused(&report))?;
    core.alive();
    let mut file = loaded.config;
    file.fix_slots(Some(&core.entry.skeleton));
    let mut config = file.clone();
    core.entry.register.keep_admin(&mut config);
    Ok(Read { config, file, digest: loaded.source_digest, report: loaded.warnings })
}

/// What leads from the configuration in force to `config`.
pub fn changes(core: &Core, config: &Config) -> Vec<Change> {
    let view = |c: config::Change| Change { path: path(&c), text: c.to_string(), needs_restart: c.needs_restart() };
    config::diff(&core.config(), config).into_iter().map(view).collect()
}

/// What a change is about.
fn path(change: &config::Change) -> String {
    use config::Change as C;
    match change {
        C::ServiceAdded { service, .. } | C::ServiceRemoved { service } => format!("service {service}"),
        C::ServiceSet { service, key, .. } => format!("service {service}: {key}"),
        C::RsAdded { service, rs, .. }
        | C::RsRemoved { service, rs }
        | C::RsWeight { service, rs, .. }
        | C::RsAdmin { service, rs, .. } => format!("service {service}: rs {rs}"),
        C::LaddrAdded { laddr } | C::LaddrRemoved { laddr } => format!("laddr {}", laddr.address),
        C::Healthcheck { key, .. } => format!("healthcheck: {key}"),
        C::NeedsRestart { path, .. } => path.clone(),
    }
}

/// `config.check`.
///
/// # Errors
/// Everything that is wrong.
pub fn check(core: &Core, source: &ConfigSource, text: &str) -> Result<ConfigChecked, ApiError> {
    let Read { file, report, .. } = read(core, &source.file, text)?;
    Ok(ConfigChecked {
        services: file.services.len() as u64,
        real_servers: file.services.iter().map(|s| s.rs.len() as u64).sum(),
        hugepages: config::hugepages_needed(&file, table_bytes).total(),
        warnings: warnings(&report),
    })
}

/// `config.diff`.
///
/// # Errors
/// Everything that is wrong.
pub fn diff(core: &Core, source: &ConfigSource, text: &str) -> Result<ConfigDiff, ApiError> {
    let read = read(core, &source.file, text)?;
    Ok(ConfigDiff { changes: changes(core, &read.config) })
}

/// Refuses changes that only a restart brings about.
///
/// # Errors
/// All of them.
pub fn no_restart(changes: &[Change]) -> Result<(), ApiError> {
    let blocking: Vec<ApiError> = changes
        .iter()
        .filter(|c| c.needs_restart)
        .map(|c| ApiError::new(Code::NeedsRestart, c.text.clone()).path(c.path.clone()))
        .collect();
    let Some(first) = blocking.first() else { return Ok(()) };
    let message = format!("{} of the changes need a restart: {}", blocking.len(), first.message);
    let mut error = ApiError::new(Code::NeedsRestart, message).hint(
        "restart lb.target with this file (where it changes sessions, slots or limits the tables must hold no session: \
         drain first), or undo these changes",
    );
    error.path.clone_from(&first.path);
    error.all = blocking;
    Err(error)
}

/// Shortest and longest time within which a change may ask to be confirmed, ms.
const CONFIRM_MS: std::ops::RangeInclusive<u64> = 1000..=86_400_000;

/// The trial that `apply --confirm` asks for.
///
/// # Errors
/// Another one is under way; too short or too long a time.
fn trial(core: &Core, confirm_ms: Option<u64>) -> Result<Option<Unconfirmed>, ApiError> {
    if let Some(trial) = pending(core) {
        // Neither confirmed by accident nor forgotten: the operator who began it decides.
        let message = format!(
            "generation {} waits to be confirmed until {}; nothing is applied meanwhile",
            trial.applied, trial.until
        );
        return Err(ApiError::new(Code::Busy, message).hint("lbctl config confirm, or lbctl config rollback, first"));
    }
    let Some(ms) = confirm_ms else { return Ok(None) };
    if !CONFIRM_MS.contains(&ms) {
        let message =
            format!("confirm within {ms} ms is not offered, only {} to {}", CONFIRM_MS.start(), CONFIRM_MS.end());
        return Err(ApiError::new(Code::InvalidParams, message).path("confirm").hint("such as --confirm 60s"));
    }
    let deadline = Deadline::after(std::time::Duration::from_millis(ms), &Now::read());
    let back_to = core.entry.generation;
    Ok(Some(Unconfirmed { back_to, applied: back_to + 1, deadline }))
}

/// `config.apply`.
///
/// # Errors
/// Everything that is wrong; changes that need a restart; it cannot be published; another change waits to be confirmed.
/// Nothing is changed then.
pub fn apply(core: &mut Core, p: &ConfigApply, text: &str, user: &str) -> Result<Applied, ApiError> {
    let read = read(core, &p.file, text)?;
    let changes = changes(core, &read.config);
    core.alive();
    no_restart(&changes)?;
    let warnings = warnings(&read.report);
    if p.dry_run {
        let (generation, unconfirmed) = (core.entry.generation, pending(core));
        return Ok(Applied { generation, changes, dry_run: true, warnings, unconfirmed });
    }
    let trial = trial(core, p.confirm_ms)?;
    // Applied from the configuration file itself: this generation descends from it, and outlives a restart.
    let on_disk = std::fs::read(&core.config_path).map(|bytes| config::digest(&bytes)).ok();
    let digest = on_disk.filter(|d| *d == read.digest).unwrap_or_else(|| core.entry.file_digest.clone());
    let generation = if changes.is_empty() && read.config == core.config() {
        core.adopt_digest(digest)?;
        core.entry.generation
    } else {
        let mut summary = format!("apply {}: {} changes", p.file, changes.len());
        if let Some(ms) = p.confirm_ms {
            summary.push_str(&format!(", to be confirmed within {} s", ms.div_ceil(1000)));
        }
        let file = FromFile { config: &read.file, digest };
        core.change(&read.config, Some(file), &EndNow::default(), Author { user: user.into(), summary }, trial)?
    };
    let warnings = warnings.into_iter().chain(core.said.take()).collect();
    Ok(Applied { generation, changes, dry_run: false, warnings, unconfirmed: pending(core) })
}

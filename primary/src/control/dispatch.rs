//! From a request to its answer: rights, method, audit.

use control_api::params::{ConfigApply, ConfigSource, ConfigUpload};
use control_api::rpc::Request;
use control_api::views::{Asked, ConfigExport, Uploaded};
use control_api::{ApiError, Code, method};
use serde::Serialize;
use serde_json::Value;

use super::core::Core;
use super::stats::Baseline;
use super::{change, node, rollback, services, sessions, stats};

/// Longest configuration that may be uploaded, bytes.
pub const UPLOAD_MAX: usize = 64 << 20;

/// Who asks.
#[derive(Debug)]
pub struct Caller {
    /// Effective uid of the peer when it connected (SO_PEERCRED).
    pub uid: u32,
    /// Its pid.
    pub pid: i32,
    /// Its name, or the uid.
    pub user: String,
    /// May it change anything?
    pub writes: bool,
    /// What it uploaded on this connection.
    pub upload: String,
}

/// Answers a request. Every attempt to change something leaves a line in the log. `None`: the answer is being made in
/// pieces; to be asked again.
///
/// # Errors
/// The refusal.
pub fn handle(core: &mut Core, caller: &mut Caller, request: &Request) -> Result<Option<Value>, ApiError> {
    if request.method == method::LADDR_LIST {
        return node::laddrs(core)?.map(|list| json(Ok(list))).transpose();
    }
    one_piece(core, caller, request).map(Some)
}

fn one_piece(core: &mut Core, caller: &mut Caller, request: &Request) -> Result<Value, ApiError> {
    let writing = method::WRITING.contains(&request.method.as_str());
    let outcome = if writing && !caller.writes {
        let error = ApiError::new(Code::NotPermitted, format!("uid {} may read, not {}", caller.uid, request.method));
        Err(error.hint("changes are for root and the user lb-primary runs as"))
    } else {
        answer(core, caller, request)
    };
    if writing && request.method != method::CONFIG_UPLOAD {
        let result = outcome.as_ref().err().map_or_else(|| "done".to_owned(), |e| format!("{}: {}", e.code, e.message));
        log::info!(
            target: "audit",
            "uid={} pid={} method={} params={} generation={} result={result}",
            caller.uid, caller.pid, request.method, shortened(&request.params), core.entry.generation,
        );
    }
    outcome
}

/// Parameters for one line of the log: no file's text, no control characters.
fn shortened(params: &Value) -> String {
    let mut params = params.clone();
    if let Some(text) = params.get_mut("text") {
        *text = format!("{} bytes", text.as_str().map_or(0, str::len)).into();
    }
    params.to_string().chars().take(400).collect()
}

fn json<T: Serialize>(outcome: Result<T, ApiError>) -> Result<Value, ApiError> {
    serde_json::to_value(outcome?).map_err(|e| ApiError::new(Code::Failed, e.to_string()))
}

fn answer(core: &mut Core, caller: &mut Caller, request: &Request) -> Result<Value, ApiError> {
    let user = caller.user.clone();
    match request.method.as_str() {
        method::VERSION => json(Ok(node::version(core))),
        method::SERVICE_LIST => json(services::list(core, &request.params()?)),
        method::SERVICE_ADD => json(change::service_add(core, request.params()?, &user)),
        method::SERVICE_SET => json(change::service_set(core, request.params()?, &user)),
        method::SERVICE_DEL => json(change::service_del(core, request.params()?, &user)),
        method::RS_LIST => json(services::rs_list(core, &request.params()?)),
        method::RS_ADD => json(change::rs_add(core, request.params()?, &user)),
        method::RS_SET => json(change::rs_set(core, request.params()?, &user)),
        method::RS_DEL => json(change::rs_del(core, request.params()?, &user)),
        method::RS_ENABLE => json(change::rs_admin(core, request.params()?, "enabled", &user)),
        method::RS_DISABLE => json(change::rs_admin(core, request.params()?, "disabled", &user)),
        method::RS_DRAIN => json(change::rs_admin(core, request.params()?, "drain", &user)),
        method::SESSION_LIST => json(sessions::list(core, &request.params()?)),
        method::SESSION_COUNT => json(Ok(sessions::count(&core.tables.slots))),
        method::SESSION_KILL => json(sessions::kill(core, &request.params()?)),
        method::STATS_SHOW => json(show(core)),
        method::STATS_RESET => json(reset(core)),
        method::WORKER_LIST => json(Ok(node::workers(core))),
        method::PORT_LIST => json(node::ports(core)),
        method::NEIGH_LIST => json(Ok(node::neighbours(core, &request.params()?))),
        method::CONFIG_UPLOAD => json(upload(caller, request.params()?)),
        method::CONFIG_CHECK | method::CONFIG_DIFF => {
            let source: ConfigSource = request.params()?;
            let text = text(caller, source.text.as_ref())?;
            if request.method == method::CONFIG_DIFF {
                return json(change::diff(core, &source, &text));
            }
            json(change::check(core, &source, &text))
        }
        method::CONFIG_APPLY => {
            let params: ConfigApply = request.params()?;
            let text = text(caller, params.text.as_ref())?;
            json(change::apply(core, &params, &text, &user))
        }
        method::CONFIG_EXPORT => {
            let text = config::export(&core.config());
            json(Ok(ConfigExport { generation: core.entry.generation, text }))
        }
        method::CONFIG_HISTORY => json(Ok(rollback::history(core))),
        method::CONFIG_CONFIRM => json(rollback::confirm(core)),
        method::CONFIG_ROLLBACK => json(rollback::rollback(core, &request.params()?, &user)),
        other => Err(ApiError::new(Code::UnknownMethod, format!("no method \"{other}\""))),
    }
}

fn show(core: &Core) -> Result<control_api::views::Stats, ApiError> {
    let zones: Vec<u32> = core.entry.skeleton.slot_homes().iter().map(|home| home.zone.into()).collect();
    stats::show(&core.tables.slots, &zones, &core.baseline)
}

fn reset(core: &mut Core) -> Result<Asked, ApiError> {
    core.baseline = Baseline::take(&core.tables.slots)?;
    Ok(Asked { slots: u32::try_from(core.tables.slots.len()).unwrap_or(u32::MAX) })
}

fn upload(caller: &mut Caller, piece: ConfigUpload) -> Result<Uploaded, ApiError> {
    if piece.first {
        caller.upload.clear();
    }
    if caller.upload.len() + piece.text.len() > UPLOAD_MAX {
        caller.upload = String::new();
        return Err(ApiError::new(Code::Refused, format!("configuration is longer than {UPLOAD_MAX} bytes")));
    }
    caller.upload.push_str(&piece.text);
    Ok(Uploaded { bytes: caller.upload.len() as u64 })
}

fn text(caller: &mut Caller, given: Option<&String>) -> Result<String, ApiError> {
    match given {
        Some(text) => Ok(text.clone()),
        None if caller.upload.is_empty() => {
            let error =
                ApiError::new(Code::InvalidParams, "no configuration: text is absent, and nothing was uploaded");
            Err(error.hint("config.upload first, or give text"))
        }
        None => Ok(std::mem::take(&mut caller.upload)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gets_no_files() {
        let line = shortened(&serde_json::json!({"file": "a\nb", "text": "x".repeat(100_000)}));
        assert!(line.len() < 100 && line.contains("100000 bytes") && !line.contains('\n'));
    }
}

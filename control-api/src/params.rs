//! What is asked. Unknown keys are refused, so that a mistyped filter does not mean "all".

use serde::{Deserialize, Serialize};

/// Where a list goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Paging {
    /// `next` of the page before; absent: from the start.
    pub after: Option<u64>,
    /// Most items of this page; absent: as many as fit.
    pub limit: Option<u64>,
}

/// `service.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceList {
    /// This service alone.
    pub service: Option<String>,
    /// `next` of the page before.
    pub after: Option<u64>,
    /// Most items of this page.
    pub limit: Option<u64>,
}

/// `rs.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RsList {
    /// Of this service alone.
    pub service: Option<String>,
    /// `next` of the page before.
    pub after: Option<u64>,
    /// Most items of this page.
    pub limit: Option<u64>,
}

/// `session.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionList {
    /// Of this service (name).
    pub service: Option<String>,
    /// Of this client: an address, with or without port.
    pub client: Option<String>,
    /// To this real server: an address, with or without port.
    pub rs: Option<String>,
    /// In this state, as shown (`established`, `udp`, …).
    pub state: Option<String>,
    /// `next` of the page before.
    pub after: Option<u64>,
    /// Most items of this page.
    pub limit: Option<u64>,
}

/// `session.kill`: at least one key; what is absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionKill {
    /// `tcp` or `udp`.
    pub protocol: Option<String>,
    /// Client: an address, with or without port.
    pub client: Option<String>,
    /// Service address: an address, with or without port.
    pub vip: Option<String>,
}

/// Keys with their values as a command line gives them, `[["scheduler", "wrr"], ["health.interval", "5s"]]`: words without
/// quotes, inner keys dotted; an empty value takes the key back to its default.
pub type Keys = Vec<(String, String)>;

/// `service.add`: a new service, without servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAdd {
    /// Name.
    pub service: String,
    /// Keys of `[[service]]` (INTERFACE §4); at least `vip`.
    pub keys: Keys,
}

/// `service.set`: keys that change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSet {
    /// Name.
    pub service: String,
    /// Keys of `[[service]]`.
    pub keys: Keys,
}

/// `service.del`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceDel {
    /// Name.
    pub service: String,
    /// End its sessions instead of waiting for the last.
    #[serde(default)]
    pub now: bool,
}

/// A real server: `rs.enable`, `rs.disable`, `rs.drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RsName {
    /// Name of its service.
    pub service: String,
    /// Its address, as in the configuration.
    pub rs: String,
}

/// `rs.add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RsAdd {
    /// Name of its service.
    pub service: String,
    /// Its address.
    pub rs: String,
    /// `weight`, `admin`; absent ones have their defaults.
    #[serde(default)]
    pub keys: Keys,
}

/// `rs.set`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RsSet {
    /// Name of its service.
    pub service: String,
    /// Its address.
    pub rs: String,
    /// `weight`, `admin`.
    pub keys: Keys,
}

/// `rs.del`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RsDel {
    /// Name of its service.
    pub service: String,
    /// Its address.
    pub rs: String,
    /// End its sessions instead of waiting for the last.
    #[serde(default)]
    pub now: bool,
}

/// `config.upload`: a piece of a file that does not fit one frame; kept for this connection only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigUpload {
    /// Text to append; with `first`, what was there before is dropped.
    pub text: String,
    /// The first piece.
    #[serde(default)]
    pub first: bool,
}

/// `config.check`, `config.diff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigSource {
    /// Name of the file, for messages.
    pub file: String,
    /// Its text; absent: what was uploaded.
    pub text: Option<String>,
}

/// `config.apply`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigApply {
    /// Name of the file, for messages.
    pub file: String,
    /// Its text; absent: what was uploaded.
    pub text: Option<String>,
    /// Say what would change, change nothing.
    pub dry_run: bool,
    /// Go back by itself unless `config.confirm` comes within so many ms; absent: it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_ms: Option<u64>,
}

/// `config.rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigRollback {
    /// How many lines of `config history` to go back. Absent: to before the change on trial, or else 1.
    pub generations: Option<u64>,
}

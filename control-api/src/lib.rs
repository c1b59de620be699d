//! What is said on the admin socket (`control.sock`): JSON-RPC 2.0, one object a line, UTF-8.
//!
//! [`rpc`] is the envelope, [`params`] what is asked, [`views`] what is answered (the fields of `lbctl -o json`),
//! [`error`] how it is refused, [`client`] a blocking client. Nothing here knows the tables, but for
//! feature `tables`: answers made from them, for programs that map them.
//!
//! # Methods
//!
//! | method | params | result | rights |
//! |---|---|---|---|
//! | `version` | – | [`views::Version`] | read |
//! | `service.list` | [`params::ServiceList`] | [`views::Page`] of [`views::Service`] | read |
//! | `service.add` / `.set` / `.del` | [`params::ServiceAdd`], [`params::ServiceSet`], [`params::ServiceDel`] | [`views::Changed`] | write |
//! | `rs.list` | [`params::RsList`] | [`views::Page`] of [`views::Rs`] | read |
//! | `rs.add` / `.set` / `.del` | [`params::RsAdd`], [`params::RsSet`], [`params::RsDel`] | [`views::Changed`] | write |
//! | `rs.enable` / `.disable` / `.drain` | [`params::RsName`] | [`views::Changed`] | write |
//! | `session.list` | [`params::SessionList`] | [`views::Page`] of [`views::Session`] | read |
//! | `session.count` | – | [`views::SessionCount`] | read |
//! | `session.kill` | [`params::SessionKill`] | [`views::Asked`] | write |
//! | `stats.show` | – | [`views::Stats`] | read |
//! | `stats.reset` | – | [`views::Asked`] | write |
//! | `worker.list` | – | list of [`views::Worker`] | read |
//! | `port.list` | – | list of [`views::Port`] | read |
//! | `laddr.list` | – | list of [`views::Laddr`] | read |
//! | `neigh.list` | [`params::Paging`] | [`views::Page`] of [`views::Neigh`] | read |
//! | `config.upload` | [`params::ConfigUpload`] | [`views::Uploaded`] | write |
//! | `config.check` / `.diff` | [`params::ConfigSource`] | [`views::ConfigChecked`], [`views::ConfigDiff`] | read |
//! | `config.apply` | [`params::ConfigApply`] | [`views::Applied`] | write |
//! | `config.confirm` | – | [`views::Changed`] | write |
//! | `config.rollback` | [`params::ConfigRollback`] | [`views::Applied`] | write |
//! | `config.export` | – | [`views::ConfigExport`] | read |
//! | `config.history` | – | list of [`views::HistoryEntry`] | read |
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod client;
pub mod error;
pub mod params;
pub mod rpc;
#[cfg(feature = "tables")]
mod tables;
pub mod views;

pub use client::{Client, ClientError};
pub use error::{ApiError, Code};

/// Version of this interface: raised when a client must know. The first reply on a connection carries it.
pub const API_VERSION: u32 = 1;

/// Longest line a client may send, newline included, bytes.
pub const MAX_FRAME: usize = 1 << 20;

/// Longest line a daemon answers, bytes: a client reads no further. Pages are packed far below it.
pub const MAX_REPLY: usize = 16 << 20;

/// Clients at once.
pub const MAX_CLIENTS: usize = 64;

/// Seconds without a request after which a connection is closed.
pub const IDLE_SECONDS: u64 = 30;

/// Piece of a configuration in one `config.upload`: leaves room for JSON's escapes within [`MAX_FRAME`].
pub const UPLOAD_CHUNK: usize = 128 << 10;

/// Method names.
pub mod method {
    #![allow(missing_docs, reason = "each is the method it spells; the table above says what it does")]
    pub const VERSION: &str = "version";
    pub const SERVICE_LIST: &str = "service.list";
    pub const SERVICE_ADD: &str = "service.add";
    pub const SERVICE_SET: &str = "service.set";
    pub const SERVICE_DEL: &str = "service.del";
    pub const RS_LIST: &str = "rs.list";
    pub const RS_ADD: &str = "rs.add";
    pub const RS_SET: &str = "rs.set";
    pub const RS_DEL: &str = "rs.del";
    pub const RS_ENABLE: &str = "rs.enable";
    pub const RS_DISABLE: &str = "rs.disable";
    pub const RS_DRAIN: &str = "rs.drain";
    pub const SESSION_LIST: &str = "session.list";
    pub const SESSION_COUNT: &str = "session.count";
    pub const SESSION_KILL: &str = "session.kill";
    pub const STATS_SHOW: &str = "stats.show";
    pub const STATS_RESET: &str = "stats.reset";
    pub const WORKER_LIST: &str = "worker.list";
    pub const PORT_LIST: &str = "port.list";
    pub const LADDR_LIST: &str = "laddr.list";
    pub const NEIGH_LIST: &str = "neigh.list";
    pub const CONFIG_UPLOAD: &str = "config.upload";
    pub const CONFIG_CHECK: &str = "config.check";
    pub const CONFIG_DIFF: &str = "config.diff";
    pub const CONFIG_APPLY: &str = "config.apply";
    pub const CONFIG_EXPORT: &str = "config.export";
    pub const CONFIG_HISTORY: &str = "config.history";
    pub const CONFIG_CONFIRM: &str = "config.confirm";
    pub const CONFIG_ROLLBACK: &str = "config.rollback";

    /// Methods that change something: root and the daemon's own uid only.
    pub const WRITING: &[&str] = &[
        SERVICE_ADD,
        SERVICE_SET,
        SERVICE_DEL,
        RS_ADD,
        RS_SET,
        RS_DEL,
        RS_ENABLE,
        RS_DISABLE,
        RS_DRAIN,
        SESSION_KILL,
        STATS_RESET,
        CONFIG_UPLOAD,
        CONFIG_APPLY,
        CONFIG_CONFIRM,
        CONFIG_ROLLBACK,
    ];
}

//! One error for the rig: what was tried, with what, and what came back.

use std::path::PathBuf;
use std::time::Duration;

/// Result of a rig operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a rig operation or a test ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file failed.
    #[error("{what} {path}: {source}")]
    File {
        /// What was done, e.g. "write".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A program could not be started at all.
    #[error("start {program}: {source}; hint: `cargo xtask setup` installs what the tests need")]
    Spawn {
        /// Program and arguments.
        program: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A program ran and ended with a failure.
    #[error("`{command}` ended with {status}: {stderr}")]
    Command {
        /// Program and arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// What it wrote to stderr, trimmed.
        stderr: String,
    },
    /// What was waited for did not come.
    #[error("{what} did not come within {after:?}{detail}")]
    Timeout {
        /// The awaited event.
        what: String,
        /// How long it was waited for.
        after: Duration,
        /// What was seen last, with leading "; ", or empty.
        detail: String,
    },
    /// A program answered with something that is not what INTERFACE says.
    #[error("{what}: {source}; got: {text}")]
    Json {
        /// Which answer.
        what: String,
        /// Where it differs.
        source: serde_json::Error,
        /// The answer, cut to 400 characters.
        text: String,
    },
    /// A promise was not kept: the test fails.
    #[error("{0}")]
    Claim(String),
}

impl Error {
    /// A failed promise.
    pub fn claim(text: impl Into<String>) -> Self {
        Self::Claim(text.into())
    }

    /// Adapter for `map_err` on file operations.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

/// Fails with `text` unless `holds`.
pub fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Claim(text())) }
}

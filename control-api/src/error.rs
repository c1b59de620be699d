//! How a request is refused, and which exit status of `lbctl` that is (INTERFACE §2).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Not JSON, or longer than a frame.
    Parse,
    /// JSON, but no request.
    InvalidRequest,
    /// No such method.
    UnknownMethod,
    /// Parameters of another shape.
    InvalidParams,
    /// Could not be done; nothing was changed.
    Failed,
    /// Refused by validation.
    Refused,
    /// Would need a restart of the appliance.
    NeedsRestart,
    /// The client's uid may only read.
    NotPermitted,
    /// A worker holds the change up; nothing was changed.
    Busy,
    /// The daemon does not answer (made by the client, never sent).
    Unreachable,
}

/// [`ApiError::code`] when all places of the socket are taken: nothing was asked yet, so it may be tried again.
pub const FULL: &str = "full";

impl Code {
    const ALL: [(Self, i32, &'static str); 10] = [
        (Self::Parse, -32700, "parse"),
        (Self::InvalidRequest, -32600, "invalid-request"),
        (Self::UnknownMethod, -32601, "unknown-method"),
        (Self::InvalidParams, -32602, "invalid-params"),
        (Self::Failed, -32603, "failed"),
        (Self::Refused, -32000, "refused"),
        (Self::NeedsRestart, -32001, "needs-restart"),
        (Self::NotPermitted, -32002, "not-permitted"),
        (Self::Busy, -32003, "busy"),
        (Self::Unreachable, -32099, "unreachable"),
    ];

    /// JSON-RPC's number.
    #[must_use]
    pub fn number(self) -> i32 {
        Self::ALL.iter().find(|row| row.0 == self).map_or(-32603, |row| row.1)
    }

    /// Of a number; unknown ones are failures.
    #[must_use]
    pub fn of(number: i32) -> Self {
        Self::ALL.iter().find(|row| row.1 == number).map_or(Self::Failed, |row| row.0)
    }

    /// Its word, the `code` of an error that carries no code of the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|row| row.0 == self).map_or("failed", |row| row.2)
    }

    /// Exit status of `lbctl`: 1 failed, 2 wrong usage, 3 unreachable, 4 refused by validation.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Failed | Self::NotPermitted | Self::Busy => 1,
            Self::Parse | Self::InvalidRequest | Self::UnknownMethod | Self::InvalidParams => 2,
            Self::Unreachable => 3,
            Self::Refused | Self::NeedsRestart => 4,
        }
    }
}

/// A refusal. `Serialize` gives the `{code, message, path, hint}` that `lbctl -o json` writes to stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct ApiError {
    /// Kind.
    #[serde(default = "failed")]
    pub kind: Code,
    /// `LB-E012` of the configuration's codes, or the word of the kind.
    pub code: String,
    /// What, value, limit.
    pub message: String,
    /// The key it is about.
    pub path: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Everything that is wrong, when it is more than this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<Self>,
    /// The same for people, with lines and carets, when it comes from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

fn failed() -> Code {
    Code::Failed
}

impl ApiError {
    /// A refusal.
    #[must_use]
    pub fn new(kind: Code, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: kind.word().into(),
            message: message.into(),
            path: None,
            hint: None,
            all: Vec::new(),
            report: None,
        }
    }
    /// With a code of its own.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = code.into();
        self
    }
    /// With the key it is about.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }
    /// With what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Exit status of `lbctl`.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        self.kind.exit_status()
    }
}

impl fmt::Display for ApiError {
    /// The text after `error: `; the report with carets where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(report) = &self.report {
            return f.write_str(report);
        }
        f.write_str(&self.message)?;
        if let Some(path) = &self.path {
            write!(f, "\n  at {path}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds_go_both_ways() {
        for (kind, number, word) in Code::ALL {
            assert_eq!((Code::of(number), kind.number(), kind.word()), (kind, number, word));
        }
        assert_eq!(Code::of(5), Code::Failed);
        assert_eq!(Code::Refused.exit_status(), 4);
        assert_eq!(Code::Unreachable.exit_status(), 3);
    }

    #[test]
    fn json_has_the_four_fields() {
        let value = serde_json::to_value(ApiError::new(Code::Refused, "no")).unwrap();
        for key in ["code", "message", "path", "hint"] {
            assert!(value.get(key).is_some(), "{key}");
        }
    }
}

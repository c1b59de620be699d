//! Why a command did not do what was asked: shown to people or programs, with its exit status (INTERFACE §2, §5).

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use control_api::{ApiError, ClientError, Code};
use serde_json::Value;

use crate::cli::Format;

/// Exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// Done.
    pub const DONE: Self = Self(0);
    /// Failed, or "differs".
    pub const FAILED: Self = Self(1);
    /// Refused by validation.
    pub const REFUSED: Self = Self(4);
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.0)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon, or we in its place, refused.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// A configuration has mistakes.
    #[error("{0}")]
    Invalid(config::Report),
    /// The answer could not be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
}

impl From<ClientError> for Failure {
    /// Who could not be reached, where, and what to do about it.
    fn from(error: ClientError) -> Self {
        let told = match error {
            ClientError::Connect { path, source } => {
                let denied = source.kind() == std::io::ErrorKind::PermissionDenied;
                unreachable(&path, &source, denied)
            }
            ClientError::Broken { path, source } => {
                let late = matches!(source.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                let why = if late { "no answer in time".to_owned() } else { source.to_string() };
                ApiError::new(Code::Unreachable, format!("no answer from the daemon at {}: {why}", path.display()))
                    .hint("try again; `journalctl -u lb-primary.service` tells what happened to it")
            }
            ClientError::Garbled { path, reason } => ApiError::new(
                Code::Unreachable,
                format!("the daemon at {} answered something that is no reply: {reason}", path.display()),
            )
            .hint("is that socket lb-primary's, and of the same version? `lbctl --version` shows both"),
            other => other.into_api(),
        };
        Self::Api(told)
    }
}

fn unreachable(path: &Path, source: &std::io::Error, denied: bool) -> ApiError {
    let hint = if denied {
        format!("become root or a member of the group that owns {}", path.display())
    } else {
        "start it with `systemctl start lb-primary.service` (`systemctl restart lb.target` if workers of a dead one still forward); another instance: --config FILE or --socket PATH".into()
    };
    ApiError::new(Code::Unreachable, format!("cannot reach the daemon at {}: {source}", path.display())).hint(hint)
}

impl From<config::Report> for Failure {
    /// A file that cannot be read is no refused configuration.
    fn from(report: config::Report) -> Self {
        let unreadable = report.diagnostics().find(|d| d.code == config::codes::UNREADABLE).cloned();
        let Some(first) = unreadable else { return Self::Invalid(report) };
        Self::Api(ApiError { hint: first.hint, ..ApiError::new(Code::Failed, first.message).code(first.code) })
    }
}

impl Failure {
    /// Something that failed here.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Api(ApiError::new(Code::Failed, message).hint(hint))
    }

    /// Whether nobody answers.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Api(error) if error.kind == Code::Unreachable)
    }

    /// Exit status.
    pub fn status(&self) -> Status {
        match self {
            Self::Api(error) => Status(error.exit_status()),
            Self::Invalid(_) => Status::REFUSED,
            Self::Output(_) => Status::FAILED,
        }
    }

    /// Writes it to stderr.
    pub fn tell(&self, format: Format) {
        let text = match format {
            Format::Table => self.text(std::io::stderr().is_terminal()),
            Format::Json => self.json().to_string(),
        };
        // With stderr gone there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    }

    fn text(&self, styled: bool) -> String {
        match self {
            Self::Invalid(report) if styled => report.styled(),
            Self::Invalid(report) => report.to_string(),
            // A report begins with `error[LB-E…]` itself, one per mistake.
            Self::Api(error) => error.report.clone().unwrap_or_else(|| format!("error: {error}")),
            Self::Output(_) => format!("error: {self}"),
        }
    }

    /// `{code, message, path, hint}` of the first mistake; `all` has every one when there are more.
    fn json(&self) -> Value {
        let mut value = match self {
            Self::Api(error) => to_value(&ApiError { report: None, ..error.clone() }),
            Self::Invalid(report) => {
                let errors = || report.diagnostics().filter(|d| d.level == config::Level::Error);
                let mut first = errors().next().map_or(Value::Null, to_value);
                if report.diagnostics().len() > 1 {
                    first["all"] = report.diagnostics().map(to_value).collect();
                }
                first
            }
            Self::Output(_) => to_value(&ApiError::new(Code::Failed, self.to_string())),
        };
        if let Some(object) = value.as_object_mut() {
            object.retain(|key, value| key != "related" || !value.is_null());
        }
        value
    }
}

fn to_value(item: &impl serde::Serialize) -> Value {
    // Structs of texts and numbers: nothing JSON cannot say.
    serde_json::to_value(item).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_from_afar_shows_its_report_once() {
        let mut error = ApiError::new(Code::Refused, "no").code("LB-E012").path("service[0].vip").hint("give a port");
        let text = Failure::from(error.clone()).text(false);
        assert_eq!(text, "error: no\n  at service[0].vip\n  hint: give a port");
        error.report = Some("error[LB-E012]: no\n --> x:1:2".into());
        let failure = Failure::from(error);
        assert_eq!(failure.text(false), "error[LB-E012]: no\n --> x:1:2");
        assert_eq!(failure.json()["code"], "LB-E012");
        assert!(failure.json().get("report").is_none());
        assert_eq!(failure.status(), Status::REFUSED);
    }
}

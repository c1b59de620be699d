//! Wrong usage: what clap found, in the form that was asked for.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Error};
use control_api::{ApiError, Code};

use crate::cli::{Cli, Format};
use crate::failure::Failure;

/// Wrong usage (INTERFACE §2).
const USAGE: u8 = 2;

/// Objects and verbs that the interface names and this version does not have.
const LATER: [&str; 6] = ["upgrade", "explain", "trace", "capture", "doctor", "top"];

/// Prints help or what is wrong.
pub fn tell(error: &Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print(); // with the reader gone there is nobody to tell
        return ExitCode::SUCCESS;
    }
    let later = word(error).filter(|word| LATER.contains(&word.as_str()));
    let failure = later.map(|word| {
        let message = format!("`{word}` is not in this version");
        Failure::from(ApiError::new(Code::InvalidRequest, message).hint("`lbctl --help` lists what is"))
    });
    match (asked_for_json(std::env::args()), failure) {
        (true, failure) => failure.unwrap_or_else(|| plain(error)).tell(Format::Json),
        (false, Some(failure)) => failure.tell(Format::Table),
        (false, None) => drop(error.print()),
    }
    ExitCode::from(USAGE)
}

/// A command line with options and no object.
pub fn missing_object() -> Failure {
    let error = Cli::command().error(ErrorKind::MissingSubcommand, "OBJECT and VERB are missing");
    plain(&error)
}

/// A `set` without anything to set.
pub fn nothing_to_set(command: &str, example: &str) -> Failure {
    let error = ApiError::new(Code::InvalidRequest, format!("{command}: nothing to set")).code("usage");
    Failure::from(error.hint(format!("give at least one option, such as {example}")))
}

/// The word clap did not know.
fn word(error: &Error) -> Option<String> {
    let kinds = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg];
    kinds.into_iter().find_map(|kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.split(['=', ' ']).next().unwrap_or(word).to_owned()),
        _ => None,
    })
}

/// Its first line is what, the rest is what to do.
fn plain(error: &Error) -> Failure {
    let text = error.render().to_string();
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let mut told = ApiError::new(Code::InvalidRequest, first.trim_start_matches("error: ")).code("usage");
    let rest = rest.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    told.hint = (!rest.is_empty()).then_some(rest);
    Failure::from(told)
}

/// Whether the command line, which could not be read as a whole, asks for JSON.
fn asked_for_json(arguments: impl Iterator<Item = String>) -> bool {
    let mut last = String::new();
    for argument in arguments {
        let value = match (last.as_str(), argument.as_str()) {
            ("-o" | "--output", value) => Some(value),
            (_, "-ojson" | "-o=json" | "--output=json") => Some("json"),
            _ => None,
        };
        if value == Some("json") {
            return true;
        }
        last = argument;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_on_a_broken_line() {
        let asked = |line: &str| asked_for_json(line.split(' ').map(str::to_owned));
        assert!(asked("lbctl -o json srvice list") && asked("lbctl --output=json x") && asked("lbctl -ojson"));
        assert!(!asked("lbctl -o table json") && !asked("lbctl json"));
    }
}

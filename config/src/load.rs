//! From a file to a configuration, or to the list of everything that is wrong with it.

use std::path::Path;

use toml::de::{DeTable, Error};

use crate::check::check;
use crate::codes;
use crate::derived::fnv128;
use crate::diag::{Diagnostic, Place, Report};
use crate::facts::Facts;
use crate::model::{Config, Node};
use crate::parse;
use crate::walk::{Section, Walk};

/// A configuration that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What was said about it nevertheless.
    pub warnings: Report,
    /// Of the file's bytes (128 bits in hex): tells whether the file is unchanged. Not for adversaries.
    pub source_digest: String,
}

/// Reads, parses and checks a file.
///
/// # Errors
/// Everything that is wrong, warnings included.
pub fn load(path: &Path, facts: &dyn Facts) -> Result<Loaded, Report> {
    load_text(&path.display().to_string(), &read(path)?, facts)
}

/// Parses and checks a text; `file` is what the report calls it.
///
/// # Errors
/// Everything that is wrong, warnings included.
pub fn load_text(file: &str, source: &str, facts: &dyn Facts) -> Result<Loaded, Report> {
    let (table, errors) = DeTable::parse_recoverable(source);
    if !errors.is_empty() {
        return Err(syntax(file, source, &errors));
    }
    let mut walk = Walk::default();
    let config = parse::config(&mut walk, table.get_ref());
    let more = check(&config, facts, &walk.poisoned);
    let report = walk.report(file, source, more);
    if report.errors() > 0 {
        return Err(report);
    }
    Ok(Loaded { config, warnings: report, source_digest: digest(source.as_bytes()) })
}

/// Reads only `[node]`: what a worker or the health-checker needs to find its instance. Mistakes elsewhere do not matter.
///
/// # Errors
/// Everything that is wrong with `[node]`, or the file's syntax.
pub fn load_node(path: &Path) -> Result<Node, Report> {
    let (file, source) = (path.display().to_string(), read(path)?);
    let (table, errors) = DeTable::parse_recoverable(&source);
    if !errors.is_empty() {
        return Err(syntax(&file, &source, &errors));
    }
    let mut walk = Walk::default();
    let mut top = Section::new(&mut walk, "", table.get_ref(), 0..0);
    let node = parse::node(&mut walk, &mut top);
    let report = walk.report(&file, &source, Vec::new());
    if report.errors() > 0 { Err(report) } else { Ok(node) }
}

/// The digest of a file's bytes, as [`Loaded::source_digest`] has it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("{:032x}", fnv128(bytes))
}

fn read(path: &Path) -> Result<String, Report> {
    let fail = |why: &dyn std::fmt::Display, hint: &str| {
        let error = Diagnostic::new(codes::UNREADABLE, "", format!("cannot read {}: {why}", path.display()));
        Report::from_diagnostics(vec![error.hint(hint)])
    };
    let bytes = std::fs::read(path).map_err(|why| fail(&why, "name it with --config FILE"))?;
    String::from_utf8(bytes).map_err(|why| fail(&why, "a configuration is UTF-8 text"))
}

fn syntax(file: &str, source: &str, errors: &[Error]) -> Report {
    let items = errors.iter().map(|error| {
        let diagnostic = Diagnostic::new(codes::SYNTAX, "", format!("not TOML: {}", error.message().trim()));
        (diagnostic, Place { at: error.span().or(Some(0..0)), related: None })
    });
    Report::new(file, source, items.collect())
}

//! What is wrong, in two forms: for machines ([`Diagnostic`]) and for people ([`Report`], lines with a caret and a hint).

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level as Shown, Renderer, Snippet};
use serde::{Deserialize, Serialize};

use crate::text::words;

words! {
    /// How bad it is.
    Level, "level" {
        /// Refused.
        Error = "error",
        /// Accepted, and said.
        Warning = "warning",
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub level: Level,
    /// `LB-E012`, `LB-W003`: stays the same over versions. Listed in [`crate::codes`].
    pub code: String,
    /// What, with value and limit.
    pub message: String,
    /// The key, `service[0].rs[1].weight`.
    pub path: String,
    /// Line in the file, from 1; 0 when it comes from no file.
    pub line: usize,
    /// Column in characters, from 1; 0 when it comes from no file.
    pub column: usize,
    /// What to do.
    pub hint: Option<String>,
    /// The other place of a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
}

/// The other place of a conflict: what was there first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    /// Its key.
    pub path: String,
    /// What it is, `first used here`.
    pub label: String,
}

impl Diagnostic {
    /// A diagnostic at a key, not yet at a place in a file. A code with `W` is a warning.
    pub(crate) fn new(code: &str, path: impl Into<String>, message: impl Into<String>) -> Self {
        let level = if code.starts_with("LB-W") { Level::Warning } else { Level::Error };
        Self {
            level,
            code: code.to_owned(),
            message: message.into(),
            path: path.into(),
            line: 0,
            column: 0,
            hint: None,
            related: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn related(mut self, path: impl Into<String>, label: impl Into<String>) -> Self {
        self.related = Some(Related { path: path.into(), label: label.into() });
        self
    }
}

impl fmt::Display for Diagnostic {
    /// One line, for logs and for what comes from no file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.level, self.code, self.message)?;
        if !self.path.is_empty() {
            write!(f, " at {}", self.path)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

/// Byte ranges in the file: of the diagnostic, and of its related place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) at: Option<Range<usize>>,
    pub(crate) related: Option<Range<usize>>,
}

/// All that is wrong with a configuration, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    file: String,
    source: String,
    items: Vec<(Diagnostic, Place)>,
}

impl std::error::Error for Report {}

/// Mistakes told of one file.
const TOLD: usize = 200;

impl Report {
    /// A report about a file whose text is at hand; sorts by place.
    pub(crate) fn new(file: &str, source: &str, mut items: Vec<(Diagnostic, Place)>) -> Self {
        // The work for each is that of reading the file: a file that is wrong all over must not keep anybody from work.
        let more = items.len().saturating_sub(TOLD);
        items.sort_by_key(|(d, p)| (d.level, p.at.as_ref().map_or(usize::MAX, |r| r.start)));
        items.truncate(TOLD);
        if let Some((last, _)) = items.last_mut().filter(|_| more > 0) {
            last.hint = Some(format!(
                "{}and {more} more mistakes, not shown",
                last.hint.take().map_or_else(String::new, |h| h + "; ")
            ));
        }
        for (diagnostic, place) in &mut items {
            if let Some(at) = &place.at {
                (diagnostic.line, diagnostic.column) = line_column(source, at.start);
            }
        }
        items.sort_by_key(|(d, p)| (p.at.as_ref().map_or(usize::MAX, |r| r.start), d.level));
        let source = if items.is_empty() { String::new() } else { source.to_owned() };
        Self { file: file.to_owned(), source, items }
    }

    /// A report without places, about a change that came from no file.
    #[must_use]
    pub fn from_diagnostics(diagnostics: Vec<Diagnostic>) -> Self {
        Self { items: diagnostics.into_iter().map(|d| (d, Place::default())).collect(), ..Self::default() }
    }

    /// The machine form.
    pub fn diagnostics(&self) -> impl ExactSizeIterator<Item = &Diagnostic> {
        self.items.iter().map(|(d, _)| d)
    }

    /// The machine form, owned.
    #[must_use]
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.items.into_iter().map(|(d, _)| d).collect()
    }

    /// Nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.count(Level::Error)
    }

    /// How many warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Level::Warning)
    }

    fn count(&self, level: Level) -> usize {
        self.diagnostics().filter(|d| d.level == level).count()
    }

    /// The human form with terminal colours.
    #[must_use]
    pub fn styled(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut out = String::new();
        for (diagnostic, place) in &self.items {
            out.push_str(&renderer.render(&[self.group(diagnostic, place)]));
            out.push_str("\n\n");
        }
        out.push_str(&self.summary());
        out
    }

    fn summary(&self) -> String {
        let several = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match (self.errors(), self.warnings()) {
            (e, 0) => several(e, "error"),
            (0, w) => several(w, "warning"),
            (e, w) => format!("{}, {}", several(e, "error"), several(w, "warning")),
        }
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic, place: &Place) -> Group<'a> {
        let shown = if diagnostic.level == Level::Error { Shown::ERROR } else { Shown::WARNING };
        let title = shown.primary_title(diagnostic.message.as_str()).id(diagnostic.code.as_str());
        let mut group = match &place.at {
            Some(at) => title.element(self.snippet(diagnostic, at, place.related.as_ref())),
            None => Group::with_title(title),
        };
        if place.at.is_none() && !diagnostic.path.is_empty() {
            group = group.element(Shown::NOTE.message(format!("at {}", diagnostic.path)));
        }
        match &diagnostic.hint {
            Some(hint) => group.element(Shown::HELP.message(hint.as_str())),
            None => group,
        }
    }

    /// The lines of both places; only those are handed to the renderer, since a file may have 100,000.
    fn snippet<'a>(
        &'a self,
        diagnostic: &'a Diagnostic,
        at: &Range<usize>,
        related: Option<&Range<usize>>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let first = related.map_or(at.start, |r| r.start.min(at.start));
        let last = related.map_or(at.start, |r| r.start.max(at.start));
        let start = self.source[..first].rfind('\n').map_or(0, |n| n + 1);
        let end = self.source[last..].find('\n').map_or(self.source.len(), |n| last + n);
        // A place that goes on over several lines is marked on its first.
        let clip = |range: &Range<usize>| {
            let line_end = self.source[range.start..].find('\n').map_or(self.source.len(), |n| range.start + n);
            range.start - start..range.end.clamp(range.start, line_end) - start
        };
        let mut snippet = Snippet::source(&self.source[start..end])
            .path(self.file.as_str())
            .line_start(line_column(&self.source, start).0)
            .annotation(AnnotationKind::Primary.span(clip(at)));
        if let (Some(range), Some(what)) = (related, &diagnostic.related) {
            snippet = snippet.annotation(AnnotationKind::Context.span(clip(range)).label(what.label.as_str()));
        }
        snippet
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

/// Line and column in characters, both from 1, of a byte.
fn line_column(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..at.min(source.len())];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    (before.bytes().filter(|b| *b == b'\n').count() + 1, before[line_start..].chars().count() + 1)
}

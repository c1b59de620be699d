//! Walking a TOML table key by key: every mistake is noted with its place, and a usable value goes on in its stead.
//!
//! A value that could not be read is *poisoned*: later checks say nothing about it, so one mistake is one diagnostic.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::codes;
use crate::diag::{Diagnostic, Place, Report};
use crate::text::{ValueError, nearest};

/// What the walk has gathered: mistakes, the place of every key, and what could not be read.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) found: Vec<Diagnostic>,
    places: HashMap<String, Range<usize>>,
    pub(crate) poisoned: BTreeSet<String>,
}

impl Walk {
    fn place(&mut self, path: &str, span: Range<usize>) {
        self.places.insert(path.to_owned(), span);
    }

    /// Notes a mistake and poisons its key.
    pub(crate) fn bad(&mut self, diagnostic: Diagnostic) {
        self.poisoned.insert(diagnostic.path.clone());
        self.found.push(diagnostic);
    }

    /// The place of a key, or of the nearest table around it.
    fn find(&self, path: &str) -> Option<Range<usize>> {
        let mut path = path;
        loop {
            if let Some(span) = self.places.get(path) {
                return Some(span.clone());
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Everything found, with `more` from later checks, as a report.
    pub(crate) fn report(mut self, file: &str, source: &str, more: Vec<Diagnostic>) -> Report {
        let found = std::mem::take(&mut self.found);
        let items = found.into_iter().chain(more).map(|d| {
            let related = d.related.as_ref().and_then(|r| self.places.get(&r.path).cloned());
            let place = Place { at: self.find(&d.path), related };
            (d, place)
        });
        Report::new(file, source, items.collect())
    }
}

/// A table being read: knows which keys were asked for, so that the others are unknown.
pub(crate) struct Section<'a> {
    pub(crate) path: String,
    /// `None`: what stands here is no table (that has been said).
    table: Option<&'a DeTable<'a>>,
    asked: Vec<&'static str>,
    missing: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(walk: &mut Walk, path: impl Into<String>, table: &'a DeTable<'a>, span: Range<usize>) -> Self {
        let path = path.into();
        walk.place(&path, span);
        Self { path, table: Some(table), asked: Vec::new(), missing: Vec::new() }
    }

    /// `section.key`.
    pub(crate) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of a key, with its place noted.
    pub(crate) fn get(&mut self, walk: &mut Walk, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(key);
        let (_, value) = self.table?.iter().find(|(k, _)| k.get_ref() == key)?;
        walk.place(&self.key(key), value.span());
        Some(value)
    }

    /// Whether the key is written.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|t| t.iter().any(|(k, _)| k.get_ref() == key))
    }

    /// Notes that a key must be there; said in [`Section::finish`] unless a misspelling of it is found.
    pub(crate) fn require(&mut self, walk: &mut Walk, key: &'static str) {
        self.missing.push(key);
        walk.poisoned.insert(self.key(key));
    }

    /// A text, read by `read`; `None` when absent or wrong.
    pub(crate) fn text<T>(
        &mut self,
        walk: &mut Walk,
        key: &'static str,
        code: &'static str,
        read: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let value = self.get(walk, key)?;
        read_text(walk, &self.key(key), value, code, read)
    }

    /// A text that must be there.
    pub(crate) fn required_text<T>(
        &mut self,
        walk: &mut Walk,
        key: &'static str,
        code: &'static str,
        read: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        if !self.has(key) {
            self.asked.push(key);
            self.require(walk, key);
            return None;
        }
        self.text(walk, key, code, read)
    }

    /// A text of a type that reads itself, or the default.
    pub(crate) fn word<T: FromStr<Err = ValueError>>(&mut self, walk: &mut Walk, key: &'static str, default: T) -> T {
        self.text(walk, key, codes::BAD_VALUE, str::parse).unwrap_or(default)
    }

    /// A duration, or the default.
    pub(crate) fn duration(&mut self, walk: &mut Walk, key: &'static str) -> Option<crate::Millis> {
        self.text(walk, key, codes::BAD_DURATION, str::parse)
    }

    /// An integer within limits; `None` when absent or wrong.
    pub(crate) fn integer<T>(&mut self, walk: &mut Walk, key: &'static str, limits: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + Into<i64> + Copy,
    {
        let value = self.get(walk, key)?;
        read_integer(walk, &self.key(key), value, limits)
    }

    /// An integer that must be there.
    pub(crate) fn required_integer<T>(
        &mut self,
        walk: &mut Walk,
        key: &'static str,
        limits: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + Into<i64> + Copy,
    {
        if !self.has(key) {
            self.asked.push(key);
            self.require(walk, key);
            return None;
        }
        self.integer(walk, key, limits)
    }

    /// `true` or `false`, or the default.
    pub(crate) fn flag(&mut self, walk: &mut Walk, key: &'static str, default: bool) -> bool {
        let Some(value) = self.get(walk, key) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            let error = wrong_type(&self.key(key), "true or false", value.get_ref());
            walk.bad(error);
            default
        })
    }

    /// The elements of an array with their paths; empty when absent or wrong.
    pub(crate) fn list(
        &mut self,
        walk: &mut Walk,
        key: &'static str,
        what: &str,
    ) -> Option<Vec<(String, &'a Spanned<DeValue<'a>>)>> {
        let value = self.get(walk, key)?;
        let path = self.key(key);
        let Some(array) = value.get_ref().as_array() else {
            walk.bad(wrong_type(&path, what, value.get_ref()));
            return None;
        };
        let items: Vec<_> = array.iter().enumerate().map(|(i, v)| (format!("{path}[{i}]"), v)).collect();
        for (path, value) in &items {
            walk.place(path, value.span());
        }
        Some(items)
    }

    /// An array of texts; an element that cannot be read becomes `stand_in`, so that indices stay.
    pub(crate) fn texts<T: Copy>(
        &mut self,
        walk: &mut Walk,
        key: &'static str,
        example: &str,
        read: impl Fn(&str) -> Result<T, ValueError>,
        stand_in: T,
    ) -> Vec<T> {
        let items = self.list(walk, key, &format!("a list such as {example}")).unwrap_or_default();
        let read = |(path, value): (String, &Spanned<_>)| read_text(walk, &path, value, codes::BAD_ADDRESS, &read);
        items.into_iter().map(read).map(|v| v.unwrap_or(stand_in)).collect()
    }

    /// A table below this one; `None` when absent or wrong.
    pub(crate) fn table(&mut self, walk: &mut Walk, key: &'static str, example: &str) -> Option<Section<'a>> {
        let value = self.get(walk, key)?;
        let path = self.key(key);
        match value.get_ref().as_table() {
            Some(table) => Some(Section::new(walk, path, table, value.span())),
            None => {
                walk.bad(wrong_type(&path, &format!("a table such as {example}"), value.get_ref()));
                None
            }
        }
    }

    /// Each table of an array of tables. One that is no table is read as an empty one and poisoned, so that indices stay.
    pub(crate) fn tables(&mut self, walk: &mut Walk, key: &'static str) -> Vec<Section<'a>> {
        let what = format!("a list of tables: write [[{}]]", self.header(key));
        let Some(items) = self.list(walk, key, &what) else { return Vec::new() };
        items
            .into_iter()
            .map(|(path, value)| match value.get_ref().as_table() {
                Some(table) => Section::new(walk, path, table, value.span()),
                None => {
                    walk.bad(wrong_type(&path, "a table", value.get_ref()));
                    Section { path, table: None, asked: Vec::new(), missing: Vec::new() }
                }
            })
            .collect()
    }

    /// `service.rs`: the header of an array of tables below this section.
    fn header(&self, key: &str) -> String {
        match self.path.split('[').next() {
            Some(outer) if !outer.is_empty() => format!("{outer}.{key}"),
            _ => key.to_owned(),
        }
    }

    /// Says which keys nobody asked for, and which must be there and are not.
    pub(crate) fn finish(mut self, walk: &mut Walk) {
        let Some(table) = self.table else { return };
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let path = self.key(name);
            walk.place(&path, key.span());
            let unused = self.asked.iter().copied().filter(|k| !self.has(k));
            let known = unused.chain(self.asked.iter().copied());
            let place = if self.path.is_empty() { "at the top".to_owned() } else { format!("in {}", self.path) };
            let error = Diagnostic::new(codes::UNKNOWN_KEY, path, format!("unknown key \"{name}\" {place}"));
            let error = match nearest(name, known) {
                Some(word) => {
                    self.missing.retain(|m| *m != word);
                    error.hint(format!("did you mean \"{word}\"?"))
                }
                None => error.hint(format!("known here: {}", self.asked.join(", "))),
            };
            walk.bad(error);
        }
        for key in &self.missing {
            let place = if self.path.is_empty() { String::new() } else { format!(" in {}", self.path) };
            let error = Diagnostic::new(codes::MISSING_KEY, self.key(key), format!("key \"{key}\" is missing{place}"));
            walk.bad(match example(key) {
                Some(example) => error.hint(format!("add {example}")),
                None => error,
            });
        }
    }
}

/// How a key that must be there is written.
fn example(key: &str) -> Option<&'static str> {
    Some(match key {
        "name" => "name = \"…\"",
        "id" => "id = 0",
        "cpus" => "cpus = [1]",
        "device" => "device = \"net_tap0,iface=lb1net0\"",
        "zones" => "zones = [0]",
        "port" => "port = \"net0\"",
        "vip" => "vip = \"10.0.0.100:80\"",
        "protocol" => "protocol = \"tcp\"",
        "address" => "an address, such as \"10.0.0.21:8080\" of a server or \"10.0.0.128/30\" of local addresses",
        "node" => "[node] with name = \"…\"",
        _ => return None,
    })
}

/// A text, read by `read`.
pub(crate) fn read_text<T>(
    walk: &mut Walk,
    path: &str,
    value: &Spanned<DeValue<'_>>,
    code: &'static str,
    read: impl Fn(&str) -> Result<T, ValueError>,
) -> Option<T> {
    let Some(text) = value.get_ref().as_str() else {
        walk.bad(match value.get_ref() {
            DeValue::Integer(n) if code == codes::BAD_DURATION => {
                let n = n.as_str();
                Diagnostic::new(code, path, format!("duration {n} has no unit"))
                    .hint(format!("did you mean \"{n}s\" or \"{n}ms\"? units: ms, s, m, h"))
            }
            other => wrong_type(path, "a text in quotes", other),
        });
        return None;
    };
    match read(text) {
        Ok(value) => Some(value),
        Err(why) => {
            let error = Diagnostic::new(code, path, why.message);
            walk.bad(match why.hint {
                Some(hint) => error.hint(hint),
                None => error,
            });
            None
        }
    }
}

/// An integer within limits.
pub(crate) fn read_integer<T>(
    walk: &mut Walk,
    path: &str,
    value: &Spanned<DeValue<'_>>,
    limits: RangeInclusive<T>,
) -> Option<T>
where
    T: TryFrom<i64> + Into<i64> + Copy,
{
    let Some(integer) = value.get_ref().as_integer() else {
        let error = wrong_type(path, "a whole number", value.get_ref());
        let quoted = value.get_ref().as_str().filter(|s| s.parse::<i64>().is_ok());
        walk.bad(match quoted {
            Some(number) => error.hint(format!("without quotes: {number}")),
            None => error,
        });
        return None;
    };
    let (low, high): (i64, i64) = ((*limits.start()).into(), (*limits.end()).into());
    let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
    let good = number.filter(|n| (low..=high).contains(n)).and_then(|n| T::try_from(n).ok());
    if good.is_none() {
        let message = format!("{} is outside {low} to {high}", integer.as_str());
        walk.bad(Diagnostic::new(codes::OUT_OF_RANGE, path, message));
    }
    good
}

/// The error of a value of another TOML type.
pub(crate) fn wrong_type(path: &str, wanted: &str, given: &DeValue<'_>) -> Diagnostic {
    let article = if given.type_str().starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    Diagnostic::new(codes::WRONG_TYPE, path, format!("wanted {wanted}, found {article} {}", given.type_str()))
}

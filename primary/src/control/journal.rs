//! What survives everything: one file per generation, written and renamed before the generation is published.
//!
//! `STATE_DIR/journal/NUMBER.jsonl`: a line with a checksum and what a list shows, and a line with the [`Entry`] it is of:
//! whole, or, when that is much shorter, as what leads to it from another generation that is kept whole ([`delta`]). The
//! highest number whose checksum is right is in force. A crash at any step leaves the generation before or this one,
//! whole. A list reads the first lines alone: a hundred generations of 10,000 services may be a gigabyte.
//!
//! Whoever finds a file under its name may believe it. So a generation counts from the rename on, and a folder that could
//! not be synced then is no failure of the change, but said ([`Written`]).

mod compact;
mod delta;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use config::Config;
use serde::{Deserialize, Serialize};

use self::compact::Compaction;
pub use self::delta::Base;
use self::delta::Delta;
use super::deadline::Deadline;
use super::register::Register;
use crate::failpoint::{JOURNAL, step};

/// Earlier generations kept.
pub const KEPT: usize = 100;

/// A generation as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Format of this file.
    pub format: u32,
    /// Number.
    pub generation: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// Who: user name or uid, "control" for its own housekeeping.
    pub user: String,
    /// What.
    pub summary: String,
    /// Of the configuration file this generation descends from.
    pub file_digest: String,
    /// Only removed ones were dropped: not worth keeping once it is superseded.
    pub housekeeping: bool,
    /// It goes back by itself unless somebody confirms it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<Unconfirmed>,
    /// Everything but services, which are in the register.
    pub skeleton: Config,
    /// Services, servers, ids.
    pub register: Register,
}

/// A change on trial. Generations that follow it (edits) carry it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// Generation to go back to.
    pub back_to: u64,
    /// Generation that was applied on trial.
    pub applied: u64,
    /// By when it must be confirmed.
    pub deadline: Deadline,
}

/// What a list shows of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number.
    pub generation: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// Who.
    pub user: String,
    /// What.
    pub summary: String,
    /// See [`Entry::housekeeping`].
    pub housekeeping: bool,
}

impl From<&Entry> for Head {
    fn from(e: &Entry) -> Self {
        let (user, summary) = (e.user.clone(), e.summary.clone());
        Self { generation: e.generation, time: e.time, user, summary, housekeeping: e.housekeeping }
    }
}

/// Longest first line that is believed, bytes.
const HEAD_MAX: u64 = 64 << 10;

/// Format written.
pub const FORMAT: u32 = 1;

impl Entry {
    /// The whole configuration.
    #[must_use]
    pub fn config(&self) -> Config {
        self.register.config(&self.skeleton)
    }
}

/// The journal cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("journal {}: {what}: {source}; hint: is there room, and does lb-primary own it?", path.display())]
pub struct JournalError {
    path: PathBuf,
    what: &'static str,
    source: std::io::Error,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct First {
    /// Of the second line.
    checksum: String,
    /// Absent in journals of earlier builds.
    #[serde(default)]
    head: Option<Head>,
    /// The generation that the second line is a difference to; absent: it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<u64>,
}

/// A generation under its name.
#[derive(Debug, Default)]
#[must_use]
pub struct Written {
    /// Every process finds it, but the folder could not be synced: a loss of power may bring back the one before.
    pub unsynced: Option<String>,
}

/// Whole records shorter than this are not worth a difference, bytes. (Tests that kill control write them of everything.)
const SMALL: usize = if cfg!(feature = "failpoints") { 0 } else { 64 << 10 };
/// A difference longer than this makes the next whole record due, bytes.
const LONG: usize = 64 << 10;
/// So many differences to one whole record make the next one due: a damaged base must not take all that is kept with it.
const MANY: u64 = KEPT as u64 / 2;

/// The folder of generations.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    /// Generations kept, and what each is a difference to.
    kept: BTreeMap<u64, Option<u64>>,
    /// The whole generation that the next ones are differences to.
    base: Option<Base>,
    /// A whole record being written behind the answers.
    compaction: Option<Compaction>,
    /// See [`SMALL`].
    small: usize,
    sync_folder: fn(&Path) -> std::io::Result<()>,
}

impl Journal {
    /// Opens, and makes if missing, the journal below `state_dir`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        let mut journal = Self::at(state_dir);
        let folder = &journal.folder;
        let fail = |source| JournalError { path: folder.clone(), what: "cannot make the folder", source };
        fs::DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(fail)?;
        for name in journal.names(".tmp") {
            let _ = fs::remove_file(journal.folder.join(name)); // Begun by one that died.
        }
        let base = |number| journal.first(number).and_then(|first| first.base);
        journal.kept = journal.numbers().into_iter().map(|number| (number, base(number))).collect();
        Ok(journal)
    }

    fn at(state_dir: &Path) -> Self {
        Self {
            folder: state_dir.join("journal"),
            kept: BTreeMap::new(),
            base: None,
            compaction: None,
            small: SMALL,
            sync_folder: |folder| File::open(folder)?.sync_all(),
        }
    }

    /// The newest generation below `state_dir`, without touching anything there; with what its successors may be written
    /// as differences to, for [`Self::go_on`].
    #[must_use]
    pub fn peek_with_base(state_dir: &Path) -> Option<(Entry, Base)> {
        Self::at(state_dir).newest_with_base()
    }

    /// Writes differences to `base`, as [`Self::peek_with_base`] found it.
    pub fn go_on(&mut self, base: Base) {
        self.base = Some(base);
    }

    /// As [`Self::peek_with_base`], without it.
    #[cfg(test)]
    pub fn peek(state_dir: &Path) -> Option<Entry> {
        Self::at(state_dir).newest()
    }

    #[cfg(test)]
    fn newest(&self) -> Option<Entry> {
        self.newest_with_base().map(|(entry, _)| entry)
    }

    /// The newest generation that can be read. Damaged ones are said and passed over.
    fn newest_with_base(&self) -> Option<(Entry, Base)> {
        self.numbers().into_iter().rev().find_map(|number| match self.read_with_base(number) {
            Ok(found) => Some(found),
            Err(why) => {
                log::error!("journal {}: generation {number} passed over: {why}", self.folder.display());
                None
            }
        })
    }

    /// What a list shows of the generations kept, oldest first; those without a readable first line are left out.
    #[must_use]
    pub fn heads(&self) -> Vec<Head> {
        self.numbers().into_iter().filter_map(|number| self.head(number)).collect()
    }

    fn first(&self, number: u64) -> Option<First> {
        let mut line = String::new();
        let file = File::open(self.path(number)).ok()?;
        BufReader::new(file.take(HEAD_MAX)).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn head(&self, number: u64) -> Option<Head> {
        // Of an earlier build: the whole of it must be read.
        let head = self.first(number)?.head.or_else(|| self.read(number).ok().as_ref().map(Head::from));
        head.filter(|h| h.generation == number)
    }

    /// The generation `number`, whole.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn read(&self, number: u64) -> Result<Entry, String> {
        self.read_with_base(number).map(|(entry, _)| entry)
    }

    fn read_with_base(&self, number: u64) -> Result<(Entry, Base), String> {
        let (first, checksum, text) = self.lines(number)?;
        let Some(base) = first.base else {
            let entry = whole(number, &text)?;
            let base = Base::new(&entry, checksum, text.len());
            return Ok((entry, base));
        };
        let delta: Delta = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let (of_base, checksum, text) = self.lines(base).map_err(|why| format!("its base {base}: {why}"))?;
        if of_base.base.is_some() {
            return Err(format!("its base {base} is not whole"));
        }
        let entry = whole(base, &text).map_err(|why| format!("its base {base}: {why}"))?;
        let base = Base::new(&entry, checksum, text.len());
        let entry = delta.onto(&base)?;
        if entry.generation != number {
            return Err(format!("it is of generation {}, needed {number}", entry.generation));
        }
        Ok((entry, base))
    }

    /// The first line, and the second with its checksum, which is right.
    fn lines(&self, number: u64) -> Result<(First, String, String), String> {
        let mut text = fs::read_to_string(self.path(number)).map_err(|e| e.to_string())?;
        let (line, body) = text.split_once('\n').ok_or("no second line")?;
        let first: First = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let sum = config::digest(body.as_bytes());
        if sum != first.checksum {
            return Err(format!("checksum is {sum}, written as {}", first.checksum));
        }
        let body = text.split_off(line.len() + 1);
        Ok((first, sum, body))
    }

    /// Writes a generation: temporary file, fsync, rename, fsync of the folder.
    ///
    /// # Errors
    /// The disk's, before the rename. The journal is as before.
    pub fn write(&mut self, entry: &Entry) -> Result<Written, JournalError> {
        let generation = entry.generation;
        // What is written behind the answers is of a generation that is there; this one is not it.
        let delta = self.base.as_ref().filter(|base| base.generation() < generation && base.bytes() >= self.small);
        let delta = delta.map(|base| Delta::of(entry, base));
        if let Some(delta) = delta {
            let body = encode(&self.path(generation), &delta)?;
            // As long as this it saves nothing.
            let base = self.base.as_ref().filter(|base| body.len() < base.bytes() / 2);
            if let Some(base) = base.map(Base::generation) {
                let (_, written) = self.put(entry, &body, Some(base))?;
                if body.len() > LONG || generation >= base + MANY {
                    self.compact(entry);
                }
                return Ok(written);
            }
        }
        let body = encode(&self.path(generation), entry)?;
        let (checksum, written) = self.put(entry, &body, None)?;
        self.base = Some(Base::new(entry, checksum, body.len()));
        Ok(written)
    }

    /// Writes again the newest generation, which is there already: after an error the old text stays. (Were there later
    /// ones, damaged or not, that are differences to it, they would be differences to nothing.)
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn rewrite(&mut self, entry: &Entry) -> Result<Written, JournalError> {
        self.outdate(entry.generation);
        self.write(entry)
    }

    fn put(&mut self, entry: &Entry, body: &str, base: Option<u64>) -> Result<(String, Written), JournalError> {
        let path = self.path(entry.generation);
        let temporary = path.with_extension("tmp");
        let checksum = config::digest(body.as_bytes());
        let text = first_line(&path, &checksum, entry, base)? + body;
        let store = || -> std::io::Result<()> {
            step(JOURNAL);
            let mut file = create(&temporary)?;
            step(JOURNAL);
            let (half, rest) = text.as_bytes().split_at(text.len() / 2);
            file.write_all(half)?;
            step(JOURNAL);
            file.write_all(rest)?;
            step(JOURNAL);
            file.sync_all()?;
            step(JOURNAL);
            fs::rename(&temporary, &path)?;
            step(JOURNAL);
            Ok(())
        };
        store().map_err(|source| {
            let _ = fs::remove_file(&temporary);
            JournalError { path: path.clone(), what: "cannot write", source }
        })?;
        let written = self.named(entry.generation, base);
        step(JOURNAL);
        Ok((checksum, written))
    }

    /// A generation has got its name.
    fn named(&mut self, generation: u64, base: Option<u64>) -> Written {
        self.kept.insert(generation, base);
        let unsynced = (self.sync_folder)(&self.folder).err().map(|error| {
            let folder = self.folder.display();
            let text = format!(
                "generation {generation} is in the journal, but the folder {folder} could not be synced: {error}; a loss \
                 of power may bring back the one before; hint: is the disk well?"
            );
            log::error!("{text}");
            text
        });
        Written { unsynced }
    }

    /// Drops what is older than [`KEPT`] generations, and superseded housekeeping; never one of `needed`, nor what others
    /// are differences to.
    pub fn prune(&mut self, needed: &[u64], superseded_housekeeping: Option<u64>) {
        let mut old: Vec<u64> = self.kept.keys().rev().skip(KEPT + 1).copied().collect();
        old.extend(superseded_housekeeping);
        old.retain(|number| !needed.contains(number));
        if old.is_empty() {
            return;
        }
        let stays = self.kept.iter().filter(|(number, _)| !old.contains(number)).filter_map(|(_, base)| *base);
        let mut bases: Vec<u64> = stays.collect();
        bases.extend(self.base.as_ref().map(Base::generation));
        for number in old.into_iter().filter(|number| !bases.contains(number)) {
            let _ = fs::remove_file(self.path(number));
            self.kept.remove(&number);
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016}.jsonl"))
    }

    fn names(&self, end: &str) -> Vec<String> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        files.filter_map(|f| f.file_name().into_string().ok()).filter(|n| n.ends_with(end)).collect()
    }

    fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> =
            self.names(".jsonl").iter().filter_map(|n| n.strip_suffix(".jsonl")?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// The entry of a whole record.
fn whole(number: u64, text: &str) -> Result<Entry, String> {
    let entry: Entry = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if entry.format != FORMAT || entry.generation != number {
        let (format, generation) = (entry.format, entry.generation);
        return Err(format!("format {format} of generation {generation}, needed {FORMAT} of {number}"));
    }
    Ok(entry)
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)
}

/// A line of JSON.
fn encode(path: &Path, value: &impl Serialize) -> Result<String, JournalError> {
    let text = serde_json::to_string(value).map_err(|error| {
        let source = std::io::Error::other(error);
        JournalError { path: path.into(), what: "cannot encode", source }
    })?;
    Ok(text + "\n")
}

fn first_line(path: &Path, checksum: &str, entry: &Entry, base: Option<u64>) -> Result<String, JournalError> {
    encode(path, &First { checksum: checksum.into(), head: Some(entry.into()), base })
}

#[cfg(test)]
mod tests;

//! What survives everything: one file per generation, written and renamed before the generation is published.
//!
//! `STATE_DIR/journal/NUMBER.jsonl`: a line with a checksum and what a list shows, and a line with the [`Entry`] it is of.
//! The highest number whose checksum is right is in force. A crash at any step leaves the generation before or this one,
//! whole. A list reads the first lines alone: a hundred generations of 10,000 services are a gigabyte.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use config::Config;
use serde::{Deserialize, Serialize};

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
}

/// The folder of generations.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// Opens, and makes if missing, the journal below `state_dir`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        let folder = state_dir.join("journal");
        let fail = |source| JournalError { path: folder.clone(), what: "cannot make the folder", source };
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&folder).map_err(fail)?;
        let journal = Self { folder };
        for name in journal.names(".tmp") {
            let _ = fs::remove_file(journal.folder.join(name)); // Begun by one that died.
        }
        Ok(journal)
    }

    /// The newest whole generation below `state_dir`, without touching anything there.
    #[must_use]
    pub fn peek(state_dir: &Path) -> Option<Entry> {
        Self { folder: state_dir.join("journal") }.newest()
    }

    /// The newest generation that is whole. Damaged ones are said and passed over.
    #[must_use]
    pub fn newest(&self) -> Option<Entry> {
        self.numbers().into_iter().rev().find_map(|number| match self.read(number) {
            Ok(entry) => Some(entry),
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

    fn head(&self, number: u64) -> Option<Head> {
        let mut line = String::new();
        let file = File::open(self.path(number)).ok()?;
        BufReader::new(file.take(HEAD_MAX)).read_line(&mut line).ok()?;
        let First { head, .. } = serde_json::from_str(&line).ok()?;
        // Of an earlier build: the whole of it must be read.
        let head = head.or_else(|| self.read(number).ok().as_ref().map(Head::from));
        head.filter(|h| h.generation == number)
    }

    /// The generation `number`, whole.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn read(&self, number: u64) -> Result<Entry, String> {
        let text = fs::read_to_string(self.path(number)).map_err(|e| e.to_string())?;
        let (first, text) = text.split_once('\n').ok_or("no second line")?;
        let First { checksum, .. } = serde_json::from_str(first).map_err(|e| e.to_string())?;
        let sum = config::digest(text.as_bytes());
        if sum != checksum {
            return Err(format!("checksum is {sum}, written as {checksum}"));
        }
        let entry: Entry = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if entry.format != FORMAT || entry.generation != number {
            return Err(format!(
                "format {} of generation {}, needed {FORMAT} of {number}",
                entry.format, entry.generation
            ));
        }
        Ok(entry)
    }

    /// Writes a generation: temporary file, fsync, rename, fsync of the folder.
    ///
    /// # Errors
    /// The disk's. The journal is as before.
    pub fn write(&self, entry: &Entry) -> Result<(), JournalError> {
        self.rewrite(entry).inspect_err(|_| {
            // Renamed but not known to be on disk: nobody was told of it.
            let _ = fs::remove_file(self.path(entry.generation));
        })
    }

    /// The same for a generation that is there already: after an error the old text stays.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn rewrite(&self, entry: &Entry) -> Result<(), JournalError> {
        let path = self.path(entry.generation);
        let temporary = path.with_extension("tmp");
        let fail = |what, source| JournalError { path: path.clone(), what, source };
        let invalid = |e: serde_json::Error| fail("cannot encode", std::io::Error::other(e));
        let body = serde_json::to_string(entry).map_err(invalid)? + "\n";
        let first = First { checksum: config::digest(body.as_bytes()), head: Some(entry.into()) };
        let text = serde_json::to_string(&first).map_err(invalid)? + "\n" + &body;
        let store = || -> std::io::Result<()> {
            step(JOURNAL);
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
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
            File::open(&self.folder)?.sync_all()?;
            step(JOURNAL);
            Ok(())
        };
        store().map_err(|source| {
            let _ = fs::remove_file(&temporary);
            fail("cannot write", source)
        })
    }

    /// Drops what is older than [`KEPT`] generations, and superseded housekeeping; never one of `needed`.
    pub fn prune(&self, needed: &[u64], superseded_housekeeping: Option<u64>) {
        let numbers = self.numbers();
        let old = numbers.iter().rev().skip(KEPT + 1).copied();
        for number in old.chain(superseded_housekeeping).filter(|n| !needed.contains(n)) {
            let _ = fs::remove_file(self.path(number));
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

#[cfg(test)]
mod tests {
    use super::super::register::{EndNow, tests::Fake};
    use super::*;
    use crate::control::testing::{Folder, config};

    fn entry(generation: u64) -> Entry {
        let config = config();
        let register = Register::default().next(&config, None, &EndNow::default(), &Fake::default()).unwrap();
        Entry {
            format: FORMAT,
            generation,
            time: 1,
            user: "root".into(),
            summary: "test".into(),
            file_digest: "d".into(),
            housekeeping: false,
            unconfirmed: None,
            skeleton: Config { services: Vec::new(), ..config },
            register,
        }
    }

    #[test]
    fn the_newest_whole_generation_counts() {
        let folder = Folder::new("journal");
        let journal = Journal::open(folder.path()).unwrap();
        assert!(journal.newest().is_none());
        for generation in 1..=3 {
            journal.write(&entry(generation)).unwrap();
        }
        assert_eq!(journal.newest().unwrap(), entry(3));
        assert_eq!(journal.newest().unwrap().config(), config());
        // Cut short by a disk that lied about fsync, and one byte flipped.
        let text = fs::read(journal.path(3)).unwrap();
        fs::write(journal.path(3), &text[..text.len() / 2]).unwrap();
        assert_eq!(journal.newest().unwrap().generation, 2);
        let text = fs::read_to_string(journal.path(2)).unwrap().replace("\"user\":\"root\"", "\"user\":\"toor\"");
        fs::write(journal.path(2), text).unwrap();
        assert_eq!(journal.newest().unwrap().generation, 1);
    }

    #[test]
    fn half_written_files_and_old_generations_go() {
        let folder = Folder::new("journal-old");
        let journal = Journal::open(folder.path()).unwrap();
        for generation in 1..=KEPT as u64 + 5 {
            journal.write(&entry(generation)).unwrap();
        }
        fs::write(journal.folder.join("x.tmp"), "half").unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        journal.prune(&[KEPT as u64 + 5, 3], Some(50));
        let numbers = journal.numbers();
        assert_eq!((&numbers[..2], numbers.len()), (&[3, 5][..], KEPT + 1), "3 is needed: somebody goes back to it");
        assert!(journal.names(".tmp").is_empty() && !numbers.contains(&50));
    }

    #[test]
    fn a_list_needs_the_first_lines_alone_and_reads_those_of_earlier_builds() {
        let folder = Folder::new("journal-heads");
        let journal = Journal::open(folder.path()).unwrap();
        (1..=3).for_each(|generation| journal.write(&entry(generation)).unwrap());
        let whole = fs::read_to_string(journal.path(2)).unwrap();
        let (first, body) = whole.split_once('\n').unwrap();
        fs::write(journal.path(1), first.replace("\"generation\":2", "\"generation\":1") + "\n{ not read").unwrap();
        // As it was written before there were heads.
        let old: serde_json::Value = serde_json::from_str(first).unwrap();
        fs::write(journal.path(2), format!("{}\n{body}", serde_json::json!({"checksum": old["checksum"]}))).unwrap();
        fs::write(journal.path(4), "x".repeat(100)).unwrap();
        let heads = journal.heads();
        assert_eq!(heads.iter().map(|h| h.generation).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((heads[1].user.as_str(), heads[1].summary.as_str()), ("root", "test"));
        assert_eq!(journal.newest().unwrap().generation, 3);
    }

    #[test]
    fn a_disk_that_refuses_changes_nothing() {
        let folder = Folder::new("journal-full");
        let journal = Journal::open(folder.path()).unwrap();
        journal.write(&entry(1)).unwrap();
        fs::create_dir(journal.path(2).with_extension("tmp")).unwrap(); // In the way of the temporary file.
        assert!(journal.write(&entry(2)).unwrap_err().to_string().contains("cannot write"));
        assert_eq!(journal.newest().unwrap().generation, 1);
    }
}

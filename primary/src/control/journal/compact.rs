//! The whole record now and then: written behind the answers, by a thread of its own, in place of a difference that has
//! become long. It says the same of the same generation, so a crash at any moment finds one of the two.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::thread::JoinHandle;

use super::delta::Base;
use super::{Entry, Journal, JournalError, create, encode, first_line};

/// A whole record under way.
#[derive(Debug)]
pub struct Compaction {
    generation: u64,
    /// The generation was written anew meanwhile: the old text must not come back.
    stale: bool,
    temporary: PathBuf,
    thread: Option<JoinHandle<Result<Base, JournalError>>>,
}

/// Given up or done: the thread is waited for, what it wrote and nobody took is removed.
impl Drop for Compaction {
    fn drop(&mut self) {
        let _ = self.thread.take().map(JoinHandle::join);
        let _ = fs::remove_file(&self.temporary);
    }
}

impl Journal {
    /// Begins to write `entry`, which is in the journal, whole. One at a time: the next difference asks again.
    pub(super) fn compact(&mut self, entry: &Entry) {
        if self.compaction.is_some() {
            return;
        }
        let path = self.path(entry.generation);
        let temporary = path.with_extension("whole.tmp");
        let (entry, to) = (entry.clone(), temporary.clone());
        let generation = entry.generation;
        let store = move || -> Result<Base, JournalError> {
            let body = encode(&path, &entry)?;
            let checksum = config::digest(body.as_bytes());
            let text = first_line(&path, &checksum, &entry, None)? + &body;
            let write = || -> std::io::Result<()> {
                let mut file = create(&to)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            };
            write().map_err(|source| JournalError { path: to.clone(), what: "cannot write", source })?;
            Ok(Base::new(&entry, checksum, body.len()))
        };
        match std::thread::Builder::new().name("journal".into()).spawn(store) {
            Ok(thread) => {
                self.compaction = Some(Compaction { generation, stale: false, temporary, thread: Some(thread) });
            }
            Err(error) => log::warn!("generation {generation} is not written whole yet: no thread: {error}"),
        }
    }

    /// What is being written of `generation`, if it is that one, is thrown away when it is ready: nobody waits for it.
    pub(super) fn outdate(&mut self, generation: u64) {
        if let Some(compaction) = self.compaction.as_mut().filter(|c| c.generation == generation) {
            compaction.stale = true;
        }
    }

    /// Puts a whole record that has been written in the place of its difference. Called at every turn.
    pub fn tend(&mut self) {
        let done = |c: &Compaction| c.thread.as_ref().is_some_and(JoinHandle::is_finished);
        if self.compaction.as_ref().is_some_and(done) {
            self.finish();
        }
    }

    /// The newest generation `entry` whole, at an orderly end: an earlier build, which knows no differences, finds it.
    pub fn close(&mut self, entry: &Entry) {
        self.finish();
        if self.kept.get(&entry.generation).is_some_and(Option::is_some) {
            self.compact(entry);
            self.finish();
        }
    }

    /// Waits for what is being written.
    fn finish(&mut self) {
        let Some(mut compaction) = self.compaction.take() else { return };
        let generation = compaction.generation;
        let base = match compaction.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(base))) => base,
            Some(Ok(Err(error))) => return log::warn!("generation {generation} stays a difference: {error}"),
            _ => return log::warn!("generation {generation} stays a difference: its thread panicked"),
        };
        // Neither dropped meanwhile nor written anew.
        if !compaction.stale && self.kept.contains_key(&generation) {
            match fs::rename(&compaction.temporary, self.path(generation)) {
                Ok(()) => {
                    let _said = self.named(generation, None);
                    self.base = Some(base);
                }
                Err(error) => log::warn!("generation {generation} stays a difference: {error}"),
            }
        }
    }
}

//! Golden segments: one of each kind, of each layout version ever released, opened by this build.
//!
//! Whoever changes a row finds out here. A change that a minor version may make (`header::compatible`) leaves all of this
//! as it is. Any other needs a new major version, its own golden files, and the old ones moved to those that are refused.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

mod accept;
mod damage;
mod packed;
mod sample;
mod visit;

use std::path::{Path, PathBuf};

use shm_layout::header::{checksum, layout_of_text, layout_text};
use shm_layout::limits::LAYOUT_VERSION;

/// What to do about a difference.
const HINT: &str = "the bytes of a released layout have changed their meaning. A running appliance would misread its own \
    sessions. Take the change back, or put it into reserved bytes and raise the minor version, or raise the major version \
    of LAYOUT_VERSION (limits.rs); then make the golden files of the new version: cargo run -p shm-layout --example golden";

/// Offsets in the header, for ever: by them any version can read and refuse any other.
mod at {
    pub const LAYOUT: usize = 8;
    pub const BOOT_ID: usize = 32;
    pub const CHECKSUM: usize = 176;
}

/// A folder of tables, as the holder makes it.
struct Tables(tempfile::TempDir);

impl Tables {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Layout versions that have golden files.
fn versions() -> Vec<String> {
    let folders = std::fs::read_dir(packed::folder("")).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = folders
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort_by_key(|name| layout_of_text(name));
    names
}

/// Those that this build must open.
fn ours() -> Vec<String> {
    versions().into_iter().filter(|v| layout_of_text(v).unwrap() >> 16 == LAYOUT_VERSION >> 16).collect()
}

fn golden(version: &str, name: &str) -> Vec<u8> {
    packed::unpack(&packed::folder(version).join(name).with_extension("gz"))
}

/// Changes 64-bit words of the header and makes its checksum right again: restated here, not asked of the code under
/// test.
fn patched(mut bytes: Vec<u8>, words: &[(usize, u64)]) -> Vec<u8> {
    for (at, word) in words {
        bytes[*at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    // Magic; layout and kind, halves swapped; bytes, fingerprint, boot id, parameters; the rest of the page.
    let swapped = word(at::LAYOUT).rotate_left(32);
    let fields = [word(0), swapped].into_iter().chain((16..at::CHECKSUM).step_by(8).map(word));
    let sum = checksum(fields.chain((at::CHECKSUM + 8..4096).step_by(8).map(word)));
    bytes[at::CHECKSUM..at::CHECKSUM + 8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// As if it had been made since this machine started.
fn of_this_boot(bytes: Vec<u8>) -> Vec<u8> {
    let [a, b] = shm_layout::header::boot_id();
    patched(bytes, &[(at::BOOT_ID, a), (at::BOOT_ID + 8, b)])
}

#[test]
fn this_version_has_its_golden_files() {
    let version = layout_text(LAYOUT_VERSION);
    assert!(
        versions().contains(&version),
        "no golden segments of layout {version}: make them with `cargo run -p shm-layout --example golden`"
    );
}

#[test]
fn what_is_made_today_is_what_was_released() {
    let version = layout_text(LAYOUT_VERSION);
    for (name, map) in sample::all() {
        let (old, new) = (golden(&version, name), sample::words(&map));
        assert_eq!(old.len() as u64, map.bytes(), "{name} of {version} has another size: {HINT}");
        // Not: boot id, checksum of the header; time of publication and the sum over it.
        let (old, new): (Vec<u64>, Vec<u64>) =
            (old.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect(), new);
        let differing: Vec<usize> = (0..new.len()).filter(|i| old[*i] != new[*i]).map(|i| i * 8).collect();
        let allowed = if name == "published" { 5 } else { 3 };
        assert!(differing.len() <= allowed, "{name} of {version} differs at bytes {differing:?}: {HINT}");
    }
}

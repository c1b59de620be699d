//! Segments in files of the repository: gzip, for they are mostly zeros.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Where the files of a layout version lie.
pub fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

/// Packs words.
#[allow(dead_code, reason = "the generator's: examples/golden.rs")]
pub fn pack(words: &[u64]) -> Vec<u8> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&bytes).unwrap();
    packer.finish().unwrap()
}

/// The bytes of a packed file.
pub fn unpack(path: &Path) -> Vec<u8> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

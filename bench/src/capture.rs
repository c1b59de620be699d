//! Capture files (pcap, little-endian): what net_pcap receives from and sends to.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Header of the file: magic of microsecond stamps, version 2.4, no zone, snap length, Ethernet.
const HEAD: [u32; 6] = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 1];
const HEAD_BYTES: usize = 24;
/// Seconds, fraction, captured length, real length.
const RECORD_BYTES: usize = 16;

/// Writes frames, all stamped 0.
///
/// # Errors
/// The file's.
pub fn write<const N: usize>(path: &Path, frames: impl Iterator<Item = [u8; N]>) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let length = u32::try_from(N).unwrap_or(u32::MAX);
    HEAD.iter().try_for_each(|word| file.write_all(&word.to_le_bytes()))?;
    for frame in frames {
        [0, 0, length, length].iter().try_for_each(|word| file.write_all(&word.to_le_bytes()))?;
        file.write_all(&frame)?;
    }
    file.flush()
}

/// The frames of a file.
///
/// # Errors
/// The file's; one that ends within a record.
pub fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let bytes = std::fs::read(path)?;
    let torn = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} ends within a record", path.display()));
    let mut rest = bytes.get(HEAD_BYTES..).ok_or_else(torn)?;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (record, behind) = rest.split_at_checked(RECORD_BYTES).ok_or_else(torn)?;
        let length = record[8..12].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
        let (frame, next) = behind.split_at_checked(length).ok_or_else(torn)?;
        frames.push(frame.to_vec());
        rest = next;
    }
    Ok(frames)
}

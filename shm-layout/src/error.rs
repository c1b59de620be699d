//! What can be wrong with a segment.

use std::io;
use std::path::PathBuf;

/// A segment cannot be created, mapped or trusted.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file cannot be opened.
    #[error("cannot open segment {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Another process holds the file exclusively.
    #[error("segment {} is locked by another process; hint: a cleaner or a second primary is at work", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Not enough hugepages.
    #[error("cannot reserve {pages} hugepages of 2 MiB ({bytes} bytes) for {}: {source}; hint: sysctl vm.nr_hugepages", path.display())]
    Reserve {
        /// The file.
        path: PathBuf,
        /// Bytes asked for.
        bytes: u64,
        /// The same in pages.
        pages: u64,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The mapping failed.
    #[error("cannot map {bytes} bytes of {}: {source}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// Bytes asked for.
        bytes: u64,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Larger than this machine addresses.
    #[error("segment of {bytes} bytes is too large for this machine")]
    TooLarge {
        /// Bytes asked for.
        bytes: u64,
    },
    /// A view would leave the segment.
    #[error("segment {}: {count} rows at offset {offset} leave its {size} bytes", path.display())]
    Bounds {
        /// The file.
        path: PathBuf,
        /// Where the view begins.
        offset: u64,
        /// Its rows.
        count: u64,
        /// Bytes of the segment.
        size: u64,
    },
    /// Made by another version or for another purpose, or damaged. Both sides are shown.
    #[error("segment {}: {field} is {found}, this program needs {expected}{hint}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        field: &'static str,
        /// What the segment says.
        found: String,
        /// What this program was built for.
        expected: String,
        /// What to do.
        hint: &'static str,
    },
    /// POSIX shared memory failed.
    #[error("health board {name}: {reason}")]
    Board {
        /// Shared memory name.
        name: String,
        /// The library's reason.
        reason: String,
    },
}

//! What can go wrong on a link.

use std::io;
use std::path::PathBuf;

/// A link was not made, or no longer works.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens.
    #[error("nobody listens on {}: {source}; hint: is lb-primary running, with the same configuration?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Unix sockets have short names.
    #[error("{} is {length} bytes too long for the sockets below it (108 bytes with their names); hint: a shorter node.run_dir", path.display())]
    PathTooLong {
        /// The folder of the sockets.
        path: PathBuf,
        /// Bytes too many.
        length: usize,
    },
    /// The other side said no; the text names both sides.
    #[error("{0}")]
    Refused(String),
    /// The other side said something that is no answer, or nothing in time.
    #[error("no answer from {}: {why}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What came instead.
        why: String,
    },
    /// The peer does not take its messages: it is considered hung.
    #[error("peer {peer} does not take its messages: {queued} wait")]
    Hung {
        /// Who.
        peer: u32,
        /// Messages in the queue.
        queued: usize,
    },
    /// The peer has gone.
    #[error("the link to process {peer} is closed")]
    Closed {
        /// Who.
        peer: u32,
    },
    /// `ipc-channel` failed.
    #[error("{what}: {why}")]
    Channel {
        /// What was tried.
        what: &'static str,
        /// Its reason.
        why: String,
    },
}

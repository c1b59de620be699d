//! Why the holder does not start, or ends.

use std::io;
use std::path::PathBuf;

/// What stops the holder. Nothing is forwarded by the holder itself: workers are not touched by these.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// A file or folder.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The instance runs already.
    #[error("lb-primary of this instance runs already: {owner}holds {}; hint: stop it, or set another node.name", path.display())]
    Running {
        /// "process N " if known.
        owner: String,
        /// The lock.
        path: PathBuf,
    },
    /// The port has another MAC than its kernel interface.
    #[error(
        "port {port} keeps its own MAC, but its kernel interface has the configured one: nothing would come back to it; hint: mac = the NIC's own"
    )]
    KernelMac {
        /// Its name.
        port: String,
    },
    /// Workers of a dead holder forward on.
    #[error(
        "worker process {pid} (zone {zone}, slot {slot}) of an earlier lb-primary still forwards: starting now would break it; hint: stop the workers first, or `systemctl restart lb.target`"
    )]
    WorkerLives {
        /// Its number.
        pid: u32,
        /// Its zone.
        zone: u32,
        /// One of its slots.
        slot: u32,
    },
    /// Some process of an earlier prefix lives.
    #[error("a process of an earlier lb-primary still uses {}; hint: fuser -v tells which", path.display())]
    PrefixInUse {
        /// Its folder.
        path: PathBuf,
    },
    /// Not enough hugepages.
    #[error(
        "{needed} hugepages of 2 MiB are needed ({eal} for packet buffers, {tables} for tables), {free} are free; hint: sysctl vm.nr_hugepages={target}"
    )]
    Hugepages {
        /// Pages to be taken now.
        needed: u64,
        /// Of these for EAL.
        eal: u64,
        /// Of these for tables that are not there yet.
        tables: u64,
        /// Pages there.
        free: u64,
        /// Value that would do.
        target: u64,
    },
    /// Tables of other sizes, with sessions in them.
    #[error(
        "the tables in {} hold {sessions} sessions and were made for {found}; the configuration asks for {wanted}; hint: keep slots and limits, or stop and `umount {mount}` to begin anew",
        path.display(), mount = mount.display()
    )]
    Geometry {
        /// Folder.
        path: PathBuf,
        /// Mount to take down to lose them.
        mount: PathBuf,
        /// Sessions.
        sessions: u64,
        /// Sizes found.
        found: String,
        /// Sizes asked for.
        wanted: String,
    },
    /// A segment.
    #[error(transparent)]
    Segment(#[from] shm_layout::SegmentError),
    /// EAL.
    #[error(transparent)]
    Eal(#[from] dpdk::EalError),
    /// A port.
    #[error(transparent)]
    Port(#[from] dpdk::PortError),
    /// A pool.
    #[error(transparent)]
    Pool(#[from] dpdk::PoolError),
    /// A link.
    #[error(transparent)]
    Link(#[from] links::LinkError),
    /// Rights could not be given up.
    #[error(transparent)]
    Privilege(#[from] links::privileges::PrivilegeError),
    /// The plan that came from ourselves does not read.
    #[error("the plan of the plan process is not understood: {0}")]
    Plan(#[from] serde_json::Error),
    /// Control refuses the configuration or cannot start.
    #[error("control ended with status {0} before it had published a configuration")]
    Control(i32),
}

impl HolderError {
    /// For `map_err`.
    pub fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// Exit status of the program.
    pub fn status(&self) -> u8 {
        match self {
            Self::Control(4) => 4,
            _ => 1,
        }
    }
}

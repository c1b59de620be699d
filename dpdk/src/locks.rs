//! The locks of EAL that a process killed in its attach leaves taken.
//!
//! A secondary takes locks of the shared configuration while it attaches; killed within, it leaves one taken, and every
//! later attach waits for ever (2 to 3 % of such kills). No other process takes one after its start: so the words as they
//! were before the attach are the words as they should be after it.
//!
//! Where the words lie is not written down here but found: each lock is taken once, at start, and the word that changes
//! is its. What does not behave as expected makes [`Locks::find`] fail, and then nothing is ever restored.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys as sys;

/// Bytes of the configuration's head in which its locks are looked for.
const HEAD: usize = 256;
/// `struct malloc_heap` of DPDK 22.11: name, total size and socket number, in bytes from its lock.
const HEAP_NAME: usize = 144;
const HEAP_TOTAL: usize = 136;
const HEAP_SOCKET: usize = 132;

/// Why the locks were not found. Only the repair is missing then.
#[derive(Debug, thiserror::Error)]
pub enum LocksError {
    /// The list of our mappings.
    #[error("cannot read /proc/self/maps: {source}")]
    Maps {
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// EAL's configuration is not mapped.
    #[error("EAL has not mapped {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A lock was taken and not exactly one word changed.
    #[error("EAL's {lock} lock is not where it is in DPDK 22.11 ({changed} words changed)")]
    Unknown {
        /// Which lock.
        lock: &'static str,
        /// Words that changed when it was taken.
        changed: usize,
    },
    /// No heap that looks as it does in DPDK 22.11.
    #[error("EAL's heaps are not where they are in DPDK 22.11")]
    Heaps,
}

/// What [`Locks::restore`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Locks that were left taken and are free again.
    pub locks: Vec<&'static str>,
    /// A heap was left locked: its lists may be half changed, and cannot be trusted.
    pub heap: bool,
}

/// EAL's locks, where EAL has mapped them. Primary only.
#[derive(Debug)]
pub struct Locks {
    start: *mut u8,
    length: usize,
    words: Vec<(&'static str, usize)>,
    heaps: Vec<usize>,
}

/// The words at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot(Vec<u32>);

// SAFETY: a mapping that EAL keeps as long as the process lives, touched through atomics only.
unsafe impl Send for Locks {}

type Step = unsafe extern "C" fn();

impl Locks {
    /// Finds them. To be called once EAL has started and before any secondary attaches: it takes every lock once.
    ///
    /// # Errors
    /// EAL has not started, or this is no DPDK 22.11.
    pub fn find(file_prefix: &str) -> Result<Self, LocksError> {
        let mut locks = Self::mapped(crate::eal::runtime_dir(file_prefix).join("config"))?;
        let known: [(&'static str, Step, Step); 4] = [
            ("memory", sys::rte_mcfg_mem_write_lock, sys::rte_mcfg_mem_write_unlock),
            ("tail queue", sys::rte_mcfg_tailq_write_lock, sys::rte_mcfg_tailq_write_unlock),
            ("pool", sys::rte_mcfg_mempool_write_lock, sys::rte_mcfg_mempool_write_unlock),
            ("timer", sys::rte_mcfg_timer_lock, sys::rte_mcfg_timer_unlock),
        ];
        for (lock, take, give) in known {
            let before = locks.head();
            // SAFETY: EAL is started; nobody else holds it, and it is given back at once.
            unsafe { take() };
            let during = locks.head();
            // SAFETY: taken above.
            unsafe { give() };
            let changed: Vec<usize> = (0..before.len()).filter(|i| before[*i] != during[*i]).collect();
            match changed[..] {
                [word] if locks.head() == before => locks.words.push((lock, word * 4)),
                _ => return Err(LocksError::Unknown { lock, changed: changed.len() }),
            }
        }
        // The memory zones' lock has no function of its own; it stands before the tail queues' and the pools'.
        let at = |name| locks.words.iter().find(|(lock, _)| *lock == name).map_or(0, |(_, at)| *at);
        let (queue, pool) = (at("tail queue"), at("pool"));
        if queue < 4 || pool != queue + 4 || locks.word(queue - 4).load(Ordering::Relaxed) != 0 {
            return Err(LocksError::Unknown { lock: "memory zone", changed: 0 });
        }
        locks.words.push(("memory zone", queue - 4));
        locks.heaps = locks.find_heaps();
        if locks.heaps.is_empty() { Err(LocksError::Heaps) } else { Ok(locks) }
    }

    /// EAL's own mapping of it. (Not one of ours: closing the file would take EAL's POSIX lock on it along, and with it
    /// the sign that the primary lives.)
    fn mapped(path: PathBuf) -> Result<Self, LocksError> {
        let maps = std::fs::read_to_string("/proc/self/maps").map_err(|source| LocksError::Maps { source })?;
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        let range = maps.lines().filter(|line| line.ends_with(&*path.to_string_lossy())).find_map(|line| {
            let (from, to) = line.split_ascii_whitespace().next()?.split_once('-')?;
            Some((address(from)?, address(to)?))
        });
        match range {
            Some((from, to)) if to - from >= HEAD => {
                let start = std::ptr::with_exposed_provenance_mut(from);
                Ok(Self { start, length: to - from, words: Vec::new(), heaps: Vec::new() })
            }
            _ => Err(LocksError::Missing { path }),
        }
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length);
        // SAFETY: inside the mapping and aligned (above); shared with other processes, so touched atomically only.
        unsafe { AtomicU32::from_ptr(self.start.add(at).cast()) }
    }

    fn head(&self) -> Vec<u32> {
        (0..HEAD / 4).map(|i| self.word(i * 4).load(Ordering::SeqCst)).collect()
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.word(at).load(Ordering::Relaxed)) | u64::from(self.word(at + 4).load(Ordering::Relaxed)) << 32
    }

    /// Locks of the heaps: they bear the names `socket_0`…, and the size that DPDK tells of them.
    fn find_heaps(&self) -> Vec<usize> {
        let named = |node: i32| {
            let name = format!("socket_{node}\0");
            let is = |range: Range<usize>| range.clone().zip(name.bytes()).all(|(at, byte)| self.byte(at) == byte);
            let name_at = (HEAP_NAME..self.length - name.len()).step_by(8).find(|at| is(*at..*at + name.len()))?;
            let lock = name_at - HEAP_NAME;
            let (_, total) = crate::eal::heap(node)?;
            let socket = self.word(lock + HEAP_SOCKET).load(Ordering::Relaxed);
            let fits = self.u64_at(lock + HEAP_TOTAL) == total as u64 && i64::from(socket) == i64::from(node);
            (fits && total > 0 && self.word(lock).load(Ordering::Relaxed) == 0).then_some(lock)
        };
        (0..8).filter_map(named).collect()
    }

    fn byte(&self, at: usize) -> u8 {
        self.word(at & !3).load(Ordering::Relaxed).to_le_bytes()[at & 3]
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU32> {
        self.words.iter().map(|(_, at)| self.word(*at)).chain(self.heaps.iter().map(|at| self.word(*at)))
    }

    /// The words while nobody attaches.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.all().map(|word| word.load(Ordering::SeqCst)).collect())
    }

    /// After the confirmed death of the process that attached since `before`: makes its locks free again.
    pub fn restore(&self, before: &Snapshot) -> Restored {
        let mut restored = Restored::default();
        for (i, (word, value)) in self.all().zip(&before.0).enumerate() {
            if word.load(Ordering::SeqCst) == *value {
                continue;
            }
            match self.words.get(i) {
                Some((lock, _)) => {
                    word.store(*value, Ordering::SeqCst);
                    restored.locks.push(lock);
                }
                None => restored.heap = true,
            }
        }
        restored
    }
}

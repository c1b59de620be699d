//! Mapping a segment: the one place where bytes become typed rows.
//!
//! A segment begins with a [`SegmentHeader`](crate::header::SegmentHeader). Everything in it is integers and atomics
//! at fixed offsets, so that each process may map it at its own address. Rows are handed out as [`Rows`], which keeps
//! the mapping alive; offsets, alignment and bounds are checked once, when the view is made.

use std::fs::{File, OpenOptions};
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions, MmapRaw};

use crate::error::SegmentError;

/// Page size of hugetlbfs here, bytes.
pub const HUGE_PAGE: u64 = 2 << 20;

/// A type that may be viewed in shared memory.
///
/// # Safety
/// `Self` is `repr(C)`, has no padding that is read, is valid for every bit pattern, and consists only of atomics (and
/// arrays of them), so that a shared reference to it is sound while another process writes.
pub unsafe trait Row: Sized + Send + Sync + 'static {}

// SAFETY: an atomic integer is valid for every bit pattern and may be written through shared references.
unsafe impl Row for std::sync::atomic::AtomicU8 {}
// SAFETY: as above.
unsafe impl Row for std::sync::atomic::AtomicU16 {}
// SAFETY: as above.
unsafe impl Row for std::sync::atomic::AtomicU32 {}
// SAFETY: as above.
unsafe impl Row for std::sync::atomic::AtomicU64 {}

/// Asserts size and alignment of a row beside its declaration and makes it a [`Row`].
#[macro_export]
macro_rules! row {
    ($type:ty, size $size:expr, align $align:expr $(, $field:ident @ $offset:expr)* $(,)?) => {
        const _: () = assert!(std::mem::size_of::<$type>() == $size);
        const _: () = assert!(std::mem::align_of::<$type>() == $align);
        $(const _: () = assert!(std::mem::offset_of!($type, $field) == $offset);)*
        // SAFETY: declared `repr(C)` with atomics only (reviewed where the macro is used); size and offsets above.
        unsafe impl $crate::segment::Row for $type {}
    };
}

/// A mapped segment: a file on hugetlbfs, a POSIX shared memory file, or anonymous memory in tests.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
    /// Keeps the descriptor, and with it the shared lock that says "in use".
    _file: Option<File>,
    path: PathBuf,
    writable: bool,
}

impl Mapping {
    /// Anonymous zeroed memory, for tests, tools and benchmarks. `huge` asks for 2 MiB pages and fails without them.
    ///
    /// # Errors
    /// The kernel's, with the number of bytes.
    pub fn anonymous(bytes: u64, huge: bool) -> Result<Arc<Self>, SegmentError> {
        let len = usize::try_from(bytes).map_err(|_| SegmentError::TooLarge { bytes })?;
        let mut options = MmapOptions::new();
        let map = if huge {
            let len = len.next_multiple_of(2 << 20);
            options.len(len).huge(Some(21)).map_anon()
        } else {
            options.len(len).map_anon()
        };
        let map: MmapMut =
            map.map_err(|source| SegmentError::Map { path: "anonymous memory".into(), bytes, source })?;
        Ok(Arc::new(Self { map: map.into(), _file: None, path: "anonymous memory".into(), writable: true }))
    }

    /// Creates `path` with `bytes` reserved (fallocate: a missing hugepage is ENOSPC now, not SIGBUS later) and maps it.
    ///
    /// # Errors
    /// The file exists, or the memory cannot be reserved: the message names the pages needed.
    pub fn create(path: &Path, bytes: u64, mode: u32) -> Result<Arc<Self>, SegmentError> {
        let bytes = bytes.next_multiple_of(HUGE_PAGE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .map_err(|source| SegmentError::Open { path: path.into(), source })?;
        lock_shared(&file, path)?;
        let size = i64::try_from(bytes).map_err(|_| SegmentError::TooLarge { bytes })?;
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, size).map_err(|errno| {
            let _ = std::fs::remove_file(path);
            SegmentError::Reserve { path: path.into(), bytes, pages: bytes / HUGE_PAGE, source: errno.into() }
        })?;
        Self::map(file, path, bytes, true)
    }

    /// Maps an existing segment file whole.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    pub fn open(path: &Path, writable: bool) -> Result<Arc<Self>, SegmentError> {
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(path)
            .map_err(|source| SegmentError::Open { path: path.into(), source })?;
        lock_shared(&file, path)?;
        let bytes = file.metadata().map_err(|source| SegmentError::Open { path: path.into(), source })?.len();
        Self::map(file, path, bytes, writable)
    }

    fn map(file: File, path: &Path, bytes: u64, writable: bool) -> Result<Arc<Self>, SegmentError> {
        let wrap = |source| SegmentError::Map { path: path.into(), bytes, source };
        let mut options = MmapOptions::new();
        options.len(usize::try_from(bytes).map_err(|_| SegmentError::TooLarge { bytes })?);
        let map = if writable {
            options.map_raw(file.as_raw_fd()).map_err(wrap)?
        } else {
            options.map_raw_read_only(file.as_raw_fd()).map_err(wrap)?
        };
        Ok(Arc::new(Self { map, _file: Some(file), path: path.into(), writable }))
    }

    /// Bytes mapped.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Where it came from, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// May this process write it? A store through a read-only view would fault, so writers check first.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// `count` rows of type `T` from `offset`.
    ///
    /// # Errors
    /// Out of bounds or misaligned.
    pub fn rows<T: Row>(self: &Arc<Self>, offset: u64, count: u64) -> Result<Rows<T>, SegmentError> {
        let size = count.checked_mul(size_of::<T>() as u64);
        let end = size.and_then(|size| offset.checked_add(size));
        if end.is_none_or(|end| end > self.bytes()) || !offset.is_multiple_of(align_of::<T>() as u64) {
            return Err(SegmentError::Bounds { path: self.path.clone(), offset, count, size: self.bytes() });
        }
        // Both fit usize, since the mapping they lie in does.
        let (offset, count) = (usize::try_from(offset).unwrap_or(0), usize::try_from(count).unwrap_or(0));
        // SAFETY: offset is within the mapping (checked above), so the result stays inside the same allocation.
        let start = unsafe { self.map.as_mut_ptr().add(offset) };
        let start = NonNull::new(start.cast::<T>()).ok_or_else(|| SegmentError::Bounds {
            path: self.path.clone(),
            offset: offset as u64,
            count: count as u64,
            size: self.bytes(),
        })?;
        Ok(Rows { start, count, map: Arc::clone(self), rows: PhantomData })
    }
}

/// Readers hold a shared lock for as long as they map: no cleaner removes a file in use (DPDK unlinks unlocked files).
fn lock_shared(file: &File, path: &Path) -> Result<(), SegmentError> {
    match file.try_lock_shared() {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => Err(SegmentError::Locked { path: path.into() }),
        Err(std::fs::TryLockError::Error(source)) => Err(SegmentError::Open { path: path.into(), source }),
    }
}

/// A view of rows in a mapping; derefs to a slice and keeps the mapping alive.
#[derive(Debug)]
pub struct Rows<T: Row> {
    start: NonNull<T>,
    count: usize,
    map: Arc<Mapping>,
    rows: PhantomData<[T]>,
}

impl<T: Row> Rows<T> {
    /// The mapping the rows lie in.
    #[must_use]
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.map
    }
}

impl<T: Row> Clone for Rows<T> {
    fn clone(&self) -> Self {
        Self { start: self.start, count: self.count, map: Arc::clone(&self.map), rows: PhantomData }
    }
}

impl<T: Row> Deref for Rows<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `Mapping::rows` checked bounds and alignment; `Row` types are valid for every bit pattern and contain
        // only atomics, so shared references are sound while others write; the mapping lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

// SAFETY: `Rows` is a shared reference to `Sync` data that owns its backing mapping.
unsafe impl<T: Row> Send for Rows<T> {}
// SAFETY: as above.
unsafe impl<T: Row> Sync for Rows<T> {}

/// One row; derefs to `T`.
#[derive(Debug)]
pub struct One<T: Row>(Rows<T>);

impl<T: Row> One<T> {
    /// The mapping the row lies in.
    #[must_use]
    pub fn mapping(&self) -> &Arc<Mapping> {
        self.0.mapping()
    }
}

impl<T: Row> Clone for One<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Row> Deref for One<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: made only by `Mapping::one`, which views exactly one row.
        unsafe { self.0.start.as_ref() }
    }
}

impl Mapping {
    /// One row of type `T` at `offset`.
    ///
    /// # Errors
    /// Out of bounds or misaligned.
    pub fn one<T: Row>(self: &Arc<Self>, offset: u64) -> Result<One<T>, SegmentError> {
        self.rows(offset, 1).map(One)
    }
}

/// Hands out offsets in a segment, each part aligned to a cache line.
#[derive(Clone, Copy, Debug)]
pub struct Cursor(u64);

impl Cursor {
    /// Starts behind the header page.
    #[must_use]
    pub const fn after_header() -> Self {
        Self(crate::header::HEADER_BYTES)
    }

    /// Offset of `count` rows of `T`; moves behind them.
    pub const fn take<T>(&mut self, count: u64) -> u64 {
        let at = self.0.next_multiple_of(64);
        self.0 = at + count * size_of::<T>() as u64;
        at
    }

    /// Bytes used so far.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

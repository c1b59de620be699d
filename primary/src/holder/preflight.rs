//! Before EAL: the own lock, living workers, leftovers, memory. (DESIGN §7, D4: a primary that starts on the prefix of
//! living workers destroys them even though it fails. A fresh prefix per start and these checks keep that from happening.)

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use nix::mount::MsFlags;
use shm_layout::slot::Slot;

use super::error::HolderError;
use super::plan::HolderPlan;

/// Bytes of a hugepage.
const PAGE: u64 = shm_layout::segment::HUGE_PAGE;

/// The lock of an instance's holder (or control), held as long as the process lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes `path`, and writes our number into it.
    ///
    /// # Errors
    /// [`HolderError::Running`] naming the process that has it.
    pub fn take(path: &Path) -> Result<Self, HolderError> {
        let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(HolderError::file("open", path))?;
        if let Err(error) = file.try_lock() {
            return match error {
                fs::TryLockError::WouldBlock => {
                    let owner = read_pid(&mut file).map_or_else(String::new, |pid| format!("process {pid} "));
                    Err(HolderError::Running { owner, path: path.into() })
                }
                fs::TryLockError::Error(source) => Err(HolderError::file("lock", path)(source)),
            };
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(HolderError::file("write", path))?;
        Ok(Self { _file: file })
    }

    /// The process that holds `path`, if any.
    pub fn owner(path: &Path) -> Option<u32> {
        let mut file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(fs::TryLockError::WouldBlock) => read_pid(&mut file),
            _ => None,
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// A folder of this mode, made with its parents. One that is there (made by the service manager, for instance) is kept as
/// it is, but for rights of others.
pub fn folder(path: &Path, mode: u32) -> Result<(), HolderError> {
    let set = |mode| fs::set_permissions(path, Permissions::from_mode(mode));
    if let Ok(there) = fs::metadata(path).map(|m| m.permissions().mode() & 0o7777) {
        if there & 0o007 == 0 {
            return Ok(());
        }
        return set(there & !0o007).map_err(HolderError::file("set the mode of", path));
    }
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(HolderError::file("make folder", path))?;
    set(mode).map_err(HolderError::file("set the mode of", path))
}

/// Empties a folder, which stays; what cannot be removed is told to the log.
pub fn empty(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
        let removed = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        if let Err(error) = removed {
            log::warn!("cannot remove {}: {error}", entry.path().display());
        }
    }
}

/// Refuses to start while a worker of an earlier holder lives.
pub fn no_worker_lives(plan: &HolderPlan) -> Result<(), HolderError> {
    for slot in 0..u32::try_from(shm_layout::limits::MAX_SLOTS).unwrap_or(u32::MAX) {
        let path = plan.tables_dir().join(shm_layout::slot::file_name(slot));
        if !path.exists() {
            break;
        }
        // A foreign segment is reported where it is to be used.
        let Ok(table) = Slot::open(&plan.tables_dir(), slot, false) else { continue };
        let owner = table.owner.owner();
        let pid = owner.pid();
        if links::pidfd::lives(owner) {
            return Err(HolderError::WorkerLives { pid, zone: table.owner.zone.load(Ordering::Relaxed), slot });
        }
    }
    Ok(())
}

/// Removes what earlier starts of this instance left of EAL's files; refuses if one of them is in use.
pub fn clear_leftovers(plan: &HolderPlan) -> Result<(), HolderError> {
    let runtime = plan.run_dir.join("dpdk");
    for entry in fs::read_dir(&runtime).into_iter().flatten().flatten() {
        let prefix = entry.file_name().to_string_lossy().into_owned();
        if dpdk::eal::prefix_in_use(&prefix).map_err(HolderError::file("look at", entry.path()))? {
            return Err(HolderError::PrefixInUse { path: entry.path() });
        }
        fs::remove_dir_all(entry.path()).map_err(HolderError::file("remove", entry.path()))?;
    }
    if is_mounted(&plan.mount()) {
        remove_unlocked(&plan.eal_dir());
    }
    Ok(())
}

/// Removes EAL's hugepage files that nobody has locked.
pub fn remove_unlocked(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let unlocked = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if unlocked && let Err(error) = fs::remove_file(entry.path()) {
            log::warn!("cannot remove {}: {error}", entry.path().display());
        }
    }
}

/// Are there hugepages enough for EAL and for the tables that are not there yet?
pub fn enough_pages(plan: &HolderPlan) -> Result<(), HolderError> {
    let number = |name: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
        fs::read_to_string(path).ok().and_then(|t| t.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let mounted = is_mounted(&plan.mount());
    let there =
        |name: &str| if mounted { fs::metadata(plan.tables_dir().join(name)).map_or(0, |m| m.size()) } else { 0 };
    let tables: u64 =
        plan.geometry.files().map(|(name, bytes)| bytes.saturating_sub(there(&name)).div_ceil(PAGE)).sum();
    let (eal, free) = (plan.pages.eal_pages, number("free_hugepages").saturating_sub(number("resv_hugepages")));
    let needed = eal + tables;
    if needed > free {
        let target = number("nr_hugepages") + needed - free;
        return Err(HolderError::Hugepages { needed, eal, tables, free, target });
    }
    Ok(())
}

fn is_mounted(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::HUGETLBFS_MAGIC)
}

/// The instance's own hugetlbfs with its two folders; a mount of an earlier start is kept, with the tables in it.
pub fn mount(plan: &HolderPlan) -> Result<(), HolderError> {
    let path = plan.mount();
    folder(&path, 0o750)?;
    if !is_mounted(&path) {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let options = format!("pagesize=2M,mode=0750,uid={uid},gid={gid}");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        nix::mount::mount(Some("containerlb"), &path, Some("hugetlbfs"), flags, Some(options.as_str()))
            .map_err(|e| HolderError::file("mount hugetlbfs on", &path)(e.into()))?;
    }
    folder(&plan.eal_dir(), 0o700)?;
    folder(&plan.tables_dir(), 0o750)
}

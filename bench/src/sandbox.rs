//! Namespaces of the program's own, with their own `/run`, shared memory, hugepages and process ids: EAL's files, hugepages,
//! children and all else that a killed run would leave vanish with the process.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};

/// Hugepages of the namespace.
pub const HUGE: &str = "/mnt/huge";

/// This program again, in namespaces of its own; its children die with it, and it with its caller.
#[must_use]
pub fn again(arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
        .arg(std::env::current_exe().expect("a program has a path"))
        .args(arguments);
    command
}

/// This program again with these words and `--inside`, to its end; its status.
///
/// # Panics
/// There is no unshare.
#[must_use]
pub fn whole(words: &[String]) -> i32 {
    let mut arguments = vec!["--inside"];
    arguments.extend(words.iter().map(String::as_str));
    again(&arguments).status().expect("unshare (util-linux)").code().unwrap_or(1)
}

/// Empties `/run` and shared memory, and mounts hugepages. Only within [`again`].
pub fn enter() {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("a mount namespace, as root");
    for folder in ["/mnt", "/run", "/dev/shm"] {
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
    }
    std::fs::create_dir(HUGE).expect("a fresh folder");
    mount(Some("none"), HUGE, Some("hugetlbfs"), MsFlags::empty(), Some("pagesize=2M")).expect("hugepages of 2 MiB");
}

/// A folder for the run's files, removed with it.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it.
    ///
    /// # Panics
    /// There is no place for it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("containerlb-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for captures");
        Self(path)
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! EAL: DPDK's start-up, as primary or secondary.
//!
//! All memory is reserved at start and never grows (`--socket-mem` with an equal `--socket-limit`): a primary
//! that grows its heap waits 10 s for every stopped secondary. `rte_eal_cleanup` is never called by a drop:
//! in a secondary it resets virtio NICs under the primary; leave with [`exit_now`].

use std::ffi::{CString, c_char};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{MAX_LCORES, rte_errno, strerror, tap};

/// Which side of EAL a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcType {
    /// Reserves the memory, owns the devices. `auto` does not exist here: it elects itself primary and
    /// destroys the state of living workers.
    Primary,
    /// Maps the primary's memory at the same addresses.
    Secondary,
}

/// Why EAL did not start.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// EAL can be started once per process, even if that failed.
    #[error("EAL was already started in this process; start a new process")]
    Twice,
    /// An argument that cannot be passed on.
    #[error("EAL argument {arg:?} is not valid: {why}")]
    Argument {
        /// The argument.
        arg: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `rte_eal_init` refused; the log (target `dpdk`) has its reasons.
    #[error("EAL did not start with `{args}`: {reason}; {hint}")]
    Init {
        /// The arguments as EAL got them.
        args: String,
        /// DPDK's error text.
        reason: String,
        /// Where to look.
        hint: &'static str,
    },
}

/// Arguments of EAL, checked by [`init`].
#[derive(Clone, Debug)]
pub struct EalArgs {
    proc_type: ProcType,
    file_prefix: String,
    huge_dir: PathBuf,
    memory_mb: Vec<u32>,
    lcores: String,
    allow: Vec<String>,
    vdevs: Vec<String>,
    log_level: u32,
}

impl EalArgs {
    /// A process of the instance `file_prefix`, with its own hugetlbfs folder, on the lcores `lcores`
    /// (`"ID@CPU,…"`; ids unique over all processes of the prefix and below [`MAX_LCORES`]; the first is the
    /// main lcore, to whose CPU the calling thread is pinned by [`init`]).
    ///
    /// One lcore is enough for a process whose other threads are its own: they need no lcore id, because our
    /// pools have no lcore cache. Each further lcore costs an idle EAL thread.
    pub fn new(proc_type: ProcType, file_prefix: &str, huge_dir: &Path, lcores: &str) -> Self {
        EalArgs {
            proc_type,
            file_prefix: file_prefix.to_owned(),
            huge_dir: huge_dir.to_owned(),
            memory_mb: vec![64],
            lcores: lcores.to_owned(),
            allow: Vec::new(),
            vdevs: Vec::new(),
            log_level: 6,
        }
    }

    /// MiB of hugepages, all taken at start, none later (primary only; default 64 on node 0).
    pub fn memory_mb(self, mb: u32) -> Self {
        self.memory_mb_per_node(&[mb])
    }

    /// The same by NUMA node. A node of 0 MiB gets no memory later either.
    pub fn memory_mb_per_node(mut self, mb: &[u32]) -> Self {
        self.memory_mb = mb.to_vec();
        self
    }

    /// Lets EAL probe this PCI device (`0000:03:00.0` with its arguments). Without any, no PCI bus is
    /// scanned: EAL would take the machine's own NIC.
    pub fn allow_pci(mut self, address: &str) -> Self {
        self.allow.push(address.to_owned());
        self
    }

    /// A virtual device, for instance `net_tap0,iface=lb0,mac=02:00:00:00:00:01` (primary only; secondaries
    /// are told by the primary).
    pub fn vdev(mut self, devargs: &str) -> Self {
        self.vdevs.push(devargs.to_owned());
        self
    }

    /// The least important lines logged: 4 error, 5 warning, 6 notice (default), 7 info, 8 debug.
    pub fn log_level(mut self, level: u32) -> Self {
        self.log_level = level;
        self
    }

    /// The arguments as EAL takes them, without the program's name.
    pub fn to_argv(&self) -> Result<Vec<String>, EalError> {
        check_name(&self.file_prefix, "a file prefix is 1 to 48 letters, digits, '-' or '_'")?;
        check_lcores(&self.lcores)?;
        let primary = self.proc_type == ProcType::Primary;
        let mut argv = vec![
            if primary { "--proc-type=primary" } else { "--proc-type=secondary" }.to_owned(),
            format!("--file-prefix={}", self.file_prefix),
            format!("--huge-dir={}", self.huge_dir.display()),
            format!("--lcores={}", self.lcores),
            format!("--log-level={}", self.log_level),
            "--no-telemetry".to_owned(),
        ];
        if self.allow.is_empty() {
            argv.push("--no-pci".to_owned());
        }
        argv.extend(self.allow.iter().map(|a| format!("--allow={a}")));
        if primary {
            let list =
                |f: fn(u32) -> u32| self.memory_mb.iter().map(|&mb| f(mb).to_string()).collect::<Vec<_>>().join(",");
            argv.push(format!("--socket-mem={}", list(|mb| mb)));
            // A limit of 0 would mean "none".
            argv.push(format!("--socket-limit={}", list(|mb| mb.max(1))));
            if self.allow.is_empty() {
                // Virtual devices do not care, and physical addresses need a privilege.
                argv.push("--iova-mode=va".to_owned());
            }
            argv.extend(self.vdevs.iter().map(|v| format!("--vdev={v}")));
        }
        Ok(argv)
    }
}

fn check_name(name: &str, why: &'static str) -> Result<(), EalError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 48 || !name.chars().all(fine) {
        return Err(EalError::Argument { arg: name.to_owned(), why });
    }
    Ok(())
}

fn check_lcores(lcores: &str) -> Result<(), EalError> {
    let bad = |why| EalError::Argument { arg: lcores.to_owned(), why };
    for part in lcores.split(',') {
        let (id, cpu) = part.split_once('@').ok_or_else(|| bad("an lcore is written ID@CPU"))?;
        let id: u32 = id.parse().map_err(|_| bad("the lcore id is not a number"))?;
        cpu.parse::<u32>().map_err(|_| bad("the CPU is not a number"))?;
        if id >= MAX_LCORES {
            return Err(bad("an lcore id is too large (DPDK 22.11: below 128)"));
        }
    }
    Ok(())
}

/// EAL, started. Dropping it does nothing; see [`Eal::cleanup`] and [`exit_now`].
#[derive(Debug)]
pub struct Eal {
    proc_type: ProcType,
}

/// Starts EAL. Once per process, also after a failure.
///
/// The calling thread is pinned to the main lcore's CPU; where it was pinned before does not matter.
/// EAL puts its files under `$RUNTIME_DIRECTORY/dpdk/PREFIX`, else `/var/run/dpdk/PREFIX`: the variable must be
/// the same in all processes. **Before** starting a primary look at [`prefix_in_use`]: even a refused start
/// destroys the EAL state of living secondaries.
///
/// In a primary with a net_tap device real-time signals are blocked and SIGIO is ignored first
/// ([`tap::Quiet`]), so that EAL's own threads are never interrupted by packets either.
pub fn init(args: &EalArgs) -> Result<Eal, EalError> {
    static STARTED: AtomicBool = AtomicBool::new(false);
    let argv = args.to_argv()?;
    if STARTED.swap(true, Ordering::SeqCst) {
        return Err(EalError::Twice);
    }
    crate::log::redirect();
    let text = argv.join(" ");
    let c_argv = std::iter::once("lb".to_owned())
        .chain(argv)
        .map(|a| CString::new(a.clone()).map_err(|_| EalError::Argument { arg: a, why: "it contains a NUL byte" }))
        .collect::<Result<Vec<_>, _>>()?;
    // EAL keeps pointers into its arguments, and permutes the array: both live for ever.
    let mut pointers: Vec<*mut c_char> = c_argv.into_iter().map(CString::into_raw).collect();
    let argc = i32::try_from(pointers.len()).expect("a few dozen arguments");
    pointers.push(std::ptr::null_mut());
    let pointers = Vec::leak(pointers);

    let quiet =
        (args.proc_type == ProcType::Primary && args.vdevs.iter().any(|v| tap::is_tap(v))).then(tap::Quiet::begin);
    // SAFETY: argc NUL-terminated strings followed by NULL, leaked and therefore valid for ever.
    let done = unsafe { dpdk_sys::rte_eal_init(argc, pointers.as_mut_ptr()) };
    let errno = rte_errno();
    drop(quiet);
    if done < 0 {
        let hint = match args.proc_type {
            ProcType::Primary => "see the lines above; free hugepages: grep Huge /proc/meminfo",
            ProcType::Secondary => "is the primary running, with the same prefix, --huge-dir and RUNTIME_DIRECTORY?",
        };
        return Err(EalError::Init { args: text, reason: strerror(errno), hint });
    }
    // EAL has put tables of its service cores, 160 KiB, on the *shared* heap. A worker leaves without clean-up,
    // so each attach would take them for ever, and after some hundred none could attach. We use no services.
    // (About 256 bytes an attach remain taken.)
    // Done here, within the supervised attach, because the heap is not touched later.
    // SAFETY: EAL is started, no service core runs; DPDK marks the library as closed and will not do it again.
    unsafe { dpdk_sys::rte_service_finalize() };
    Ok(Eal { proc_type: args.proc_type })
}

impl Eal {
    /// Primary or secondary.
    pub fn proc_type(&self) -> ProcType {
        self.proc_type
    }

    /// Releases EAL's files, at an ordered stop of the primary after all secondaries have gone.
    /// In a secondary this does nothing: it would reset devices under the primary.
    pub fn cleanup(self) {
        if self.proc_type == ProcType::Primary {
            // SAFETY: EAL is started; `self` is consumed, so this happens once.
            unsafe { dpdk_sys::rte_eal_cleanup() };
        }
    }
}

/// Bytes of the EAL's shared heap (NUMA node `socket`): free, and all. Takes the heap's lock, so only while no
/// process may have died in it: at start, and for an operator who asks.
pub fn heap(socket: i32) -> Option<(usize, usize)> {
    // SAFETY: plain data, filled by the call.
    let mut stats: dpdk_sys::rte_malloc_socket_stats = unsafe { std::mem::zeroed() };
    // SAFETY: room for the answer; any number is allowed.
    let done = unsafe { dpdk_sys::rte_malloc_get_socket_stats(socket, &raw mut stats) };
    (done == 0).then_some((stats.heap_freesz_bytes, stats.heap_totalsz_bytes))
}

/// `_exit`: ends the process without destructors, `atexit` and EAL's clean-up. How a worker leaves.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Where EAL keeps the files of `prefix`: `$RUNTIME_DIRECTORY/dpdk/PREFIX`, else `/var/run/dpdk/PREFIX` (root).
pub fn runtime_dir(prefix: &str) -> PathBuf {
    let base = std::env::var_os("RUNTIME_DIRECTORY").map_or_else(|| PathBuf::from("/var/run"), PathBuf::from);
    base.join("dpdk").join(prefix)
}

/// Whether a process of `prefix` lives: one that holds a lock on one of EAL's `fbarray_*` files.
///
/// To be asked before a primary starts (DESIGN D4): a primary that starts on the prefix of living secondaries
/// destroys their configuration even though it fails. Reads and locks only; no file is changed.
pub fn prefix_in_use(prefix: &str) -> std::io::Result<bool> {
    let entries = match std::fs::read_dir(runtime_dir(prefix)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("fbarray_") {
            continue;
        }
        let file = std::fs::File::open(entry.path())?;
        // SAFETY: the descriptor is open; the lock, if we get it, goes with it at the end of this turn.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let e = std::io::Error::last_os_error();
            if e.kind() == std::io::ErrorKind::WouldBlock {
                return Ok(true);
            }
            return Err(e);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(proc_type: ProcType) -> EalArgs {
        EalArgs::new(proc_type, "lb", Path::new("/huge/eal"), "0@1")
    }

    #[test]
    fn primary_reserves_all_and_scans_no_pci() {
        let argv = args(ProcType::Primary).memory_mb_per_node(&[96, 0]).vdev("net_null0").to_argv().unwrap();
        assert!(argv.contains(&"--socket-mem=96,0".to_owned()));
        assert!(argv.contains(&"--socket-limit=96,1".to_owned()));
        assert!(argv.contains(&"--no-pci".to_owned()));
        assert!(argv.contains(&"--vdev=net_null0".to_owned()));
    }

    #[test]
    fn secondary_names_no_memory_and_no_device() {
        let argv = args(ProcType::Secondary).vdev("net_null0").to_argv().unwrap();
        assert!(!argv.iter().any(|a| a.contains("vdev") || a.contains("socket") || a.contains("iova")));
    }

    #[test]
    fn bad_arguments_are_named() {
        for lcores in ["0", "x@0", "0@x", "128@0", ""] {
            let e = EalArgs::new(ProcType::Primary, "lb", Path::new("/h"), lcores).to_argv();
            assert!(matches!(e, Err(EalError::Argument { .. })), "{lcores}");
        }
        for prefix in ["", "a/b", "a b"] {
            assert!(EalArgs::new(ProcType::Primary, prefix, Path::new("/h"), "0@0").to_argv().is_err());
        }
    }
}

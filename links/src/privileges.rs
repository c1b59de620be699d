//! What a program gives up once it has started: capabilities, the right to gain any, memory dumps, system calls.
//!
//! A service manager does the same from outside; this holds also without one, and goes further: the list of calls is that
//! of a program at work, not of one that starts. Two filters, because two kinds of call are not on the list:
//!
//! | call | answer | why |
//! |---|---|---|
//! | one that only an intruder makes ([`ALWAYS_FATAL`], and what the program adds) | the process is killed (SIGSYS) | its memory is no longer its own; the successor finds the sessions |
//! | another one that is not listed | `ENOSYS` | forgotten, or new in libc, which then takes the older way: a packet path is not ended for that |

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, getegid, geteuid, setgid, setgroups, setuid};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter_all_threads,
};

pub use caps::Capability as Right;

/// Calls that no program of the appliance makes once it has started, and that lead out of a process or into another one.
pub const ALWAYS_FATAL: &[i64] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    // Other namespaces and mounts.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    // Other rights.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // The kernel itself, and its parts with a history.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_modify_ldt,
    libc::SYS_personality,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
];

/// A call, for all arguments or some: one of `only` has to be met. Arguments are compared in 32 bits.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: i64,
    /// Conditions; none: for all arguments.
    pub only: &'static [When],
}

/// A condition.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Argument (from 0) has this value.
    Is(u8, u64),
    /// Argument's bits under the mask have this value: (argument, mask, value).
    Bits(u8, u64, u64),
    /// Argument has none of up to three values.
    NoneOf(u8, &'static [u64]),
}

/// A call whatever its arguments.
#[must_use]
pub const fn call(number: i64) -> Call {
    Call { number, only: &[] }
}

/// Calls that are allowed together, for one reason.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Why.
    pub reason: &'static str,
    /// Which.
    pub calls: &'static [Call],
}

/// Something could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The kernel refuses.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
    /// Capabilities.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The filter.
    #[error("cannot filter system calls: {0}; hint: does this kernel have seccomp?")]
    Filter(#[from] seccompiler::Error),
    /// The filter's program.
    #[error("the filter of system calls is not valid: {0}")]
    Program(#[from] seccompiler::BackendError),
}

/// Gives up all capabilities but `keep` (of those it has), for good: no later program gains any. No memory of this process
/// goes into a dump or to another process of its user: keys lie in it. To be called before the first thread is started,
/// which inherits it.
///
/// # Errors
/// The kernel refuses.
pub fn give_up(keep: &[Right]) -> Result<(), PrivilegeError> {
    let kept: CapsHashSet = keep.iter().copied().collect();
    let may_bound = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
    for surplus in caps::read(None, CapSet::Bounding)?.difference(&kept).filter(|_| may_bound) {
        caps::drop(None, CapSet::Bounding, *surplus)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted] {
        let (has, left) = (caps::read(None, set)?, caps::read(None, set)?.intersection(&kept).copied().collect());
        // A service manager that has done this may have forbidden the call, too.
        if has != left {
            caps::set(None, set, &left)?;
        }
    }
    // Nothing for the programs it starts.
    caps::clear(None, CapSet::Ambient)?;
    let fail = |what| move |error: nix::Error| PrivilegeError::System { what, source: error.into() };
    nix::sys::prctl::set_no_new_privs().map_err(fail("forbid new privileges"))?;
    nix::sys::prctl::set_dumpable(false).map_err(fail("forbid dumps"))
}

/// Started as root, a process becomes user and group of `path`: without capabilities root could not use what others own,
/// and it needs nothing else. Does nothing for others, and where root is the owner.
///
/// # Errors
/// The kernel refuses.
pub fn become_owner_of(path: &Path) -> Result<(), PrivilegeError> {
    let Some((user, group)) = owner(path) else { return Ok(()) };
    join(group)?;
    let fail =
        |error: nix::Error| PrivilegeError::System { what: "become the owner of the tables", source: error.into() };
    if user.is_root() { Ok(()) } else { setuid(user).map_err(fail) }
}

/// As [`become_owner_of`], its group only.
///
/// # Errors
/// The kernel refuses.
pub fn join_group_of(path: &Path) -> Result<(), PrivilegeError> {
    owner(path).map_or(Ok(()), |(_, group)| join(group))
}

/// User and group of what is there, for root.
fn owner(path: &Path) -> Option<(Uid, Gid)> {
    let meta = std::fs::metadata(path).ok().filter(|_| geteuid().is_root())?;
    Some((Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid())))
}

fn join(group: Gid) -> Result<(), PrivilegeError> {
    if group == getegid() {
        return Ok(());
    }
    let fail = |error: nix::Error| PrivilegeError::System { what: "join the appliance's group", source: error.into() };
    setgroups(&[group]).and_then(|()| setgid(group)).map_err(fail)
}

/// From now on, in all threads and for good: only the calls of `allowed`; those of [`ALWAYS_FATAL`] and `fatal` kill the
/// process.
///
/// # Errors
/// The kernel has no seccomp, or a thread has a filter of its own.
pub fn confine(allowed: &[Group], fatal: &[Call]) -> Result<(), PrivilegeError> {
    // In this order: the list has no room for installing a filter.
    let fatal = ALWAYS_FATAL.iter().map(|number| call(*number)).chain(fatal.iter().copied());
    install(fatal, SeccompAction::Allow, SeccompAction::KillProcess)?;
    let listed = allowed.iter().flat_map(|group| group.calls).copied();
    install(listed, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()), SeccompAction::Allow)
}

fn install(
    calls: impl Iterator<Item = Call>,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<(), PrivilegeError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in calls {
        let of_call = rules.entry(call.number).or_default();
        for when in call.only {
            of_call.push(when.rule()?);
        }
    }
    let filter = SeccompFilter::new(rules, others, these, TargetArch::x86_64)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    Ok(apply_filter_all_threads(&program)?)
}

impl When {
    fn rule(self) -> Result<SeccompRule, seccompiler::BackendError> {
        let compare =
            |argument, operator, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
        SeccompRule::new(match self {
            Self::Is(argument, value) => vec![compare(argument, SeccompCmpOp::Eq, value)?],
            Self::Bits(argument, mask, value) => vec![compare(argument, SeccompCmpOp::MaskedEq(mask), value)?],
            Self::NoneOf(argument, values) => {
                values.iter().map(|v| compare(argument, SeccompCmpOp::Ne, *v)).collect::<Result<_, _>>()?
            }
        })
    }
}

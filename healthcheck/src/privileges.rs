//! What the health-checker gives up: all capabilities before its first thread, and once it has the board all system calls but
//! these. What a server answers to a probe is the hostile side.

use std::path::Path;

use links::privileges::{self, Call, Group, PrivilegeError, When, call};

/// `socket`: probes and links.
const FAMILIES: &[u64] = &[libc::AF_UNIX as u64, libc::AF_INET as u64, libc::AF_INET6 as u64];
const PROBES: &[When] = &[When::Is(0, FAMILIES[0]), When::Is(0, FAMILIES[1]), When::Is(0, FAMILIES[2])];
const OTHER_FAMILY: &[When] = &[When::NoneOf(0, FAMILIES)];
/// `mmap`, `mprotect`: code that was not there.
const EXECUTABLE: &[When] = &[When::Bits(2, libc::PROT_EXEC as u64, libc::PROT_EXEC as u64)];
const DATA: &[When] = &[When::Bits(2, libc::PROT_EXEC as u64, 0)];
/// `clone`: threads, no processes. (`clone3` hides its flags from a filter: libc falls back to this one.)
const THREAD: &[When] = &[When::Bits(0, libc::CLONE_THREAD as u64, libc::CLONE_THREAD as u64)];
/// `openat`: files that are there. A board made anew is opened for writing.
const MADE_NEW: u64 = (libc::O_CREAT | libc::O_TRUNC) as u64;
const OPENING: &[When] = &[When::Bits(2, MADE_NEW, 0)];
const MAKING: &[When] = &[
    When::Bits(2, libc::O_CREAT as u64, libc::O_CREAT as u64),
    When::Bits(2, libc::O_TRUNC as u64, libc::O_TRUNC as u64),
];
const SMALL_TALK: &[When] = &[When::Is(1, libc::FIONBIO), When::Is(1, libc::FIOCLEX), When::Is(1, libc::TCGETS)];
const HARMLESS: &[When] = &[
    When::Is(0, libc::PR_SET_NAME as u64),
    When::Is(0, libc::PR_GET_NAME as u64),
    When::Is(0, libc::PR_SET_VMA as u64),
];

const fn only(number: i64, only: &'static [When]) -> Call {
    Call { number, only }
}

/// What a probing health-checker may ask of the kernel.
const ALLOWED: &[Group] = &[
    Group {
        reason: "probes, links, the service manager",
        calls: &[
            only(libc::SYS_socket, PROBES),
            only(libc::SYS_socketpair, &[When::Is(0, libc::AF_UNIX as u64)]),
            call(libc::SYS_connect),
            call(libc::SYS_bind),
            call(libc::SYS_getsockopt),
            call(libc::SYS_setsockopt),
            call(libc::SYS_getsockname),
            call(libc::SYS_getpeername),
            call(libc::SYS_shutdown),
            call(libc::SYS_sendto),
            call(libc::SYS_recvfrom),
            call(libc::SYS_sendmsg),
            call(libc::SYS_recvmsg),
            call(libc::SYS_read),
            call(libc::SYS_readv),
            call(libc::SYS_write),
            call(libc::SYS_writev),
            only(libc::SYS_ioctl, SMALL_TALK),
        ],
    },
    Group {
        reason: "the event loop and clocks",
        calls: &[
            call(libc::SYS_epoll_create1),
            call(libc::SYS_epoll_ctl),
            call(libc::SYS_epoll_wait),
            call(libc::SYS_epoll_pwait),
            call(libc::SYS_eventfd2),
            call(libc::SYS_pipe2),
            call(libc::SYS_poll),
            call(libc::SYS_ppoll),
            call(libc::SYS_futex),
            call(libc::SYS_clock_gettime),
            call(libc::SYS_clock_nanosleep),
            call(libc::SYS_nanosleep),
            call(libc::SYS_sched_yield),
            call(libc::SYS_restart_syscall),
        ],
    },
    Group {
        reason: "memory, never executable",
        calls: &[
            only(libc::SYS_mmap, DATA),
            only(libc::SYS_mprotect, DATA),
            call(libc::SYS_munmap),
            call(libc::SYS_mremap),
            call(libc::SYS_madvise),
            call(libc::SYS_brk),
        ],
    },
    Group {
        reason: "threads of links, signals, the end",
        calls: &[
            only(libc::SYS_clone, THREAD),
            call(libc::SYS_set_robust_list),
            call(libc::SYS_rseq),
            call(libc::SYS_membarrier),
            call(libc::SYS_sched_getaffinity),
            call(libc::SYS_gettid),
            call(libc::SYS_getpid),
            call(libc::SYS_getuid),
            call(libc::SYS_geteuid),
            call(libc::SYS_getgid),
            call(libc::SYS_getegid),
            only(libc::SYS_prctl, HARMLESS),
            call(libc::SYS_rt_sigaction),
            call(libc::SYS_rt_sigprocmask),
            call(libc::SYS_rt_sigreturn),
            call(libc::SYS_sigaltstack),
            call(libc::SYS_tgkill),
            call(libc::SYS_exit),
            call(libc::SYS_exit_group),
        ],
    },
    Group {
        reason: "the board, when it was made anew; facts of /proc",
        calls: &[
            only(libc::SYS_openat, OPENING),
            call(libc::SYS_close),
            call(libc::SYS_fstat),
            call(libc::SYS_newfstatat),
            call(libc::SYS_statx),
            call(libc::SYS_lseek),
            call(libc::SYS_fcntl),
            call(libc::SYS_flock),
            call(libc::SYS_uname),
            call(libc::SYS_getrandom),
            call(libc::SYS_prlimit64),
            call(libc::SYS_sysinfo),
            call(libc::SYS_readlink),
        ],
    },
];

/// What only an intruder would do, beside [`privileges::ALWAYS_FATAL`].
const FATAL: &[Call] = &[
    only(libc::SYS_mmap, EXECUTABLE),
    only(libc::SYS_mprotect, EXECUTABLE),
    call(libc::SYS_pkey_mprotect),
    only(libc::SYS_socket, OTHER_FAMILY),
    only(libc::SYS_openat, MAKING),
    call(libc::SYS_fork),
    call(libc::SYS_vfork),
];

/// Before the first thread: the group that may write the board, no capability.
///
/// # Errors
/// The kernel refuses.
pub fn give_up(run_dir: &Path) -> Result<(), PrivilegeError> {
    privileges::join_group_of(run_dir)?;
    privileges::give_up(&[])
}

/// Once it works: [`ALLOWED`] and nothing else. A kernel that cannot filter is told to the log and worked on.
pub fn confine() {
    match privileges::confine(ALLOWED, FATAL) {
        Ok(()) => log::debug!("system calls are filtered"),
        Err(error) => log::error!("{error}; probing without a filter"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel takes the harsher of two verdicts: a call that is allowed without condition must not be fatal, and one
    /// that is fatal under a condition must be allowed under another.
    #[test]
    fn lists_do_not_contradict() {
        let allowed = || ALLOWED.iter().flat_map(|group| group.calls);
        let always: Vec<i64> = allowed().filter(|c| c.only.is_empty()).map(|c| c.number).collect();
        let fatal: Vec<i64> = privileges::ALWAYS_FATAL.iter().copied().chain(FATAL.iter().map(|c| c.number)).collect();
        assert!(always.iter().all(|number| !fatal.contains(number)));
        for call in FATAL.iter().filter(|c| !c.only.is_empty()) {
            assert!(allowed().any(|c| c.number == call.number), "call {} is fatal or missing", call.number);
        }
        let mut numbers: Vec<i64> = allowed().map(|c| c.number).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|w| w[0] != w[1]), "a call is listed twice: conditions of both would count");
        assert!(ALLOWED.iter().all(|group| !group.reason.is_empty() && !group.calls.is_empty()));
    }
}

//! What a worker gives up: all capabilities before its first thread, and once it serves all system calls but these.
//!
//! The list is what workers need that serve taps, hand over, adopt and leave, and what drivers of NICs and memory allocation
//! may want besides; `strace -f -Z` of such workers under the filter shows `clone3` refused and nothing else. Packets are the hostile side: what they
//! might gain is a thread that reads and writes descriptors it has, in a process that no user's rights are worth anything to.

use std::path::Path;

use links::privileges::{self, Call, Group, PrivilegeError, When, call};

/// `mmap`, `mprotect`: code that was not there.
const EXECUTABLE: &[When] = &[When::Bits(2, libc::PROT_EXEC as u64, libc::PROT_EXEC as u64)];
/// `socket`, `socketpair`: the processes of this machine, not its network.
const UNIX: &[When] = &[When::Is(0, libc::AF_UNIX as u64)];
const NOT_UNIX: &[When] = &[When::NoneOf(0, &[libc::AF_UNIX as u64])];
/// `clone`: threads, no processes. (`clone3` hides its flags from a filter: libc falls back to this one.)
const THREAD: &[When] = &[When::Bits(0, libc::CLONE_THREAD as u64, libc::CLONE_THREAD as u64)];
/// `openat`: all tables are open by now; what is read later are facts of /proc.
const READING: &[When] = &[When::Bits(2, OPEN_TO_WRITE, 0)];
const WRITING: &[When] = &[
    When::Bits(2, libc::O_ACCMODE as u64, libc::O_WRONLY as u64),
    When::Bits(2, libc::O_ACCMODE as u64, libc::O_RDWR as u64),
    When::Bits(2, libc::O_CREAT as u64, libc::O_CREAT as u64),
    When::Bits(2, libc::O_TRUNC as u64, libc::O_TRUNC as u64),
];
const OPEN_TO_WRITE: u64 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
/// `prctl`: names of threads and of memory, the slack of timers.
const HARMLESS: &[When] = &[
    When::Is(0, libc::PR_SET_NAME as u64),
    When::Is(0, libc::PR_GET_NAME as u64),
    When::Is(0, libc::PR_SET_TIMERSLACK as u64),
    When::Is(0, libc::PR_SET_VMA as u64),
];
/// `ioctl`: standard library and a tap's link state.
const SMALL_TALK: &[When] = &[
    When::Is(1, libc::FIONBIO),
    When::Is(1, libc::FIOCLEX),
    When::Is(1, libc::TCGETS),
    When::Is(1, libc::SIOCGIFFLAGS),
];

const fn only(number: i64, only: &'static [When]) -> Call {
    Call { number, only }
}

/// What a serving worker may ask of the kernel.
const ALLOWED: &[Group] = &[
    Group {
        reason: "packets: taps are read and written; memif and virtio-user send messages; virtio on PCI writes its doorbell",
        calls: &[
            call(libc::SYS_readv),
            call(libc::SYS_writev),
            call(libc::SYS_read),
            call(libc::SYS_write),
            call(libc::SYS_pread64),
            call(libc::SYS_pwrite64),
            call(libc::SYS_recvmsg),
            call(libc::SYS_sendmsg),
            call(libc::SYS_recvfrom),
            call(libc::SYS_sendto),
            only(libc::SYS_ioctl, SMALL_TALK),
        ],
    },
    Group {
        reason: "naps, clocks and waking: threads without work sleep, a successor sleeps until a slot is released",
        calls: &[
            call(libc::SYS_clock_nanosleep),
            call(libc::SYS_nanosleep),
            call(libc::SYS_clock_gettime),
            call(libc::SYS_gettimeofday),
            call(libc::SYS_sched_yield),
            call(libc::SYS_futex),
            call(libc::SYS_timerfd_settime),
            call(libc::SYS_restart_syscall),
        ],
    },
    Group {
        reason: "waiting: EAL's threads, signals, pidfds, links",
        calls: &[
            call(libc::SYS_poll),
            call(libc::SYS_ppoll),
            call(libc::SYS_select),
            call(libc::SYS_pselect6),
            call(libc::SYS_epoll_create1),
            call(libc::SYS_epoll_ctl),
            call(libc::SYS_epoll_wait),
            call(libc::SYS_epoll_pwait),
            call(libc::SYS_eventfd2),
            call(libc::SYS_pipe2),
        ],
    },
    Group {
        reason: "links to lb-primary and to a successor, the service manager's socket",
        calls: &[
            only(libc::SYS_socket, UNIX),
            only(libc::SYS_socketpair, UNIX),
            call(libc::SYS_connect),
            call(libc::SYS_getsockopt),
            call(libc::SYS_setsockopt),
            call(libc::SYS_getsockname),
            call(libc::SYS_getpeername),
            call(libc::SYS_shutdown),
        ],
    },
    Group {
        reason: "memory of the allocator and of threads' stacks, never executable",
        calls: &[
            only(libc::SYS_mmap, &[When::Bits(2, libc::PROT_EXEC as u64, 0)]),
            only(libc::SYS_mprotect, &[When::Bits(2, libc::PROT_EXEC as u64, 0)]),
            call(libc::SYS_munmap),
            call(libc::SYS_mremap),
            call(libc::SYS_madvise),
            call(libc::SYS_brk),
        ],
    },
    Group {
        reason: "threads: links and adopted slots start some after the filter",
        calls: &[
            only(libc::SYS_clone, THREAD),
            call(libc::SYS_set_robust_list),
            call(libc::SYS_rseq),
            call(libc::SYS_membarrier),
            call(libc::SYS_sched_setaffinity),
            call(libc::SYS_sched_getaffinity),
            call(libc::SYS_gettid),
            call(libc::SYS_getpid),
            call(libc::SYS_getppid),
            call(libc::SYS_getuid),
            call(libc::SYS_geteuid),
            call(libc::SYS_getgid),
            call(libc::SYS_getegid),
            only(libc::SYS_prctl, HARMLESS),
            call(libc::SYS_exit),
            call(libc::SYS_exit_group),
        ],
    },
    Group {
        reason: "signals, own and those that stop a predecessor or a hung owner of slots",
        calls: &[
            call(libc::SYS_rt_sigaction),
            call(libc::SYS_rt_sigprocmask),
            call(libc::SYS_rt_sigreturn),
            call(libc::SYS_sigaltstack),
            call(libc::SYS_tgkill),
            call(libc::SYS_kill),
            call(libc::SYS_pidfd_open),
            call(libc::SYS_pidfd_send_signal),
        ],
    },
    Group {
        reason: "reading: /proc tells whether an owner lives and runs",
        calls: &[
            only(libc::SYS_openat, READING),
            call(libc::SYS_close),
            call(libc::SYS_fstat),
            call(libc::SYS_newfstatat),
            call(libc::SYS_statx),
            call(libc::SYS_lseek),
            call(libc::SYS_getdents64),
            call(libc::SYS_readlink),
            call(libc::SYS_readlinkat),
            call(libc::SYS_fcntl),
            call(libc::SYS_dup),
            call(libc::SYS_flock),
            call(libc::SYS_uname),
            call(libc::SYS_sysinfo),
            call(libc::SYS_getrandom),
            call(libc::SYS_getrusage),
            call(libc::SYS_prlimit64),
        ],
    },
];

/// What only an intruder would do, beside [`privileges::ALWAYS_FATAL`].
const FATAL: &[Call] = &[
    only(libc::SYS_mmap, EXECUTABLE),
    only(libc::SYS_mprotect, EXECUTABLE),
    call(libc::SYS_pkey_mprotect),
    only(libc::SYS_socket, NOT_UNIX),
    only(libc::SYS_openat, WRITING),
    call(libc::SYS_fork),
    call(libc::SYS_vfork),
];

/// Before the first thread: the user that the tables belong to, no capability, no dump of memory with keys in it.
///
/// # Errors
/// The kernel refuses.
pub fn give_up(tables: &Path) -> Result<(), PrivilegeError> {
    privileges::become_owner_of(tables)?;
    privileges::give_up(&[])
}

/// Once all threads serve: the calls allowed and nothing else. A kernel that cannot filter is told to the log and served on:
/// packets first.
pub fn confine() {
    match privileges::confine(ALLOWED, FATAL) {
        Ok(()) => log::debug!("system calls are filtered"),
        Err(error) => log::error!("{error}; serving without a filter"),
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

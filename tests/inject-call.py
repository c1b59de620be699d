"""inject-call.py PID NUMBER [ARGUMENT…]: makes a thread of another process ask the kernel for something, as code that
has taken the process over would. Prints "killed SIGNAL" or "returned VALUE". An argument `text:…` is laid on the stack.

x86-64 only. The thread is stopped inside a system call, its registers are changed, the instruction `syscall` before its
place is run once, and the registers are put back.
"""

import ctypes
import os
import signal
import sys
import time

NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
).split()
ATTACH, DETACH, STEP, GETREGS, SETREGS, PEEK, POKE, KILL = 16, 17, 9, 12, 13, 2, 5, 8
WALL = 0x40000000  # wait for threads, too


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in NAMES]


libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(what, pid, address=None, data=None):
    result = libc.ptrace(what, pid, address, data)
    if result == -1 and ctypes.get_errno() != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {what}: {os.strerror(ctypes.get_errno())}")
    return result


def stopped(pid):
    _, status = os.waitpid(pid, WALL)
    if os.WIFSIGNALED(status):
        print("killed", os.WTERMSIG(status))
        sys.exit(0)
    if os.WIFEXITED(status):
        sys.exit(f"it exited with {os.WEXITSTATUS(status)}")
    return os.WSTOPSIG(status)


def attach_in_call(pid):
    """Attached while the thread is in a system call."""
    for _ in range(500):
        ptrace(ATTACH, pid)
        stopped(pid)
        registers = Registers()
        ptrace(GETREGS, pid, None, ctypes.addressof(registers))
        if registers.orig_rax < 1 << 63:
            return registers
        ptrace(DETACH, pid)
        time.sleep(0.002)
    sys.exit("the thread is never in a system call")


def main():
    pid, number, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    before = attach_in_call(pid)
    changed = Registers.from_buffer_copy(before)
    free = (before.rsp - 4096) & ~0xFFF
    values = []
    for word in words:
        if word.startswith("text:"):
            text = word[5:].encode() + b"\0" * 8
            for at in range(0, len(text) - 7, 8):
                ptrace(POKE, pid, free + at, int.from_bytes(text[at : at + 8], "little"))
            values.append(free)
            free += 512
        else:
            values.append(int(word, 0) & (1 << 64) - 1)
    for name, value in zip(["rdi", "rsi", "rdx", "r10", "r8", "r9"], values):
        setattr(changed, name, value)
    changed.rax, changed.orig_rax, changed.rip = number, (1 << 64) - 1, before.rip - 2
    ptrace(SETREGS, pid, None, ctypes.addressof(changed))
    ptrace(STEP, pid)
    while stopped(pid) != signal.SIGTRAP:
        ptrace(STEP, pid)
    after = Registers()
    ptrace(GETREGS, pid, None, ctypes.addressof(after))
    ptrace(SETREGS, pid, None, ctypes.addressof(before))
    ptrace(DETACH, pid)
    print("returned", ctypes.c_longlong(after.rax).value)


main()

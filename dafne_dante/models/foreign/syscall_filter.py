"""A seccomp filter: the few system calls that arithmetic in Python needs; every other is answered "permission denied".

Terms: the filter is a program for the kernel's packet machine (BPF) over the call's number and arguments.

Invariants: it is a list of what is allowed, so that a call which nobody thought of, or which a later kernel has, is
refused. Not on it: sockets of any kind, starting a process or a program, signals, tracing, changing limits, changing
a file or its attributes, shared memory, devices (ioctl), mounting, loading into the kernel. Threads are allowed, a
copy of the process is not. A call of another architecture's table ends the process.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst; numbers from asm/unistd_64.h and asm-generic/unistd.h.
"""

import ctypes
import errno
import os
import platform
import struct

__all__ = ["filter_system_calls", "knows_this_machine"]

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# call: its number on x86_64 and on aarch64
_ALLOWED: dict[str, tuple[int, int | None]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "lseek": (8, 62), "close": (3, 57), "fstat": (5, 80), "stat": (4, None), "lstat": (6, None),
    "newfstatat": (262, 79), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "open": (2, None),
    "openat": (257, 56), "getdents64": (217, 61), "getcwd": (79, 17), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "pipe2": (293, 59), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216),
    "madvise": (28, 233), "brk": (12, 214), "membarrier": (324, 283), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "futex": (202, 98),
    "set_robust_list": (273, 99), "rseq": (334, 293), "set_tid_address": (218, 96), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "getcpu": (309, 168), "exit": (60, 93), "exit_group": (231, 94),
    "restart_syscall": (219, 128), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160),
    "sysinfo": (99, 179), "getrusage": (98, 165), "getrlimit": (97, 163), "times": (100, 153),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "getrandom": (318, 278), "arch_prctl": (158, None),
}  # fmt: skip
_CLONE, _CLONE3, _PRCTL, _PRLIMIT, _FCNTL = (56, 220), (435, 435), (157, 167), (302, 261), (72, 25)
_THREAD = 0x10000 | 0x100  # CLONE_THREAD | CLONE_VM
_PRCTL_ALLOWED = (15, 16)  # the name of a thread
_FCNTL_ALLOWED = (0, 1, 2, 3, 1030)  # copies of a descriptor, its flags read; not who gets its signals

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
# Python takes "permission denied" (unlike "not permitted") for a reason to try another way.
_DENY = 0x00050000 | errno.EACCES
_MISSING = 0x00050000 | errno.ENOSYS
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


def knows_this_machine() -> bool:
    """Whether there is a list of calls for this processor."""
    return platform.machine() in _ARCHITECTURES


def filter_system_calls() -> None:
    """Leave the calls on the list to this thread and what it starts; needs `no_new_privs`; OSError when refused."""
    program = b"".join(_program(*_ARCHITECTURES[platform.machine()]))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    library = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if library.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), header, zero, zero) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _program(column: int, architecture: int) -> list[bytes]:
    lines = [
        _line(_LOAD, _ARCHITECTURE_AT),
        _line(_EQUAL, architecture, 1, 0),
        _line(_RETURN, _KILL),
        _line(_LOAD, _NUMBER_AT),
        _line(_AT_LEAST, 0x40000000, 0, 1),  # the x32 table
        _line(_RETURN, _KILL),
    ]
    for numbers in _ALLOWED.values():
        if (number := numbers[column]) is not None:
            lines += [_line(_EQUAL, number, 0, 1), _line(_RETURN, _ALLOW)]
    # Unlike clone's, the flags of clone3 lie in memory, where no filter can see them.
    lines += [_line(_EQUAL, _CLONE3[column], 0, 1), _line(_RETURN, _MISSING)]
    lines += _when(_CLONE[column], [*_argument(0), _line(_AND, _THREAD), _line(_EQUAL, _THREAD, 0, 1)])
    lines += _when(_PRCTL[column], _one_of(0, _PRCTL_ALLOWED))
    lines += _when(_FCNTL[column], _one_of(1, _FCNTL_ALLOWED))
    lines += _when(_PRLIMIT[column], _no_new_limit())
    return [*lines, _line(_RETURN, _DENY)]


def _when(number: int, test: list[bytes]) -> list[bytes]:
    """Allow the call where the test's last line lets it pass, else deny it."""
    body = [*test, _line(_RETURN, _ALLOW), _line(_RETURN, _DENY)]
    return [_line(_EQUAL, number, 0, len(body)), *body]


def _one_of(position: int, values: tuple[int, ...]) -> list[bytes]:
    """Pass where the argument is one of the values: each match jumps over the rest, the last miss over the pass."""
    tests = [_line(_EQUAL, value, len(values) - 1 - at, 0) for at, value in enumerate(values[:-1])]
    return [*_argument(position), *tests, _line(_EQUAL, values[-1], 0, 1)]


def _no_new_limit() -> list[bytes]:
    """Pass where prlimit64's third argument, the new limit's address, is null in both halves."""
    low, high = _ARGUMENTS_AT + 8 * 2, _ARGUMENTS_AT + 8 * 2 + 4
    return [_line(_LOAD, low), _line(_EQUAL, 0, 0, 3), _line(_LOAD, high), _line(_EQUAL, 0, 0, 1)]


def _argument(position: int) -> list[bytes]:
    return [_line(_LOAD, _ARGUMENTS_AT + 8 * position)]


def _line(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """struct sock_filter: operation, jumps over lines where a comparison holds or not, and a number."""
    return struct.pack("=HBBI", code, yes, no, value)

"""Landlock: the kernel takes from this process every file but those that it names, for good and for its children too.

Invariants: what is given is given for reading only; nothing can be written, made, renamed or removed anywhere; where
the kernel knows them, TCP, abstract sockets and signals to other processes go too. No privileges are needed. What
Landlock does not cover (stat, chmod, truncation by name, sockets of other kinds) is the business of syscall_filter.py.

Source: Linux, Documentation/userspace-api/landlock.rst (system calls 444 to 446 on every architecture).
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MINIMUM_VERSION", "landlock_version", "leave_only_reading"]

MINIMUM_VERSION = 3
"""Linux 6.2: the first that also guards against emptying a file by opening it."""
_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILE_RIGHTS = {3: 15, 4: 15, 5: 16}  # version: how many rights it knows, 5 and newer know 16
_TCP, _SCOPES = 0b11, 0b11


def landlock_version() -> int:
    """The version that the kernel offers; 0 where it has none, or where Landlock is switched off."""
    found: int = _library().syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION))
    return max(found, 0)


def leave_only_reading(paths: Iterable[Path]) -> None:
    """Leave reading what lies at and below `paths` (those that exist); needs `no_new_privs`; OSError when refused."""
    library = _library()
    attributes = _attributes(landlock_version())
    ruleset = _checked(library.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)))
    for path in paths:
        if path.exists():
            _give(library, ruleset, path)
    _checked(library.syscall(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint(0)))
    os.close(ruleset)


def _attributes(version: int) -> bytes:
    """struct landlock_ruleset_attr: rights on files, on the network, and scopes, as many as the version knows."""
    rights = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    parts = [rights, *([_TCP] if version >= 4 else []), *([_SCOPES] if version >= 6 else [])]
    return struct.pack(f"={len(parts)}Q", *parts)


def _give(library: ctypes.CDLL, ruleset: int, path: Path) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rule = struct.pack("=Qi", _READ_FILE | (_READ_FOLDER if folder else 0), descriptor)
        _checked(library.syscall(_ADD_RULE, ctypes.c_int(ruleset), _PATH_BENEATH, rule, ctypes.c_uint(0)))
    finally:
        os.close(descriptor)


def _checked(answer: int) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

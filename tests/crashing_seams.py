"""Two places where a disk can be made to fail at its n-th change: under the C library, and under Python.

The first (LD_PRELOAD, needs a C compiler) counts what SQLite does as well; the second works everywhere and sees every
statement that SQLite is given. Each has `arm(nth, mode)`, `disarm()` and `fired()`.
"""

import ctypes
import errno
import os
import sqlite3

KILL, FAIL, FAIL_ON = 1, 2, 3
KILLED = 17
NEEDS_SPACE = ("write", "fsync", "open", "mkdir", "link", "statement")


class UnderTheCLibrary:
    """What crashing_faults.c does."""

    def __init__(self):
        self._library = ctypes.CDLL(None)
        self._library.arm_faults.argtypes = (ctypes.c_long, ctypes.c_int)

    def arm(self, nth, mode):
        self._library.arm_faults(nth, mode)

    def disarm(self):
        self._library.arm_faults(0, 0)

    def fired(self):
        return bool(self._library.faults_fired())


class UnderPython:
    """Functions of `os` and statements of sqlite3, replaced in this process for good."""

    def __init__(self):
        self._left, self._mode, self._fired, self.log = 0, 0, False, []
        for name in ("fsync", "replace", "unlink", "chmod", "mkdir", "link"):
            setattr(os, name, self._guarded(name, getattr(os, name)))
        os.open = self._guarded("open", os.open, only=lambda path, flags, *_, **__: flags & os.O_CREAT)
        opened, seam = os.fdopen, self

        class Connection(sqlite3.Connection):
            def execute(self, statement, *values):
                seam.step("statement", statement)
                return super().execute(statement, *values)

        connect = sqlite3.connect
        sqlite3.connect = lambda *words, **options: connect(*words, factory=Connection, **options)
        os.fdopen = lambda descriptor, *words: _Stream(opened(descriptor, *words), seam)

    def arm(self, nth, mode):
        self._left, self._mode, self._fired, self.log = nth, mode, False, []

    def disarm(self):
        self._mode = 0

    def fired(self):
        return self._fired

    def step(self, name, detail=""):
        self.log.append((name, str(detail)))
        if self._mode == 0 or (self._fired and not (self._mode == FAIL_ON and name in NEEDS_SPACE)):
            return
        self._left -= 1
        if self._left > 0:
            return
        self._fired = True
        if self._mode == KILL:
            os._exit(KILLED)
        if name == "statement":
            if detail not in ("ROLLBACK", "BEGIN") and not detail.startswith(("PRAGMA", "SELECT")):
                raise sqlite3.OperationalError("database or disk is full")
            return
        raise OSError(errno.ENOSPC if name in NEEDS_SPACE else errno.EIO, "No space left on device")

    def _guarded(self, name, real, only=lambda *_, **__: True):
        def call(*words, **options):
            if only(*words, **options):
                self.step(name, words[0])
            return real(*words, **options)

        return call


class _Stream:
    """A file whose writes are counted."""

    def __init__(self, stream, seam):
        self._stream, self._seam = stream, seam

    def write(self, content):
        self._seam.step("write")
        return self._stream.write(content)

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

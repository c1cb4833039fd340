"""Starts the child process, feeds it, waits for it no longer than it may take, and ends it.

Invariants: the child gets no environment variable of ours, no open file but a sealed copy of the request in memory
and the pipe for its answer, and the root folder to stand in; it is ended on every way out, also on ours by an
exception; no more than the allowed bytes of its answer are kept.
"""

import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress

from dafne_dante.errors import ForeignCodeError
from dafne_dante.models.foreign.isolation import Limits

__all__ = ["ask_child"]

_MODULE = "dafne_dante.models.foreign.child"
_CHUNK = 1 << 20


def ask_child(request: bytes, limits: Limits) -> bytes:
    """The child's answer to the request.

    Raises:
        ForeignCodeError: it took too long, answered too much or nothing, or ended by a signal.
    """
    descriptor = _sealed(request)
    command = [sys.executable, "-I", "-B", "-m", _MODULE]
    with subprocess.Popen(  # noqa: S603 (our own interpreter and module)
        command,
        stdin=descriptor,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(limits),
        cwd="/",
        start_new_session=True,
    ) as child:
        os.close(descriptor)
        try:
            answer = _read_answer(child, limits)
        finally:
            child.kill()
    if not answer:
        raise ForeignCodeError(_how_it_ended(child.returncode))
    return answer


def _environment(limits: Limits) -> dict[str, str]:
    """No secret, no folder of the user: only what sets the number of threads and the encoding."""
    threads = str(limits.threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {"LANG": "C.UTF-8", "CUDA_VISIBLE_DEVICES": "", **dict.fromkeys(names, threads)}


def _sealed(request: bytes) -> int:
    """A descriptor of the request in memory, at its start, which nobody can change."""
    descriptor = os.memfd_create("request", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    rest = memoryview(request)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _read_answer(child: "subprocess.Popen[bytes]", limits: Limits) -> bytes:
    """All that comes until the child closes the pipe, within the limits; then the child has a moment to end."""
    deadline = time.monotonic() + limits.seconds
    parts: list[bytes] = []
    length = 0
    assert child.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())) or time.monotonic() > deadline:
                raise ForeignCodeError(
                    f"expected an answer of the model's code within {limits.seconds:g} s, found none; it was ended"
                )
            part = os.read(child.stdout.fileno(), _CHUNK)
            if not part:
                break
            parts.append(part)
            length += len(part)
            if length > limits.max_answer_bytes:
                raise ForeignCodeError(
                    f"expected an answer of at most {limits.max_answer_bytes} bytes from the model's code, found more; "
                    "it was ended"
                )
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=max(0.1, min(5.0, deadline - time.monotonic())))
    return b"".join(parts)


def _how_it_ended(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
        return (
            f"expected masks from the model's code, found its process ended by {name}; it may have asked for more "
            "memory or time than it is allowed, or for something that it is refused"
        )
    return f"expected masks from the model's code, found that its process ended with {code} and no answer"

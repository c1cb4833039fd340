"""A process of our own program that takes as little of the machine as a worker does, and outlives who started it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

from dafne_dante.config import Settings
from dafne_dante.plugin.worker_limits import threads_for

__all__ = ["OWN_PROGRAM", "limited_variables", "start_detached"]

OWN_PROGRAM = (sys.executable, "-m", "dafne_dante")


def limited_variables(settings: Settings) -> dict[str, str]:
    """This process's environment with few threads, for the same settings."""
    threads = str(threads_for(settings.worker))
    variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **variables, "DAFNE_DANTE_CONFIG": str(settings.folder)}


def start_detached(
    command: Sequence[str], variables: Mapping[str, str], *, out: IO[bytes], complaints: IO[bytes]
) -> "subprocess.Popen[bytes]":
    """A process that outlives this one, and whose window nobody sees; OSError where the system refuses."""
    if sys.platform == "win32":
        flags = (
            subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.IDLE_PRIORITY_CLASS
        )  # fmt: skip
        return subprocess.Popen(  # noqa: S603 (our own program)
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=complaints, env=variables, creationflags=flags
        )
    return subprocess.Popen(  # noqa: S603 (our own program)
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=complaints, env=variables, start_new_session=True
    )

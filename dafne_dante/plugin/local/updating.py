"""Carries an improved model over to a newer global one beside whatever else goes on: in a process of its own.

Terms: an improved model is *behind* when there is a global version that it was not compared with yet.

Invariants
- It takes what a worker may take (lowest priority, few threads, bounded memory) and holds the model type's lock, so
  that never a job and this work on one model; where a job has it, this ends and is for another time.
- It may be ended at any moment: what is kept changes in one step, when the comparison is done.
"""

import hashlib
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

from dafne_dante.config import Settings
from dafne_dante.durable import make_folder
from dafne_dante.errors import StorageError
from dafne_dante.federation.client import FederationClient
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.jobs import JobQueue
from dafne_dante.plugin.limited_process import OWN_PROGRAM, limited_variables, start_detached
from dafne_dante.plugin.local.refreshing import refresh_local
from dafne_dante.plugin.local.shelf import local_folder, local_shelf
from dafne_dante.plugin.local.versions import LocalState

__all__ = ["UpdateProcess", "is_behind", "update_here"]

_MAX_TOLD, _MAX_BYTES = 2000, 1 << 16
_END_S = 3.0


def is_behind(settings: Settings, model_type: str, newest: str) -> bool:
    """Whether a global version (decimal digits, as the server names it) is to be compared with an improved model.

    For a host that has just learned what the newest version is: where the answer is true, it starts an
    `UpdateProcess`, and `local_model(..., newest=newest)` gives it the global model until that is done.

    Raises:
        StorageError: what is kept cannot be read.
    """
    return local_shelf(settings, model_type).state().is_behind(newest)


def update_here(
    model_type: str,
    settings: Settings,
    queue: JobQueue,
    client: FederationClient,
    cases: CaseRequest | None = None,
    *,
    say: Callable[[str], None] = lambda words: None,
) -> LocalState:
    """`refresh_local` in this process, with the model type's lock; TrainingError where a job has it, else as there."""
    with queue.working(model_type):
        return refresh_local(client, model_type, settings, cases, say=say)


class UpdateProcess:
    """One update of one type, in a child process; no call takes long but `wait` and `stop`.

    Args:
        command: the program before the arguments `worker --update TYPE`; a seam for tests.
    """

    def __init__(self, settings: Settings, model_type: str, *, command: Sequence[str] = OWN_PROGRAM) -> None:
        self._settings, self._type, self._command = settings, model_type, tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        name = hashlib.sha256(model_type.encode("utf-8", "replace")).hexdigest()[:32]
        self._log = local_folder(settings) / f"{name}.log"

    def start(self) -> None:
        """Begin; StorageError where the system refuses."""
        command = [*self._command, "worker", "--update", self._type]
        try:
            make_folder(self._log.parent)
            with self._log.open("wb") as log:
                self._process = start_detached(command, limited_variables(self._settings), out=log, complaints=log)
        except OSError as error:
            raise StorageError(f"cannot start the update: {error.strerror or type(error).__name__}") from error

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process is None or self._process.poll() is not None

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is over; False when it is not within the time."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        return self.is_over

    def stop(self) -> None:
        """End it; nothing has changed then."""
        if self._process is not None and not self.is_over:
            self._process.terminate()
            if not self.wait(_END_S):
                self._process.kill()
                self._process.wait()

    @property
    def told(self) -> str:
        """What came of it, in words, when it is over; at most 2000 characters."""
        if self._process is None or not self.is_over:
            return ""
        try:
            text = self._log.read_bytes()[-_MAX_BYTES:].decode("utf-8", "replace")
        except OSError as error:
            return f"cannot read what came of it: {error.strerror or type(error).__name__}"
        lines = text.strip().splitlines() or [""]
        return lines[-1][-_MAX_TOLD:]

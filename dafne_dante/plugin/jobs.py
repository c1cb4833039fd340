"""The durable queue of jobs: what is to be improved, on the disk before anybody works on it.

Terms: the *folder* is readable by its owner only (0700). It holds the database, a lock for each model type, and for
each job a folder with its events and results. States are in job_states.py; who holds a job is told by `job_holder`.

Invariants
- A job is queued when `add` returns. Of a model type at most one job waits and one runs, whatever processes do.
- A job is claimed in one transaction; from then on only the holder of that claim changes it. Whoever lost it (it was
  taken over) is told so by the next call.
- Whoever works holds the model type's lock (`working`) before it claims, so that never two work, whatever is thought of
  the other's process.
- A running job is taken over only when its holder is gone; after `MAX_ATTEMPTS` claims it fails instead, so that a job
  that kills its worker ends.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import platformdirs
from filelock import FileLock, Timeout

from dafne_dante.config import Settings
from dafne_dante.durable import make_folder
from dafne_dante.errors import SettingsError, StorageError, TrainingError
from dafne_dante.plugin.job_holder import Census, SystemCensus
from dafne_dante.plugin.job_states import (
    Job,
    JobOptions,
    State,
    Trigger,
    Wish,
    ask_to_stop,
    claim,
    finish,
    is_due,
    join,
)
from dafne_dante.plugin.jobs_database import DATABASE_FILE, JobRows, JobsDatabase

__all__ = ["DEBOUNCE_S", "MAX_ATTEMPTS", "JobQueue", "automatic_options", "jobs_exist", "jobs_folder", "open_jobs"]

DEBOUNCE_S = 120.0
MAX_ATTEMPTS = 5
_APPLICATION = "dafne-dante"
_SHORTEST_PREFIX = 4
_MAX_TYPE = 200
_MAX_PROGRESS = 8192


class JobQueue:
    """The queue in a folder, made now when there is none; StorageError where the disk refuses.

    `clock` gives seconds since 1970, `census` tells who lives.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        census: Census | None = None,
        debounce_s: float = DEBOUNCE_S,
        wait_s: float = 60.0,
    ) -> None:
        self._folder, self._clock, self._debounce_s = make_folder(folder), clock, debounce_s
        self._census = census or SystemCensus()
        _keep_private(folder)
        self._database = JobsDatabase(folder, wait_s=wait_s)
        self._database.create()

    @property
    def now_s(self) -> float:
        """Seconds since 1970 by the queue's clock."""
        return self._clock()

    def folder_of(self, job_id: str) -> Path:
        """The folder of a job's events and results, made now when there is none."""
        return make_folder(self._folder / job_id)

    def add(self, model_type: str, trigger: Trigger, options: JobOptions | None = None) -> Job:
        """Queue a job, or let the one that is queued for the model do this too; see `job_states.join`.

        Raises:
            SettingsError: no model type, or none that can be one.
            StorageError: the disk refuses.
        """
        wanted = self._wanted(model_type, trigger, options)
        with self._database.writing() as rows:
            return _added(rows, wanted)

    def add_correction(
        self, model_type: str, slices: int, *, at_least: int, options: JobOptions | None = None
    ) -> Job | None:
        """Count slices that were drawn anew, and queue a job when enough of them came together since the last one.

        Args:
            slices: of this save.
            at_least: of all saves since a job of the model was asked for; one that is queued does this save, too.

        Returns:
            The job; None where more slices are needed, and these are remembered.

        Raises:
            SettingsError, StorageError: as `add`.
        """
        wanted = self._wanted(model_type, "saved", options)
        with self._database.writing() as rows:
            before, counted_s = rows.new_slices(model_type)
            counted = slices + (before if counted_s > rows.newest_s(model_type) else 0)
            if rows.of_type(model_type, "queued") is None and counted < at_least:
                rows.put_new_slices(model_type, counted, wanted.created_s)
                return None
            rows.put_new_slices(model_type, 0, wanted.created_s)
            return _added(rows, wanted)

    def jobs(self, *, finished: bool = True) -> list[Job]:
        """Every job, or those that are queued or running, in the order in which they were asked for."""
        with self._database.reading() as rows:
            return rows.all() if finished else rows.unfinished()

    def get(self, job_id: str) -> Job:
        """The job of this id; TrainingError when there is none."""
        with self._database.reading() as rows:
            return _found(rows, job_id)

    def find(self, name: str) -> Job:
        """The job of this id, or whose id alone begins so; TrainingError when there is none."""
        found = [job for job in self.jobs() if job.job_id.startswith(name.lower())]
        if len(name) < _SHORTEST_PREFIX or len(found) != 1:
            raise TrainingError(
                f"expected the id of one job, or its first {_SHORTEST_PREFIX} or more characters, "
                f"found {len(found)} such jobs; see dafne-dante jobs list --all"
            )
        return found[0]

    def last_done(self, model_type: str) -> Job | None:
        """The newest job of the model that came to its end."""
        with self._database.reading() as rows:
            return rows.of_type(model_type, "done")

    def startable(self) -> list[Job]:
        """What a worker may begin now: jobs whose holder is gone, then due ones of models that nobody works on."""
        now_s, unfinished = self._clock(), self.jobs(finished=False)
        left = [job for job in unfinished if job.state == "running" and self._is_left(job, now_s)]
        busy = {job.model_type for job in unfinished if job.state == "running"}
        due = [job for job in unfinished if is_due(job, now_s) and job.model_type not in busy]
        return left + due

    def held(self) -> list[Job]:
        """Running jobs whose holder lives."""
        now_s = self._clock()
        return [job for job in self.jobs(finished=False) if job.state == "running" and not self._is_left(job, now_s)]

    def silent(self, longer_than_s: float) -> list[Job]:
        """Running jobs whose holder lives and has not been heard of for so long; it hangs, or the machine slept."""
        now_s = self._clock()
        return [job for job in self.held() if now_s - job.heartbeat_s > longer_than_s]

    def claim(self, job_id: str, holder: str) -> Job | None:
        """Take a job that is queued, whenever it is due, or whose holder is gone; None when another one has it.

        Raises:
            TrainingError: there is no such job, it has ended, or ends now since it was begun too often.
        """
        now_s = self._clock()
        with self._database.writing() as rows:
            job = _found(rows, job_id)
            running = rows.of_type(job.model_type, "running")
            if running is not None and (running.job_id != job_id or not self._is_left(running, now_s)):
                return None
            claimed = claim(job, holder, now_s)
            if claimed.attempts > MAX_ATTEMPTS:
                claimed = finish(claimed, "failed", f"given up: its worker ended {MAX_ATTEMPTS} times", now_s)
            rows.put(claimed)
        if claimed.state == "failed":
            raise TrainingError(f"expected a job that can be done, found one that was {claimed.told}; see its events")
        return claimed

    def beat(self, job_id: str, holder: str, progress: Mapping[str, Any] | None = None) -> Wish:
        """The holder works, and this is how far it is; what a person wishes comes back.

        Raises:
            TrainingError: the job is not this holder's any more; it must stop.
        """
        with self._database.writing() as rows:
            job = _held(rows, job_id, holder)
            told = job.progress if progress is None else json.dumps(dict(progress))[:_MAX_PROGRESS]
            rows.put(replace(job, heartbeat_s=self._clock(), progress=told))
        return job.wish

    def finish(self, job_id: str, holder: str, state: State, told: str, *, learned_until_ns: int = 0) -> Job:
        """The holder is through; TrainingError when the job is not its own any more."""
        with self._database.writing() as rows:
            done = finish(
                _held(rows, job_id, holder), state, told, self._clock(), learned_until_ns=learned_until_ns
            )  # fmt: skip
            rows.put(done)
        return done

    def ask_to_stop(self, job_id: str, wish: Wish = "drop") -> Job:
        """Cancel a queued job, or tell the holder of a running one to stop; TrainingError when it has ended."""
        with self._database.writing() as rows:
            asked = ask_to_stop(_found(rows, job_id), wish, self._clock())
            rows.put(asked)
        return asked

    def close_left(self, job_id: str, told: str) -> Job:
        """End a running job as cancelled whose holder is gone; as it is when it has one, or none is needed."""
        with self._database.writing() as rows:
            job = _found(rows, job_id)
            if job.state == "running" and self._is_left(job, self._clock()):
                job = finish(job, "cancelled", told, self._clock())
                rows.put(job)
        return job

    def put_back(self, job_id: str) -> Job:
        """A running job that was interrupted on purpose, and whose holder is gone, is anybody's; no try is counted."""
        with self._database.writing() as rows:
            job = _found(rows, job_id)
            if job.state == "running" and self._is_left(job, self._clock()):
                job = replace(job, holder="", attempts=0)
                rows.put(job)
        return job

    @contextmanager
    def working(self, model_type: str, *, wait_s: float = 10.0) -> Iterator[None]:
        """The lock of a model type, which ends with its process; TrainingError while another one has it."""
        name = hashlib.sha256(model_type.encode()).hexdigest()[:16]
        lock = FileLock(self._folder / f"{name}.lock", timeout=wait_s, thread_local=False, mode=0o600)
        try:
            lock.acquire()
        except Timeout:
            raise TrainingError("expected nobody else to improve the model, found another process; retry") from None
        except OSError as error:
            raise StorageError(f"cannot lock the jobs: {error.strerror or type(error).__name__}") from error
        try:
            yield
        finally:
            lock.release()

    def _wanted(self, model_type: str, trigger: Trigger, options: JobOptions | None) -> Job:
        if not model_type.strip() or len(model_type) > _MAX_TYPE or not model_type.isprintable():
            raise SettingsError(f"expected a model type of 1 to {_MAX_TYPE} characters, found another text; name one")
        now_s = self._clock()
        not_before_s = now_s + (self._debounce_s if trigger == "saved" else 0.0)
        return Job(str(uuid4()), model_type, trigger, now_s, now_s, not_before_s, options or JobOptions())

    def _is_left(self, job: Job, now_s: float) -> bool:
        return not job.holder or self._census.is_gone(job.holder, now_s - job.heartbeat_s)


def jobs_folder(settings: Settings) -> Path:
    """Where the jobs are: the platform's place for data, or inside a configuration folder that somebody chose."""
    if settings.folder == Path(platformdirs.user_config_dir(_APPLICATION)):
        return Path(platformdirs.user_data_dir(_APPLICATION)) / "jobs"
    return settings.folder / "jobs"


def open_jobs(settings: Settings) -> JobQueue:
    """The site's jobs, made now when there are none."""
    return JobQueue(jobs_folder(settings), debounce_s=settings.worker.after_save_s)


def jobs_exist(settings: Settings) -> bool:
    """Whether any job was ever asked for; nothing is created."""
    return (jobs_folder(settings) / DATABASE_FILE).is_file()


def _added(rows: JobRows, wanted: Job) -> Job:
    queued = rows.of_type(wanted.model_type, "queued")
    if queued is None:
        rows.add(wanted)
        return wanted
    joined = join(queued, wanted)
    rows.put(joined)
    return joined


def _found(rows: JobRows, job_id: str) -> Job:
    job = rows.get(job_id)
    if job is None:
        raise TrainingError("expected a job of the queue, found none; see dafne-dante jobs list")
    return job


def _held(rows: JobRows, job_id: str, holder: str) -> Job:
    job = _found(rows, job_id)
    if job.state != "running" or job.holder != holder:
        raise TrainingError("expected to hold the job, found that it was taken over or has ended; stop")
    return job


def _keep_private(folder: Path) -> None:
    try:
        if os.name != "nt" and folder.stat().st_mode & 0o077:
            os.chmod(folder, 0o700)
    except OSError as error:
        raise StorageError(f"cannot protect the jobs: {error.strerror or type(error).__name__}") from error


def automatic_options(settings: Settings) -> JobOptions:
    """Of a job that nobody asked for just now."""
    worker = settings.worker
    return JobOptions(
        method=worker.automatic_method, upload=worker.automatic_send, minutes=worker.job_minutes or None
    )  # fmt: skip

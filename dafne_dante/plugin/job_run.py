"""What a worker does with the job that it holds: improve the model, with less where memory is short.

Terms: the results of a job lie in `out` in its folder, complete when the delta is there, which is written last.

Invariants
- A job that was interrupted goes on from the checkpoint; where the checkpoint is of another training (a newer global
  model, new cases), it begins anew and says so.
- A job whose results are complete is never trained again: only what was to be sent is sent. It is done, whether the
  update arrives or waits in the outbox; then its summary has the reason under `UNSENT`.
- Memory that is short ends a job only after all that `Thrift` knows was tried; what was tried is remembered.
"""

import gc
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from dafne_dante.config import Settings
from dafne_dante.durable import read_bounded, write_atomically
from dafne_dante.errors import SettingsError, StorageError, TrainingError, TrainingStoppedError, TransportError
from dafne_dante.federation.client import FederationClient, connect
from dafne_dante.plugin.choosing import CHOICE
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.delivering import Delivery, deliver, queue_update
from dafne_dante.plugin.improve import CHECKPOINT, improve
from dafne_dante.plugin.improvement_request import ImprovementRequest, Progress
from dafne_dante.plugin.job_states import Job
from dafne_dante.plugin.local.using import keep_for_this_site
from dafne_dante.plugin.summary import ImprovementSummary
from dafne_dante.plugin.thrift import Thrift
from dafne_dante.training.hardware import DEVICE_VARIABLE, choose_device

__all__ = ["UNSENT", "Improve", "clear_results", "has_checkpoint", "results_of", "run_job"]

Improve = Callable[..., ImprovementSummary]
UNSENT = "unsent"
"""In a summary: why the update waits in the outbox."""
_OUT = "out"
_THRIFT = "thrift.json"
_DELTA, _SUMMARY = "update.delta", "summary.json"
_MAX_JSON_BYTES, _MAX_DELTA_BYTES = 1 << 20, 2 << 30
_TRIGGERS = {"saved": "annotation-saved", "button": "improve-button", "nightly": "nightly"}


def results_of(folder: Path) -> Path:
    """Where the results of the job with this folder are."""
    return folder / _OUT


def has_checkpoint(folder: Path) -> bool:
    """Whether the job has learnt anything that can be gone on from, or has its results."""
    return any((results_of(folder) / name).exists() for name in (CHECKPOINT, _DELTA))


def clear_results(folder: Path) -> None:
    """Remove what a job made; StorageError where the disk refuses."""
    try:
        if results_of(folder).exists():
            shutil.rmtree(results_of(folder))
    except OSError as error:
        raise StorageError(f"cannot remove what the job made: {error.strerror or type(error).__name__}") from error


def run_job(
    job: Job,
    settings: Settings,
    folder: Path,
    progress: Progress,
    *,
    fallback: Callable[[Thrift, str], None] = lambda thrift, words: None,
    improving: Improve = improve,
) -> dict[str, Any]:
    """Do the job in its folder and return its summary, as plain values, with `UNSENT` where its update has to wait.

    Args:
        fallback: is told what is tried next where memory was short, and in words.
        improving: does one improvement; a seam for tests.

    Raises:
        TrainingError: memory is too short for anything; or as `improve` does.
        DanteError: as `improve` does.
    """
    out = results_of(folder)
    _sweep(out)
    if (out / _DELTA).exists():
        return _send_left(job, settings, out, progress)
    thrift, client = _remembered(folder), _client(job, settings)
    while True:
        try:
            with _device(thrift):
                request = _request(job, out, thrift)
                return _resumed(request, settings, client, progress, improving=improving).as_json()
        except TransportError as error:
            if not (out / _DELTA).exists():
                raise
            return {**_read_summary(out), UNSENT: str(error)}
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_short_of_memory(error):
                raise
            following = thrift.next(on_gpu=choose_device().type == "cuda")
            if following is None:
                raise TrainingError(
                    f"expected memory for {thrift.words}, found too little; close other programs, or use a machine "
                    "with more"
                ) from None  # the error's frames hold what must go
            thrift = following
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _forget_checkpoint(out)
        write_atomically(folder / _THRIFT, json.dumps(asdict(thrift)).encode())
        fallback(thrift, f"memory was too short; trying {thrift.words}")


def _resumed(
    request: ImprovementRequest,
    settings: Settings,
    client: FederationClient | None,
    progress: Progress,
    *,
    improving: Improve,
) -> ImprovementSummary:
    """Go on from a checkpoint; begin anew where it is of another training, which is told before an epoch is trained."""
    learnt: list[int] = []

    def epoch(record: Any, epochs: int) -> None:
        learnt.append(record.epoch)
        progress.epoch(record, epochs)

    begun = (request.out / CHECKPOINT).exists()
    try:
        return improving(request, settings, client=client, progress=replace(progress, epoch=epoch))
    except TrainingStoppedError:
        raise
    except TrainingError:
        if learnt or not begun or not (request.out / CHECKPOINT).exists():
            raise
    progress.stage("what was learnt before is of another model or other cases; training begins anew")
    return improving(replace(request, resume=False), settings, client=client, progress=progress)


def _request(job: Job, out: Path, thrift: Thrift) -> ImprovementRequest:
    options = job.options
    return ImprovementRequest(
        CaseRequest(tuple(Path(one) for one in options.data), skip_faulty=True),
        out,
        Path(options.base) if options.base else None,
        job.model_type,
        options.method,
        options.epochs,
        options.seed,
        upload=options.upload,
        resume=True,
        server=options.server,
        trigger=_TRIGGERS[job.trigger],
        thrift=thrift,
        minutes=options.minutes,
    )


def _client(job: Job, settings: Settings) -> FederationClient | None:
    """Only for what needs the network, so that a site without one improves a file that it has."""
    needed = job.options.upload or not job.options.base
    return connect(settings, job.options.server) if needed else None


def _send_left(job: Job, settings: Settings, out: Path, progress: Progress) -> dict[str, Any]:
    """The process ended between the last file and the end of the job; a delta that was sent is not sent again."""
    progress.stage("the results are there; the job is ended")
    summary = _read_summary(out)
    try:
        passed, dice = summary["gate"] == "passed", float(summary["dice_after"]["mean"] or 0.0)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged() from error
    if passed:
        keep_for_this_site(settings, out, seed=job.options.seed, say=progress.stage)
    if not job.options.upload or not passed:
        return summary
    content = read_bounded(out / _DELTA, max_bytes=_MAX_DELTA_BYTES)
    delivery = Delivery(job.options.server or settings.server, dice, _TRIGGERS[job.trigger])
    queue_update(content, delivery, settings)
    try:
        deliver(content, delivery, settings, connect(settings, job.options.server), say=progress.stage)
    except (TransportError, SettingsError) as error:
        return {**summary, UNSENT: str(error)}
    return {**summary, "uploaded": True}


def _read_summary(out: Path) -> dict[str, Any]:
    try:
        summary = json.loads(read_bounded(out / _SUMMARY, max_bytes=_MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise _damaged() from error
    if not isinstance(summary, dict):
        raise _damaged()
    return summary


def _damaged() -> StorageError:
    return StorageError(f"expected the summary of the job, found a fault in {_SUMMARY}; improve again")


def _sweep(out: Path) -> None:
    """Remove what a killed process was writing."""
    for path in out.glob(".*.part"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _forget_checkpoint(out: Path) -> None:
    try:
        for name in (CHECKPOINT, CHOICE):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {CHECKPOINT}: {error.strerror or type(error).__name__}") from error


def _remembered(folder: Path) -> Thrift:
    try:
        found = json.loads(read_bounded(folder / _THRIFT, max_bytes=_MAX_JSON_BYTES))
        size, halvings, on_cpu = found["batch_size"], found["halvings"], found["on_cpu"]
        sound = type(size) is int and type(halvings) is int and 1 <= size <= 2 and 0 <= halvings <= 32
        return Thrift(size, halvings, bool(on_cpu)) if sound else Thrift()
    except (StorageError, ValueError, KeyError, TypeError, RecursionError):
        return Thrift()


@contextmanager
def _device(thrift: Thrift) -> Iterator[None]:
    """This process leaves the GPU alone within the block, if that is what is left to try."""
    before = os.environ.get(DEVICE_VARIABLE)
    if thrift.on_cpu:
        os.environ[DEVICE_VARIABLE] = "cpu"
    try:
        yield
    finally:
        if thrift.on_cpu:
            os.environ.pop(DEVICE_VARIABLE)
            if before is not None:
                os.environ[DEVICE_VARIABLE] = before


def _is_short_of_memory(error: BaseException) -> bool:
    """PyTorch says it of a GPU with a class of its own, and of the processor in words only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)

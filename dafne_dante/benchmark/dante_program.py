"""`dante_train` as a program of its own environment, watched while it trains.

What is known of dante-trainer 1.0.3b3, by running it: it says "Engine Starting" when it begins to train, "New best"
when it has written a checkpoint, and "Epoch 3/8" after each epoch; into OUT/NAME it writes NAME_best_model.pth, which
it removes at the end, and NAME.model. Whatever goes wrong, it ends with status 0.

Invariants: one thread; what the program prints is bounded and never told as it is, folder names are taken out of it.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from dafne_dante.errors import SettingsError, TrainingError

__all__ = ["DanteEpoch", "DanteRun", "run_dante"]

_NAME = "dante"
_LONGEST_LINE = 1 << 16
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
_START, _BEST, _EPOCH = re.compile("Engine Starting"), re.compile("New best"), re.compile(r"Epoch (\d{1,6})/\d{1,6}\b")
_NOISE = re.compile(r"warn|^\s|^I0000|^WARNING|^Progress")
_FOLDERS = re.compile(r"[^\s'\"]*[/\\][^\s'\"]*")


@dataclass(frozen=True)
class DanteEpoch:
    """After an epoch (from 1): clock and processor seconds since training began, and the best checkpoint so far."""

    epoch: int
    seconds: float
    processor_seconds: float
    checkpoint: Path | None


@dataclass(frozen=True)
class DanteRun:
    """What it came to.

    Attributes:
        epochs: all that were trained.
        model: the file that it wrote.
        peak_bytes: resident memory at its height beyond what it had when training began.
    """

    epochs: tuple[DanteEpoch, ...]
    model: Path
    peak_bytes: int


def run_dante(program: Path, folder: Path, options: Sequence[str]) -> DanteRun:
    """Run it to its end in `folder`.

    Raises:
        SettingsError: there is no such program.
        TrainingError: it made no model; its last words are told.
    """
    command = [str(program), "--output", str(folder / f"{_NAME}.model"), *options]
    try:
        process = subprocess.Popen(  # noqa: S603 (the program that the person named)
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT},
        )
    except OSError as error:
        raise SettingsError(f"expected a program dante_train, found none in {program.name}; check --dante") from error
    watch = _Watch(process.pid, folder)
    with process:
        try:
            assert process.stdout is not None
            watch.follow(process.stdout)
        finally:
            process.kill()
    model = folder / _NAME / f"{_NAME}.model"
    if not watch.epochs or not model.is_file() or not model.stat().st_size:
        raise TrainingError(f"expected a model of dante_train, found none; its last words: {watch.last_words}")
    return DanteRun(tuple(watch.epochs), model, watch.peak_bytes)


class _Watch:
    """Follows what the program prints."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.epochs: list[DanteEpoch] = []
        self.last_words = "none"
        self.peak_bytes = 0
        self._process = psutil.Process(pid)
        self._folder = folder
        self._begin = self._begin_processor = 0.0
        self._begin_bytes = 0
        self._checkpoint: Path | None = None

    def follow(self, output: IO[bytes]) -> None:
        """Until the program closes its output."""
        while line := output.readline(_LONGEST_LINE):
            self._heard(line.decode(errors="replace").rpartition("\r")[2].rstrip())

    def _heard(self, line: str) -> None:
        if line and not _NOISE.search(line):
            self.last_words = _FOLDERS.sub("...", line)[:300]
        if _START.match(line):
            self._begin, (self._begin_processor, self._begin_bytes) = time.perf_counter(), self._measured()
        elif _BEST.match(line):
            self._keep_checkpoint()
        elif found := _EPOCH.match(line):
            processor, resident = self._measured()
            self.peak_bytes = max(self.peak_bytes, resident - self._begin_bytes)
            seconds = time.perf_counter() - self._begin
            self.epochs.append(
                DanteEpoch(int(found[1]), seconds, processor - self._begin_processor, self._checkpoint)
            )  # fmt: skip

    def _measured(self) -> tuple[float, int]:
        """Processor seconds and resident bytes at their height, so far; what was before where it has just ended."""
        try:
            with self._process.oneshot():
                times, memory = self._process.cpu_times(), self._process.memory_info()
        except psutil.Error:
            return self._begin_processor, self._begin_bytes
        return times.user + times.system, _highest(self._process.pid) or memory.rss

    def _keep_checkpoint(self) -> None:
        """The next epoch may write over it."""
        kept = self._folder / f"best-{len(self.epochs) + 1}.pth"
        try:
            shutil.copyfile(self._folder / _NAME / f"{_NAME}_best_model.pth", kept)
        except OSError:
            return  # it was quicker: the next epoch's counts
        self._checkpoint = kept


def _highest(pid: int) -> int:
    """VmHWM of a process, where the system tells it; else 0."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0

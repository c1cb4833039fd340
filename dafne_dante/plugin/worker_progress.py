"""How far a job is, as its worker tells it: plain values by name.

Terms: `stage` and `fallback` are words; `training`, `trainings`, `training_epoch`, `training_epochs` and `dice` are of
the present training, `dice` its best so far; `epoch`, `epochs` count over all trainings; `left_s` is of the whole job.

Invariants: what is over is no longer there; the time that is left holds all trainings that follow, and as much for
measuring afterwards as it took to read and to measure before the first one.
"""

import time
from collections.abc import Callable
from typing import Any

from dafne_dante.plugin.improvement_request import TrainingPart
from dafne_dante.training.history import EpochRecord

__all__ = ["JobProgress"]

_OF_A_TRAINING = ("training", "trainings", "training_epoch", "training_epochs", "dice", "epoch", "epochs")


class JobProgress:
    """Is told what happens and keeps `values`; `clock` gives seconds that only rise."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._begun_s = self._clock()
        self._trained_from_s: float | None = None
        self._counted = 0
        self._part = TrainingPart()
        self.values: dict[str, Any] = {}

    def collected(self, cases: int) -> None:
        """So many cases are used."""
        self._put(cases=cases)

    def stage(self, words: str) -> None:
        """Something is begun."""
        self._put(stage=words)

    def fallback(self, words: str) -> None:
        """All is begun anew, with less."""
        self._begin()
        self._put(fallback=words)

    def training(self, part: TrainingPart | None) -> None:
        """A training begins; None when the last is over."""
        for name in _OF_A_TRAINING:
            self.values.pop(name, None)
        if part is None:
            self._put(left_s=self._before_s)
            return
        if self._trained_from_s is None:
            self._trained_from_s = self._clock()
        self._part = part
        self._put(training=part.number, trainings=part.of)

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch is over; counted over all trainings, of at most `epochs`."""
        self._counted += 1
        part, dice = self._part, [one for one in (record.dice.get("mean"), self.values.get("dice")) if one is not None]
        last = part.of == part.number and part.epochs
        most = part.done + part.epochs if last else epochs
        each_s = (self._clock() - self._begun_s - self._before_s) / self._counted
        self._put(
            epoch=record.epoch,
            epochs=epochs,
            training_epoch=record.epoch - part.done,
            training_epochs=part.epochs or epochs,
            left_s=round(each_s * max(0, most - record.epoch) + self._before_s, 1),
            **({"dice": max(dice)} if dice else {}),
        )

    @property
    def _before_s(self) -> float:
        """What reading, preparing and measuring took before the first training."""
        return 0.0 if self._trained_from_s is None else self._trained_from_s - self._begun_s

    def _put(self, **values: Any) -> None:
        self.values = {**self.values, **values}

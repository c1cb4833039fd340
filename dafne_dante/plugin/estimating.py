"""What an improvement will take and send, before it is begun: an estimate for a person who is to decide.

Terms: what `auto` would choose is taken (`training.choice`), for a *poor* start, since the global model was not
measured on the site's cases yet: a good one has fewer epochs.

Invariants: pure; without a measured step nothing is estimated.
"""

from types import MappingProxyType

from dafne_dante.plugin.step_times import StepTime
from dafne_dante.training.choice import AUTO, Choice, Situation, choose, is_too_short

__all__ = ["expected_bytes", "expected_seconds"]

_POOR_DICE = 0.3
_REST = 1.25
"""Reading, preparing and measuring come to a quarter of the training."""
_ENOUGH_STUDIES = 4
_OF_ONE_STUDY = 3
_SHARES = MappingProxyType({"lora": 0.02, "gradual-unfreezing": 0.25})
"""Of the model's bytes, at most (docs/benchmarks.md)."""


def expected_seconds(step: StepTime, studies: int, *, minutes: float | None = None) -> float:
    """Of a whole improvement by `auto` from so many studies, at least one; `minutes` that it may take."""
    choice, trainings = _chosen(step, studies, minutes)
    seconds = trainings * choice.epochs * choice.steps * step.seconds * _REST
    return seconds if minutes is None else min(seconds, 60 * minutes)


def expected_bytes(step: StepTime, method: str, studies: int) -> int:
    """Of the update at most; 0 for a method of which that is not known."""
    settled = _chosen(step, studies, None)[0].method if method == AUTO else method
    return round(_SHARES.get(settled, 0.0) * step.model_bytes)


def _chosen(step: StepTime, studies: int, minutes: float | None) -> tuple[Choice, int]:
    trainings = 1 if studies >= _ENOUGH_STUDIES else max(_OF_ONE_STUDY, studies + 1)
    short = minutes is not None and trainings > 1 and is_too_short(minutes, step.seconds, trainings)
    trainings = 1 if short else trainings
    return choose(Situation(studies, _POOR_DICE, step.seconds, minutes, trainings, one_training=short)), trainings

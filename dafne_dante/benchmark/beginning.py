"""What a base can do on a target before anything is learned, measured once for all cells that begin with it.

Invariant: a file holds what was measured for the weights that it names, or is measured again; what a cell comes to does
not depend on whether it found one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dafne_dante.annotations.case import Case
from dafne_dante.benchmark.splits import Split
from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.models.relabel import relabelled
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.hardware import choose_device

__all__ = ["Beginning", "as_begun", "beginning_of", "note_beginning"]

_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Beginning:
    """Dice of a base.

    Attributes:
        test: on the target's test cases, "mean" and labels.
        selection: the mean on its selection cases, 0 where no label occurs.
        source: the mean on the source's test cases; None where the target has other labels.
    """

    test: Mapping[str, float | None]
    selection: float
    source: float | None


def as_begun(base: GlobalModel, labels: tuple[str, ...], seed: int) -> GlobalModel:
    """The base with the target's labels; rows of labels that it does not have are drawn by the seed."""
    return base if base.plan.labels == labels else relabelled(base, labels, seed=seed)


def beginning_of(cache: Path, target: str, begun: GlobalModel, split: Split, *, source_labels: bool) -> Beginning:
    """As it was noted, else measured; `source_labels` says whether the target has the source's."""
    digest = digest_weights(begun.weights)
    return _read(_file(cache, target, digest), digest) or _measure(begun, split, source_labels=source_labels)


def note_beginning(cache: Path, target: str, base: Path, split: Split, seed: int) -> None:
    """Measure what the base in a file can do, for `beginning_of`; StorageError where the disk refuses."""
    model = read_model(base)
    labels = split.training[0].labels
    begun = as_begun(model, labels, seed)
    digest = digest_weights(begun.weights)
    path = _file(make_folder(cache), target, digest)
    if _read(path, digest) is None:
        found = _measure(begun, split, source_labels=model.plan.labels == labels)
        write_atomically(path, (json.dumps({"base": digest, **asdict(found)}) + "\n").encode())


def _measure(begun: GlobalModel, split: Split, *, source_labels: bool) -> Beginning:
    network = build_network(begun.plan, begun.weights).to(choose_device())

    def dice(cases: tuple[Case, ...]) -> dict[str, float | None]:
        return evaluate_cases(network, begun.plan, cases)

    source = dice(split.source_test)["mean"] if source_labels else None
    return Beginning(dice(split.test), dice(split.selection)["mean"] or 0.0, source)


def _file(cache: Path, target: str, digest: str) -> Path:
    return cache / f"{target}_{digest[:16]}.json"


def _read(path: Path, digest: str) -> Beginning | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(read_bounded(path, max_bytes=_MAX_BYTES))
        if found["base"] != digest:
            return None
        test = {str(name): _number(value) for name, value in found["test"].items()}
        return Beginning({"mean": None} | test, float(found["selection"]), _number(found["source"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)

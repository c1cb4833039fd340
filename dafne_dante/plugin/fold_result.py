"""What a fold's training came to, as a file, so that a resumed improvement need not train it again.

Layout: a checkpoint file (`training.checkpoint`), whose identity is that of the training; its tensors are the updates
as `N/value`, or `N/a` and `N/b` for factors; its state is the record of the epochs, the best one, and of what weight
each update is.

Invariant: what is read is, bit for bit, what was written.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dafne_dante.adaptation.low_rank import FORMS, LowRank
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.errors import TrainingError
from dafne_dante.training.checkpoint import Snapshot, read_checkpoint, write_checkpoint
from dafne_dante.training.history import EpochRecord
from dafne_dante.training.loop import FitResult
from dafne_dante.types import Weights

__all__ = ["Trained", "read_fold_result", "write_fold_result"]

_MARGIN_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Trained:
    """The record of a training, what it moved, and what could move when, in words."""

    result: FitResult
    updates: tuple[WeightUpdate, ...]
    live: tuple[str, ...] = ()


def write_fold_result(path: Path, trained: Trained, identity: str) -> None:
    """Write it atomically; StorageError where the disk refuses."""
    result = trained.result
    tensors: dict[str, Tensor] = {}
    described: list[dict[str, Any]] = []
    for number, update in enumerate(trained.updates):
        value = update.value
        if isinstance(value, LowRank):
            tensors |= {f"{number}/a": value.a, f"{number}/b": value.b}
            described.append({"weight": update.weight, "form": value.form, "scale": value.scale})
        else:
            tensors[f"{number}/value"] = value
            described.append({"weight": update.weight})
    history = [asdict(record) for record in result.history]
    state = {"history": history, "best_epoch": result.best_epoch, "updates": described, "live": trained.live}
    write_checkpoint(path, Snapshot(tensors, state), identity)


def read_fold_result(path: Path, identity: str, base: Weights) -> Trained:
    """What was written of the training with this identity, from these weights.

    Raises:
        TrainingError: it is damaged, or of another training.
        StorageError: it cannot be read, or is larger than updates of the base can be.
    """
    size = sum(tensor.numel() * 4 for tensor in base.values())
    snapshot = read_checkpoint(path, identity, max_bytes=2 * size + _MARGIN_BYTES)
    try:
        state = snapshot.state
        history = tuple(EpochRecord(**record) for record in state["history"])
        updates = tuple(_update(number, told, snapshot.tensors) for number, told in enumerate(state["updates"]))
        live = tuple(str(words) for words in state["live"])
        return Trained(FitResult(history, int(state["best_epoch"])), updates, live)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"expected {path.name} to be what a training came to, found a fault; start again without --resume"
        ) from error


def _update(number: int, told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> WeightUpdate:
    weight = str(told["weight"])
    if "form" not in told:
        return WeightUpdate(weight, tensors[f"{number}/value"])
    form = next(one for one in FORMS if one == told["form"])
    return WeightUpdate(weight, LowRank(form, tensors[f"{number}/a"], tensors[f"{number}/b"], float(told["scale"])))

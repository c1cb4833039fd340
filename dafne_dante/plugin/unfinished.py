"""What an interrupted training leaves in the output folder, and who may go on from it.

Terms
- `training.json`: the network that was planned, and the *choices* that the training was begun with: its options, and
  a digest of the cases.
- A *checkpoint*: `training.checkpoint` for the model that is written, `training-last.checkpoint` for its last stretch,
  `fold-N.checkpoint` for a fold; written after every epoch (see `training.checkpoint`, which checks what is in it).

Invariants
- The plan is chosen once: memory that is free at another time changes nothing.
- Other choices are refused by name, before anything is trained and with nothing deleted.
- Neither file names a case. They are there while training is not done, survive whatever ends the process, and are
  removed with the last file of the results.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import StorageError, TrainingError, UnsupportedModelError
from dafne_dante.models.plan import ModelPlan, plan_from_net_metadata, plan_to_net_metadata

__all__ = [
    "CHECKPOINT",
    "Planned",
    "clear",
    "digest_cases",
    "fold_checkpoint",
    "has_checkpoint",
    "keep_plan",
    "kept_plan",
    "removed_if_nothing_was_learnt",
]

CHECKPOINT = "training.checkpoint"
_OTHERS = ("training-last.checkpoint", "fold-*.checkpoint")
_PLAN = "training.json"
_VERSION = 1
_MAX_PLAN_BYTES = 1 << 20
_AGAIN = f"remove {_PLAN} and the checkpoints beside it to start again"

Choices = Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Planned:
    """The network, patches in a step, and a sentence for each choice (see `models.configure`)."""

    plan: ModelPlan
    batch_size: int
    why: dict[str, str] = field(default_factory=dict)


def fold_checkpoint(out: Path, number: int) -> Path:
    """Where fold `number`, from 1, keeps its checkpoint."""
    return out / f"fold-{number}.checkpoint"


def has_checkpoint(out: Path) -> bool:
    """Whether an epoch of an interrupted training is there to go on from."""
    return any(_checkpoints(out))


def digest_cases(cases: Sequence[Case]) -> str:
    """64 hexadecimal digits of what the cases hold, in any order; their ids may be new in every process."""
    digests = []
    for case in cases:
        digest = hashlib.sha256(repr(case.labels).encode())
        for array in (case.image, case.segmentation, case.annotated, case.affine):
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digests.append(digest.hexdigest())
    return hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()


def keep_plan(out: Path, planned: Planned, choices: Choices) -> Planned:
    """Write training.json, and return the plan as whoever resumes will read it; StorageError as `durable`."""
    document = {
        "version": _VERSION,
        "choices": dict(choices),
        "net_metadata": plan_to_net_metadata(planned.plan),
        "batch_size": planned.batch_size,
        "why": planned.why,
    }
    write_atomically(make_folder(out) / _PLAN, json.dumps(document).encode())
    return _read(out / _PLAN)[0]


def kept_plan(out: Path, choices: Choices) -> Planned | None:
    """The plan of the training that was begun with these choices; None where none was begun that has learnt anything.

    Raises:
        TrainingError: the interrupted training was begun with other choices, or its training.json is damaged.
        StorageError: training.json cannot be read.
    """
    learnt = has_checkpoint(out)
    if not learnt and not (out / _PLAN).exists():
        return None
    planned, begun = _read(out / _PLAN)
    other = [name for name, value in choices.items() if begun.get(name) != value]
    if not other:
        return planned
    if not learnt:
        return None
    raise TrainingError(
        f"expected the cases and options of the training that was interrupted, found other {', '.join(other)}; "
        f"repeat them, or {_AGAIN}"
    )


@contextmanager
def removed_if_nothing_was_learnt(out: Path) -> Iterator[None]:
    """Whatever ends the block, training.json stays only beside a checkpoint."""
    try:
        yield
    finally:
        if not has_checkpoint(out):
            clear(out)


def clear(out: Path) -> None:
    """Remove all that an interrupted training leaves; StorageError where the disk refuses."""
    try:
        for path in (*_checkpoints(out), out / _PLAN):  # the plan last: without it no checkpoint can be used
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove the checkpoints in {out.name}: {error.strerror}; remove them") from error


def _checkpoints(out: Path) -> Iterator[Path]:
    yield from (path for pattern in (CHECKPOINT, *_OTHERS) for path in out.glob(pattern))


def _read(path: Path) -> tuple[Planned, dict[str, object]]:
    try:
        document = json.loads(read_bounded(path, max_bytes=_MAX_PLAN_BYTES))
        if document["version"] != _VERSION:
            raise ValueError("another version")
        plan = plan_from_net_metadata(document["net_metadata"])
        batch_size = int(document["batch_size"])
        if not 1 <= batch_size <= _MAX_PLAN_BYTES:
            raise ValueError("batch size")
        why = {str(key): str(sentence) for key, sentence in document["why"].items()}
        return Planned(plan, batch_size, why), dict(document["choices"])
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
        UnsupportedModelError,
    ) as error:
        raise TrainingError(f"expected the plan of a training in {path.name}, found a fault in it; {_AGAIN}") from error

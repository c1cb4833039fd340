"""What an interrupted improvement leaves in the output folder, and what can be gone on from.

Terms
- `improvement.checkpoint`: of the training whose weights leave; `improvement-fold-N.checkpoint`: of fold N's, from 1;
  each is written after every epoch (see `training.checkpoint`).
- `improvement-fold-N.result`: what fold N came to, in place of its checkpoint when its training is over
  (see `fold_result`).

Invariants: the last training begins when every fold has its result, so that files that say otherwise are of another
improvement; all of them, and the choice that they were begun with, go with the end of the improvement.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dafne_dante.errors import StorageError, TrainingError
from dafne_dante.plugin.choosing import CHOICE

__all__ = [
    "CHECKPOINT",
    "check_parts",
    "choice_kept_beside_checkpoints",
    "clear",
    "fold_checkpoint",
    "fold_result",
    "forget",
    "has_learnt",
]

CHECKPOINT = "improvement.checkpoint"
_FOLDS = ("improvement-fold-*.checkpoint", "improvement-fold-*.result")


def fold_checkpoint(out: Path, number: int) -> Path:
    """Where the training of fold `number`, from 1, keeps its checkpoint."""
    return out / f"improvement-fold-{number}.checkpoint"


def fold_result(out: Path, number: int) -> Path:
    """Where fold `number`, from 1, keeps what it came to."""
    return out / f"improvement-fold-{number}.result"


def has_learnt(out: Path) -> bool:
    """Whether an epoch of an interrupted improvement is there to go on from."""
    return any(path.exists() for path in _files(out))


def check_parts(out: Path, folds: int) -> None:
    """Do nothing when what is there can be of an improvement with so many folds, 0 for one training alone.

    Raises:
        TrainingError: it is of one with other cases.
    """
    named = {place(out, number) for number in range(1, folds + 1) for place in (fold_checkpoint, fold_result)}
    strange = any(path not in named for path in _fold_files(out))
    early = (out / CHECKPOINT).exists() and not all(fold_result(out, number + 1).exists() for number in range(folds))
    if strange or early:
        raise TrainingError(
            "expected the checkpoints in the output folder to be of this training, found those of other cases; "
            "repeat its options, or start again without --resume"
        )


@contextmanager
def choice_kept_beside_checkpoints(out: Path) -> Iterator[None]:
    """Whatever ends the block, a choice stays only beside the checkpoints of what it was made for."""
    try:
        yield
    finally:
        if not has_learnt(out):
            forget(out / CHOICE)


def clear(out: Path) -> None:
    """Remove all that an interrupted improvement leaves; StorageError where the disk refuses."""
    for path in (*_files(out), out / CHOICE):
        forget(path)


def forget(path: Path) -> None:
    """Remove one of the files, if it is there; StorageError where the disk refuses."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {path.name}: {error.strerror or type(error).__name__}") from error


def _files(out: Path) -> Iterator[Path]:
    """The last training's checkpoint first: without a fold's result it is taken for another's, and never used."""
    yield out / CHECKPOINT
    yield from _fold_files(out)


def _fold_files(out: Path) -> Iterator[Path]:
    yield from (path for pattern in _FOLDS for path in sorted(out.glob(pattern)))

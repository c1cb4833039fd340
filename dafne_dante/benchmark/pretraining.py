"""The base models: what a group of hospitals had before it met the target.

Invariants: a base learns from the source's training subjects of its pretraining, and its selection subjects choose the
epoch; the same files are the same bases when a run goes on.
"""

from dataclasses import dataclass
from pathlib import Path

from dafne_dante.annotations.case import Case
from dafne_dante.benchmark.domain import Domain
from dafne_dante.benchmark.protocol import Effort
from dafne_dante.benchmark.splits import Pretraining, divide_subjects
from dafne_dante.models.configure import configure_cases
from dafne_dante.models.file import write_model
from dafne_dante.models.plan import ModelPlan
from dafne_dante.models.planning.budget import find_budget
from dafne_dante.training.hardware import choose_device
from dafne_dante.training.scratch import ScratchWish, train_on

__all__ = ["Lesson", "lesson_for", "plan_for", "pretrain"]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a base learns."""

    plan: ModelPlan
    training: tuple[Case, ...]
    selection: tuple[Case, ...]
    effort: Effort
    seed: int


def plan_for(source: Domain) -> ModelPlan:
    """The plan that a 3D U-Net for this source has on this machine; errors as configure_cases."""
    return configure_cases(source.cases, "unet3d", budget=find_budget(choose_device())).plan


def lesson_for(source: Domain, plan: ModelPlan, effort: Effort, *, seed: int, pretraining: Pretraining) -> Lesson:
    """The cases that a base learns from, and those that choose its epoch; errors as divide_subjects."""
    parts = divide_subjects(source, seed)
    return Lesson(plan, source.of(parts.of(pretraining)), source.of(parts.selection), effort, seed)


def pretrain(path: Path, lesson: Lesson, cache: Path) -> float | None:
    """Train a base as `train` would, write it to `path`, and say its Dice on the selection cases.

    `cache` remembers which numerics are fastest here.

    Raises:
        AnnotationError, TrainingError, StorageError: see `training.scratch.train_on`.
    """
    wish = ScratchWish(cache=cache, epochs=lesson.effort.pretraining_epochs, seed=lesson.seed)
    trained = train_on(lesson.plan, lesson.effort.batch_size, lesson.training, lesson.selection, wish)
    write_model(trained.model, path)
    return trained.dice["mean"]

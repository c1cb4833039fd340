"""Dante's own trainer as a runner of cells, on the same cases and from the same base model.

Terms: `dante-scratch`, `dante-gradual-unfreezing` (half of the layers frozen at first) and `dante-lora` are the three
modes of `dante_train`, with its own defaults for everything but the epochs; its epoch is a pass over all slices, and
there is one of them for two of ours, which sees about as many slices.

Invariants: Dante validates on the selection cases (`dante_archives`), and what it would upload, its model file, is read
as the file of a stranger; its curve is measured as ours is, from the checkpoint that it would have kept.

Dante can tune networks of its own sizes only: `dante_plan`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from torch import nn

from dafne_dante.annotations.case import Case
from dafne_dante.benchmark.dante_archives import write_archives
from dafne_dante.benchmark.dante_program import DanteEpoch, DanteRun, run_dante
from dafne_dante.benchmark.dante_weights import lora_numbers, read_checkpoint
from dafne_dante.benchmark.outcome import CurvePoint, Outcome
from dafne_dante.benchmark.protocol import FROM_NOTHING, Cell, Effort
from dafne_dante.benchmark.splits import Split
from dafne_dante.errors import IncompatibleModelError
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model, write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.evaluate import evaluate_cases
from dafne_dante.training.held_out import HeldOutWindows
from dafne_dante.training.prepared import prepare_cases

__all__ = ["DANTE_METHODS", "DanteMethods", "dante_plan"]

DANTE_METHODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dante-gradual-unfreezing": ("--mode", "finetune", "--gradual-unfreeze"),
        "dante-lora": ("--mode", "lora"),
        "dante-scratch": ("--mode", "scratch"),
    }
)
"""Options of `dante_train` by our name of the method."""
_RATE = 1e-3


def dante_plan(plan: ModelPlan) -> ModelPlan:
    """The 2D U-Net that Dante builds whatever it is given, for the labels, spacing and sizes of `plan`."""
    return ModelPlan(
        architecture="unet2d",
        labels=plan.labels,
        in_channels=plan.in_channels,
        patch=(64, 64),
        spacing_mm=plan.spacing_mm[:2],
        median_shape=plan.median_shape[:2],
        levels=5,
        kernel=3,
        residual_units=2,
        first_channels=32,
    )


@dataclass(frozen=True)
class DanteMethods:
    """Runs DANTE_METHODS with the program `dante_train`."""

    effort: Effort
    program: Path

    def run(self, cell: Cell, split: Split, base_model: GlobalModel, folder: Path) -> Outcome:
        """Train and measure, see Runner; errors are those of run_dante and of reading what it wrote."""
        write_archives(folder / "data", split)
        run = run_dante(self.program, folder, self._options(cell, base_model, folder))
        model = _with_labels(read_model(run.model), split.training[0].labels)
        same_labels = base_model.plan.labels == model.plan.labels
        dice = evaluate_cases(_network(model), model.plan, split.test)
        curve = _curve(run, model, split)
        return Outcome(
            dice=dice,
            zero_shot=_mean(base_model, split.test) if same_labels else None,
            curve=curve,
            best_epoch=max(curve, key=lambda point: (point.dice or 0.0, -point.epoch)).epoch,
            learning_rate=_RATE,
            trainable_parameters=_moving(cell, run, model),
            sent_bytes=run.model.stat().st_size,
            peak_bytes=run.peak_bytes,
            source_before=_mean(base_model, split.source_test) if same_labels else None,
            source_after=_mean(model, split.source_test) if same_labels else None,
        )

    def _options(self, cell: Cell, base: GlobalModel, folder: Path) -> Sequence[str]:
        options = [
            "--data",
            str(folder / "data"),
            "--epochs",
            str(max(2, self.effort.epochs // 2)),
            *DANTE_METHODS[cell.method],
        ]
        if base.plan.dimensions != 2:
            raise IncompatibleModelError("expected a 2D U-Net as Dante builds them, found another; start with --dante")
        if cell.method not in FROM_NOTHING:
            write_model(base, folder / "base.model")
            options += ["--pretrained", os.fspath(folder / "base.model")]
        return options


def _with_labels(model: GlobalModel, labels: tuple[str, ...]) -> GlobalModel:
    """The archives' masks had other names, in the order of the labels."""
    return replace(model, plan=replace(model.plan, labels=labels))


def _curve(run: DanteRun, model: GlobalModel, split: Split) -> tuple[CurvePoint, ...]:
    windows = HeldOutWindows(prepare_cases(split.selection, model.plan), model.plan)

    def dice(epoch: DanteEpoch) -> float | None:
        if epoch.checkpoint is None:
            return None
        weights = read_checkpoint(epoch.checkpoint, model.weights)
        return windows.measure(_network(replace(model, weights=weights)))[1]["mean"]

    return tuple(CurvePoint(one.epoch, one.seconds, one.processor_seconds, dice(one)) for one in run.epochs)


def _moving(cell: Cell, run: DanteRun, model: GlobalModel) -> int:
    """How many numbers moved, at most: all in the end, but for LoRA."""
    last = run.epochs[-1].checkpoint
    if cell.method == "dante-lora" and last is not None:
        return lora_numbers(last)
    return sum(tensor.numel() for tensor in model.weights.values())


def _network(model: GlobalModel) -> nn.Module:
    return build_network(model.plan, model.weights)


def _mean(model: GlobalModel, cases: tuple[Case, ...]) -> float | None:
    return evaluate_cases(_network(model), model.plan, cases)["mean"]

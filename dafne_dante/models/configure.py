"""A plan from the cases themselves: what they are like, which network suits them, and how large it may be here.

Terms: a *configuration* is a plan with its batch size and a sentence for every choice. The steps: fingerprint, target
spacing, architecture, patch and depth within the memory budget, batch; each is a module of `planning`.

Invariants: the same cases and the same budget give the same configuration; what comes out can be stored and read again;
sizes are (Z, X, Y), or (X, Y) in 2D.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from dafne_dante.annotations.case import Case
from dafne_dante.errors import AnnotationError, UnsupportedModelError
from dafne_dante.models.plan import Architecture, ModelPlan, plan_from_net_metadata, plan_to_net_metadata
from dafne_dante.models.planning.budget import MemoryBudget, find_budget
from dafne_dante.models.planning.choice import choose_architecture
from dafne_dante.models.planning.drafts import draft_for, first_patch, median_shape
from dafne_dante.models.planning.fingerprint import Fingerprint, combine_fingerprints, fingerprint_case
from dafne_dante.models.planning.fitting import Fitted, fit, fit_batch
from dafne_dante.models.planning.reasons import explain_channels, explain_depth, explain_memory, explain_patch
from dafne_dante.models.planning.spacing import TargetSpacing, choose_spacing

__all__ = ["ArchitectureChoice", "Configuration", "configure_cases", "configure_from_fingerprint", "configure_unet3d"]

_SHORTEST_MM, _LONGEST_MM = 1e-3, 1e3

ArchitectureChoice = Literal["auto", "unet2d", "unet3d", "dynunet"]


@dataclass(frozen=True, eq=False)
class Configuration:
    """What to train, and why.

    Attributes:
        plan: the network and its patch.
        batch_size: patches in a step.
        estimated_bytes: what a step takes; at most the budget's.
        budget, fingerprint: what it was made from.
        why: a sentence for each choice: architecture, spacing, patch, depth, channels, batch_size, memory.
    """

    plan: ModelPlan
    batch_size: int
    estimated_bytes: int
    budget: MemoryBudget
    fingerprint: Fingerprint
    why: Mapping[str, str]


def configure_cases(
    cases: Iterable[Case], architecture: ArchitectureChoice = "auto", *, budget: MemoryBudget | None = None
) -> Configuration:
    """The configuration for these cases, which are looked at one by one; see configure_from_fingerprint for the rest.

    Raises:
        NotEnoughCasesError: there is no case.
        AnnotationError: cases differ in labels or contrasts, or no network can take such images.
        TrainingError: not even the smallest network fits into the budget.
    """
    return configure_from_fingerprint(combine_fingerprints(map(fingerprint_case, cases)), architecture, budget=budget)


def configure_from_fingerprint(
    fingerprint: Fingerprint, architecture: ArchitectureChoice = "auto", *, budget: MemoryBudget | None = None
) -> Configuration:
    """The configuration for what the cases are like; without a budget, for what this machine has to spare.

    Raises:
        AnnotationError, TrainingError: as configure_cases.
    """
    _check_spacings(fingerprint)
    budget = budget or find_budget()
    target = choose_spacing(fingerprint)
    chosen, why_chosen = _architecture(architecture, fingerprint, target, budget)
    shape = median_shape(fingerprint, target.spacing_mm)
    draft = draft_for(chosen, fingerprint, target.spacing_mm, shape, on_gpu=budget.on_gpu)
    first = 1 if chosen == "unet2d" else 0
    wish = first_patch(target.spacing_mm[first:], shape[first:])
    _check(draft(wish))
    fitted = fit(draft, wish, budget)
    batch_size, why_batch = fit_batch(fitted, budget, _data_voxels(fingerprint, target, fitted))
    estimated = fitted.memory.step_bytes(batch_size, on_gpu=budget.on_gpu)
    why = {
        "architecture": f"{chosen} because {why_chosen}",
        "spacing": target.why,
        "patch": explain_patch(fitted, budget),
        "depth": explain_depth(fitted.plan),
        "channels": explain_channels(fitted.plan, on_gpu=budget.on_gpu),
        "batch_size": f"{batch_size}: {why_batch}",
        "memory": explain_memory(estimated, budget),
    }
    return Configuration(fitted.plan, batch_size, estimated, budget, fingerprint, why)


def configure_unet3d(cases: Sequence[Case], *, on_gpu: bool = False) -> ModelPlan:
    """The plan of a 3D U-Net for these cases; on the first GPU if asked; errors as configure_cases."""
    return configure_cases(cases, "unet3d", budget=find_budget(torch.device("cuda" if on_gpu else "cpu"))).plan


def _architecture(
    wanted: ArchitectureChoice, fingerprint: Fingerprint, target: TargetSpacing, budget: MemoryBudget
) -> tuple[Architecture, str]:
    if wanted != "auto":
        return wanted, "it was asked for"
    return choose_architecture(fingerprint, target, on_gpu=budget.on_gpu)


def _data_voxels(fingerprint: Fingerprint, target: TargetSpacing, fitted: Fitted) -> float:
    """All voxels of the data set on the plan's grid; in 2D those of labelled slices, which are all it learns from."""
    shapes = fingerprint.tissues_at(target.spacing_mm)
    if fitted.plan.dimensions == 3:
        return float(shapes.prod(axis=1).sum())
    slices = [case.annotated_slices for case in fingerprint.cases]
    return float((shapes[:, 1:].prod(axis=1) * slices).sum())


def _check_spacings(fingerprint: Fingerprint) -> None:
    """AnnotationError for voxels that no model may have; NaN is none that it may."""
    spacings = fingerprint.spacings_mm
    if not bool(((spacings >= _SHORTEST_MM) & (spacings <= _LONGEST_MM)).all()):
        raise AnnotationError(
            f"expected voxels of {_SHORTEST_MM:g} to {_LONGEST_MM:g} mm along every axis, found others; "
            "export the images again"
        )


def _check(plan: ModelPlan) -> None:
    """AnnotationError where the plan could not be read again: beyond what any model may hold."""
    try:
        plan_from_net_metadata(plan_to_net_metadata(plan))
    except UnsupportedModelError as error:
        raise AnnotationError(
            f"expected up to 254 labels and 16 contrasts, found {len(plan.labels)} and {plan.in_channels}; use fewer"
        ) from error

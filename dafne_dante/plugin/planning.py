"""The plan of a training that somebody may start: from the cases that they name to a document that says why.

Invariants: one case is held at a time; nothing is trained, written or sent; the document holds sums over the cases and
no name of a study.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dafne_dante.annotations.collect import Survey
from dafne_dante.config import Settings
from dafne_dante.models.configure import ArchitectureChoice, Configuration, configure_from_fingerprint
from dafne_dante.models.plan import plan_to_net_metadata
from dafne_dante.models.planning.budget import MemoryBudget, find_budget, give_budget
from dafne_dante.models.planning.fingerprint import CaseFingerprint, combine_fingerprints, fingerprint_case
from dafne_dante.plugin.collecting import CaseRequest, survey_cases
from dafne_dante.training.hardware import choose_device

__all__ = ["PlanRequest", "describe_configuration", "make_plan", "training_budget"]


@dataclass(frozen=True)
class PlanRequest:
    """What to plan for.

    Attributes:
        data: which labelled studies.
        architecture: the one to use, or auto.
        memory_gb: gigabytes (10^9 bytes) that a training step may take; None for what is free here.
    """

    data: CaseRequest = field(default_factory=CaseRequest)
    architecture: ArchitectureChoice = "auto"
    memory_gb: float | None = None


def make_plan(
    request: PlanRequest, settings: Settings, *, say: Callable[[str], None] = lambda text: None
) -> tuple[Configuration, Survey[CaseFingerprint]]:
    """The configuration, and what was taken and left of the studies.

    Raises:
        AnnotationError, TrustError, StorageError: as collect_cases.
        TrainingError: the budget makes no sense, or not even the smallest network fits into it.
    """
    budget = training_budget(request.memory_gb)
    survey = survey_cases(request.data, settings, fingerprint_case, say=say)
    configuration = configure_from_fingerprint(combine_fingerprints(survey.seen), request.architecture, budget=budget)
    return configuration, survey


def training_budget(memory_gb: float | None = None) -> MemoryBudget:
    """The budget for training on the device that training would choose; found when it is not given."""
    device = choose_device()
    return find_budget(device) if memory_gb is None else give_budget(memory_gb, on_gpu=device.type == "cuda")


def describe_configuration(configuration: Configuration) -> dict[str, Any]:
    """Plain values: the plan, why, the memory, what the cases are like, and the plan as stock Dafne reads it.

    Sizes and spacings are (Z, X, Y), or (X, Y) in 2D.
    """
    plan = configuration.plan
    return {
        "plan": {
            "architecture": plan.architecture,
            "dimensions": plan.dimensions,
            "labels": list(plan.labels),
            "contrasts": plan.in_channels,
            "spacing_mm": list(plan.spacing_mm),
            "median_shape": list(plan.median_shape),
            "patch": list(plan.patch),
            "batch_size": configuration.batch_size,
            "levels": plan.levels,
            "first_channels": plan.first_channels,
            "kernels": [list(kernel) for kernel in plan.kernels],
            "strides": [list(stride) for stride in plan.strides],
        },
        "why": dict(configuration.why),
        "memory": {
            "device": "gpu" if configuration.budget.on_gpu else "cpu",
            "budget_gb": configuration.budget.size_bytes / 1e9,
            "estimated_gb": configuration.estimated_bytes / 1e9,
        },
        "fingerprint": configuration.fingerprint.describe(),
        "net_metadata": plan_to_net_metadata(plan),
    }

"""The methods of fine-tuning by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from dafne_dante.adaptation.baselines import FromScratch, FullFineTuning, HeadOnly, NormOnly
from dafne_dante.adaptation.gradual import GradualUnfreezing
from dafne_dante.adaptation.low_rank_method import LowRankAdaptation
from dafne_dante.adaptation.protocol import Method
from dafne_dante.errors import TrainingError

__all__ = ["METHOD_NAMES", "method_named"]

_METHODS: Mapping[str, type[Any]] = {
    "full": FullFineTuning,
    "gradual-unfreezing": GradualUnfreezing,
    "head": HeadOnly,
    "lora": LowRankAdaptation,
    "norm": NormOnly,
    "scratch": FromScratch,
}
METHOD_NAMES: tuple[str, ...] = tuple(sorted(_METHODS))


def method_named(name: str, **options: Any) -> Method:
    """A new method of METHOD_NAMES; options are the attributes of its class.

    Raises:
        TrainingError: there is no such method, or it has no such option.
    """
    if name not in _METHODS:
        raise TrainingError(f"expected a method from {', '.join(METHOD_NAMES)}, found {name}")
    known = [item.name for item in fields(_METHODS[name]) if item.init]
    if unknown := sorted(options.keys() - set(known)):
        expected = ", ".join(known) or "no option"
        raise TrainingError(f"expected for {name} {expected}, found {', '.join(unknown)}")
    method: Method = _METHODS[name](**options)
    return method

"""The operator's own labelled cases, in the order of a model's labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.labels import label_key
from dafne_dante.errors import IncompatibleModelError, NotEnoughCasesError

__all__ = ["usable_cases"]


def usable_cases(cases: Sequence[Case], labels: tuple[str, ...]) -> list[Case]:
    """The cases with their labels in the model's order.

    Raises:
        IncompatibleModelError: they have other labels than the model.
        NotEnoughCasesError: none of them shows a label.
    """
    usable = [_relabelled(case, labels) for case in cases]
    if not any(case.segmentation[..., case.annotated].any() for case in usable):
        raise NotEnoughCasesError("expected the operator's cases to show a label, found none; nothing can be tried")
    return usable


def _relabelled(case: Case, labels: tuple[str, ...]) -> Case:
    """The case with its segmentation in the order of `labels`, matched by name as `annotations.folders` does."""
    places = {label_key(name): place for place, name in enumerate(labels, start=1)}
    keys = [label_key(name) for name in case.labels]
    if set(keys) != set(places):
        raise IncompatibleModelError(
            f"expected the operator's cases labelled {', '.join(labels)}, found {', '.join(case.labels)}"
        )
    translation = np.array([0, *(places[key] for key in keys)], dtype=np.uint8)
    return replace(case, segmentation=translation[case.segmentation], labels=labels)

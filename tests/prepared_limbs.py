"""Limbs in a case store, for the tests of what is prepared of them."""

from dataclasses import replace

import numpy as np
from limbs import EVERY_FIFTH, limb_plan, make_limb, partly
from stored_cases import KEY, case_id

from dafne_dante.annotations.store.retention import Limits
from dafne_dante.annotations.store.store import CaseStore

PLANS = {dimensions: limb_plan(dimensions, spacing_mm=3.0) for dimensions in (2, 3)}
"""In 3D the cases are resampled."""


def limb(number, version=0):
    """Limb `number` as somebody labelled it the `version`-th time."""
    annotated = np.roll(EVERY_FIFTH, version)
    return replace(partly(make_limb(number), annotated), case_id=case_id(number))


def fill_store(folder, count=3):
    """A store that holds so many limbs; its folder."""
    store = CaseStore(folder, KEY)
    for number in range(count):
        store.add(limb(number))
    return folder


def opened(folder, *, key=KEY, **limits):
    return CaseStore(folder, key, limits=Limits(**limits))


def files(folder):
    """What lies in the folder of prepared cases of a store."""
    return sorted((folder / "prepared").glob("*")) if (folder / "prepared").is_dir() else []


def content(prepared):
    """Everything that a training can see of prepared cases."""
    return [
        (
            case.case_id, case.prepared.record, case.side_axes,
            *((array.dtype, array.shape, array.tobytes()) for array in (case.prepared.image, case.target, case.known)),
        )
        for case in prepared
    ]  # fmt: skip

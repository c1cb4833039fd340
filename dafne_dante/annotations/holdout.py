"""Which cases are kept out of training, to measure on them whether training helped.

Invariants
- One study is never on both sides: cases of equal case_id (copies of one study) stay together.
- Who is held out depends on the seed and the images only, not on the order of a listing, nor on the key behind the
  case_ids, which may be new in every process: each study draws its own number from SHA-256(seed, image), and the
  lowest are held out. So a site that labels one more study changes one member of the held-out cases at most, and
  measures the next round on the same studies as the last. What was drawn on an image does not matter: a corrected
  label moves no study to the other side.
- At least one study is held out, and at least one is trained on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.errors import NotEnoughCasesError, SettingsError

__all__ = ["cross_fit", "hold_out", "order_of_drawing"]


def hold_out(cases: Sequence[Case], *, share: float = 0.25, seed: int) -> tuple[list[Case], list[Case]]:
    """Divide cases into those to train on and those to hold out, each in the order that they drew.

    Args:
        cases: at least two different studies, in any order.
        share: of the different studies, how much is held out; rounded, more than 0 and less than 1.
        seed: another seed holds out others.

    Raises:
        NotEnoughCasesError: fewer than two different studies.
        SettingsError: a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise SettingsError(f"expected a held-out share between 0 and 1, found {share:g}")
    ordered = order_of_drawing(cases, seed=seed)
    studies = list(dict.fromkeys(case.case_id for case in ordered))
    if len(studies) < 2:
        raise NotEnoughCasesError(
            f"expected at least 2 different studies, one to train on and one to hold out, found {len(studies)}; "
            "label more studies"
        )
    number = min(max(round(share * len(studies)), 1), len(studies) - 1)
    held = set(studies[:number])
    return [case for case in ordered if case.case_id not in held], [case for case in ordered if case.case_id in held]


def cross_fit(cases: Sequence[Case], *, seed: int) -> list[tuple[list[Case], list[Case]]]:
    """Divide few cases so that all is held out once: each study in turn, or of one study each half of its slices.

    The halves are what somebody labelled below and above the middle: neighbours look alike, so that every other slice
    would be known beforehand.

    Returns:
        For each fold what to train on and what to hold out; of one study both have all slices of the image, and count
        as labelled their own half only.

    Raises:
        NotEnoughCasesError: no case, or a single one with fewer than two labelled slices.
    """
    ordered = order_of_drawing(cases, seed=seed)
    studies = list(dict.fromkeys(case.case_id for case in ordered))
    if len(studies) > 1:
        return [
            ([case for case in ordered if case.case_id != one], [case for case in ordered if case.case_id == one])
            for one in studies
        ]
    halves = [_halves(case) for case in ordered]
    if not halves or any(not case.annotated.any() for pair in halves for case in pair):
        raise NotEnoughCasesError(
            "expected at least 2 labelled slices, one to train on and one to hold out, found fewer; label more"
        )
    lower, upper = ([pair[half] for pair in halves] for half in (0, 1))
    return [(lower, upper), (upper, lower)]


def _halves(case: Case) -> tuple[Case, Case]:
    labelled = np.flatnonzero(case.annotated)
    below = np.arange(len(case.annotated)) <= (labelled[(len(labelled) - 1) // 2] if len(labelled) else 0)
    return replace(case, annotated=case.annotated & below), replace(case, annotated=case.annotated & ~below)


def order_of_drawing(cases: Sequence[Case], *, seed: int) -> list[Case]:
    """The cases by the numbers that their studies drew; copies of one study follow each other."""
    draws: dict[str, tuple[bytes, bytes]] = {}
    for case in sorted(cases, key=lambda case: case.case_id):
        draws.setdefault(case.case_id, _draw(seed, case))
    return sorted(cases, key=lambda case: draws[case.case_id])


def _draw(seed: int, case: Case) -> tuple[bytes, bytes]:
    """The number of a study's image, then that of its id: two ids may stand for equal images."""
    image = hashlib.sha256(f"{seed}:{case.image.shape}".encode())
    image.update(np.ascontiguousarray(case.image).data)
    return image.digest(), hashlib.sha256(f"{seed}:{case.case_id}".encode()).digest()

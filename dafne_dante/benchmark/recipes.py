"""A digest of all that the code decides about a training by itself: rates, warm-up, epochs, what `auto` chooses.

Cells of one folder are compared with each other, so they must come from one set of such choices; this is how a folder
knows. Covered is what `training.defaults` and `training.choice` answer, over every method, start and number of studies
at which an answer changes, not their text: a comment changes nothing.
"""

import hashlib
from collections.abc import Iterator

import torch

from dafne_dante._version import __version__
from dafne_dante.adaptation.method import METHOD_NAMES
from dafne_dante.training.choice import Situation, choose
from dafne_dante.training.defaults import recipe_for_adaptation, recipe_from_scratch
from dafne_dante.training.hardware import Numerics

__all__ = ["recipes_digest", "software_words"]

_ZERO_SHOTS = (0.0, 0.149, 0.15, 0.3, 0.499, 0.5, 0.8)
_STUDIES = (1, 2, 4, 5, 10, 20, 21, 50)
_SAMPLES = (2, 11, 300)


def recipes_digest() -> str:
    """64 hexadecimal digits; another where a recipe or a choice is."""
    return hashlib.sha256("\n".join(_answers()).encode()).hexdigest()


def software_words() -> str:
    """Which versions train."""
    return f"dafne-dante {__version__}, torch {torch.__version__}"


def _answers() -> Iterator[str]:
    numerics = Numerics()
    for dimensions in (2, 3):
        for zero_shot in _ZERO_SHOTS:
            for method in METHOD_NAMES:
                yield repr(
                    recipe_for_adaptation(
                        method, zero_shot, epochs=None, seed=0, numerics=numerics, dimensions=dimensions
                    )
                )
            for studies in _STUDIES:
                yield repr(choose(Situation(studies, zero_shot, dimensions=dimensions)))
        for samples in _SAMPLES:
            yield repr(
                recipe_from_scratch(epochs=None, seed=0, numerics=numerics, samples=samples, dimensions=dimensions)
            )

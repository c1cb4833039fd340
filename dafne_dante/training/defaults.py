"""How long and how fast to train when nobody says otherwise.

Sources: SCIENCE.md sections 3.3 and 8. A global model that already finds the structures (Dice of at least 0.5) is
tuned with a small step, because a large one overfits a few cases within ten steps; a poor start needs a larger one.
"""

from math import ceil

from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.hardware import Numerics
from dafne_dante.training.recipe import Recipe

__all__ = ["recipe_for_adaptation", "recipe_from_scratch"]

_GOOD_START = 0.5
_RATES = {
    "full": (5e-4, 1e-3),
    "gradual-unfreezing": (1e-3, 2e-3),
    "head": (3e-3, 5e-3),
    "lora": (1e-3, 3e-3),
    "norm": (3e-3, 5e-3),
    "scratch": (2e-3, 2e-3),
}
_ADAPTATION_EPOCHS = 15
_SCRATCH_EPOCHS = 40
_SCRATCH_STEPS = (20, 250)


def recipe_for_adaptation(
    method: str, zero_shot_dice: float, *, epochs: int | None, seed: int, numerics: Numerics
) -> Recipe:
    """The recipe for tuning a global model whose mean Dice on the held-out cases is `zero_shot_dice`."""
    careful, bold = _RATES[method]
    return Recipe(
        epochs=epochs or _ADAPTATION_EPOCHS,
        learning_rate=careful if zero_shot_dice >= _GOOD_START else bold,
        seed=seed,
        numerics=numerics,
    )


def recipe_from_scratch(
    *,
    epochs: int | None,
    seed: int,
    numerics: Numerics,
    batch_size: int = 2,
    samples: int = 0,
    augmentation: Strengths | None = None,
    patience: int = 0,
    deep_supervision: bool = False,
) -> Recipe:
    """The recipe for training a new network; an epoch sees each of `samples` volumes or slices once, within bounds.

    Its intensity changes are strong: a global model meets scanners that nobody has seen, and one trained without
    them both fails there and forgets more when it is tuned.
    """
    return Recipe(
        epochs=epochs or _SCRATCH_EPOCHS,
        steps_per_epoch=min(max(ceil(samples / batch_size), _SCRATCH_STEPS[0]), _SCRATCH_STEPS[1]),
        batch_size=batch_size,
        learning_rate=2e-3,
        augmentation=augmentation or Strengths(1.0),
        patience=patience,
        deep_supervision=deep_supervision,
        seed=seed,
        numerics=numerics,
    )

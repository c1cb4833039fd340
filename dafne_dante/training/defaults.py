"""How long and how fast to train when nobody says otherwise.

Sources: SCIENCE.md sections 3.3 and 8. A global model that already finds the structures (Dice of at least 0.5) is
tuned with a small step, because a large one overfits a few cases within ten steps; a poor start needs a larger one,
and structures that it never saw (below 0.15) the largest: of lesions that nobody had labelled before, 64 steps from
seven studies learned 0.51 with gradual unfreezing at the rate of a poor start and 0.55 at this one, full fine-tuning
0.41 and 0.49. LoRA takes three times the rate of a poor start too: lesions (three seeds, one study and seven) 0.22 and
0.43 with it, 0.17 and 0.31 with the rate of a poor start; other structures 0.59 and 0.59, 0.57 and 0.57.
"""

from dataclasses import replace
from math import ceil
from typing import Literal

from dafne_dante.errors import TrainingError
from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.hardware import Numerics
from dafne_dante.training.recipe import Recipe

__all__ = [
    "AUGMENTATIONS",
    "FROM_SCRATCH",
    "LEARNING_RATES",
    "Start",
    "adaptation_patience",
    "adaptation_rate",
    "augmentation_named",
    "recipe_for_adaptation",
    "recipe_from_scratch",
    "start_of",
]

Start = Literal["good", "poor", "new"]

_GOOD_START = 0.5
_NEW_START = 0.15
LEARNING_RATES: dict[str, dict[Start, float]] = {
    "full": {"good": 5e-4, "poor": 1e-3, "new": 3e-3},
    "gradual-unfreezing": {"good": 1e-3, "poor": 2e-3, "new": 6e-3},
    "head": {"good": 3e-3, "poor": 5e-3, "new": 1e-2},
    "lora": {"good": 1e-3, "poor": 3e-3, "new": 9e-3},
    "norm": {"good": 3e-3, "poor": 5e-3, "new": 1e-2},
    "scratch": {"good": 2e-3, "poor": 2e-3, "new": 2e-3},
}
"""Of AdamW, by method and start."""
_WARMUP_SHARES: dict[Start, float] = {"good": 0.05, "poor": 0.05, "new": 0.15}
"""The largest rate needs the longest: of 64 steps from seven studies LoRA learned lesions to 0.43 with 10 steps of
warm-up and 0.36 with 4; a good start is the sooner better with 4 (85 % of the peak after 1.0 epochs instead of 1.3)."""
_SHARES_2D = {"gradual-unfreezing": 0.25, "lora": 0.5}
_ADAPTATION_EPOCHS = 15
_PATIENCE_SHARE, _LEAST_PATIENCE = 0.5, 8
AUGMENTATIONS: dict[str, Strengths] = {"plain": Strengths(), "strong": Strengths(1.0, 1.0, 1.0, mirror=True)}
"""Of an adaptation, by name: intensities at half strength; or all of what there is, mirroring where labels allow it."""
_SCRATCH_EPOCHS = 40
_SCRATCH_RATES = {2: 1e-3, 3: 2e-3}
_SCRATCH_STEPS = (20, 250)
_VISITS_FOR_ALL_CHANGES = 100
FROM_SCRATCH = Strengths(1.0, remapped=0.15)
"""Of intensities: a new model will meet scanners and sequences that nobody has seen."""


def start_of(zero_shot_dice: float) -> Start:
    """What kind of start a global model of this mean Dice is."""
    return "good" if zero_shot_dice >= _GOOD_START else "poor" if zero_shot_dice >= _NEW_START else "new"


def recipe_for_adaptation(
    method: str, zero_shot_dice: float, *, epochs: int | None, seed: int, numerics: Numerics, dimensions: int = 3
) -> Recipe:
    """The recipe for tuning a global model whose mean Dice on the held-out cases is `zero_shot_dice`."""
    start = start_of(zero_shot_dice)
    return Recipe(
        epochs=epochs or _ADAPTATION_EPOCHS,
        learning_rate=adaptation_rate(method, start, dimensions=dimensions),
        warmup_share=_WARMUP_SHARES[start],
        seed=seed,
        numerics=numerics,
    )


def adaptation_rate(method: str, start: Start, *, dimensions: int = 3) -> float:
    """The rate of LEARNING_RATES; in 2D less for structures that the global model never saw.

    Measured in 2D (640 steps of four slices, one seed, the mean Dice of other structures and lesions on the selection
    cases): gradual unfreezing 0.670 at half of its rate and 0.679 at a quarter, LoRA 0.599 at its rate and 0.649 at
    half of it. With two slices a step gradual unfreezing at half of its rate was better than at all of it, too, on test
    cases (0.70 and 0.53 instead of 0.66 and 0.48). Good starts lost a little at half of their rates and keep them.
    """
    shares = _SHARES_2D if dimensions == 2 and start == "new" else {}
    return LEARNING_RATES[method][start] * shares.get(method, 1.0)


def adaptation_patience(epochs: int) -> int:
    """Epochs without a better one after which an adaptation stops when nobody says otherwise.

    Half of them, 8 at least: a rate that falls along a cosine may find something better in its last third, and a
    training of up to 8 epochs is never cut. What remains is the best epoch, with or without those that are saved.
    """
    return max(_LEAST_PATIENCE, ceil(_PATIENCE_SHARE * epochs))


def augmentation_named(name: str) -> Strengths:
    """One of AUGMENTATIONS; TrainingError for another name."""
    if name not in AUGMENTATIONS:
        raise TrainingError(f"expected an augmentation from {', '.join(AUGMENTATIONS)}, found {name[:60]}")
    return AUGMENTATIONS[name]


def recipe_from_scratch(
    *,
    epochs: int | None,
    seed: int,
    numerics: Numerics,
    batch_size: int = 2,
    samples: int = 0,
    dimensions: int = 3,
    augmentation: Strengths | None = None,
    patience: int = 0,
    deep_supervision: bool = False,
) -> Recipe:
    """The recipe for training a new network; an epoch sees each of `samples` volumes or slices once, within bounds.

    Its intensity changes are strong: a global model meets scanners that nobody has seen, and one trained without
    them both fails there and forgets more when it is tuned. The other changes come to all batches where each sample is
    seen 100 times or more, and in a shorter training to so many fewer: who sees a slice ten times learns most from the
    slice as it is, who sees it a hundred times learns it by heart. Measured (2D, five brains, Dice on three others): 10
    epochs 0.894 with intensities only and 0.871 with all changes on all batches; 20 epochs 0.894, and 0.895 with them
    on a fifth; 40 epochs 0.890, falling since the tenth, and 0.887 on all, still rising.

    A step in 2D sees a few slices only, and takes half the rate: 10 epochs of two slices a step came to 0.893 with 1e-3
    (four seeds, 0.889 to 0.895), 0.889 with 2e-3 (0.884 to 0.892), 0.882 with 4e-3.
    """
    epochs = epochs or _SCRATCH_EPOCHS
    steps = min(max(ceil(samples / batch_size), _SCRATCH_STEPS[0]), _SCRATCH_STEPS[1])
    often = min(1.0, epochs * steps * batch_size / max(samples, 1) / _VISITS_FOR_ALL_CHANGES)
    changes = augmentation or FROM_SCRATCH
    return Recipe(
        epochs=epochs,
        steps_per_epoch=steps,
        batch_size=batch_size,
        learning_rate=_SCRATCH_RATES[dimensions],
        augmentation=replace(changes, often=often, remapped=often * changes.remapped),
        patience=patience,
        deep_supervision=deep_supervision,
        seed=seed,
        numerics=numerics,
    )

"""What training takes when nobody says otherwise."""

import pytest

from dafne_dante.training.augmentation import Strengths
from dafne_dante.training.defaults import recipe_from_scratch
from dafne_dante.training.hardware import Numerics


@pytest.mark.parametrize(
    ("epochs", "samples", "batch", "steps", "often"),
    [
        (20, 244, 2, 122, 0.2),
        (None, 244, 2, 122, 0.4),
        (10, 4, 2, 20, 1.0),
        (200, 300, 2, 150, 1.0),
        (20, 4000, 4, 250, 0.05),
    ],
)
def test_changes_come_as_often_as_samples_are_seen(epochs, samples, batch, steps, often):
    wish = Strengths(1.0, 0.5, 0.5, mirror=True)
    recipe = recipe_from_scratch(
        epochs=epochs, seed=0, numerics=Numerics(), batch_size=batch, samples=samples, augmentation=wish
    )
    assert recipe.steps_per_epoch == steps
    assert recipe.augmentation.often == pytest.approx(often)
    assert (recipe.augmentation.intensity, recipe.augmentation.mirror) == (1.0, True)

"""What somebody chose about how an improvement is trained, laid over the defaults for its method and start."""

from dataclasses import replace

from dafne_dante.plugin.improvement_request import ImprovementRequest
from dafne_dante.training.defaults import adaptation_patience, augmentation_named
from dafne_dante.training.recipe import Recipe

__all__ = ["as_chosen", "check_recipe"]


def as_chosen(recipe: Recipe, request: ImprovementRequest, *, several: bool = False) -> Recipe:
    """The recipe with what was chosen.

    Args:
        several: whether there are several trainings, whose epochs are compared one by one: none stops early then
            unless somebody asked for it.

    Raises:
        TrainingError: a choice is out of its range.
    """
    default = 0 if several else adaptation_patience(recipe.epochs)
    return replace(
        recipe,
        batch_size=request.thrift.batch_size,
        steps_per_epoch=request.steps or recipe.steps_per_epoch,
        patience=default if request.patience is None else request.patience,
        average_decay=request.average,
        augmentation=augmentation_named(request.augmentation),
    )


def check_recipe(request: ImprovementRequest) -> None:
    """TrainingError where a choice is out of its range; to be asked before anything is read."""
    as_chosen(Recipe(), request)

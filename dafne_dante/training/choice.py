"""`auto`: the method, rank, learning rate and epochs, from what is known before training begins.

Terms: *zero-shot Dice* is the global model's on the held-out cases. A start is *good* from 0.5 on; below 0.15 the
structures are as good as *new*: the model never saw them, or never saw anything that looks like this.

What the rules rest on (`dafne-dante benchmark`, docs/benchmarks.md; SCIENCE.md sections 3 and 8)
- Few studies: LoRA, whose few numbers cannot learn them by heart; from five on gradual unfreezing, which fits more, and
  for new structures from the first: what draws them must move as a whole (one study: Dice 0.64 against 0.60).
- Rank 4 for few studies, 16 for more than 20, else 8: a rank that the cases cannot fill only adds bytes.
- A good start takes small steps, a poor one larger ones, new structures the largest and the most epochs.

Invariants: pure, equal situations give equal choices; a budget gives training fewer epochs, but three at least, in
which a schedule still means something, and then shorter ones, but of five steps at least. Where even that is too much
for several trainings, one is what there is time for (`is_too_short`): it learns from what one fold leaves.
"""

from dataclasses import dataclass

from dafne_dante.training.defaults import Start, adaptation_rate, start_of
from dafne_dante.training.recipe import Recipe

__all__ = ["AUTO", "Choice", "Situation", "choose", "is_too_short"]

AUTO = "auto"
_FEW_STUDIES, _MANY_STUDIES = 5, 21
_EPOCHS: dict[Start, int] = {"good": 15, "poor": 20, "new": 30}
_LEAST_EPOCHS = 3
_STEPS = Recipe().steps_per_epoch
_LEAST_STEPS = 5
_TRAINING_SHARE = 0.8
"""Of a time budget: the rest is reading, preparing and measuring."""


@dataclass(frozen=True)
class Situation:
    """What is known before training.

    Attributes:
        studies: different studies to learn from.
        zero_shot: mean Dice of the global model on the held-out cases.
        step_seconds: of one step in which everything moves; only needed with a budget.
        minutes: that all trainings together may take; None for no limit.
        trainings: how many there will be, more than one where studies are cross-fitted.
        dimensions: of the network.
        one_training: whether there would be more, had there been time.
        replay: how many steps are taken for each of an epoch, more than one where cases are replayed.
    """

    studies: int
    zero_shot: float
    step_seconds: float = 0.0
    minutes: float | None = None
    trainings: int = 1
    dimensions: int = 3
    one_training: bool = False
    replay: float = 1.0


@dataclass(frozen=True)
class Choice:
    """How to train; `rank` is LoRA's, `steps` those of an epoch, `why` one sentence for a person.

    `one_training` says that one fold alone was trained, for want of time.
    """

    method: str
    rank: int
    learning_rate: float
    epochs: int
    why: str
    steps: int = _STEPS
    one_training: bool = False


def choose(situation: Situation) -> Choice:
    """The choice for a situation, see above."""
    start = start_of(situation.zero_shot)
    few = situation.studies < _FEW_STUDIES
    method = "lora" if few and start != "new" else "gradual-unfreezing"
    rank = 4 if few else 16 if situation.studies >= _MANY_STUDIES else 8
    wanted = _EPOCHS[start]
    epochs, steps = _within_budget(situation, wanted)
    rate = adaptation_rate(method, start, dimensions=situation.dimensions)
    why = _sentence(situation, method, epochs, wanted, steps)
    return Choice(method, rank, rate, epochs, why, steps, situation.one_training)


def is_too_short(minutes: float, step_seconds: float, trainings: int, replay: float = 1.0) -> bool:
    """Whether a budget is too short for so many trainings, even for the shortest; `replay` as in Situation."""
    return _possible_steps(minutes, step_seconds * replay, trainings) < _LEAST_EPOCHS * _LEAST_STEPS


def _within_budget(situation: Situation, wanted: int) -> tuple[int, int]:
    """Epochs of each training, and the steps of each."""
    if situation.minutes is None or situation.step_seconds <= 0:
        return wanted, _STEPS
    step_seconds = situation.step_seconds * situation.replay
    possible = _possible_steps(situation.minutes, step_seconds, situation.trainings)
    epochs = min(wanted, max(_LEAST_EPOCHS, int(possible / _STEPS)))
    return epochs, max(_LEAST_STEPS, min(_STEPS, int(possible / epochs)))


def _possible_steps(minutes: float, step_seconds: float, trainings: int) -> float:
    """How many steps of each training fit into the budget."""
    return 60 * minutes * _TRAINING_SHARE / (step_seconds * trainings)


def _sentence(situation: Situation, method: str, epochs: int, wanted: int, steps_each: int) -> str:
    studies = f"{situation.studies} stud{'y' if situation.studies == 1 else 'ies'} to learn from"
    start = start_of(situation.zero_shot)
    if situation.studies >= _FEW_STUDIES:
        reason = f"{studies} are enough for it"
    elif start == "new":
        reason = "the model never saw what it is to find"
    else:
        reason = f"there {'is' if situation.studies == 1 else 'are'} only {studies}"
    steps = {"good": "small steps", "poor": "larger steps", "new": "the largest steps"}[start]
    limit = f" (of {wanted}, to keep to {situation.minutes:g} minutes)" if epochs < wanted else ""
    short = f" of {steps_each} steps" if steps_each < _STEPS else ""
    return (
        f"{method}, because {reason}; {steps} over {epochs} epochs{short}{limit}, because "
        f"the global model comes to Dice {situation.zero_shot:.2f} as it is"
    )

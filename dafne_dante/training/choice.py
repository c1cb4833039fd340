"""`auto`: the method, rank, learning rate and epochs, from what is known before training begins.

Terms: *zero-shot Dice* is the global model's on the held-out cases. A start is *good* from 0.5 on; below 0.15 the
structures are as good as *new*: the model never saw them, or never saw anything that looks like this.

What the rules rest on (`dafne-dante benchmark`, docs/benchmarks.md; SCIENCE.md sections 3 and 8)
- Few studies: LoRA, whose few numbers cannot learn them by heart; from five on gradual unfreezing, which fits more, and
  for new structures from the first: what draws them must move as a whole (one study: Dice 0.64 against 0.60).
- Rank 4 for few studies, 16 for more than 20, else 8: a rank that the cases cannot fill only adds bytes.
- A good start takes small steps, a poor one larger ones, new structures the largest and the most epochs.

Invariants: pure, equal situations give equal choices; a budget shortens training but never below three epochs, in
which a schedule still means something.
"""

from dataclasses import dataclass

from dafne_dante.training.defaults import Start, adaptation_rate, start_of

__all__ = ["AUTO", "Choice", "Situation", "choose"]

AUTO = "auto"
_FEW_STUDIES, _MANY_STUDIES = 5, 21
_EPOCHS: dict[Start, int] = {"good": 15, "poor": 20, "new": 30}
_LEAST_EPOCHS = 3
_TRAINING_SHARE = 0.8
"""Of a time budget: the rest is reading, preparing and measuring."""


@dataclass(frozen=True)
class Situation:
    """What is known before training.

    Attributes:
        studies: different studies to learn from.
        zero_shot: mean Dice of the global model on the held-out cases.
        epoch_seconds: of one epoch in which everything moves; only needed with a budget.
        minutes: that all trainings together may take; None for no limit.
        trainings: how many there will be, more than one where studies are cross-fitted.
        dimensions: of the network.
    """

    studies: int
    zero_shot: float
    epoch_seconds: float = 0.0
    minutes: float | None = None
    trainings: int = 1
    dimensions: int = 3


@dataclass(frozen=True)
class Choice:
    """How to train; `rank` is LoRA's, `why` one sentence for a person."""

    method: str
    rank: int
    learning_rate: float
    epochs: int
    why: str


def choose(situation: Situation) -> Choice:
    """The choice for a situation, see above."""
    start = start_of(situation.zero_shot)
    few = situation.studies < _FEW_STUDIES
    method = "lora" if few and start != "new" else "gradual-unfreezing"
    rank = 4 if few else 16 if situation.studies >= _MANY_STUDIES else 8
    wanted = _EPOCHS[start]
    possible = _possible_epochs(situation)
    epochs = wanted if possible is None else min(wanted, max(_LEAST_EPOCHS, possible))
    rate = adaptation_rate(method, start, dimensions=situation.dimensions)
    return Choice(method, rank, rate, epochs, _sentence(situation, method, epochs, wanted))


def _possible_epochs(situation: Situation) -> int | None:
    """How many epochs of each training fit into the budget; None where there is no limit."""
    if situation.minutes is None or situation.epoch_seconds <= 0:
        return None
    seconds = 60 * situation.minutes * _TRAINING_SHARE
    return int(seconds / (situation.epoch_seconds * situation.trainings))


def _sentence(situation: Situation, method: str, epochs: int, wanted: int) -> str:
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
    return (
        f"{method}, because {reason}; {steps} over {epochs} epochs{limit}, because "
        f"the global model comes to Dice {situation.zero_shot:.2f} as it is"
    )

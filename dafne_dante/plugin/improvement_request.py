"""What somebody asks for when a model is to be improved, and where they are told how it goes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dafne_dante.adaptation.low_rank import Form
from dafne_dante.adaptation.wish import MethodWish
from dafne_dante.annotations.collect import Collection
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.thrift import Thrift
from dafne_dante.training.choice import AUTO
from dafne_dante.training.history import EpochRecord

__all__ = ["ImprovementRequest", "Progress"]


@dataclass(frozen=True)
class ImprovementRequest:
    """What to improve, from what, and where to.

    Attributes:
        data: which labelled studies to use.
        out: folder for improved.model, update.delta, history.csv, summary.json and report.html (and base.model when
            pulled).
        base: a `.model` file; None pulls the newest version of `model_type` from the server.
        model_type: the type's name on the server; with a base file it only names the type in the delta.
        method: one of METHOD_NAMES, or auto (see `training.choice`).
        epochs: None for the default.
        upload: send the delta when the gate passes.
        resume: go on from the checkpoint in `out`, if there is one; else it is removed.
        rank, form, schedule, pull, elastic, options: of the method, see MethodWish; elastic looks at the cases of
            `replay`, or of `reference` where there are none to replay.
        reference: labelled studies of the global model's own domain, on which it is told what was forgotten.
        server: base URL of the client's server; the settings' when left out.
        trigger: what asked for it, for the outbox and the audit log: command, improve-button, nightly, ...
        report: another file for the report; report.html in `out` when left out.
        replay: labelled studies of the global model's own domain that are learned from beside the site's own, so that
            less is forgotten; never measured on.
        thrift: how to train where memory is short.
        minutes: that training may take where auto chooses; None for no limit.
        steps: of an epoch; None for the default.
        patience: epochs without a better one after which training stops, 0 for never; None for the default
            (`adaptation_patience`), or never where several trainings are compared.
        average: decay of a running mean of the weights, see Recipe; 0 for none.
        augmentation: how strongly batches are changed, one of AUGMENTATIONS.
    """

    data: CaseRequest
    out: Path
    base: Path | None = None
    model_type: str = ""
    method: str = AUTO
    epochs: int | None = None
    seed: int = 0
    upload: bool = False
    resume: bool = False
    rank: int | None = None
    form: Form = "lora-shared"
    schedule: str = "phased"
    reference: tuple[Path, ...] = ()
    replay: tuple[Path, ...] = ()
    server: str = ""
    trigger: str = "command"
    report: Path | None = None
    thrift: Thrift = field(default_factory=Thrift)
    minutes: float | None = None
    steps: int | None = None
    pull: float = 0.0
    elastic: bool = False
    options: tuple[str, ...] = ()
    patience: int | None = None
    average: float = 0.0
    augmentation: str = "plain"

    @property
    def wish(self) -> MethodWish:
        """The method and what was chosen about it."""
        return MethodWish(self.method, self.rank, self.form, self.schedule, self.pull, self.elastic, self.options)


@dataclass(frozen=True)
class Progress:
    """Where to tell what happens: what was taken and left, a stage in words, every finished epoch of how many.

    `stop` is asked before every epoch but the first whether to end with the best so far.
    """

    collected: Callable[[Collection], None] = lambda collection: None
    stage: Callable[[str], None] = lambda text: None
    epoch: Callable[[EpochRecord, int], None] = lambda record, epochs: None
    stop: Callable[[], bool] = lambda: False

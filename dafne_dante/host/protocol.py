"""What a host program offers to a plugin: the seam between us and any viewer, Dafne first.

Terms
- host: the program that shows images and holds the annotations; it calls `dafne_dante.register` with itself.
- current study: what the user annotates now, as a folder of labelled cases that the host wrote.
- current model: the model that the user segments with now.
- model provider: the host's own store of models, from which it segments.

Invariants: nothing here imports torch, Qt or numpy; a host calls the callbacks that it was given from any thread, and
they return within 50 ms; whatever takes longer goes through `run_in_background`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["API_VERSION", "CurrentModel", "Event", "Host", "ModelProvider", "Severity"]

API_VERSION = 1
"""The version of this protocol; a host that offers another one is refused."""

Event = Literal["annotation-saved", "study-opened", "study-closed"]
Severity = Literal["information", "warning", "error"]


@dataclass(frozen=True)
class CurrentModel:
    """The model that the user segments with: its `.model` file and the name of its type."""

    file: Path
    model_type: str


class ModelProvider(Protocol):
    """The host's own store of models."""

    def offer_model(self, model_type: str, file: Path) -> None:
        """Take an improved `.model` file for local use from now on; the host makes its own copy."""


class Host(Protocol):
    """A viewer, as a plugin sees it."""

    @property
    def api_version(self) -> int:
        """The version of this protocol that the host offers."""

    @property
    def model_provider(self) -> ModelProvider:
        """The host's store of models."""

    def add_action(self, action_id: str, label: str, callback: Callable[[], None]) -> None:
        """Add an entry to the host's menu; `callback` runs when the user chooses it."""

    def subscribe(self, event: Event, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the event happens."""

    def notify(self, text: str, severity: Severity) -> None:
        """Show one sentence to the user; may be called from any thread, never blocks."""

    def run_in_background(self, work: Callable[[], None]) -> None:
        """Run `work` away from the thread that paints, and return at once."""

    def current_study(self) -> Path | None:
        """Folder of labelled cases of what is annotated now; None when there is nothing."""

    def current_model(self) -> CurrentModel | None:
        """The model that is in use; None when there is none."""

    def result_folder(self) -> Path:
        """Folder for the files of an improvement; the host may empty it between two calls."""

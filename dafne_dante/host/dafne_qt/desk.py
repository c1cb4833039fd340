"""What Dafne's windows can ask of the plugin; no Qt here.

Invariants: everything but `forget_models` and `model_seen` may take a while and is called away from the thread that
paints; what is asked for is in the queue, on the disk, when the call returns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from dafne_dante.config import Settings, load_settings
from dafne_dante.errors import DanteError, ModelError
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.shown import (
    CaseLine,
    JobLine,
    LocalLine,
    Ready,
    VersionLine,
    case_lines,
    job_lines,
    local_lines,
    outbox_sentence,
    ready_to_improve,
    status_sentence,
    version_lines,
)
from dafne_dante.models.plan import ModelPlan, plan_from_net_metadata
from dafne_dante.plugin.job_states import Job, JobOptions
from dafne_dante.plugin.jobs import JobQueue, open_jobs
from dafne_dante.plugin.local.shelf import local_shelf
from dafne_dante.plugin.pausing import is_paused, set_paused
from dafne_dante.plugin.step_times import measure_elsewhere
from dafne_dante.plugin.stopping import stop_job
from dafne_dante.settings_editing import change_settings

__all__ = ["Activity", "Desk"]


@dataclass(frozen=True)
class Activity:
    """Jobs, models in use, what goes on and what waits to be sent in one sentence each, and whether it is paused."""

    jobs: list[JobLine]
    locals: list[LocalLine]
    told: str
    outbox: str
    paused: bool


class Desk:
    """The plugin's stores, as the windows use them.

    Attributes:
        settings, queue: replaced when somebody changes settings.
        forget_models: makes Dafne load its models anew; set by whoever knows its window.
        say: is told what went wrong where nobody waits for it.
        measure: how long a training step takes is found by this; a seam.
    """

    def __init__(
        self, settings: Settings, queue: JobQueue, *, measure: Callable[..., object] = measure_elsewhere
    ) -> None:
        self.settings, self.queue, self._measure = settings, queue, measure
        self.forget_models: Callable[[], None] = lambda: None
        self.say: Callable[[str], None] = lambda words: None
        self._seen: set[str] = set()

    def model_seen(self, model_type: str, model: Any) -> None:
        """Dafne loaded a model: find out in the background how long a step takes, for the dialog; returns at once."""
        metadata = getattr(model, "metadata", None)
        net = metadata.get("net_metadata") if isinstance(metadata, Mapping) else None
        if model_type in self._seen or not isinstance(net, Mapping) or not self.settings.server:
            return
        self._seen.add(model_type)
        try:
            plan = plan_from_net_metadata(net)
        except ModelError:
            return  # Dafne's own, which the plugin does not improve
        Thread(target=self._measured, args=(model_type, plan), name="dante-step", daemon=True).start()

    def _measured(self, model_type: str, plan: ModelPlan) -> None:
        try:
            self._measure(self.settings, model_type, plan)
        except DanteError as error:
            self.say(f"{model_type}: how long an improvement takes is not known: {error}")

    def ready(self, model_type: str) -> Ready:
        """See `shown.ready_to_improve`."""
        return ready_to_improve(self.settings, model_type, self.queue)

    def improve(self, model_type: str, method: str, *, send: bool) -> Job:
        """Put a job of the button into the queue, with the settings' minutes; errors as `JobQueue.add`."""
        minutes = self.settings.worker.job_minutes or None
        return self.queue.add(model_type, "button", JobOptions(method=method, upload=send, minutes=minutes))

    def stop(self, job_id: str, *, keep: bool) -> Job:
        """Stop a job within five seconds; `keep` measures and keeps the best so far (see `JobLine.can_keep`).

        Raises:
            TrainingError: the job has ended, or nothing is there to keep yet, and it goes on.
        """
        return stop_job(self.queue, job_id, self.settings, keep=keep)

    def activity(self) -> Activity:
        """Everything that the Activity window shows; DanteError where something cannot be read."""
        jobs, paused = job_lines(self.queue), is_paused(self.settings)
        sentence = status_sentence(self.queue, jobs)
        told = f"{words.STATUS_PAUSED if paused else ''}{sentence}".strip()
        return Activity(jobs, local_lines(self.settings), told, outbox_sentence(self.settings), paused)

    def choices(self, model_type: str) -> tuple[list[VersionLine], list[CaseLine]]:
        """Models of a type that can be used, and kept cases to compare two on; DanteError as `activity`."""
        return version_lines(self.settings, model_type), case_lines(self.settings)

    def use(self, model_type: str, number: int) -> None:
        """Use an improved model from now on, 0 the global one; the others stay. StorageError where the disk refuses."""
        shelf = local_shelf(self.settings, model_type)
        found = shelf.state().find(number)
        if found is not None:
            shelf.model_path(found)  # refused now, not when Dafne loads it
        what = f"to the improved model {number}" if number else "back to the global model"
        shelf.choose(number, f"somebody went {what}")
        self.forget_models()

    def compare(self, model_type: str, case_id: str, before: int, after: int) -> Path:
        """A page with two models side by side; errors as `compare_models`."""
        from dafne_dante.plugin.comparing import compare_models  # noqa: PLC0415 (seconds)

        return compare_models(self.settings, model_type, case_id, before, after)

    def pause(self, *, paused: bool) -> None:
        """Let what nobody asked for just now wait, or go on; StorageError where the disk refuses."""
        set_paused(self.settings, paused=paused)

    def change(self, changes: Mapping[str, Any]) -> str:
        """Change settings by their names, in force from the next job on; see `change_settings`."""
        told = change_settings(self.settings.folder, changes)
        self.settings = load_settings(self.settings.folder)
        self.queue = open_jobs(self.settings)
        return told

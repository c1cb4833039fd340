"""What Dafne's windows can ask of the plugin; no Qt here.

Invariants: everything but `forget_models` and `model_seen` may take a while and is called away from the thread that
paints; what is asked for is in the queue, on the disk, when the call returns.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from dafne_dante.config import Settings, SettingsLook, load_settings, look_at_settings
from dafne_dante.errors import ModelError, TrainingError
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.job_lines import JobLine, job_lines, status_sentence
from dafne_dante.host.dafne_qt.kept import CaseLine, case_lines, outbox_sentence
from dafne_dante.host.dafne_qt.model_lines import LocalLine, VersionLine, local_lines, version_lines
from dafne_dante.host.dafne_qt.model_plan import NOT_LOADED, Loaded, newest_plan
from dafne_dante.host.dafne_qt.readiness import Ready, ready_to_improve
from dafne_dante.host.dafne_qt.sending_lines import SentLine, WaitingLine, sent_lines, waiting_lines
from dafne_dante.host.guarding import Guard
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
    """Jobs, models in use, what goes on and what waits to be sent in one sentence each, and whether it is paused.

    `waiting` and `sent` say of each update what waits, and what has left.
    """

    jobs: list[JobLine]
    locals: list[LocalLine]
    told: str
    outbox: str
    paused: bool
    waiting: list[WaitingLine] = field(default_factory=list)
    sent: list[SentLine] = field(default_factory=list)


class Desk:
    """The plugin's stores, as the windows use them.

    Attributes:
        settings, queue: replaced when somebody changes settings.
        forget_models: makes Dafne load its models anew; set by whoever knows its window.
        newer: the global version of a type that Dafne found to be newer than what the improved one was compared with.
        say: is told what went wrong where nobody waits for it.
        measure: how long a training step takes is found by this; a seam.
    """

    def __init__(
        self, settings: Settings, queue: JobQueue, *, measure: Callable[..., object] = measure_elsewhere
    ) -> None:
        self.settings, self.queue, self._measure = settings, queue, measure
        self.forget_models: Callable[[], None] = lambda: None
        self.newer: dict[str, str] = {}
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
        # A name in braces is no place to fill in.
        with Guard(self.say, words.NOT_MEASURED.replace("{model_type}", re.sub("[{}]", "", model_type))):
            self._measure(self.settings, model_type, plan)

    def ready(self, model_type: str, loaded: Loaded = NOT_LOADED) -> Ready:
        """See `ready_to_improve`; `loaded` is what Dafne has of the type. Errors as there and `newest_plan`."""
        plan = partial(newest_plan, self.settings, model_type, loaded)
        is_foreign = loaded.is_loaded and loaded.plan is None
        return ready_to_improve(self.settings, model_type, None if is_foreign else plan, self.queue)

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

    def leave(self, job_ids: Sequence[str]) -> None:
        """Ask running jobs to end with the best so far, and wait for none of them; StorageError as the queue."""
        for job_id in job_ids:
            with suppress(TrainingError):  # it has ended by itself
                self.queue.ask_to_stop(job_id, "keep")

    def activity(self) -> Activity:
        """Everything that the Activity window shows; DanteError where something cannot be read."""
        jobs, paused = job_lines(self.queue), is_paused(self.settings)
        sentence = status_sentence(self.queue, jobs)
        told = f"{words.STATUS_PAUSED if paused else ''}{sentence} {self.settings.key_fault}".strip()
        waiting, sent = waiting_lines(self.settings, self.queue), sent_lines(self.settings, self.queue)
        models = local_lines(self.settings, self.newer)
        return Activity(jobs, models, told, outbox_sentence(self.settings), paused, waiting, sent)

    def choices(self, model_type: str) -> tuple[list[VersionLine], list[CaseLine]]:
        """Models of a type that can be used, and kept cases to compare two on; DanteError as `activity`."""
        return version_lines(self.settings, model_type), case_lines(self.settings)

    def use(self, model_type: str, number: int) -> None:
        """Use an improved model from now on, 0 the global one; the others stay. StorageError where the disk refuses."""
        shelf = local_shelf(self.settings, model_type)
        found = shelf.state().find(number)
        if found is not None:
            shelf.model_path(found)  # refused now, not when Dafne loads it
        shelf.choose(number, words.CHOSE_IMPROVED.format(number=number) if number else words.CHOSE_GLOBAL)
        self.forget_models()

    def compare(self, model_type: str, case_id: str, before: int, after: int) -> Path:
        """A page with two models side by side; errors as `compare_models`."""
        from dafne_dante.plugin.comparing import compare_models  # noqa: PLC0415 (seconds)

        return compare_models(self.settings, model_type, case_id, before, after)

    def pause(self, *, paused: bool) -> None:
        """Let what nobody asked for just now wait, or go on; StorageError where the disk refuses."""
        set_paused(self.settings, paused=paused)

    def look_at_settings(self) -> SettingsLook:
        """What is set, and where it is decided; StorageError where the keyring refuses."""
        return look_at_settings(self.settings.folder)

    def name_labels(self, names: Mapping[str, str]) -> None:
        """Let names of this site stand for labels of a model, from now on; errors as `change_settings`."""
        labels = {label: list(known) for label, known in self.settings.annotations.labels.items()}
        for name, label in names.items():
            labels.setdefault(label, []).append(name)
        self.change({"labels": labels})

    def change(self, changes: Mapping[str, Any]) -> str:
        """Change settings by their names, in force from the next job on; see `change_settings`."""
        told = change_settings(self.settings.folder, changes)
        self.settings = load_settings(self.settings.folder)
        self.queue = open_jobs(self.settings)
        return told

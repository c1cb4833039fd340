"""Starts Dafne's own client with the plugin; the only place where Dafne's program is run.

Invariants: Dafne's arguments are passed on as they are; without settings, a store or a server Dafne starts and works,
and what the plugin cannot do is written to Dafne's log.
"""

import sys
from collections.abc import Sequence
from typing import Any

from dafne_dante.config import Settings, load_settings
from dafne_dante.errors import DanteError
from dafne_dante.host.dafne_qt.drawn import drawn_study, model_type_of
from dafne_dante.host.dafne_qt.keeping import keep_save
from dafne_dante.host.dafne_qt.starting_jobs import JobStarter
from dafne_dante.plugin.job_states import JobOptions
from dafne_dante.plugin.jobs import JobQueue, open_jobs
from dafne_dante.plugin.worker_process import WorkerProcess

__all__ = ["start_dafne"]


def start_dafne(arguments: Sequence[str]) -> None:
    """Run Dafne until it is closed.

    Args:
        arguments: of Dafne's own command line, such as the path of a study.
    """
    from dafne.bin import dafne as program  # noqa: PLC0415 (seconds; and it opens Qt)
    from dafne.ui import MuscleSegmentation as module  # noqa: N813, PLC0415

    from dafne_dante.host.dafne_qt.window import with_hooks  # noqa: PLC0415

    try:
        settings = load_settings()
        queue = open_jobs(settings)
    except DanteError as error:
        _say(f"Dafne runs without the plugin: {error}")
    else:
        hooked = with_hooks(module.MuscleSegmentation, lambda window: _keep(window, settings, queue))
        module.MuscleSegmentation = program.MuscleSegmentation = hooked
        JobStarter(queue, lambda job_id: WorkerProcess(queue, job_id, settings), _say).start()
    sys.argv = ["dafne", *arguments]
    program.main()


def _keep(window: Any, settings: Settings, queue: JobQueue) -> None:
    try:
        study = drawn_study(window)
        if study is not None:
            model_type = model_type_of(window) if settings.server else ""
            keep_save(study, model_type, settings, queue, options=JobOptions(upload=True), say=_say)
    except DanteError as error:
        _say(f"the annotations were not kept: {error}")


def _say(words: str) -> None:
    print(f"dafne-dante: {words}", file=sys.stderr)  # Dafne shows its log to the person

"""Starts Dafne's own client with the plugin; the only place where Dafne's program is run.

Invariants: Dafne's arguments are passed on as they are; without settings, a store or a server Dafne starts and works,
and what the plugin cannot do is written to Dafne's log. Whatever fails in a hook stays there, and Dafne goes on.
Nothing is installed into Dafne: started without this, it is as it was, settings and cache of models included.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dafne_dante.config import load_settings
from dafne_dante.errors import DanteError, SettingsError
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.desk import Desk
from dafne_dante.host.dafne_qt.drawn import drawn_study, model_type_of
from dafne_dante.host.dafne_qt.log import say_to_log
from dafne_dante.host.dafne_qt.model_watch import ModelWatch
from dafne_dante.host.dafne_qt.provider import SiteFirstProvider, is_known
from dafne_dante.host.dafne_qt.repairing import Repair
from dafne_dante.host.dafne_qt.tending import Tending
from dafne_dante.host.guarding import Guard
from dafne_dante.host.keeping import keep_save
from dafne_dante.host.starting_jobs import JobStarter
from dafne_dante.plugin.jobs import automatic_options, open_jobs
from dafne_dante.plugin.pausing import is_paused
from dafne_dante.plugin.worker_process import WorkerProcess

if TYPE_CHECKING:
    from dafne_dante.host.dafne_qt.attaching import Attached

__all__ = ["Plugin", "start_dafne"]


class Plugin:
    """The plugin in one running Dafne; its methods are the hooks of `window`."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.attached: Attached | None = None

    def opened(self, window: Any) -> None:
        """Add the button and the menu entries, and begin with what waits."""
        with Guard(say_to_log, words.NOT_ATTACHED):
            self._open(window)

    def _open(self, window: Any) -> None:
        from dafne_dante.host.dafne_qt.attaching import Attached  # noqa: PLC0415 (Qt)

        self.attached = Attached(window, self.desk)
        desk = self.desk
        JobStarter(
            desk.queue,
            lambda job_id: WorkerProcess(desk.queue, job_id, desk.settings),
            say_to_log,
            is_paused=lambda: is_paused(desk.settings),
        ).start()
        ModelWatch(lambda: desk.settings, desk.forget_models, say_to_log).start()
        Tending(desk, say_to_log).start()

    def saved(self, window: Any) -> bool:
        """Keep what is drawn and, where there is a server, ask for a job that sends; whether Dafne need not learn."""
        with Guard(say_to_log, words.NOT_KEPT):
            return self._saved(window)
        return False

    def _saved(self, window: Any) -> bool:
        settings = self.desk.settings
        study = drawn_study(window)
        if study is None:
            return False
        wanted = bool(settings.server) and settings.worker.after_save
        model_type = self._improvable(window) if wanted else ""
        keep_save(study, model_type, settings, self.desk.queue, options=automatic_options(settings), say=say_to_log)
        return bool(model_type)

    def provider(self, provider: Any) -> Any:
        """Dafne's provider, with the site's improved models first."""
        self.desk.say = say_to_log
        with Guard(say_to_log, words.NOT_WRAPPED):
            return SiteFirstProvider(
                provider,
                self.desk.settings,
                say_to_log,
                newer=self.desk.newer.__setitem__,
                seen=self.desk.model_seen,
            )
        return provider

    def learns(self, window: Any) -> bool:
        """Keep what is drawn and open the dialog where the chosen model is one that the plugin can improve."""
        with Guard(say_to_log, words.NOT_OURS_TO_LEARN):
            return self._learns(window)
        return False

    def _learns(self, window: Any) -> bool:
        if self.attached is None or not self.desk.settings.server or not self._improvable(window):
            return False
        with Guard(say_to_log, words.NOT_KEPT):
            study = drawn_study(window)
            if study is not None:
                keep_save(study, "", self.desk.settings, self.desk.queue, say=say_to_log)
        self.attached.wanted.emit()
        return True

    def closing(self, window: Any) -> None:
        """Ask about the jobs that run, where somebody is there to answer."""
        with Guard(say_to_log, words.NOT_STOPPED):
            if self.attached is not None:
                self.attached.leave()

    def _improvable(self, window: Any) -> str:
        """The chosen model's type where the plugin can improve it, else "", and it is said why; as slow as Dafne is."""
        model_type = model_type_of(window)
        if not model_type:
            return ""
        model, _ = window.get_model_for_class(window.classifications[int(window.curImage)])
        if not is_known(model):
            say_to_log(words.OTHER_KIND_LOG.format(model_type=model_type))
            return ""
        return model_type


def start_dafne(arguments: Sequence[str]) -> None:
    """Run Dafne until it is closed.

    Args:
        arguments: of Dafne's own command line, such as the path of a study.

    Raises:
        SettingsError: Dafne is not installed here.
    """
    try:
        from PyQt5.QtWidgets import QApplication  # noqa: PLC0415 (it opens Qt)

        _application = QApplication.instance() or QApplication(["dafne"])  # Dafne's import asks for one
        from dafne.bin import dafne as program  # noqa: PLC0415 (seconds)
        from dafne.ui import MuscleSegmentation as module  # noqa: N813, PLC0415
    except ImportError as error:
        raise SettingsError(
            f"expected Dafne in this environment, found no {error.name}; install both into one"
        ) from error
    from dafne_dante.host.dafne_qt.window import Hooks, with_hooks  # noqa: PLC0415

    plugin = _plugin()
    hooks = Hooks(plugin.saved, plugin.opened, plugin.provider, plugin.learns, plugin.closing)
    module.MuscleSegmentation = program.MuscleSegmentation = with_hooks(module.MuscleSegmentation, hooks)
    sys.argv = ["dafne", *arguments]
    program.main()
    del _application


def _plugin() -> Plugin | Repair:
    """The plugin, or what stands in its place where settings or the queue of jobs cannot be used."""
    try:
        settings = load_settings()
        return Plugin(Desk(settings, open_jobs(settings)))
    except DanteError as error:
        say_to_log(words.WITHOUT_PLUGIN.format(why=error))
        return Repair(str(error))

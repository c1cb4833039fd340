"""Starts Dafne's own client with the plugin; the only place where Dafne's program is run.

Invariants: Dafne's arguments are passed on as they are; without settings, a store or a server Dafne starts and works,
and what the plugin cannot do is written to Dafne's log. Nothing is installed into Dafne: started without this, it is as
it was, settings and cache of models included.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dafne_dante.config import load_settings
from dafne_dante.errors import DanteError, SettingsError
from dafne_dante.host.dafne_qt.desk import Desk
from dafne_dante.host.dafne_qt.drawn import drawn_study, model_type_of
from dafne_dante.host.dafne_qt.provider import SiteFirstProvider, is_known
from dafne_dante.host.dafne_qt.words import WITHOUT_PLUGIN
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
        from dafne_dante.host.dafne_qt.attaching import Attached  # noqa: PLC0415 (Qt)

        self.attached = Attached(window, self.desk)
        desk = self.desk
        JobStarter(
            desk.queue,
            lambda job_id: WorkerProcess(desk.queue, job_id, desk.settings),
            _say,
            ended=self._forget,
            is_paused=lambda: is_paused(desk.settings),
        ).start()

    def _forget(self) -> None:
        self.desk.forget_models()

    def saved(self, window: Any) -> bool:
        """Keep what is drawn and, where there is a server, ask for a job that sends; whether Dafne need not learn."""
        settings = self.desk.settings
        try:
            study = drawn_study(window)
            if study is None:
                return False
            model_type = self._improvable(window) if settings.server else ""
            keep_save(study, model_type, settings, self.desk.queue, options=automatic_options(settings), say=_say)
        except DanteError as error:
            _say(f"the annotations were not kept: {error}")
            return False
        return bool(model_type)

    def provider(self, provider: Any) -> Any:
        """Dafne's provider, with the site's improved models first."""
        self.desk.say = _say
        return SiteFirstProvider(provider, self.desk.settings, _say, self.desk.model_seen)

    def learns(self, window: Any) -> bool:
        """Keep what is drawn and open the dialog where the chosen model is one that the plugin can improve."""
        if self.attached is None or not self.desk.settings.server or not self._improvable(window):
            return False
        study = drawn_study(window)
        try:
            if study is not None:
                keep_save(study, "", self.desk.settings, self.desk.queue, say=_say)
        except DanteError as error:
            _say(f"the annotations were not kept: {error}")
        self.attached.wanted.emit()
        return True

    def _improvable(self, window: Any) -> str:
        """The chosen model's type where the plugin can improve it, else "", and it is said why; as slow as Dafne is."""
        model_type = model_type_of(window)
        if not model_type:
            return ""
        model, _ = window.get_model_for_class(window.classifications[int(window.curImage)])
        if not is_known(model):
            _say(f"{model_type}: this kind of model learns in Dafne's own way")
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

    try:
        settings = load_settings()
        plugin = Plugin(Desk(settings, open_jobs(settings)))
    except DanteError as error:
        _say(WITHOUT_PLUGIN.format(why=error))
    else:
        hooks = Hooks(plugin.saved, plugin.opened, plugin.provider, plugin.learns)
        module.MuscleSegmentation = program.MuscleSegmentation = with_hooks(module.MuscleSegmentation, hooks)
    sys.argv = ["dafne", *arguments]
    program.main()
    del _application


def _say(told: str) -> None:
    print(f"dafne-dante: {told}", file=sys.stderr)  # Dafne shows its log to the person

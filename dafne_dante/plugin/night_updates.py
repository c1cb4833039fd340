"""What a night does for improved models whose global model is newer: each is compared with it, in its own process.

Invariants: it begins only after a night that came to its end, and ends when the night must; a type whose server does
not answer costs the others nothing.
"""

from collections.abc import Callable
from typing import Protocol

from dafne_dante.config import Settings
from dafne_dante.errors import DanteError
from dafne_dante.federation.client import FederationClient, connect
from dafne_dante.plugin.local.shelf import local_types
from dafne_dante.plugin.local.updating import UpdateProcess, is_behind

__all__ = ["Update", "update_improved_models"]

_LOOK_S = 0.2


class Update(Protocol):
    """What is needed of an `UpdateProcess`; a seam for tests."""

    def start(self) -> None:
        """Begin."""

    def wait(self, timeout_s: float) -> bool:
        """Whether it is over within the time."""

    def stop(self) -> None:
        """End it."""

    @property
    def told(self) -> str:
        """What came of it."""


def update_improved_models(
    settings: Settings,
    must_end: Callable[[], str],
    *,
    make_update: Callable[[Settings, str], Update] = UpdateProcess,
    connecting: Callable[[Settings], FederationClient] = connect,
) -> tuple[list[str], str]:
    """Carry every improved model over whose global model is newer, or drop it.

    Args:
        must_end: why the night must end now, in words; "" while it may go on.

    Returns:
        What came of each in words, and why it was ended early, "" when it was not.
    """
    told: list[str] = []
    for model_type in local_types(settings) if settings.server else ():
        if early := must_end():
            return told, early
        try:
            if not is_behind(settings, model_type, connecting(settings).model_info(model_type).latest_timestamp):
                continue
            words, early = _one(make_update(settings, model_type), must_end)
        except DanteError as error:
            words, early = f"the improved model stays as it is: {error}", ""
        if early:
            return told, early
        told.append(f"{model_type}: {words}")
    return told, ""


def _one(update: Update, must_end: Callable[[], str]) -> tuple[str, str]:
    update.start()
    over = early = None
    try:
        while not over and not early:
            over = update.wait(_LOOK_S)
            early = "" if over else must_end()
    finally:
        if not over:  # also when a person stops the run
            update.stop()
    return update.told, early or ""

"""Dafne's main window with hooks; made from Dafne's own class, nothing is changed in it.

Facts, from reading Dafne 2.1.0a0: saving runs in Dafne's pool of threads; the function that does it is found as
`__wrapped__`; a splash, put up by `setSplash(True, ...)`, locks the interface until the save puts it away. The toolbox
is made by `setupToolbar`, a provider is taken by `setModelProvider`, and stock learning is begun by the toolbox's
signal `incremental_learn`, after Dafne has asked the person. A save begins it too, of a 3D model after a question,
where `GlobalConfig["DO_INCREMENTAL_LEARNING"]` says so. `closeCB` is what matplotlib calls when the window is closed.

Invariants
- `saved` runs in Dafne's pool thread before Dafne saves, while the interface is locked, so that nobody draws while the
  annotations are copied; Dafne saves in every case.
- Stock learning of a model that `learns` takes is the plugin's; of any other it is Dafne's own, as it was.
- Where `saved` learns, that setting of Dafne's is off for the time of the save, in memory only, and then as it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dafne.config import GlobalConfig
from dafne.utils.ThreadHelpers import separate_thread_decorator

from dafne_dante.host.dafne_qt.words import KEEPING

__all__ = ["Hooks", "with_hooks"]

_STOCK_LEARNING = "DO_INCREMENTAL_LEARNING"


@dataclass(frozen=True)
class Hooks:
    """What is called with the window.

    Attributes:
        saved: before masks or a bundle are saved, in a pool thread; whether the plugin learns from it, not Dafne.
        opened: when the toolbox is there.
        provider: from Dafne's provider to the one that the window gets.
        learns: in a pool thread; whether the plugin learns in place of Dafne's own way.
        closing: before the window is gone, in the thread that paints; Dafne closes in every case.
    """

    saved: Callable[[Any], bool]
    opened: Callable[[Any], None]
    provider: Callable[[Any], Any]
    learns: Callable[[Any], bool]
    closing: Callable[[Any], None]


def with_hooks(window_class: Any, hooks: Hooks) -> Any:
    """A class of Dafne's window that calls the hooks."""
    saves = {
        name: _saving(getattr(window_class, name).__wrapped__, hooks.saved) for name in ("saveResults", "saveBundle")
    }

    def setup_toolbar(window: Any) -> None:
        window_class.setupToolbar(window)
        hooks.opened(window)

    def set_model_provider(window: Any, provider: Any) -> None:
        window_class.setModelProvider(window, hooks.provider(provider))

    def learn(window: Any) -> None:
        if not hooks.learns(window):
            window_class.incrementalLearnStandalone.__wrapped__(window)

    def close(window: Any, event: Any) -> None:
        hooks.closing(window)
        window_class.closeCB(window, event)

    return type(
        window_class.__name__,
        (window_class,),
        {
            **saves,
            "closeCB": close,
            "setupToolbar": setup_toolbar,
            "setModelProvider": set_model_provider,
            "incrementalLearnStandalone": separate_thread_decorator(learn),
        },
    )


def _saving(stock: Callable[..., None], saved: Callable[[Any], bool]) -> Any:
    def save(window: Any, *arguments: Any) -> None:
        window.setSplash(True, 0, 1, KEEPING)
        learns = False
        try:
            learns = saved(window)
        finally:
            with _stock_learning(off=learns):
                stock(window, *arguments)

    return separate_thread_decorator(save)


@contextmanager
def _stock_learning(*, off: bool) -> Iterator[None]:
    wanted = GlobalConfig[_STOCK_LEARNING]
    GlobalConfig[_STOCK_LEARNING] = wanted and not off
    try:
        yield
    finally:
        GlobalConfig[_STOCK_LEARNING] = wanted

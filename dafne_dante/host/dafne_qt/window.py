"""Dafne's main window with a hook where annotations are saved; made from Dafne's own class, nothing is changed in it.

Facts, from reading Dafne 2.1.0a0: saving runs in Dafne's pool of threads; the function that does it is found as
`__wrapped__`; a splash, put up by `setSplash(True, ...)`, locks the interface until the save puts it away.

Invariants: `saved` runs in Dafne's pool thread before Dafne saves, while the interface is locked, so that nobody draws
while the annotations are copied; Dafne saves in every case.
"""

from collections.abc import Callable
from typing import Any

from dafne.utils.ThreadHelpers import separate_thread_decorator

__all__ = ["with_hooks"]

_WORDS = "Keeping the annotations..."


def with_hooks(window_class: Any, saved: Callable[[Any], None]) -> Any:
    """A class of Dafne's window that calls `saved(window)` before masks or a bundle are saved."""
    return type(
        window_class.__name__,
        (window_class,),
        {name: _hooked(getattr(window_class, name).__wrapped__, saved) for name in ("saveResults", "saveBundle")},
    )


def _hooked(stock: Callable[..., None], saved: Callable[[Any], None]) -> Any:
    def save(window: Any, *arguments: Any) -> None:
        window.setSplash(True, 0, 1, _WORDS)
        try:
            saved(window)
        finally:
            stock(window, *arguments)

    return separate_thread_decorator(save)

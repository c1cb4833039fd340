"""Which models of a type there are at the site, in words; no Qt here; invariants as in `readiness`."""

from collections.abc import Mapping
from dataclasses import dataclass

from dafne_dante.config import Settings
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.moments import local_moment
from dafne_dante.plugin.local.shelf import local_shelf, local_types
from dafne_dante.plugin.local.versions import LocalState, LocalVersion

__all__ = ["LocalLine", "VersionLine", "local_lines", "version_lines"]

_IMPROVED = "improved here"


@dataclass(frozen=True)
class LocalLine:
    """Which model of a type Dafne uses, in words; `is_improved` when it is the site's own."""

    model_type: str
    told: str
    is_improved: bool


@dataclass(frozen=True)
class VersionLine:
    """A model that can be used: its number, 0 for the global one, what it is in words, and whether it is used."""

    number: int
    told: str
    is_used: bool


def local_lines(settings: Settings, newer: Mapping[str, str] | None = None) -> list[LocalLine]:
    """Every type with improved models; `newer`: the global version that Dafne found of a type; DanteError as read."""
    return [
        _local_line(local_shelf(settings, model_type).state(), (newer or {}).get(model_type, ""))
        for model_type in local_types(settings)
    ]


def _local_line(state: LocalState, newest: str) -> LocalLine:
    current, model_type = state.current, state.model_type
    if current is None:
        told = words.GLOBAL_USED.format(model_type=model_type, status=state.status)
        return LocalLine(model_type, told, is_improved=False)
    if int(newest or 0) > int(state.seen or 0):
        told = f"{words.NEWER_USED.format(model_type=model_type, version=newest)}."
        return LocalLine(model_type, told, is_improved=True)
    # That it was improved here is said already; what else became of it is news.
    status = "" if state.status.startswith(_IMPROVED) else f" ({state.status})"
    told = words.IMPROVED_USED.format(
        model_type=model_type, before=current.before, after=current.after, status=status
    )  # fmt: skip
    return LocalLine(model_type, told, is_improved=True)


def version_lines(settings: Settings, model_type: str) -> list[VersionLine]:
    """The global model and every improved one that is kept, the newest first; DanteError as `local_lines`."""
    state = local_shelf(settings, model_type).state()
    improved = [VersionLine(one.number, _version(one), one.number == state.chosen) for one in reversed(state.versions)]
    return [*improved, VersionLine(0, words.GLOBAL_MODEL, state.current is None)]


def _version(one: LocalVersion) -> str:
    when = local_moment(one.created_s)
    return words.IMPROVED_MODEL.format(number=one.number, before=one.before, after=one.after, when=when)

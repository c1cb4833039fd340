"""What a person may choose about a method, whether it fits, and the method that it makes.

Terms: an *option* is a choice of one method that has no flag of its own, as a person writes it: `name=value`.

Invariants
- What does not fit the method is refused, never ignored, and all of it at once, before anything is read.
- `auto` takes what one of the methods that it may choose has; what does not fit the one that it chose is told.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from types import MappingProxyType
from typing import Any, NamedTuple

from dafne_dante.adaptation.gradual import gradual_unfreezing_by
from dafne_dante.adaptation.layers import KINDS
from dafne_dante.adaptation.low_rank import Form
from dafne_dante.adaptation.method import method_named
from dafne_dante.adaptation.protocol import Method
from dafne_dante.errors import SettingsError

__all__ = ["METHOD_OPTIONS", "MethodWish", "check_wish", "make_method", "unused_words"]

_RANK = 8
_FORM: Form = "lora-shared"
_SCHEDULE = "phased"
_OPEN = "auto"
_PULLED = ("full", "gradual-unfreezing", "lora")
_MOST_LETTERS = 60


class _Option(NamedTuple):
    """What an option may be, in words, and what reads it; ValueError where it is something else."""

    words: str
    read: Callable[[str], Any]


@dataclass(frozen=True)
class MethodWish:
    """A method and what somebody chose about it.

    Attributes:
        name: one of METHOD_NAMES, or auto.
        rank, form: of LoRA; None for a rank of 8.
        schedule: of gradual unfreezing, one of SCHEDULE_NAMES.
        pull: how strongly weights are drawn back to the global model's (of LoRA, factors to where they began).
        elastic: of full fine-tuning, whether by how much each weight matters for the model's own domain.
        options: `name=value` each, of METHOD_OPTIONS.
    """

    name: str
    rank: int | None = None
    form: Form = _FORM
    schedule: str = _SCHEDULE
    pull: float = 0.0
    elastic: bool = False
    options: tuple[str, ...] = ()


def check_wish(wish: MethodWish) -> None:
    """Whether everything that was chosen fits the method.

    Raises:
        SettingsError: something does not; all of it is told.
    """
    if faults := [*_misplaced(wish), *_faults_of_options(wish)]:
        raise SettingsError(f"expected choices that fit the method {wish.name}, found {'; '.join(faults)}")


def unused_words(wish: MethodWish, chosen: str) -> str:
    """Which of the choices `auto` had no use for, for a person; "" where it used them all."""
    unused = [words for words, methods in _choices(wish) if chosen not in methods]
    return f"{chosen} has no use for {', '.join(unused)}" if unused else ""


def make_method(wish: MethodWish) -> Method:
    """A new method as wished, its name being no longer open.

    Raises:
        SettingsError: an option that does not fit, see `check_wish`.
        TrainingError: there is no such method or schedule, or a value is out of its range.
    """
    options = _options_of(wish)
    if wish.name == "gradual-unfreezing":
        return gradual_unfreezing_by(wish.schedule, pull_to_start=wish.pull, **options)
    if wish.name == "lora":
        return method_named("lora", rank=wish.rank or _RANK, form=wish.form, pull_to_start=wish.pull, **options)
    if wish.name == "full":
        return method_named("full", pull_to_start=wish.pull, elastic=wish.elastic)
    return method_named(wish.name)


def _choices(wish: MethodWish) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every choice that was made, in words, with the methods that it is of."""
    if wish.rank is not None:
        yield f"--rank {wish.rank}", ("lora",)
    if wish.form != _FORM:
        yield f"--form {wish.form}", ("lora",)
    if wish.schedule != _SCHEDULE:
        yield f"--schedule {wish.schedule}", ("gradual-unfreezing",)
    if wish.pull:
        yield f"--pull {wish.pull:g}", _PULLED
    if wish.elastic:
        yield "--elastic", ("full",)


def _misplaced(wish: MethodWish) -> Iterator[str]:
    possible = ("lora", "gradual-unfreezing") if wish.name == _OPEN else (wish.name,)
    for words, methods in _choices(wish):
        if not set(methods) & set(possible):
            yield f"{words}, which is of {', '.join(methods)}"
    if wish.elastic and not wish.pull:
        yield "--elastic without a pull; give --pull a number above 0"


def _faults_of_options(wish: MethodWish) -> Iterator[str]:
    if wish.options and wish.name == _OPEN:
        yield "--option, which is of a method by name; name it with --method"
        return
    known, seen = METHOD_OPTIONS.get(wish.name, {}), set()
    expected = ", ".join(f"{name} ({option.words})" for name, option in known.items()) or "none"
    for text in wish.options:
        name, separator, value = text.partition("=")
        if not separator or name not in known:
            yield f"--option {text[:_MOST_LETTERS]}, where its options are {expected}"
        elif name in seen:
            yield f"--option {name} twice"
        else:
            seen.add(name)
            try:
                known[name].read(value)
            except ValueError:
                yield f"--option {text[:_MOST_LETTERS]}, where {name} is {known[name].words}"


def _options_of(wish: MethodWish) -> dict[str, Any]:
    if faults := list(_faults_of_options(wish)):
        raise SettingsError(f"expected options that fit the method {wish.name}, found {'; '.join(faults)}")
    known = METHOD_OPTIONS.get(wish.name, {})
    pairs = [text.partition("=") for text in wish.options]
    return {name: known[name].read(value) for name, _, value in pairs}


def _number(least: float, most: float, *, with_least: bool = False, with_most: bool = False) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        above = value >= least if with_least else value > least
        below = value <= most if with_most else value < most
        if not (isfinite(value) and above and below):
            raise ValueError("out of range")
        return value

    return read


def _names(allowed: tuple[str, ...] = ()) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(name for part in text.split(",") if (name := part.strip()))
        if not names or (allowed and not set(names) <= set(allowed)):
            raise ValueError("no names, or unknown ones")
        return names

    return read


METHOD_OPTIONS: Mapping[str, Mapping[str, _Option]] = MappingProxyType(
    {
        "lora": {
            "b_learning_rate_scale": _Option("a number above 0", _number(0, inf)),
            "dropout": _Option("a number from 0 to below 1", _number(0, 1, with_least=True)),
            "kinds": _Option(f"some of {'/'.join(KINDS)}, separated by commas", _names(KINDS)),
            "layers": _Option("names of layers with * and ?, separated by commas", _names()),
            "scale": _Option("a number above 0", _number(0, inf)),
        },
        "gradual-unfreezing": {
            "learning_rate_decay": _Option("a number above 0 to 1", _number(0, 1, with_most=True)),
        },
    }
)
"""By method what `--option` may name; attributes of the method's class."""

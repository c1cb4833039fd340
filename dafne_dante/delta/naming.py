"""Names in a delta file: of weights, of stored tensors, and how a stranger's name is shown.

Terms: a *weight* is a state-dict name of the base; each of its updates is stored under the weight's name and a part:
`<weight>#d` (dense), `<weight>#a` and `<weight>#b` (low-rank factors). A part in int8 has a companion
`<part>#rows`, the float32 scale of each of its rows.

Invariants: a weight's name is 1 to 256 printable ASCII characters without `#`, so a stored name has one reading.
"""

import re
from typing import Literal

from dafne_dante.errors import DeltaFormatError

__all__ = ["Part", "check_weight_name", "parts_of", "rows_name", "shown", "stored_name"]

Part = Literal["a", "b", "d"]
_WEIGHT_NAME = re.compile(r"[!-\"$-~]{1,256}")
_SHOWN_CHARACTERS = 120


def check_weight_name(name: str) -> None:
    """DeltaFormatError unless `name` may be a weight's name (module docstring)."""
    if not _WEIGHT_NAME.fullmatch(name):
        raise DeltaFormatError(f"expected a weight's name of printable ASCII without #, found {shown(name)}")


def stored_name(weight: str, part: Part) -> str:
    """The name under which a part of the weight's update is stored."""
    return f"{weight}#{part}"


def rows_name(stored: str) -> str:
    """The name of the row scales that belong to a stored int8 tensor."""
    return f"{stored}#rows"


def parts_of(kind: str) -> tuple[Part, ...]:
    """The parts that make an update of that kind."""
    return ("d",) if kind == "dense" else ("a", "b")


def shown(name: str) -> str:
    """A name that may come from a stranger, escaped and short enough for a message."""
    return ascii(name)[1:-1][:_SHOWN_CHARACTERS]

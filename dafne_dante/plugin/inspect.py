"""What a file holds, before it leaves the house: for a `.model` or a `.delta`, as JSON values and in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dafne_dante.delta.describe import describe_delta
from dafne_dante.durable import read_bounded
from dafne_dante.models.describe import describe_model
from dafne_dante.models.file import parse_model

__all__ = ["describe_file", "describe_in_words"]

_MAX_BYTES = 2 * 1024**3
_MAX_HEADER_BYTES = 8 * 1024**2


def describe_file(path: Path) -> dict[str, Any]:
    """Everything in a model or a delta that a person would want to know; the file's beginning tells which it is.

    Raises:
        StorageError: the file cannot be read.
        ModelError, DeltaError: it is neither a safe model nor a proper delta.
    """
    content = read_bounded(path, max_bytes=_MAX_BYTES)
    if _begins_like_a_delta(content):
        return describe_delta(content)
    return {**describe_model(parse_model(content)), "bytes": len(content)}


def _begins_like_a_delta(content: bytes) -> bool:
    """A safetensors file begins with the length of its header, eight bytes, and the header's brace."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= _MAX_HEADER_BYTES


def describe_in_words(description: Mapping[str, Any]) -> str:
    """The description as lines for a person; a table of weights with one row each."""
    lines: list[str] = []
    for name, value in description.items():
        if name == "weights":
            lines += ["", *_table([_HEAD, *(_row(row) for row in value)]), ""]
        elif name != "statement":
            lines.append(f"{name.replace('_', ' ')}: {_text(value)}")
    if "statement" in description:
        lines += ["", str(description["statement"])]
    return "\n".join(lines)


_HEAD = ("weight", "kind", "rank", "stored as", "bytes", "length")
_LEFT = 4
"""So many columns are texts; the others are numbers, which end in one line."""


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    rank = "-" if row["rank"] is None else str(row["rank"])
    return (row["weight"], row["kind"], rank, "/".join(row["dtype"]), str(row["bytes"]), f"{row['length']:.4g}")


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return ["  ".join(_cell(row[column], column, widths[column]) for column in range(len(_HEAD))) for row in rows]


def _cell(text: str, column: int, width: int) -> str:
    return text.ljust(width) if column < _LEFT else text.rjust(width)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(inner) for inner in value) or "-"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

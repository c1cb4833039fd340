"""What a file holds, before it leaves the house, as JSON values and in words.

For a `.model`, a `.delta`, and what else leaves a site: a bundle, a sealed file, a withdrawal.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dafne_dante.delta.describe import describe_delta
from dafne_dante.delta.sealing import is_sealed
from dafne_dante.delta.signing import fingerprint
from dafne_dante.durable import read_bounded
from dafne_dante.errors import StorageError
from dafne_dante.federation.parcel import Kind, Parcel, open_parcel
from dafne_dante.federation.withdrawal import Withdrawal, is_withdrawal, read_withdrawal
from dafne_dante.models.describe import describe_model
from dafne_dante.models.file import parse_model

__all__ = ["describe_file", "describe_in_words"]

_MAX_BYTES = 2 * 1024**3
_MAX_HEADER_BYTES = 8 * 1024**2
_BUNDLE = b'{"manifest":'
_BUNDLES: Mapping[Kind, str] = {"model": "a global model", "updates": "updates of a site", "receipt": "a receipt"}

_BUNDLE_STATEMENT = (
    "A signed file for a stick. Its items are files of their own: dafne-dante bundle import takes them, "
    "dafne-dante inspect UPDATE_ID shows an update that waits in the outbox here."
)
_SEALED_STATEMENT = (
    "Closed to the operator's seal key: nobody else can read it, nor can this site. The audit log names the update by "
    "this SHA-256 (sealed_sha256, or sha256 of a packed one); the outbox keeps its open file until it has left: "
    "dafne-dante inspect UPDATE_ID."
)
_WITHDRAWAL_STATEMENT = (
    "Says that a site takes back the update of this update_id, and nothing else: no image, no weights."
)


def describe_file(path: Path) -> dict[str, Any]:
    """Everything in a file of ours that a person would want to know; its beginning tells which it is.

    Raises:
        StorageError: the file cannot be read.
        TrustError: a bundle that was changed.
        ModelError, DeltaError: it is neither a safe model nor a proper file of ours.
    """
    if _beginning(path)[8:].startswith(_BUNDLE):
        return _describe_bundle(open_parcel(path))
    content = read_bounded(path, max_bytes=_MAX_BYTES)
    if is_sealed(content):
        return _describe_sealed(content)
    if is_withdrawal(content):
        return _describe_withdrawal(read_withdrawal(content))
    if _begins_like_a_delta(content):
        return describe_delta(content)
    return {**describe_model(parse_model(content)), "bytes": len(content)}


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(64)
    except OSError as error:
        raise StorageError(f"cannot read {path.name}: {error.strerror or type(error).__name__}") from error


def _describe_bundle(parcel: Parcel) -> dict[str, Any]:
    content = parcel.content
    return {
        "file": f"bundle with {_BUNDLES[content.kind]}",
        "packed_by": fingerprint(parcel.public_key),
        "server": content.server,
        "created": content.created,
        "items": [f"{item.model_type} {item.name}, {item.size_bytes} bytes" for item in content.items],
        "statement": _BUNDLE_STATEMENT,
    }


def _describe_sealed(content: bytes) -> dict[str, Any]:
    return {
        "file": "sealed update or withdrawal",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "statement": _SEALED_STATEMENT,
    }


def _describe_withdrawal(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "file": "withdrawal",
        "update_id": withdrawal.update_id,
        "model_type": withdrawal.model_type,
        "created": withdrawal.created,
        "signed_by": fingerprint(withdrawal.public_key),
        "statement": _WITHDRAWAL_STATEMENT,
    }


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

"""JSON in one canonical form, so that equal content has equal bytes.

Terms: the *canonical form* is one JSON object with keys sorted by code point, no spaces, UTF-8, only those characters
escaped that JSON wants escaped (`"`, the backslash and U+0000 to U+001F), and numbers as Python's `repr` writes them.

Invariants: what is not the canonical form is refused, so no two files say the same in different bytes; a key that
occurs twice, NaN and infinity are refused whatever the parser would make of them.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from dafne_dante.delta.naming import shown
from dafne_dante.errors import DeltaFormatError

__all__ = ["canonical_bytes", "parse_canonical", "parse_strict"]


def canonical_bytes(document: Mapping[str, Any]) -> bytes:
    """The canonical form; ValueError for NaN, infinity or text that is not Unicode."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def parse_canonical(content: bytes, what: str) -> dict[str, Any]:
    """The object in `content`; DeltaFormatError, saying `what` it was to be, unless that is its canonical form."""
    document = parse_strict(content, what)
    try:
        same = canonical_bytes(document) == content
    except (ValueError, RecursionError) as error:
        raise DeltaFormatError(f"expected {what} with finite numbers and proper text, found others") from error
    if not same:
        raise DeltaFormatError(f"expected {what} in canonical form, found the same content in other bytes")
    return document


def parse_strict(content: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `content`, each key once, no NaN or infinity; DeltaFormatError otherwise."""
    try:
        document = json.loads(
            content.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        # The parser's own message may quote the content, which is a stranger's.
        raise DeltaFormatError(
            f"expected {what} to be JSON, found a fault ({type(error).__name__}); ask the sender to send it again"
        ) from None
    if not isinstance(document, dict):
        raise DeltaFormatError(f"expected {what} to be a JSON object, found another value")
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DeltaFormatError(f"expected every key once, found {shown(key)} twice")
        found[key] = value
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise DeltaFormatError(f"expected finite numbers, found {constant}")

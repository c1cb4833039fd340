"""The statement that an operator signs for every global model that is published.

Terms: a *release* is one published version of a model type; its *number* rises by at least one with every release that
an operator signs for a type. The *statement* is the canonical JSON (`delta.canonical`) of a `Release`, the bytes that
are signed.

Invariants: exactly the keys of `Release`, each of its type and within its bounds; at most MAX_BYTES; no free text, path
or host name beyond what the model's own plan holds; a release that goes back carries a higher number, too, and names
the lower one whose model it brings back.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.errors import DeltaFormatError, TrustError, UnsupportedModelError

__all__ = ["FORMAT", "MAX_BYTES", "VERSION", "Release", "parse_release", "release_bytes"]

FORMAT = "dafne-dante-release"
VERSION = 1
MAX_BYTES = 256 * 1024
_MAX_NUMBER = 2**53
_MAX_SOURCES = 32
_WHAT = "the operator's statement"
_PATTERNS: Mapping[str, str] = {
    "model_type": r"[A-Za-z0-9() -]{1,100}",
    "model_id": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "weights_sha256": r"[0-9a-f]{64}",
    "dependencies_sha256": r"[0-9a-f]{64}",
    "previous_sha256": r"([0-9a-f]{64})?",
    "created": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}Z",
    "software": r"[a-z][a-z0-9-]{0,31} [0-9A-Za-z.+]{1,32}",
}


@dataclass(frozen=True)
class Release:
    """What an operator says of one global model.

    Attributes:
        model_type: the type's name on the server; the model is to be taken under no other.
        model_id: the family, uuid as text.
        number: 1 or more; rises with every release of the type.
        weights_sha256: `models.global_model.digest_weights`.
        plan: the plan as `net_metadata`, plain JSON values.
        sources: function name to the SHA-256 of its text in UTF-8, all that the file holds.
        dependencies_sha256: of the packages that stock clients install for the model, see `model_signature`.
        previous_sha256: digest of the weights of the version before; "" for a type's first. For the lineage only.
        rollback_to: the number whose model this release brings back; 0 when it brings none back.
        created: UTC to the minute, "2026-11-23T01:05Z".
        software: name and version, "dafne-dante 0.1.0".
    """

    model_type: str
    model_id: str
    number: int
    weights_sha256: str
    plan: Mapping[str, Any]
    sources: Mapping[str, str]
    dependencies_sha256: str
    previous_sha256: str
    rollback_to: int
    created: str
    software: str
    format: str = FORMAT
    version: int = VERSION


_KEYS = frozenset(item.name for item in fields(Release))


def release_bytes(release: Release) -> bytes:
    """The statement; UnsupportedModelError where the model's plan cannot be said in JSON, or is too long.

    Raises:
        TrustError: another value is out of bounds.
    """
    _check(release)
    try:
        content = canonical_bytes(asdict(release))
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsupportedModelError("expected a plan of JSON values to sign, found others; train it again") from error
    if len(content) > MAX_BYTES:
        raise UnsupportedModelError(f"expected a plan that is signed in {MAX_BYTES} bytes, found a longer one")
    return content


def parse_release(content: bytes) -> Release:
    """Read a statement, whoever signed it.

    Raises:
        TrustError: too long, not in canonical form, a key too many or missing, or a value out of bounds.
    """
    if len(content) > MAX_BYTES:
        raise TrustError(f"expected {_WHAT} in at most {MAX_BYTES} bytes, found more")
    try:
        document = parse_canonical(content, _WHAT)
    except DeltaFormatError as error:
        raise TrustError(str(error)) from error
    # The version comes first: a later one may well have other keys.
    if document.get("format") != FORMAT or type(document.get("version")) is not int or document["version"] != VERSION:
        raise TrustError(f"expected {_WHAT} in format {FORMAT} {VERSION}, found another; update dafne-dante")
    if document.keys() != _KEYS:
        raise TrustError(f"expected {_WHAT} with the keys of version {VERSION} and no others, found others")
    release = Release(**document)
    _check(release)
    return release


def _check(release: Release) -> None:
    for name, pattern in _PATTERNS.items():
        value = getattr(release, name)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise TrustError(f"expected a well-formed {name} in {_WHAT}, found another value")
    if type(release.number) is not int or not 1 <= release.number <= _MAX_NUMBER:
        raise TrustError(f"expected a number from 1 in {_WHAT}, found another value")
    if type(release.rollback_to) is not int or not 0 <= release.rollback_to < release.number:
        raise TrustError(f"expected rollback_to below the number in {_WHAT}, found another value")
    if not isinstance(release.plan, Mapping):
        raise TrustError(f"expected a plan in {_WHAT}, found another value")
    _check_sources(release.sources)


def _check_sources(sources: object) -> None:
    well_formed = isinstance(sources, Mapping) and len(sources) <= _MAX_SOURCES
    if not well_formed or not all(_is_source(name, digest) for name, digest in sources.items()):  # type: ignore[attr-defined]
        raise TrustError(f"expected the digests of at most {_MAX_SOURCES} functions in {_WHAT}, found another value")


def _is_source(name: object, digest: object) -> bool:
    texts = isinstance(name, str) and isinstance(digest, str)
    return texts and bool(re.fullmatch(r"[a-z_]{1,64}_function", name)) and bool(re.fullmatch(r"[0-9a-f]{64}", digest))  # type: ignore[call-overload]

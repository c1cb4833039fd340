"""A bundle for a USB stick: one signed file that carries a global model, updates, or a receipt for them.

Layout: 8 bytes, little-endian, the header's length; the header, canonical JSON (`delta.canonical`) with the texts
`manifest`, `public_key` and `signature`; then the bytes of the manifest's items, in their order, to the file's end.
The signature is Ed25519 over the manifest's bytes, by the key of whoever packed it.

Terms: an *item* is a file that is carried, known by its SHA-256; a *receipt* names items and carries none.

Invariants: no name or path from the file is ever followed: items have none, and land where the caller says; the header
is bounded, the items must fill the file exactly, and an item is copied only with the digest that was signed. A bundle
says who packed it, not that its content is good: models and updates are judged by their own signatures as over HTTP.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Literal, get_args
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante._version import __version__
from dafne_dante.delta.canonical import canonical_bytes, parse_canonical
from dafne_dante.delta.signing import PublicKeyText, fingerprint, is_signed_by, public_key_text, sign
from dafne_dante.durable import write_stream_atomically
from dafne_dante.errors import DeltaFormatError, ServerAnswerError, StorageError, TrustError

__all__ = ["Content", "Item", "Kind", "Parcel", "check_packer", "new_content", "open_parcel", "write_parcel"]

Kind = Literal["model", "updates", "receipt"]

_FORMAT, _VERSION = "dafne-dante-bundle", 1
_MAX_HEADER_BYTES = 2 * 1024**2
_MAX_ITEM_BYTES = 2 * 1024**3
_MAX_ITEMS = 1000
_LENGTH_BYTES = 8
_BLOCK_BYTES = 1 << 20
_PATTERNS: Mapping[str, str] = {
    "parcel_id": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "answers": r"([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?",
    "server": r"https?://[!-~]{1,500}",
    "created": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}Z",
    "software": r"dafne-dante [0-9A-Za-z.+]{1,32}",
}
_ITEM_PATTERNS: Mapping[str, str] = {
    "name": r"[0-9a-f-]{1,36}",
    "model_type": r"[A-Za-z0-9() -]{1,100}",
    "sha256": r"[0-9a-f]{64}",
}


@dataclass(frozen=True)
class Item:
    """One file.

    Attributes:
        name: a model's version, an update's update_id; never a path.
        model_type: its type on the server.
        sha256, size_bytes: of the file.
        dice: on held-out cases, of an update; 0 for a model.
    """

    name: str
    model_type: str
    sha256: str
    size_bytes: int
    dice: float = 0.0


@dataclass(frozen=True)
class Content:
    """What a bundle says of itself: the manifest.

    Attributes:
        kind: what it is for.
        parcel_id: uuid4 as text.
        answers: of a receipt, the parcel_id of the bundle that it is for; else "".
        server: base URL of the federation server in whose place it goes.
        capability: of a model, what the type's `model.json` says under `dafne_dante`; else empty.
        items: in the order of their bytes.
        created: UTC to the minute.
        software: name and version.
    """

    kind: Kind
    parcel_id: str
    server: str
    items: tuple[Item, ...]
    created: str
    software: str
    answers: str = ""
    capability: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parcel:
    """A bundle on the disk whose layout was checked and whose signature is that of `public_key`, whoever that is."""

    path: Path
    content: Content
    public_key: PublicKeyText
    body_at: int

    def copy(self, item: Item, destination: Path) -> Path:
        """Write an item's bytes to `destination`, whole or not at all.

        Raises:
            ServerAnswerError: they are not those that were signed.
            StorageError: the stick or the disk refuses.
        """
        offset = self.body_at
        for one in self.content.items:
            if one == item:
                break
            offset += one.size_bytes
        try:
            with self.path.open("rb") as source:
                source.seek(offset)
                write_stream_atomically(destination, lambda target: _copy(source, target, item), mode=0o600)
        except OSError as error:
            raise StorageError(f"cannot read {self.path.name}: {error.strerror or type(error).__name__}") from error
        return destination


def new_content(
    kind: Kind, server: str, items: Sequence[Item], *, answers: str = "", capability: Mapping[str, Any] | None = None
) -> Content:
    """A manifest of now, with an id of its own."""
    created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
    software = f"dafne-dante {__version__}"
    return Content(kind, str(uuid4()), server, tuple(items), created, software, answers, dict(capability or {}))


def write_parcel(path: Path, content: Content, files: Sequence[Path], key: Ed25519PrivateKey) -> None:
    """Pack `files`, which are the content's items in their order (none for a receipt), signed by `key`.

    Raises:
        DeltaFormatError: the content is out of bounds.
        StorageError: the disk refuses, or a file is not what its item says.
    """
    _check(content)
    manifest = canonical_bytes({"format": _FORMAT, "version": _VERSION, **asdict(content)})
    texts = {"manifest": manifest.decode(), "public_key": public_key_text(key), "signature": sign(key, manifest)}
    header = canonical_bytes(texts)
    if len(header) > _MAX_HEADER_BYTES:
        raise DeltaFormatError(f"expected a bundle's header of at most {_MAX_HEADER_BYTES} bytes; pack less at once")

    def fill(target: IO[bytes]) -> None:
        target.write(len(header).to_bytes(_LENGTH_BYTES, "little") + header)
        for item, file in zip(_carried(content), files, strict=True):
            with file.open("rb") as source:
                _copy(source, target, item)

    try:
        write_stream_atomically(path, fill, mode=0o600)
    except ServerAnswerError as error:
        raise StorageError("expected the files to stay as they are while they are packed; try again") from error


def open_parcel(path: Path) -> Parcel:
    """Read a bundle's header and check its signature, bounds and length; nothing is copied yet.

    Raises:
        DeltaFormatError: not a bundle, or one that breaks its rules.
        TrustError: the signature is not that of the key that it names.
        StorageError: it cannot be read.
    """
    header, size = _read_header(path)
    texts = parse_canonical(header, "a bundle's header")
    if texts.keys() != {"manifest", "public_key", "signature"} or not all(
        isinstance(one, str) for one in texts.values()
    ):
        raise DeltaFormatError("expected manifest, public_key and signature in a bundle's header, found others")
    manifest = texts["manifest"].encode("utf-8", "surrogatepass")
    if not is_signed_by(texts["public_key"], texts["signature"], manifest):
        raise TrustError(
            "expected a bundle with a valid signature, found another; it was changed, have it packed again"
        )
    content = _parse(parse_canonical(manifest, "a bundle's manifest"))
    body_at = _LENGTH_BYTES + len(header)
    expected = body_at + sum(item.size_bytes for item in _carried(content))
    if size != expected:
        raise DeltaFormatError(f"expected a bundle of {expected} bytes, found {size}; copy it again")
    return Parcel(path, content, texts["public_key"], body_at)


def check_packer(parcel: Parcel, trusted: Collection[PublicKeyText]) -> None:
    """TrustError unless a key that is trusted packed the bundle."""
    if parcel.public_key not in trusted:
        raise TrustError(
            f"expected a bundle by a key that is trusted here, found one by {fingerprint(parcel.public_key)}; compare "
            f"that by telephone, then: dafne-dante keys trust {parcel.public_key} --name NAME"
        )


def _carried(content: Content) -> tuple[Item, ...]:
    return () if content.kind == "receipt" else content.items


def _read_header(path: Path) -> tuple[bytes, int]:
    """The header's bytes and the file's size."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            start = stream.read(_LENGTH_BYTES)
            length = int.from_bytes(start, "little")
            if len(start) < _LENGTH_BYTES or not 2 <= length <= min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
                raise DeltaFormatError(f"expected a bundle, found {path.name} to be a file of another kind")
            return stream.read(length), size
    except OSError as error:
        raise StorageError(f"cannot read {path.name}: {error.strerror or type(error).__name__}") from error


def _copy(source: IO[bytes], target: IO[bytes], item: Item) -> None:
    digest, left = hashlib.sha256(), item.size_bytes
    while left and (block := source.read(min(_BLOCK_BYTES, left))):
        digest.update(block)
        target.write(block)
        left -= len(block)
    if left or digest.hexdigest() != item.sha256:
        raise ServerAnswerError("expected the bytes that were signed, found others in the bundle; copy it again")


_KEYS = frozenset({"format", "version"} | {one.name for one in fields(Content)})
_ITEM_KEYS = frozenset(one.name for one in fields(Item))


def _parse(document: Mapping[str, Any]) -> Content:
    if document.get("format") != _FORMAT or type(document.get("version")) is not int or document["version"] != _VERSION:
        raise DeltaFormatError(f"expected a bundle in format {_FORMAT} {_VERSION}, found another; update dafne-dante")
    items = document.get("items")
    if document.keys() != _KEYS or not isinstance(items, list) or len(items) > _MAX_ITEMS:
        raise _malformed("its keys")
    if not all(isinstance(item, dict) and item.keys() == _ITEM_KEYS for item in items):
        raise _malformed("its items")
    told = {name: document[name] for name in _KEYS - {"format", "version", "items"}}
    content = Content(**told, items=tuple(Item(**item) for item in items))
    _check(content)
    return content


def _check(content: Content) -> None:
    for name, pattern in _PATTERNS.items():
        _check_text(name, getattr(content, name), pattern)
    if content.kind not in get_args(Kind) or (content.kind == "model" and len(content.items) != 1):
        raise _malformed("its kind")
    if len(content.items) > _MAX_ITEMS or not isinstance(content.capability, Mapping):
        raise _malformed("its items")
    for item in content.items:
        for name, pattern in _ITEM_PATTERNS.items():
            _check_text(name, getattr(item, name), pattern)
        if type(item.size_bytes) is not int or not 0 < item.size_bytes <= _MAX_ITEM_BYTES:
            raise _malformed("an item's size")
        if isinstance(item.dice, bool) or not isinstance(item.dice, int | float) or not 0 <= item.dice <= 1:
            raise _malformed("an item's Dice")
    if len({item.sha256 for item in content.items}) < len(content.items):
        raise _malformed("an item that occurs twice")


def _check_text(name: str, value: object, pattern: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise _malformed(name)


def _malformed(what: str) -> DeltaFormatError:
    return DeltaFormatError(
        f"expected a bundle as dafne-dante writes it, found a fault in {what}; have it packed again"
    )

"""The file in which a site remembers its pins, one for each model type on each server.

File: `pins.json` in the configuration folder, readable by its owner only; canonical JSON with the keys `format`,
`version` and `pins`, a list in the order of server and type.

Invariants: read strictly, since who can change it can change whom the site believes; replaced whole; between reading
and replacing it nobody else writes (a lock of the operating system), so that under one key a number never falls; a type
has the pin of its server (type ""), which a person pins for all types at once, unless a person gave it one of its own.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dafne_dante.delta.canonical import canonical_bytes, parse_strict
from dafne_dante.delta.signing import PublicKeyText, fingerprint
from dafne_dante.durable import make_folder, read_bounded, write_atomically
from dafne_dante.errors import DeltaFormatError, StorageError, TrustError
from dafne_dante.federation.trusted import NOT_PINNED, Pin

__all__ = ["PINS_FILE", "PinFile", "Place"]

PINS_FILE = "pins.json"
_FORMAT, _VERSION = "dafne-dante-pins", 1
_MAX_BYTES = 4 * 1024**2
_WAIT_S = 30.0
_SHA256 = re.compile(r"([0-9a-f]{64})?")
_KEYS = frozenset({"server", "model_type"}) | {item.name for item in fields(Pin)}


@dataclass(frozen=True, order=True)
class Place:
    """Where a pin holds: a server's base URL, and a type there, "" for all that have none of their own."""

    server: str
    model_type: str = ""


class PinFile:
    """The pins in a configuration folder; nothing is created before the first is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> dict[Place, Pin]:
        """Every pin.

        Raises:
            TrustError: the file is malformed; nothing of it is used then.
            StorageError: it cannot be read.
        """
        path = self._folder / PINS_FILE
        return _parse(read_bounded(path, max_bytes=_MAX_BYTES)) if path.exists() else {}

    def find(self, place: Place, operator_key: str = "") -> Pin:
        """The pin that holds for a type; `operator_key` is that of the settings, which a pin may not contradict."""
        return _found(self.all(), place, operator_key)

    def pin(self, place: Place, public_key: PublicKeyText) -> None:
        """A person says which key signs a type, or all types of a server (type "").

        Release numbers go on where the key is the one that was pinned. Types whose key was first seen, or was the
        server's, follow the server's; one that a person pinned otherwise does not.

        Raises:
            TrustError: the key is malformed.
            StorageError: the folder is not writable.
        """
        fingerprint(public_key)
        with self._changing() as pins:
            before = pins.get(place, NOT_PINNED).public_key
            followers = () if place.model_type else [one for one in pins if one.server == place.server]
            for one in {place, *followers}:
                held = pins.get(one, NOT_PINNED)
                if one == place or held.origin == "first use" or held.public_key == before:
                    same = held.public_key == public_key
                    pins[one] = replace(held, origin="beforehand") if same else Pin(public_key)

    def advance(self, place: Place, pin: Pin, operator_key: str = "") -> None:
        """Remember what followed from a judgement, unless another process has meanwhile got further.

        Raises:
            TrustError: another key was pinned since, or a later release was taken; the model must not be used.
            StorageError: the folder is not writable.
        """
        if self.find(place, operator_key) == pin:
            return
        with self._changing() as pins:
            held = _found(pins, place, operator_key)
            if held.public_key not in ("", pin.public_key):
                raise TrustError("expected the key that is pinned, found that another was pinned meanwhile; pull again")
            if (held.number, held.statement_sha256) != (pin.number, pin.statement_sha256) and held.number >= pin.number:
                raise TrustError(
                    f"expected a release after {held.number}, which was taken meanwhile, found {pin.number}; pull again"
                )
            pins[place] = replace(pin, origin=held.origin) if held.public_key else pin

    def remove(self, place: Place) -> None:
        """Forget a pin; TrustError when there is none."""
        with self._changing() as pins:
            if place not in pins:
                raise TrustError("expected a pin of that server and type, found none; see dafne-dante keys pins")
            del pins[place]

    @contextmanager
    def _changing(self) -> Iterator[dict[Place, Pin]]:
        make_folder(self._folder)
        try:
            with FileLock(self._folder / f"{PINS_FILE}.lock", timeout=_WAIT_S, mode=0o600):
                pins = self.all()
                yield pins
                listed = [asdict(place) | asdict(pin) for place, pin in sorted(pins.items())]
                content = canonical_bytes({"format": _FORMAT, "version": _VERSION, "pins": listed})
                write_atomically(self._folder / PINS_FILE, content + b"\n", mode=0o600)
        except Timeout:
            raise StorageError("expected to change the pins, found another process doing so; try again") from None


def _found(pins: Mapping[Place, Pin], place: Place, operator_key: str) -> Pin:
    """See `PinFile.find`."""
    everywhere = pins.get(Place(place.server), NOT_PINNED).public_key
    pin = pins.get(place, Pin(everywhere))
    # What a person says outweighs what was first seen; release numbers of another key mean nothing.
    if everywhere and pin.origin == "first use":
        pin = replace(pin, origin="beforehand") if pin.public_key == everywhere else Pin(everywhere)
    if operator_key and pin.public_key not in ("", operator_key):
        if pin.origin == "beforehand":
            raise TrustError(
                f"expected one key for {place.model_type or 'the server'}, found {fingerprint(operator_key)} in "
                f"the settings (operator_key) and {fingerprint(pin.public_key)} pinned; remove one of them"
            )
        return Pin(operator_key)
    return replace(pin, public_key=operator_key, origin="beforehand") if operator_key else pin


def _parse(content: bytes) -> dict[Place, Pin]:
    advice = f"expected {PINS_FILE} as dafne-dante writes it, found another content; restore it, or pin the keys anew"
    try:
        document = parse_strict(content, PINS_FILE)
    except DeltaFormatError as error:
        raise TrustError(str(error)) from error
    head = document.keys() == {"format", "version", "pins"} and (document["format"], document["version"])
    if head != (_FORMAT, _VERSION) or not isinstance(document["pins"], list):
        raise TrustError(advice)
    pins: dict[Place, Pin] = {}
    for item in document["pins"]:
        if not isinstance(item, dict) or item.keys() != _KEYS or not _is_well_formed(item):
            raise TrustError(advice)
        place = Place(item.pop("server"), item.pop("model_type"))
        if place in pins:
            raise TrustError(advice)
        pins[place] = Pin(**item)
        if pins[place].public_key:
            fingerprint(pins[place].public_key)
    return pins


def _is_well_formed(item: dict[str, Any]) -> bool:
    texts = all(isinstance(item[name], str) for name in _KEYS - {"number"})
    return (
        texts
        and item["origin"] in ("beforehand", "first use")
        and type(item["number"]) is int
        and item["number"] >= 0
        and bool(_SHA256.fullmatch(item["statement_sha256"]))
    )

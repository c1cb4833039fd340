"""Sending one file in parts to a server that puts them together, against what such servers do (DAFNE.md section 2).

Terms: a part is what the protocol calls a chunk. The stock PHP server keeps parts in a folder per type and file name
and joins them when the last one comes.

Invariants
- Every try has a file name that nobody else can have chosen, so parts of two files never meet.
- A part is repeated under its number, which replaces it; the last one only when the server cannot have got it whole.
- When the server says that a part is missing, or that the bytes differ from `original_hash`, it kept nothing: the file
  goes again from part 0 under another name, `_TRIES` times in all. When an answer to the last part is lost it may have
  kept the file: UploadUnknownError, and nothing is sent again.
- A server that takes every part for a file of its own (FastAPI, PHP before April 2026, and PHP for merged models) gets
  the file in one piece.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dafne_dante.errors import ServerAnswerError
from dafne_dante.federation.form import FilePart
from dafne_dante.federation.transport import Progress, Transport

__all__ = ["Sender"]

_TRIES = 3
_ONE_PIECE_BYTES = 500 * 1024**2  # what the stock FastAPI server's nginx lets through
_NOT_KEPT = re.compile(r"missing chunk( \d+)?|Communication error during upload|SHA-256 checksum mismatch.*")
_PART_AS_A_FILE = "Communication error", "SHA-256 checksum mismatch"
_RECEIVED = "chunk received"


class _PartsNotJoinedError(Exception):
    """The server took a part for a whole file, and refused it."""


@dataclass(frozen=True)
class Sender:
    """Sends files over a transport, in parts of at most `part_bytes`.

    `turn` is entered around the part that completes a file (see upload_turns.py).
    """

    transport: Transport
    part_bytes: int
    turn: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)

    def send(
        self,
        call: str,
        fields: Mapping[str, str],
        path: Path,
        *,
        joins_parts: bool = True,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """The server's answer to the last part of a file; `progress` is told after every part.

        Raises:
            TransportError: as Transport.send; ServerAnswerError also when the file is too long for one piece.
            StorageError: the file cannot be read.
        """
        whole = FilePart.whole(path)
        if joins_parts:
            try:
                return self._tried(call, fields, _parts(whole, self.part_bytes), progress)
            except _PartsNotJoinedError:
                pass  # it kept no part; as one piece, then
        if whole.length > max(_ONE_PIECE_BYTES, self.part_bytes):
            raise ServerAnswerError(
                f"expected a server that joins the parts of a file, found one that does not; "
                f"{path.name} is too long to go in one piece"
            )
        return self._tried(call, fields, [whole], progress)

    def _tried(
        self, call: str, fields: Mapping[str, str], parts: list[FilePart], progress: Progress | None
    ) -> dict[str, Any]:
        for _ in range(_TRIES - 1):
            try:
                return self._once(call, fields, parts, progress)
            except ServerAnswerError as error:
                if not _NOT_KEPT.fullmatch(error.reason):
                    raise
        return self._once(call, fields, parts, progress)

    def _once(
        self, call: str, fields: Mapping[str, str], parts: list[FilePart], progress: Progress | None
    ) -> dict[str, Any]:
        name, total = f"{secrets.token_hex(16)}.model", sum(part.length for part in parts)
        answer: dict[str, Any] = {}
        for index, part in enumerate(parts):
            form = {**fields, "chunk_index": str(index), "total_chunks": str(len(parts)), "filename": name}
            if index < len(parts) - 1:
                self._send_part(call, form, name, part)
            else:
                with self.turn():
                    answer = self.transport.send(call, form, name, part, last=True)
            if progress is not None:
                progress(part.offset + part.length, total)
        if answer.get("message") == _RECEIVED:
            raise ServerAnswerError("expected the server to have the whole file, found that it waits for more")
        return answer

    def _send_part(self, call: str, form: Mapping[str, str], name: str, part: FilePart) -> None:
        try:
            message = self.transport.send(call, form, name, part, last=False).get("message")
        except ServerAnswerError as error:
            if error.reason.startswith(_PART_AS_A_FILE):  # the part's digest against the whole file's
                raise _PartsNotJoinedError from error
            raise
        if message != _RECEIVED:
            raise ServerAnswerError("expected the server to wait for the other parts of a file, found that it does not")


def _parts(whole: FilePart, part_bytes: int) -> list[FilePart]:
    """The file in pieces; an empty file is one empty piece."""
    offsets = range(0, max(1, whole.length), part_bytes)
    return [FilePart(whole.path, offset, min(part_bytes, whole.length - offset)) for offset in offsets]

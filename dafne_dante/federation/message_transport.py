"""One message in the place of a server: the model that came in it, and room for the update that goes back.

For engines that carry messages (`flower`). Invariants: the same client and the same checks stand before it as before a
server (`FederationClient`, `pulling`, `trusted`); that a message came says nothing about what is in it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dafne_dante.durable import read_bounded, write_atomically
from dafne_dante.errors import ServerAnswerError
from dafne_dante.federation.form import FilePart
from dafne_dante.federation.transport import Progress

__all__ = ["MAX_MESSAGE_FILE_BYTES", "MessageTransport"]

MAX_MESSAGE_FILE_BYTES = 1 << 30
"""Longest file in a message; a client in front of it must send in parts of this length, so in one."""


class MessageTransport:
    """The transport of one message with one version of one type; nothing in it is believed.

    Attributes:
        sent: the file that was uploaded; empty for none.

    Raises:
        ServerAnswerError: the message holds anything else than a version and a file.
    """

    def __init__(self, model_type: str, version: object, file: object) -> None:
        if not isinstance(version, str) or not isinstance(file, bytes) or len(file) > MAX_MESSAGE_FILE_BYTES:
            raise ServerAnswerError("expected a message with a version and a model's file, found another one")
        self._type, self._version, self._file = model_type, version, file
        self.sent = b""

    def ask(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answers to get_available_models and info_model."""
        if call == "get_available_models":
            return {"models": [self._type]}
        if call != "info_model" or body.get("model_type") != self._type:
            raise _other()
        return {
            "latest_timestamp": self._version,
            "timestamps": [self._version],
            "hashes": {self._version: hashlib.sha256(self._file).hexdigest()},
            "latest_size": len(self._file),
            "dafne_dante": {"delta": 1},
        }

    def send(
        self, call: str, fields: Mapping[str, str], name: str, content: FilePart, *, last: bool = True
    ) -> dict[str, Any]:
        """Keep the file for the way back; StorageError where it cannot be read."""
        if call != "upload_model" or fields.get("model_type") != self._type or content.offset or not last:
            raise _other()
        self.sent = read_bounded(content.path, max_bytes=MAX_MESSAGE_FILE_BYTES)
        return {"message": "upload successful"}

    def download(
        self, call: str, body: Mapping[str, Any], destination: Path, *, sha256: str | None, progress: Progress | None
    ) -> Path:
        """The model that came; StorageError where it cannot be written."""
        asked = body.get("model_type"), body.get("timestamp")
        if call != "get_model" or asked != (self._type, self._version):
            raise _other()
        if sha256 not in (None, hashlib.sha256(self._file).hexdigest()):
            raise ServerAnswerError("expected the message's file to have the digest that was asked for; ask again")
        write_atomically(destination, self._file)
        return destination


def _other() -> ServerAnswerError:
    return ServerAnswerError("expected a call that one message answers: its model down, one whole update up")

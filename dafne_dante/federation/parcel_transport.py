"""A bundle in the place of a server: what a site asks of one about the model, answered from the file.

Invariants: the same client and the same checks stand before it as before a server (`FederationClient`, `trusted`); what
needs a network is a ServerUnreachableError of which nothing has arrived.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dafne_dante.errors import ServerAnswerError, ServerUnreachableError
from dafne_dante.federation.form import FilePart
from dafne_dante.federation.parcel import Item, Parcel
from dafne_dante.federation.transport import Progress

__all__ = ["ParcelTransport"]


class ParcelTransport:
    """The transport of a bundle that carries a model; ServerAnswerError for any other bundle."""

    def __init__(self, parcel: Parcel) -> None:
        if parcel.content.kind != "model":
            raise ServerAnswerError("expected a bundle with a global model, found one of another kind")
        self._parcel = parcel

    def ask(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answers to get_available_models and info_model."""
        [item] = self._parcel.content.items
        if call == "get_available_models":
            return {"models": [item.model_type]}
        if call != "info_model":
            raise _no_network()
        self._check(item, body)
        return {
            "latest_timestamp": item.name,
            "timestamps": [item.name],
            "hashes": {item.name: item.sha256},
            "latest_size": item.size_bytes,
            "dafne_dante": dict(self._parcel.content.capability),
        }

    def send(
        self, call: str, fields: Mapping[str, str], name: str, content: FilePart, *, last: bool = True
    ) -> dict[str, Any]:
        """Nothing can be sent into a bundle."""
        raise _no_network()

    def download(
        self, call: str, body: Mapping[str, Any], destination: Path, *, sha256: str | None, progress: Progress | None
    ) -> Path:
        """The model; errors as `Parcel.copy`."""
        [item] = self._parcel.content.items
        self._check(item, body)
        if call != "get_model" or body.get("timestamp") != item.name or sha256 not in (None, item.sha256):
            raise ServerAnswerError("expected a file that the bundle carries, found that it does not; ask for another")
        return self._parcel.copy(item, destination)

    @staticmethod
    def _check(item: Item, body: Mapping[str, Any]) -> None:
        if body.get("model_type") != item.model_type:
            raise ServerAnswerError(f"expected a bundle with that type, found {item.model_type}; check --type")


def _no_network() -> ServerUnreachableError:
    return ServerUnreachableError(
        "a bundle takes nothing back; the update waits in the outbox: dafne-dante bundle export --outbox",
        may_have_arrived=False,
    )

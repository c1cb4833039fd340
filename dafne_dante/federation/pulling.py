"""The newest global model of a type, read safely and judged against the site's pins.

Invariant: the pin that follows from a judgement is on the disk before the model is handed out, and no other process got
further meanwhile.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dafne_dante.config import Settings
from dafne_dante.federation.client import ModelInfo
from dafne_dante.federation.pins import PinFile, Place
from dafne_dante.federation.route import checked_address
from dafne_dante.federation.transport import Progress
from dafne_dante.federation.trusted import judge
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import GlobalModel

__all__ = ["Downloads", "Pulled", "pull_newest"]


class Downloads(Protocol):
    """What pulling needs of a FederationClient."""

    def model_info(self, model_type: str) -> ModelInfo:
        """What the server says about a type."""

    def download_model(
        self, model_type: str, version: str, destination: Path, progress: Progress | None = None
    ) -> Path:
        """Write a version's file to `destination`, its SHA-256 checked."""


@dataclass(frozen=True, eq=False)
class Pulled:
    """A global model, what the server says of its type, and who signed it, in words."""

    model: GlobalModel
    info: ModelInfo
    words: str


def pull_newest(
    client: Downloads,
    model_type: str,
    destination: Path,
    *,
    settings: Settings,
    server: str = "",
    progress: Progress | None = None,
) -> Pulled:
    """Download the newest version of a type to `destination`, checked against the server's list, read and judge it.

    Args:
        server: the base URL of `client`'s server; "" for the settings' one.
        progress: is told the bytes that came and the bytes in all.

    Raises:
        TransportError: see FederationClient.
        ModelError: what the server sent is not a model that is safe and whole.
        TrustError: it is not what the operator signed, see `trusted.judge`.
    """
    place = Place(checked_address(server or settings.server), model_type)
    pins = PinFile(settings.folder)
    pin = pins.find(place, settings.operator_key)
    info = client.model_info(model_type)
    model = read_model(client.download_model(model_type, info.latest_timestamp, destination, progress))
    judgement = judge(pin, model, model_type)
    if judgement.release is not None:
        pins.advance(place, judgement.pin, settings.operator_key)
    else:
        # Somebody may have pinned a key while this was downloaded.
        judge(pins.find(place, settings.operator_key), model, model_type)
    return Pulled(model, info, judgement.words)

"""The global model that an improvement starts from: a file, or the newest version on the server."""

from dataclasses import dataclass
from pathlib import Path

from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.federation.client import Capability, FederationClient
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import GlobalModel

__all__ = ["BaseModel", "base_from_file", "base_from_server"]


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A global model and where it came from.

    Attributes:
        model: read safely, never run.
        model_type: the type's name on the server, or what the caller calls it.
        version: the server's version number, or the file's own timestamp; decimal digits.
        file_bytes: size of the `.model` file.
        capability: what the server's type says about deltas; None for a file, or a type that takes none.
    """

    model: GlobalModel
    model_type: str
    version: str
    file_bytes: int
    capability: Capability | None = None


def base_from_file(path: Path, model_type: str = "") -> BaseModel:
    """Read a `.model` file; ModelError where it is refused, StorageError where it cannot be read."""
    model = read_model(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise StorageError(f"cannot read {path.name}: {error.strerror or type(error).__name__}") from error
    return BaseModel(model, model_type, str(model.timestamp), size)


def base_from_server(client: FederationClient, model_type: str, destination: Path) -> BaseModel:
    """Download the newest version of a type to `destination`, checked against the server's list, and read it.

    Raises:
        TransportError: see FederationClient.
        ModelError: what the server sent is not a model that is safe and whole.
    """
    if not model_type:
        raise SettingsError("expected the model's type on the server, found none; name it with --type")
    info = client.model_info(model_type)
    path = client.download_model(model_type, info.latest_timestamp, destination)
    found = base_from_file(path, model_type)
    return BaseModel(found.model, model_type, info.latest_timestamp, found.file_bytes, info.capability)

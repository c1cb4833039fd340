"""The global model that an improvement starts from: a file, or the newest version on the server.

Invariants: what a server hands out is judged against the site's pins before it is used (`federation.trusted`); the pin
that follows is on the disk before the model is used; what was found is told every time, in words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.config import Settings
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.federation.client import Capability, FederationClient
from dafne_dante.federation.pulling import pull_newest
from dafne_dante.federation.telling import told_in_megabytes
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
        trust: who signed it, in words; "" for a file, which somebody chose.
    """

    model: GlobalModel
    model_type: str
    version: str
    file_bytes: int
    capability: Capability | None = None
    trust: str = ""


def base_from_file(path: Path, model_type: str = "") -> BaseModel:
    """Read a `.model` file; ModelError where it is refused, StorageError where it cannot be read."""
    model = read_model(path)
    return BaseModel(model, model_type, str(model.timestamp), _size_of(path))


def base_from_server(
    client: FederationClient,
    model_type: str,
    destination: Path,
    *,
    settings: Settings,
    server: str = "",
    say: Callable[[str], None] = lambda words: None,
) -> BaseModel:
    """Download the newest version of a type to `destination`, checked against the server's list, read and judge it.

    Args:
        server: the base URL of `client`'s server; "" for the settings' one.
        say: is told how far the download is, and who signed the model, or that nobody did.

    Raises:
        TransportError: see FederationClient.
        ModelError: what the server sent is not a model that is safe and whole.
        TrustError: it is not what the operator signed, see `federation.trusted.judge`.
    """
    if not model_type:
        raise SettingsError("expected the model's type on the server, found none; name it with --type")
    progress = told_in_megabytes(say, f"downloading {model_type}")
    pulled = pull_newest(client, model_type, destination, settings=settings, server=server, progress=progress)
    say(f"{model_type}: {pulled.words}")
    info = pulled.info
    return BaseModel(
        pulled.model, model_type, info.latest_timestamp, _size_of(destination), info.capability, pulled.words
    )


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise StorageError(f"cannot read {path.name}: {error.strerror or type(error).__name__}") from error

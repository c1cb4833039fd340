"""Where a site keeps what sending left out of its updates, until the next one takes it along.

Terms: each file is named by the update that it was left of, so that it counts only while that update does: a file whose
update never came into the outbox (the program was killed in between), was refused, cancelled or withdrawn counts for
nothing, and the one before it does.

Invariants: it is written before the update is queued, and never sent; it holds weights' differences, as an improved
model does, is readable by its owner only, and at most a few of them lie there.
"""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dafne_dante.config import Settings
from dafne_dante.durable import make_folder, write_atomically
from dafne_dante.errors import DeltaError, StorageError
from dafne_dante.federation.outbox import open_outbox, outbox_exists
from dafne_dante.models.build import canonical_weights
from dafne_dante.models.global_model import GlobalModel

__all__ = ["carried_folder", "carried_from_before", "drop_carried", "keep_carried"]

_SUFFIX = ".safetensors"
_COUNTS = ("waiting", "sending", "sent")
_MOST_FILES = 3


def carried_folder(settings: Settings) -> Path:
    """Where the files lie; nothing is created."""
    return settings.folder / "carried"


def carried_from_before(settings: Settings, model: GlobalModel) -> dict[str, Tensor]:
    """What the newest update of the model's family that counts left; nothing where none did, or where it does not fit.

    Raises:
        StorageError: the outbox cannot be read.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in canonical_weights(model.plan, model.weights).items()}
    for path in reversed(_files(settings)):
        if not _counts(settings, _update_of(path)):
            continue
        found = _read(path, str(model.model_id))
        if found is not None:
            fits = all(shapes.get(name) == tuple(tensor.shape) for name, tensor in found.items())
            return found if fits else {}
    return {}


def keep_carried(settings: Settings, update_id: UUID, model: GlobalModel, left: Mapping[str, Tensor]) -> None:
    """Keep what an update leaves, before it is queued; of the others the last two that count stay.

    Raises:
        StorageError: the disk refuses.
    """
    content = safetensors.torch.save(
        {name: tensor.detach().float().contiguous() for name, tensor in left.items()},
        metadata={"model_id": str(model.model_id)},
    )
    folder, known = make_folder(carried_folder(settings)), _files(settings)
    number = 1 + max((int(path.name.partition(".")[0]) for path in known), default=0)
    write_atomically(folder / f"{number:012d}.{update_id}{_SUFFIX}", content, mode=0o600)
    counting = [path for path in known if _counts(settings, _update_of(path))]
    for path in known:
        if path not in counting[1 - _MOST_FILES :]:
            _remove(path)


def drop_carried(settings: Settings, update_id: str) -> None:
    """Forget what an update left, as the update is taken back; StorageError where the disk refuses."""
    for path in _files(settings):
        if _update_of(path) == update_id:
            _remove(path)


def _files(settings: Settings) -> list[Path]:
    """The oldest first."""
    try:
        names = [path for path in carried_folder(settings).iterdir() if path.name.endswith(_SUFFIX)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"cannot list what was carried: {error.strerror or type(error).__name__}") from error
    return sorted(path for path in names if path.name.partition(".")[0].isdecimal())


def _update_of(path: Path) -> str:
    return path.name.removesuffix(_SUFFIX).partition(".")[2]


def _counts(settings: Settings, update_id: str) -> bool:
    if not outbox_exists(settings):
        return False
    try:
        return open_outbox(settings).find(update_id).state in _COUNTS
    except DeltaError:  # it was never queued
        return False


def _read(path: Path, model_id: str) -> dict[str, Tensor] | None:
    """None for another family, or for a damaged file, which costs no more than what it would have added."""
    try:
        with safe_open(path, framework="pt") as content:
            if (content.metadata() or {}).get("model_id") != model_id:
                return None
            return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError):
        return None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove what was carried: {error.strerror or type(error).__name__}") from error

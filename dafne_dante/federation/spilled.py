"""Updates that lie on the disk until one of them is asked for, so that memory does not grow with their number.

Invariants: what is read is bit for bit what was written; a file is written once, by us, into a folder that nobody else
writes to; one weight's update is in memory at a time.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.errors import StorageError

__all__ = ["SpilledUpdates", "spill"]


class SpilledUpdates(Mapping[str, WeightUpdate]):
    """Weight name to its update, read when asked; StorageError when the file is gone."""

    def __init__(self, path: Path, forms: Mapping[str, tuple[str, float] | None]) -> None:
        self._path, self._forms = path, forms
        self._places = {name: place for place, name in enumerate(forms)}

    def __getitem__(self, name: str) -> WeightUpdate:
        place, form = self._places[name], self._forms[name]
        if form is None:
            return WeightUpdate(name, self._read(f"{place}")[0])
        a, b = self._read(f"{place}a", f"{place}b")
        return WeightUpdate(name, LowRank(form[0], a, b, form[1]))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._forms)

    def __len__(self) -> int:
        return len(self._forms)

    def _read(self, *keys: str) -> list[Tensor]:
        try:
            with safe_open(self._path, framework="pt") as stored:
                return [stored.get_tensor(key) for key in keys]
        except (OSError, SafetensorError) as error:
            raise StorageError("cannot read an update that was set aside; merge again") from error


def spill(updates: Iterable[WeightUpdate], path: Path) -> SpilledUpdates:
    """Write the updates to `path`; StorageError where the disk refuses."""
    tensors: dict[str, Tensor] = {}
    forms: dict[str, tuple[str, float] | None] = {}
    for place, update in enumerate(updates):
        value = update.value
        forms[update.weight] = (value.form, value.scale) if isinstance(value, LowRank) else None
        parts = {f"{place}a": value.a, f"{place}b": value.b} if isinstance(value, LowRank) else {f"{place}": value}
        tensors |= {key: part.detach().clone(memory_format=torch.contiguous_format) for key, part in parts.items()}
    try:
        save_file(tensors, path)
    except (OSError, SafetensorError) as error:
        raise StorageError("cannot set an update aside; free space in the folder for temporary files") from error
    return SpilledUpdates(path, forms)

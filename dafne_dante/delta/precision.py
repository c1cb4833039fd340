"""How exactly an update is stored: float32, float16, or int8 with one scale a row.

Terms: the *rows* of a stored tensor are its first axis for a dense update, and all axes but the last for a factor
(A (K, O, r) has K * O rows of r numbers, B (K, r, I) has K * r rows of I); a stored int8 number q of a row with scale
c means q * c in float32, c = max|row| / 127. An encoding's *error* is the L2 distance between the dense forms before
and after, over the length of the one before.

Rule: each weight gets the encoding with the fewest bytes whose error is within the tolerance of its coarsest part:
int8 1e-2, float16 1e-3 (float16 has 2e-4 unless it under- or overflows), float32 always. Rows of bell-shaped numbers
have an error of 0.5 to 1 % in int8. Measured (`benchmarks/delta_precision.py`, one network, one seed): 6e-3 over a
whole update, which changed Dice by at most 2e-4. The tolerance leaves much room: SCIENCE section 6 found no loss at
int4, whose steps are 127 / 7 = 18 times as wide.

Invariant: what `restore` returns is what every reader gets, bit for bit.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Literal

import torch
from torch import Tensor

from dafne_dante.adaptation.low_rank import Form, LowRank
from dafne_dante.delta.container import StoredTensor
from dafne_dante.delta.difference import Precision, WeightUpdate
from dafne_dante.delta.naming import Part, rows_name, shown, stored_name
from dafne_dante.errors import DeltaValueError

__all__ = ["TOLERANCES", "Precision", "kind_of", "restore", "row_count", "store"]

TOLERANCES: Mapping[str, float] = {"I8": 1e-2, "F16": 1e-3, "F32": float("inf")}
"""Stored dtype, coarsest first, to the error that it may cause in a weight's dense update."""

_DTYPES: Mapping[Precision, tuple[str, ...]] = {
    "auto": ("I8", "F16", "F32"),
    "float16": ("F16", "F32"),
    "float32": ("F32",),
}
_HIGHEST = 127
# An int8 tensor brings a second entry into header and manifest: 392 bytes for a name of 53 characters.
_ROWS_ENTRY_BYTES = 400


def kind_of(update: WeightUpdate) -> str:
    """dense, lora-channel, lora-linear or lora-shared."""
    return update.value.form if isinstance(update.value, LowRank) else "dense"


def row_count(kind: str, shape: tuple[int, ...]) -> int:
    """How many rows a stored tensor of that shape has (module docstring); 1 for a scalar."""
    return prod(shape[:1] if kind == "dense" else shape[:-1])


def store(update: WeightUpdate, *, precision: Precision = "auto") -> dict[str, StoredTensor]:
    """Stored name to tensor, in the smallest encoding within its tolerance that the update allows.

    `precision` other than "auto" goes before the update's own: "float16" leaves int8 out, "float32" float16 as well.

    Raises:
        DeltaValueError: the update is not finite.
    """
    parts = _parts(update)
    if not all(torch.isfinite(part).all() for part in parts.values()):
        raise DeltaValueError(f"expected a finite update of {shown(update.weight)}, found NaN or infinity")
    target = _product(update.value)
    length = float(torch.linalg.vector_norm(target))
    stored: dict[str, StoredTensor] = {}
    for dtypes in _by_size(update, parts, precision):
        stored = _encode(update, parts, dtypes)
        error = float(torch.linalg.vector_norm(_product(restore(update.weight, stored, update).value) - target))
        # Written so that an error of NaN (an overflow) is not within any tolerance.
        if error <= next(tolerance for dtype, tolerance in TOLERANCES.items() if dtype in dtypes) * length:
            break
    return stored


def restore(weight: str, stored: Mapping[str, StoredTensor], like: WeightUpdate) -> WeightUpdate:
    """The update in float32 that the stored tensors of a weight stand for, of the kind and scale of `like`."""
    if not isinstance(like.value, LowRank):
        return WeightUpdate(weight, _decode(weight, "d", stored, "dense"))
    form = like.value.form
    a, b = (_decode(weight, part, stored, form) for part in _FACTORS)
    return WeightUpdate(weight, LowRank(form, a, b, like.value.scale))


_FACTORS: tuple[Part, Part] = ("a", "b")


def _parts(update: WeightUpdate) -> dict[Part, Tensor]:
    value = update.value
    if isinstance(value, LowRank):
        return {"a": value.a.detach().float(), "b": value.b.detach().float()}
    return {"d": value.detach().float()}


def _product(value: Tensor | LowRank) -> Tensor:
    """The dense form but for the order of its axes, which lengths and distances do not see."""
    if isinstance(value, LowRank):
        return torch.matmul(value.a.detach().double(), value.b.detach().double()) * value.scale
    return value.detach().double()


def _by_size(update: WeightUpdate, parts: Mapping[Part, Tensor], precision: Precision) -> Iterator[tuple[str, ...]]:
    """All choices of a dtype for each part, fewest bytes first; float32 for all is the last that can be needed."""
    kind = kind_of(update)
    dtypes = _DTYPES[update.precision if precision == "auto" else precision]

    def size(choice: tuple[str, ...]) -> int:
        return sum(
            _size(dtype, row_count(kind, tuple(part.shape)), part.numel())
            for dtype, part in zip(choice, parts.values(), strict=True)
        )

    yield from sorted(product(dtypes, repeat=len(parts)), key=size)


def _size(dtype: str, rows: int, numbers: int) -> int:
    if dtype == "I8":
        return numbers + 4 * rows + _ROWS_ENTRY_BYTES
    return numbers * (2 if dtype == "F16" else 4)


def _encode(update: WeightUpdate, parts: Mapping[Part, Tensor], dtypes: tuple[str, ...]) -> dict[str, StoredTensor]:
    stored: dict[str, StoredTensor] = {}
    for (part, tensor), dtype in zip(parts.items(), dtypes, strict=True):
        name = stored_name(update.weight, part)
        if dtype != "I8":
            stored[name] = StoredTensor.from_tensor(tensor, dtype)
            continue
        rows = tensor.reshape(row_count(kind_of(update), tuple(tensor.shape)), -1)
        scales = rows.abs().amax(dim=1) / _HIGHEST
        numbers = torch.where(scales[:, None] > 0, rows / scales[:, None], 0.0).round().clamp(-_HIGHEST, _HIGHEST)
        stored[name] = StoredTensor.from_tensor(numbers.reshape(tensor.shape), "I8")
        stored[rows_name(name)] = StoredTensor.from_tensor(scales, "F32")
    return stored


def _decode(weight: str, part: Part, stored: Mapping[str, StoredTensor], kind: Form | Literal["dense"]) -> Tensor:
    name = stored_name(weight, part)
    tensor = stored[name].to_tensor()
    if stored[name].dtype != "I8":
        return tensor
    scales = stored[rows_name(name)].to_tensor()
    rows = row_count(kind, tuple(tensor.shape))
    return tensor.reshape(rows, -1).mul_(scales[:, None]).reshape(tensor.shape)

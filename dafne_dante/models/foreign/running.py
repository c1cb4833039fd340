"""Runs the code of a model: builds the network, fills in its weights, segments one image. Only ever in the child.

Terms: as in Dafne (dafne-dl), a source text defines functions and its first one counts; `init_model_function` gives
a network, or a list of them; `apply_model_function` takes an object with the attribute `model` and a dictionary with
image and resolution, and gives a mask for each label.

Invariants: this is the one module of the package that executes text; child.py alone imports it, in isolation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = ["ModelObject", "StageError", "build_model", "segment_image"]


class StageError(Exception):
    """The code failed; `stage` names the function, `kind` the exception's class, `missing` a module it asked for."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(stage)
        self.stage = stage
        self.kind = type(error).__name__
        self.missing = str(error.name) if isinstance(error, ImportError) and error.name else ""


class ModelObject:
    """What the functions of a file get as their first argument: its entries as attributes, `model` and `device`."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self.__dict__.update(entries)
        self.model: Any = None
        self.device = torch.device("cpu")

    def apply(self, data: Mapping[str, Any]) -> Any:
        """What `apply_model_function` gives for the data."""
        return self.__dict__["apply_model_function"](self, data)


def build_model(
    entries: Mapping[str, Any], sources: Mapping[str, str], weights: Sequence[Mapping[str, Tensor]]
) -> ModelObject:
    """The object with its network or networks, one for each set of weights; StageError where the code fails."""
    functions = {}
    for name, text in sources.items():
        with _Stage(name):
            functions[name] = _first_function(text)
    found = ModelObject({**entries, **functions})
    with _Stage("init_model_function"):
        found.model = functions["init_model_function"]()
    with _Stage("weights_to_model_function"):
        _fill(found, weights)
    return found


def segment_image(
    found: ModelObject, image: npt.NDArray[np.float32], spacing_mm: Sequence[float], dimensions: int
) -> dict[str, npt.NDArray[np.bool_]]:
    """Label to mask (X, Y, Z) for an image (C, X, Y, Z); a 2D model gets slice after slice. StageError as above."""
    with torch.no_grad():
        if dimensions == 3:
            return _masks(found, image, spacing_mm)
        slices = [_masks(found, image[..., index], spacing_mm[:2]) for index in range(image.shape[-1])]
    empty = np.zeros(image.shape[1:3], dtype=np.bool_)
    labels = list(dict.fromkeys(label for one in slices for label in one))
    return {label: np.stack([one.get(label, empty) for one in slices], axis=-1) for label in labels}


def _masks(
    found: ModelObject, image: npt.NDArray[np.float32], spacing_mm: Sequence[float]
) -> dict[str, npt.NDArray[np.bool_]]:
    contrasts = {f"image{number}" if number > 1 else "image": one for number, one in enumerate(image, start=1)}
    data = {**contrasts, "resolution": np.asarray(spacing_mm), "split_laterality": False, "classification": ""}
    with _Stage("apply_model_function"):
        return {str(label): np.asarray(mask) != 0 for label, mask in dict(found.apply(data)).items()}


def _fill(found: ModelObject, weights: Sequence[Mapping[str, Tensor]]) -> None:
    """What Dafne's own default does; the file's function only where that does not fit, as it may need Dafne."""
    networks = found.model if isinstance(found.model, list) else [found.model]
    try:
        for network, values in zip(networks, weights, strict=True):
            network.load_state_dict(dict(values))
    except (RuntimeError, ValueError, AttributeError):
        given = found.__dict__.get("weights_to_model_function")
        if given is None:
            raise
        given(found, weights[0] if len(weights) == 1 else list(weights))
    for network in networks:
        if isinstance(network, nn.Module):
            network.eval()


def _first_function(text: str) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(text, names)  # noqa: S102 (a site that named the file's SHA-256, in an isolated process)
    return next(value for value in names.values() if isinstance(value, FunctionType))


@dataclass(frozen=True)
class _Stage:
    """Turns whatever foreign code raises, SystemExit too, into a StageError that only names it."""

    name: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            raise StageError(self.name, error) from error

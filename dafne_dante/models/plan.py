"""ModelPlan: everything that is needed to build a network and to prepare images for it.

It round-trips with Dafne's `net_metadata` (the dict inside a `.model` file that stock clients read), so what we
train runs there and what Dante trains can be tuned here. Sizes and spacings follow that dict's order: (Z, X, Y) in
3D, (X, Y) in 2D.

Invariants: a plan is frozen; `extra` keeps the keys of `net_metadata` that we do not interpret, so that nothing is
lost when a model goes through us.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dafne_dante.errors import UnsupportedModelError

__all__ = ["Architecture", "ModelPlan", "plan_from_net_metadata", "plan_to_net_metadata"]

Architecture = Literal["unet2d", "unet3d", "dynunet"]

_MAX_LEVELS = 8
_MAX_CHANNELS = 4096
_LONGEST_SLICE, _SLICE_MULTIPLE = 256, 32
_INTERPRETED = frozenset(
    {
        "model_name", "spatial_dims", "in_channels", "out_channels", "use_dynamic", "patch_size", "median_shape",
        "median_spacing", "n_levels", "labels_name", "kernel_size", "num_res_units", "kernels", "strides",
        "start_channel",
    }
)  # fmt: skip


@dataclass(frozen=True)
class ModelPlan:
    """How a network is built and how its images are prepared.

    Attributes:
        architecture: unet2d, unet3d or dynunet.
        labels: label i + 1 of the output is labels[i]; output channels are 1 + len(labels).
        in_channels: contrasts.
        patch: voxels of a training patch and of the sliding window, (Z, X, Y) or (X, Y).
        spacing_mm: millimetres per voxel that images are resampled to, same order as patch.
        median_shape: voxels of the median case, same order as patch.
        levels: resolution levels (U-Net); kernel and residual units per level likewise.
        first_channels: feature channels of the first level; each deeper level doubles them (U-Net).
        kernels, strides: per stage, same order as patch (DynUNet only, else empty).
        extra: keys of net_metadata that we carry but do not interpret.
    """

    architecture: Architecture
    labels: tuple[str, ...]
    in_channels: int
    patch: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    median_shape: tuple[int, ...]
    levels: int = 4
    kernel: int = 3
    residual_units: int = 2
    first_channels: int = 32
    kernels: tuple[tuple[int, ...], ...] = ()
    strides: tuple[tuple[int, ...], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def dimensions(self) -> int:
        """2 or 3: the spatial axes of the network."""
        return 2 if self.architecture == "unet2d" else len(self.patch)

    @property
    def out_channels(self) -> int:
        """Background and one channel a label."""
        return 1 + len(self.labels)


def plan_to_net_metadata(plan: ModelPlan) -> dict[str, Any]:
    """The plan as plain Python values under the keys that stock Dafne clients read."""
    dynamic = plan.architecture == "dynunet"
    return {
        **plan.extra,
        "model_name": "dynunet" if dynamic else "unet",
        "spatial_dims": plan.dimensions,
        "in_channels": plan.in_channels,
        "out_channels": plan.out_channels,
        "use_dynamic": dynamic,
        "patch_size": list(plan.patch),
        "median_shape": list(plan.median_shape),
        "median_spacing": list(plan.spacing_mm),
        "n_levels": plan.levels,
        "labels_name": list(plan.labels),
        "kernel_size": plan.kernel,
        "num_res_units": plan.residual_units,
        "kernels": [list(k) for k in plan.kernels],
        "strides": [list(s) for s in plan.strides],
        "start_channel": plan.first_channels,
    }


def plan_from_net_metadata(net_metadata: Mapping[str, Any]) -> ModelPlan:
    """Read a plan from untrusted `net_metadata`.

    Raises:
        UnsupportedModelError: a key is missing, of the wrong type or out of bounds, or the architecture is unknown.
    """
    try:
        return _checked(_read(net_metadata))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UnsupportedModelError(
            f"expected net_metadata as Dante writes it, found a missing or malformed entry ({error}); "
            "train the model again or ask who made it"
        ) from error


def _read(net: Mapping[str, Any]) -> ModelPlan:
    dimensions = int(net["spatial_dims"])
    dynamic = bool(net["use_dynamic"])
    if dimensions not in (2, 3):
        raise ValueError(f"spatial_dims {dimensions}")
    architecture: Architecture = "dynunet" if dynamic else ("unet2d" if dimensions == 2 else "unet3d")
    labels = tuple(str(name) for name in net["labels_name"])
    if int(net["out_channels"]) != 1 + len(labels):
        raise ValueError(f"out_channels {net['out_channels']} for {len(labels)} labels")
    return ModelPlan(
        architecture=architecture,
        labels=labels,
        in_channels=int(net["in_channels"]),
        patch=_patch(net, dimensions),
        spacing_mm=tuple(float(value) for value in _sequence(net["median_spacing"], dimensions)),
        median_shape=_integers(net["median_shape"], dimensions),
        levels=int(net.get("n_levels") or 0),
        kernel=int(net.get("kernel_size") or 3),
        residual_units=2 if net.get("num_res_units") is None else int(net["num_res_units"]),
        first_channels=int(net.get("start_channel") or 32),
        kernels=tuple(_integers(k, dimensions) for k in _rows(net.get("kernels"))) if dynamic else (),
        strides=tuple(_integers(s, dimensions) for s in _rows(net.get("strides"))) if dynamic else (),
        extra={key: value for key, value in net.items() if key not in _INTERPRETED},
    )


def _patch(net: Mapping[str, Any], dimensions: int) -> tuple[int, ...]:
    """The patch, or what to train with where Dante names none: it learns from whole slices in 2D.

    Then it is the median slice, up to a multiple of 32 as stock clients pad it, and 256 at most to bound the memory.
    """
    if net["patch_size"] is not None or dimensions == 3:
        return _integers(net["patch_size"], dimensions)
    return tuple(min(_LONGEST_SLICE, -(-size // _SLICE_MULTIPLE) * _SLICE_MULTIPLE)
                 for size in _integers(net["median_shape"], dimensions))  # fmt: skip


def _checked(plan: ModelPlan) -> ModelPlan:
    """Bounds that keep a hostile plan from exhausting memory before any weight is read."""
    stages = len(plan.strides) if plan.architecture == "dynunet" else plan.levels
    if not 2 <= stages <= _MAX_LEVELS:
        raise ValueError(f"{stages} levels")
    if plan.architecture == "dynunet" and len(plan.kernels) != len(plan.strides):
        raise ValueError(f"{len(plan.kernels)} kernels for {len(plan.strides)} strides")
    if plan.architecture != "dynunet" and plan.first_channels * 2 ** (plan.levels - 1) > _MAX_CHANNELS:
        raise ValueError(f"{plan.first_channels} first channels")
    if not (1 <= plan.in_channels <= 16 and 1 <= len(plan.labels) <= 254 and 1 <= plan.kernel <= 9):
        raise ValueError("channels, labels or kernel out of bounds")
    if not 0 <= plan.residual_units <= 8:
        raise ValueError(f"{plan.residual_units} residual units")
    if any(not 1 <= size <= 2048 for size in plan.patch) or any(not 1e-3 <= s <= 1e3 for s in plan.spacing_mm):
        raise ValueError("patch or spacing out of bounds")
    for row in (*plan.kernels, *plan.strides):
        if any(not 1 <= value <= 9 for value in row):
            raise ValueError("kernels or strides out of bounds")
    return plan


def _rows(value: Any) -> list[Any]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or len(value) > _MAX_LEVELS:
        raise ValueError("kernels or strides")
    return list(value)


def _sequence(value: Any, length: int) -> list[Any]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or len(value) != length:
        raise ValueError(f"expected {length} values")
    return list(value)


def _integers(value: Any, length: int) -> tuple[int, ...]:
    return tuple(int(item) for item in _sequence(value, length))

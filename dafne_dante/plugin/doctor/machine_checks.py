"""This machine: Python, PyTorch and its device, the disk, and Dafne."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from dafne_dante.annotations.store.opening import store_folder
from dafne_dante.config import Settings
from dafne_dante.plugin.doctor.finding import Finding, fault, good, warning
from dafne_dante.plugin.local.shelf import local_folder
from dafne_dante.training.hardware import choose_device

__all__ = ["check_dafne", "check_device", "check_disk", "check_python"]

_OLDEST_PYTHON = (3, 10)
_OLDEST_DAFNE, _NEXT_DAFNE = (2, 1), (3, 0)
_FEW_GIB, _TOO_FEW_GIB = 5.0, 1.0
_ASK = "import importlib.metadata as m; print(m.version('dafne'))"
_ASK_S = 30.0


def check_python(version: tuple[int, ...] = sys.version_info[:3], bits: int = sys.maxsize.bit_length() + 1) -> Finding:
    """Its version, and whether it can use more than 4 GiB."""
    told = f"{'.'.join(map(str, version))}, {bits} bit"
    if version[:2] < _OLDEST_PYTHON or bits < 64:
        return fault("python", told, "install a 64-bit Python 3.10 or newer")
    return good("python", told)


def check_device() -> Finding:
    """PyTorch and where it computes."""
    device = choose_device()
    if device.type == "cpu":
        seen = "; a GPU is there but not used" if torch.cuda.is_available() else ""
        return warning(
            "torch",
            f"{torch.__version__} on the processor, {torch.get_num_threads()} threads{seen}",
            "improvements work, but take longer than on a GPU; leave them to the night",
        )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return good("torch", f"{torch.__version__} on {name}")


def check_disk(settings: Settings) -> Finding:
    """The least free space of the places that this site writes to."""
    places = {_existing(place) for place in (settings.folder, store_folder(settings), local_folder(settings))}
    try:
        free_gib = min(shutil.disk_usage(place).free for place in places) / 2**30
    except OSError as error:
        return fault("disk", f"cannot be asked: {error.strerror or type(error).__name__}", "look whether it is there")
    told = f"{free_gib:.1f} GiB free"
    if free_gib < _TOO_FEW_GIB:
        return fault("disk", told, "free some space; a job needs a few times the size of its model, and cases more")
    if free_gib < _FEW_GIB:
        return warning("disk", told, "free some space, or set [annotations] keep_gib lower")
    return good("disk", told)


def check_dafne(python: Path | None = None) -> Finding:
    """Dafne's version, in this environment or in that of another Python."""
    version = _own_dafne() if python is None else _dafne_of(python)
    if not version:
        where = "this environment" if python is None else "the environment of that Python"
        return warning("dafne", f"not in {where}", "name Dafne's Python: dafne-dante doctor --dafne-python FILE")
    numbers = tuple(int(one) for one in re.findall(r"\d{1,6}", version)[:2])
    if _OLDEST_DAFNE <= numbers < _NEXT_DAFNE:
        return good("dafne", version)
    return fault("dafne", version, "this version of dafne-dante belongs to Dafne 2.1 up to, not including, 3.0")


def _existing(place: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((one for one in (place, *place.absolute().parents) if one.exists()), Path.cwd())


def _own_dafne() -> str:
    try:
        return importlib.metadata.version("dafne")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _dafne_of(python: Path) -> str:
    """What another Python says; "" where it has no Dafne or is none."""
    try:
        done = subprocess.run(  # noqa: S603 (a Python that the person named)
            [str(python), "-I", "-c", _ASK], capture_output=True, timeout=_ASK_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    said = done.stdout.decode("ascii", "replace").strip()
    return said if done.returncode == 0 and re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,40}", said) else ""

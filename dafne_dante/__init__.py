"""dafne-dante: a hospital improves a shared segmentation model; only a small signed delta leaves the house."""

from dafne_dante._version import __version__
from dafne_dante.host.registration import register

__all__ = ["__version__", "register"]

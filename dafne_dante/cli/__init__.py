"""The command line: one thin function a command, each calling the layer that owns the work."""

from dafne_dante.cli.main import main

__all__ = ["main"]

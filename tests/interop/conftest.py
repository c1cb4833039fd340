"""Let dafne_dl be imported without side effects: it installs SimpleITK by itself where that is missing.

It never uses SimpleITK, whose native part does not always bear being loaded after torch's, so an empty stand-in is
enough while it is imported; its configuration goes to a scratch home.
"""

import importlib.util
import os
import sys
import tempfile
import types

import torch

_HOME = tempfile.TemporaryDirectory(prefix="dafne-interop-")


def pytest_configure(config):
    torch.set_num_threads(1)  # one core a worker; threads that share cores wait for each other
    if importlib.util.find_spec("dafne_dl") is None:
        return
    for name in ("HOME", "XDG_CONFIG_HOME", "APPDATA", "LOCALAPPDATA"):
        os.environ[name] = _HOME.name
    sys.modules["SimpleITK"] = types.ModuleType("SimpleITK")
    import dafne_dl  # noqa: F401

    del sys.modules["SimpleITK"]


def pytest_unconfigure(config):
    _HOME.cleanup()

"""One way in for files of both kinds: models that we build ourselves, and those that the site lets build themselves.

Invariants: the file is read once, and its digest is of those bytes; code counts only where there is no other way,
so a trusted file with a plan of its network is still built by us.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path

from dafne_dante.durable import read_bounded
from dafne_dante.errors import UnsupportedModelError
from dafne_dante.models.file import MAX_BYTES, parse_model
from dafne_dante.models.foreign.model import ForeignModel, parse_foreign_model
from dafne_dante.models.global_model import GlobalModel

__all__ = ["read_any_model"]


def read_any_model(path: Path, *, run_model_code: Collection[str]) -> GlobalModel | ForeignModel:
    """The model; a ForeignModel only where it has no plan and `run_model_code` names the file's SHA-256.

    Raises:
        ModelError: as models.file.parse_model; where the site does not trust the file, the message says how to.
        StorageError: missing, or longer than a model may be.
    """
    content = read_bounded(path, max_bytes=MAX_BYTES)
    if hashlib.sha256(content).hexdigest() not in run_model_code:
        return parse_model(content)
    try:
        return parse_model(content)
    except UnsupportedModelError:
        return parse_foreign_model(content)

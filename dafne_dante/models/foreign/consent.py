"""Whether the code that a model file carries may be run: only where the site's settings name the file's SHA-256.

Terms: a *foreign* model is one whose network only the source texts in its file can build.

Invariants: the answer is no unless the 64 hexadecimal digits are equal; nobody is asked in a dialog, because a click
is no review; what a message tells of the code are function names that we know and numbers.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from dafne_dante.errors import UnsupportedModelError

__all__ = ["FOREIGN_TYPES", "code_advice", "require_consent"]

FOREIGN_TYPES = ("DynamicTorchModel", "DynamicTorchFLAREModel", "DynamicEnsembleModel")
"""Types whose weights are torch tensors and whose code can be run apart."""
_NEEDED = ("init_model_function", "apply_model_function")


def code_advice(document: Mapping[Any, Any], content: bytes) -> str:
    """The end of a refusal: which code the file carries, its SHA-256, and how a site opts in."""
    found = [(name, document[name]) for name in _NEEDED if isinstance(document.get(name), str)]
    if len(found) < len(_NEEDED):
        return "; the file carries no code that could build and apply one either; train the model again"
    carried = " and ".join(f"{name} ({len(text.splitlines())} lines)" for name, text in found)
    return (
        f"; the file carries code of its own, {carried}, which is never run unless you trust it. "
        f"{_how(hashlib.sha256(content).hexdigest())}"
    )


def require_consent(sha256: str, run_model_code: Collection[str]) -> None:
    """Return where `run_model_code` names the file's SHA-256; else UnsupportedModelError, which says how to opt in."""
    if sha256 not in run_model_code:
        raise UnsupportedModelError(
            f"expected a model whose code this site trusts, found one that its settings do not name. {_how(sha256)}"
        )


def _how(sha256: str) -> str:
    return (
        f"Its SHA-256 is {sha256}. If you have read that code and trust it, write into settings.toml: "
        f'[trust] run_model_code = ["{sha256}"]; then it can segment and be evaluated, in a child process without '
        "network and files, but not be improved"
    )

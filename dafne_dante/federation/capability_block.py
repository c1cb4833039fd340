"""What an operator's type says of itself in `model.json`, so that sites send deltas to it.

Terms: the *block* is the value of `dafne_dante` there: the delta format's version, the operator's public key, and the
public seal key where there is one. Servers pass `model.json` through as it is (DAFNE.md section 2).

Invariants: public halves only; a key from a server is a hint, a site's pin decides (`trusted`).
"""

from typing import Any

from dafne_dante.config import Settings
from dafne_dante.delta.sealing import SEAL_KEY_FILE, load_seal_key, seal_key_text
from dafne_dante.delta.signing import ensure_signing_key, public_key_text
from dafne_dante.federation.client import Capability

__all__ = ["BLOCK", "capability_block", "says"]

BLOCK = "dafne_dante"
"""The block's key in `model.json`."""


def capability_block(settings: Settings) -> dict[str, Any]:
    """The block of this operator, whose signing key is made where there is none.

    Raises:
        StorageError: a key cannot be read or written. SettingsError: it is no key.
    """
    block = {"delta": 1, "operator_key": public_key_text(ensure_signing_key(settings.folder))}
    if (settings.folder / SEAL_KEY_FILE).exists():
        block["seal_key"] = seal_key_text(load_seal_key(settings.folder))
    return block


def says(told: Capability | None, block: dict[str, Any]) -> bool:
    """Whether a server tells its callers what `block` says."""
    return told is not None and told == Capability(block["delta"], block["operator_key"], block.get("seal_key", ""))

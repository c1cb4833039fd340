"""What Dafne should use of a type now, and what comes there: the model that passed its gate.

Invariants: only what this site signed is kept; what cannot be used, or is damaged, never stands in the way of the
global model, and the words say so.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dafne_dante.config import Settings
from dafne_dante.delta.decode import Delta, decode_delta
from dafne_dante.delta.signing import load_signing_key, public_key_text
from dafne_dante.durable import read_bounded
from dafne_dante.errors import (
    DamagedModelError,
    DeltaError,
    IncompatibleModelError,
    ModelError,
    StorageError,
    TrustError,
)
from dafne_dante.models.file import MAX_BYTES, parse_model
from dafne_dante.models.global_model import digest_weights
from dafne_dante.plugin.local.shelf import local_shelf
from dafne_dante.plugin.local.versions import LocalState, LocalVersion

__all__ = ["LocalModel", "keep_for_this_site", "keep_improvement", "local_model", "own_delta"]


@dataclass(frozen=True)
class LocalModel:
    """What to use: the file of an improved model (None: the global one), its number (0), and why, in words."""

    file: Path | None
    number: int
    words: str


def local_model(settings: Settings, model_type: str, *, newest: str = "") -> LocalModel:
    """What Dafne should use of a type now; never raises for what is damaged, the global model is the answer then.

    Args:
        newest: the newest global version as the server names it, "" where that is not known. One that the improved
            model was not compared with is used until it was, see `local.updating`.
    """
    shelf = local_shelf(settings, model_type)
    try:
        state = shelf.state()
        current = state.current
        if current is None:
            return LocalModel(None, 0, state.status)
        if state.is_behind(newest):
            words = f"global version {newest} is used: what was learned here was not compared with it yet"
            return LocalModel(None, 0, words)
        return LocalModel(shelf.model_path(current), current.number, state.status)
    except (StorageError, DamagedModelError) as error:
        return LocalModel(None, 0, f"the global model is used: {error}")


def keep_improvement(settings: Settings, model: Path, delta: Path, *, seed: int = 0) -> LocalState:
    """Keep an improved model that passed its gate, with the signed delta that led to it, and use it from now on.

    Nothing happens a second time for the same files.

    Raises:
        StorageError: a file cannot be read or kept.
        ModelError, DeltaError: a file is refused.
        IncompatibleModelError: the delta names no type, or is another family's.
    """
    content, update = read_bounded(model, max_bytes=MAX_BYTES), read_bounded(delta, max_bytes=MAX_BYTES)
    improved, manifest = parse_model(content), own_delta(settings, update).manifest
    if not manifest.model_type or manifest.model_id != str(improved.model_id):
        raise IncompatibleModelError("expected the delta of this model, with the name of its type, found another")
    weights, digest = digest_weights(improved.weights), hashlib.sha256(content).hexdigest()
    before, after = (one.get("mean") or 0.0 for one in (manifest.dice_before, manifest.dice_after))
    shelf = local_shelf(settings, manifest.model_type)

    def version(state: LocalState) -> LocalVersion:
        same = next((one for one in state.versions if one.model == digest), None)
        if same is not None:
            return same
        # What Dafne used when it was improved may have been an improved model itself.
        parent = next((one for one in reversed(state.versions) if one.weights == manifest.base_sha256), None)
        chain = (*(parent.deltas if parent else ()), (hashlib.sha256(update).hexdigest(), 1.0))
        base = parent.base if parent else manifest.base_timestamp
        told = f"improved here: Dice {before:.3f} -> {after:.3f}, from global version {base}"
        return LocalVersion(state.newest + 1, digest, weights, chain, base, int(time.time()), before, after, seed, told)

    # Not the newest that was ever seen: one that came while this was learned is still to be compared with it.
    improves_improved = any(one.weights == manifest.base_sha256 for one in shelf.state().versions)
    return shelf.add(
        version, content, update, seen=shelf.state().seen if improves_improved else manifest.base_timestamp
    )  # fmt: skip


def keep_for_this_site(settings: Settings, out: Path, *, seed: int, say: Callable[[str], None]) -> None:
    """Keep what an improvement wrote into `out`; where that is refused, say so and leave the improvement as it is."""
    try:
        state = keep_improvement(settings, out / "improved.model", out / "update.delta", seed=seed)
    except (StorageError, ModelError, DeltaError, TrustError) as error:
        say(f"this site goes on with the model that it has: {error}")
        return
    say(f"this site uses its improved model {state.chosen} from now on")


def own_delta(settings: Settings, content: bytes) -> Delta:
    """A delta that this site signed, for whatever base; DeltaError where it is not."""
    own = public_key_text(load_signing_key(settings.folder))
    return decode_delta(content, base=None, trusted_keys={own})

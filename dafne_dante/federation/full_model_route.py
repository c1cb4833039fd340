"""An update for a type that takes no deltas: as a full model, made so that the stock merge gives the update's step.

A stock server merges by W <- (W + U) / 2, where U is what was uploaded. So U = W + 2 dW for the newest W, made when it
is sent: then W moves by dW, from wherever others have moved it meanwhile.

Invariants: only where the site allows it; U is of the type's own family, or nothing is made; the newest model is judged
like any that is pulled; what leaves holds the newest model and the update, and nothing else: no signature of the
operator's, no case, no path.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dafne_dante.config import Settings
from dafne_dante.delta.container import MAX_DELTA_BYTES
from dafne_dante.delta.decode import decode_delta
from dafne_dante.delta.difference import apply_updates
from dafne_dante.durable import read_bounded
from dafne_dante.errors import IncompatibleModelError
from dafne_dante.federation.model_signature import without_signature
from dafne_dante.federation.pulling import Downloads, pull_newest
from dafne_dante.models.build import tie_aliases
from dafne_dante.models.file import write_model

__all__ = ["FullModelRoute"]

_STOCK_SHARE = 0.5
"""Of an upload in the stock servers' average."""


@dataclass(frozen=True)
class FullModelRoute:
    """How updates become full models for one server.

    Attributes:
        client: of that server.
        settings: with the site's pins.
        server: its base URL.
    """

    client: Downloads
    settings: Settings
    server: str

    @contextmanager
    def file_for(self, delta: Path, model_type: str) -> Iterator[Path]:
        """The `.model` file that says what the delta in a file says; it is gone after the block.

        Raises:
            DeltaError: the delta does not fit the newest model any more.
            TransportError, ModelError, TrustError: see `pull_newest`.
            IncompatibleModelError: the type's newest model is of another family.
            StorageError: no room for the files.
        """
        decoded = decode_delta(read_bounded(delta, max_bytes=MAX_DELTA_BYTES), base=None, trusted_keys=None)
        with tempfile.TemporaryDirectory(prefix="dafne-dante-") as folder:
            pulled = pull_newest(
                self.client, model_type, Path(folder) / "newest.model", settings=self.settings, server=self.server
            )
            model = pulled.model
            if str(model.model_id) != decoded.manifest.model_id:
                raise IncompatibleModelError(
                    f"expected the newest {model_type} to be of the update's family, found another; improve again"
                )
            weights = apply_updates(model.weights, decoded.updates, step=1 / _STOCK_SHARE)
            upload = Path(folder) / "update.model"
            write_model(without_signature(replace(model, weights=tie_aliases(model.plan, weights))), upload)
            yield upload

"""Ask the server whether there is a newer global model than the one this site's improved model comes from."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from dafne_dante.config import Settings
from dafne_dante.durable import make_folder
from dafne_dante.errors import StorageError
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.pulling import pull_newest
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.local.carrying import Newer, carry_over
from dafne_dante.plugin.local.shelf import local_folder, local_shelf
from dafne_dante.plugin.local.versions import LocalState

__all__ = ["refresh_local"]


def refresh_local(
    client: FederationClient,
    model_type: str,
    settings: Settings,
    cases: CaseRequest | None = None,
    *,
    say: Callable[[str], None] = lambda words: None,
) -> LocalState:
    """Carry the improved model over to the newest global one, or drop it; nothing where none is newer, or none is kept.

    Args:
        client: of the settings' server.
        cases: to measure on; those that the site keeps when left out.

    Raises:
        TransportError, ModelError, TrustError: the newest global model cannot be had, or is not to be trusted.
        AnnotationError, StorageError: as `carry_over`.
    """
    state = local_shelf(settings, model_type).state()
    if not state.versions or int(client.model_info(model_type).latest_timestamp) <= int(state.seen or 0):
        return state
    make_folder(local_folder(settings))
    try:
        with tempfile.TemporaryDirectory(dir=local_folder(settings), prefix=".") as folder:
            pulled = pull_newest(client, model_type, Path(folder) / "newest.model", settings=settings)
            newer = Newer(pulled.model, pulled.info.latest_timestamp)
            return carry_over(newer, model_type, settings, cases or CaseRequest(), say=say)
    except OSError as error:
        raise StorageError(f"cannot look at the newest model: {error.strerror or type(error).__name__}") from error

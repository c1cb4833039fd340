"""Our federation's round on Flower's engine (extra `flower`, an environment of its own: docs/flower.md).

Terms: a *site app* is Flower's ClientApp, run at a site; the *strategy* runs at the operator; Flower carries the
messages between them, and nothing more.

Invariants
- Down goes the newest `.model` file as it was published, the operator's signature inside; up comes one delta file that
  the site signed, or nothing. Flower's records hold no weight, no metric and no text of a site beside it.
- What comes up is received like any upload and merged by the merger that every other way leads to (`operator`): same
  checks, same quarantine, same validation, same ledger. That a message came over Flower speaks for nothing.
- Nothing is built unless Flower's telemetry, its search for updates and Ray's report of usage are off (`QUIET`).
- A site's fault is told to the site; the operator learns only that there is no update.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from dafne_dante.durable import make_folder, read_bounded
from dafne_dante.errors import DanteError, SettingsError
from dafne_dante.federation.depot import FolderDepot
from dafne_dante.federation.operator import MergeReport
from dafne_dante.federation.shelf import Shelf

__all__ = ["QUIET", "DeltaStrategy", "LocalUpdate", "site_app"]

LocalUpdate = Callable[[Path, Path, Mapping[str, Any]], Path | None]
"""From a `.model` file, an empty folder and the node's own configuration to a signed delta file; None for no update."""

QUIET = ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK", "RAY_USAGE_STATS_ENABLED")
"""What must be set in the environment before Flower is imported: "0", "1" and "0"."""
_MAX_BYTES = 1 << 30
_FILE, _MODEL, _DELTA = "file", "model", "delta"
_LOG = logging.getLogger(__name__)


def site_app(improve_locally: LocalUpdate) -> ClientApp:
    """The app of a site; a DanteError of `improve_locally` is logged at the site and costs its update only.

    Raises:
        SettingsError: the engine would tell others of itself, see QUIET.
    """
    _check_quiet()
    app = ClientApp()

    @app.train()  # type: ignore[untyped-decorator]
    def train(message: Message, context: Context) -> Message:
        delta = b""
        with tempfile.TemporaryDirectory(prefix="dafne-dante-") as folder:
            model = Path(folder) / "global.model"
            model.write_bytes(message.content[_MODEL][_FILE])
            try:
                path = improve_locally(model, make_folder(Path(folder) / "out"), dict(context.node_config))
                delta = b"" if path is None else read_bounded(path, max_bytes=_MAX_BYTES)
            except DanteError as error:
                _LOG.warning("no update: %s", error)
        return Message(content=RecordDict({_DELTA: ConfigRecord({_FILE: delta})}), reply_to=message)

    return app


class DeltaStrategy(Strategy):  # type: ignore[misc]
    """A round: the newest model to every node, what comes back into the queue, one merge.

    Attributes:
        reports: what each round's merge came to.
    """

    def __init__(self, root: Path, model_type: str, merge: Callable[[FolderDepot], MergeReport]) -> None:
        """`root` is the folder of a server's types (`Shelf`); `merge` is `merge_pending` with its other arguments.

        Raises:
            SettingsError: the engine would tell others of itself, see QUIET.
        """
        _check_quiet()
        self.reports: list[MergeReport] = []
        self._shelf, self._type, self._merge = Shelf(root), model_type, merge
        self._depot = FolderDepot(root, model_type)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The newest version, to every node that is there."""
        with tempfile.TemporaryDirectory(prefix="dafne-dante-") as folder:
            model = self._depot.fetch_model(self._depot.versions()[-1], Path(folder) / "global.model")
            content = RecordDict({_MODEL: ConfigRecord({_FILE: model.read_bytes()})})
        return [Message(content=content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Queue what came, and merge. Flower's own arrays stay empty: the model is the published file."""
        received = silent = 0
        for reply in replies:
            delta = b"" if reply.has_error() else _delta_in(reply)
            received, silent = received + bool(delta), silent + (not delta)
            if delta:
                self._receive(delta, reply.metadata.src_node_id)
        report = self._merge(self._depot)
        self.reports.append(report)
        return None, MetricRecord(
            {
                "received": received,
                "without update": silent,
                "merged": report.merged,
                "refused": len(report.quarantined),
            }
        )

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """None: the operator's own cases decide (`operator`)."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """None, see configure_evaluate."""
        return None

    def summary(self) -> None:
        """One line."""
        _LOG.info("signed deltas of %s, merged as every other upload", self._type)

    def _receive(self, delta: bytes, node: int) -> None:
        with tempfile.TemporaryDirectory(prefix="dafne-dante-") as folder:
            path = Path(folder) / "delta"
            path.write_bytes(delta)
            self._shelf.receive_copy(self._type, f"flower{node % 10**6}", path)


def _check_quiet() -> None:
    if [os.environ.get(name) for name in QUIET] != ["0", "1", "0"]:
        raise SettingsError(
            f"expected {QUIET[0]}=0, {QUIET[1]}=1 and {QUIET[2]}=0 in the environment, found others; set them"
        )


def _delta_in(reply: Message) -> bytes:
    """The delta file in a reply; nothing where it holds anything else, or too much."""
    record = reply.content.config_records.get(_DELTA)
    delta = record.get(_FILE) if record is not None else None
    return delta if isinstance(delta, bytes) and len(delta) <= _MAX_BYTES else b""

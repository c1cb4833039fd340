"""Our federation's round on Flower's engine (extra `flower`, an environment of its own: docs/flower.md).

Terms: a *site app* is Flower's ClientApp, run at a site; the *strategy* runs at the operator; Flower carries the
messages between them, and nothing more.

Invariants
- Down goes the newest `.model` file as it was published, the operator's signature inside, and its version; up comes
  one delta file that the site signed, or nothing. Flower's records hold no weight, no metric and no text of a site
  beside it.
- What comes down is pulled by the site's client through a `Transport` like any download (`message_transport`), and
  judged against the site's pins before it is used: no model of another's, and none older than one that was taken.
- What comes up is received like any upload and merged by the `Aggregator` that every other way leads to: same checks,
  same quarantine, same validation, same ledger. That a message came over Flower speaks for nothing.
- Nothing is built unless Flower's telemetry, its search for updates, its installing of what an app asks for, and Ray's
  report of usage are off (`QUIET`).
- A site's fault is told to the site; the operator learns only that there is no update.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from dafne_dante.config import Settings
from dafne_dante.durable import make_folder
from dafne_dante.errors import DanteError, SettingsError
from dafne_dante.federation.aggregator import Aggregator
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.depot import FolderDepot
from dafne_dante.federation.merge_report import MergeReport
from dafne_dante.federation.message_transport import MAX_MESSAGE_FILE_BYTES, MessageTransport
from dafne_dante.federation.model_signature import read_signature
from dafne_dante.federation.pulling import pull_newest
from dafne_dante.federation.shelf import Shelf

__all__ = ["QUIET", "DeltaStrategy", "LocalUpdate", "SiteTrust", "site_app"]

LocalUpdate = Callable[[Path, Path, Mapping[str, Any]], Path | None]
"""From a `.model` file, an empty folder and the node's own configuration to a signed delta file; None for no update."""

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What must be set in the environment before Flower is imported."""
_INSTALLS = "--allow-runtime-dependency-installation"  # how a SuperLink or a SuperNode tells its apps' processes
_FILE, _VERSION, _MODEL, _DELTA = "file", "version", "model", "delta"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SiteTrust:
    """By what a site judges the model that comes down.

    Attributes:
        model_type: the type that the site takes part in; a model signed as another is refused.
        server: the address under which the site's pins are kept: that of the operator's Dafne server, where there is
            one, so that a key pinned there holds here, and a release taken there is not taken back here.
        settings: the site's, from the node's own configuration.
    """

    model_type: str
    server: str
    settings: Callable[[Mapping[str, Any]], Settings]


def site_app(improve_locally: LocalUpdate, trust: SiteTrust) -> ClientApp:
    """The app of a site; a DanteError there, a model that is not trusted included, is logged and costs the update only.

    Raises:
        SettingsError: the engine would tell others of itself, or install, see QUIET.
    """
    _check_quiet()
    app = ClientApp()

    @app.train()  # type: ignore[untyped-decorator]
    def train(message: Message, context: Context) -> Message:
        delta = b""
        with tempfile.TemporaryDirectory(prefix="dafne-dante-") as folder:
            try:
                delta = _update_for(message, dict(context.node_config), Path(folder), improve_locally, trust)
            except DanteError as error:
                _LOG.warning("no update: %s", error)
        return Message(content=RecordDict({_DELTA: ConfigRecord({_FILE: delta})}), reply_to=message)

    return app


def _update_for(
    message: Message, node: Mapping[str, Any], folder: Path, improve_locally: LocalUpdate, trust: SiteTrust
) -> bytes:
    """Pull the model out of the message, improve it, and hand the delta to the same client; b"" for no update."""
    record = message.content.config_records.get(_MODEL) or {}
    transport = MessageTransport(trust.model_type, record.get(_VERSION), record.get(_FILE))
    client = FederationClient(transport, chunk_bytes=MAX_MESSAGE_FILE_BYTES)
    model = folder / "global.model"
    pulled = pull_newest(client, trust.model_type, model, settings=trust.settings(node), server=trust.server)
    level = logging.WARNING if read_signature(pulled.model) is None else logging.INFO
    _LOG.log(level, "%s: %s", trust.model_type, pulled.words)
    path = improve_locally(model, make_folder(folder / "out"), node)
    if path is not None:
        client.upload(trust.model_type, path, 0.0)  # the strategy has no use for a Dice: the operator measures
    return transport.sent


class DeltaStrategy(Strategy):  # type: ignore[misc]
    """A round: the newest model to every node, what comes back into the queue, one merge.

    Attributes:
        reports: what each round's merge came to.
    """

    def __init__(self, root: Path, model_type: str, merge: Aggregator) -> None:
        """`root` is the folder of a server's types (`Shelf`).

        Raises:
            SettingsError: the engine would tell others of itself, or install, see QUIET.
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
            version = self._depot.versions()[-1]
            model = self._depot.fetch_model(version, Path(folder) / "global.model")
            content = RecordDict({_MODEL: ConfigRecord({_FILE: model.read_bytes(), _VERSION: version})})
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
    wrong = [f"{name}={value}" for name, value in QUIET.items() if os.environ.get(name) != value]
    if wrong:
        raise SettingsError(f"expected {' and '.join(wrong)} in the environment, found others; set them")
    if _INSTALLS in sys.argv:
        raise SettingsError(
            f"expected an engine that installs nothing, found it started with {_INSTALLS}; leave it out"
        )


def _delta_in(reply: Message) -> bytes:
    """The delta file in a reply; nothing where it holds anything else, or too much."""
    record = reply.content.config_records.get(_DELTA)
    delta = record.get(_FILE) if record is not None else None
    return delta if isinstance(delta, bytes) and len(delta) <= MAX_MESSAGE_FILE_BYTES else b""

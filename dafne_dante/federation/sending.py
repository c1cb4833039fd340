"""Sending what waits in the outbox, one after the other: updates, and withdrawals of updates.

The path of one update: ask the server whether its type takes deltas -> check the file, and seal a copy where the site
has pinned a seal key -> `sending` in the database ->
"leaving" in the audit log -> upload -> "outcome" in the audit log -> the new state in the database. Each arrow is on
the disk before the next step begins.

Invariants
- Nothing leaves that the audit log does not have before; what the log has of a try decides after a crash: without
  "leaving" nothing left, with an outcome it is that one, else the server may have it.
- What may have arrived is sent again as the same update under the same update_id, which the operator counts once
  (admission.py), and the log says that it is sent again.
- A full model, which nobody can tell from a second one, is sent once, however its answer is lost.
- A site that pinned a seal key sends nothing unsealed: a type that names another key, or none, gets nothing.
- One process sends at a time; an update goes only to the server that it was queued for.
- A failure of one update ends the round only when the next one would fail by it, too: no server, no permission.
"""

import random as randomness
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dafne_dante.config import Settings
from dafne_dante.durable import digest_file
from dafne_dante.errors import (
    AccessDeniedError,
    DanteError,
    ServerUnreachableError,
    StorageError,
    TransportError,
    TrustError,
)
from dafne_dante.federation.audit import Head, Record
from dafne_dante.federation.client import Capability, ModelInfo
from dafne_dante.federation.full_model_route import FullModelRoute
from dafne_dante.federation.outbox import Outbox, settings_mark
from dafne_dante.federation.outbox_states import Entry, Patience, begin, is_due
from dafne_dante.federation.pulling import Downloads
from dafne_dante.federation.route import checked_address
from dafne_dante.federation.sealed_copy import leaving_file
from dafne_dante.federation.transport import Progress
from dafne_dante.federation.verdicts import ARRIVED, Verdict, judge, settle, verdict_of_record

__all__ = [
    "Dispatcher",
    "FullModels",
    "SiteClient",
    "Tried",
    "Uploads",
    "cancel_update",
    "dispatch_for",
    "recover",
    "settle_dead",
    "takes_deltas",
]

_DELTA_VERSION = 1
_FULL_MODEL = "full_model_sha256"


class Uploads(Protocol):
    """What sending needs of a FederationClient."""

    def model_info(self, model_type: str) -> ModelInfo:
        """What the server says about a type."""

    def upload(self, model_type: str, path: Path, dice: float, progress: Progress | None = None) -> None:
        """Send a file; UploadUnknownError when it may have arrived."""


class SiteClient(Uploads, Downloads, Protocol):
    """What a site needs of a FederationClient to send in every form."""


class FullModels(Protocol):
    """What sending needs of a FullModelRoute."""

    def file_for(self, delta: Path, model_type: str) -> AbstractContextManager[Path]:
        """The full model that says what a delta's file says."""


@dataclass(frozen=True)
class Tried:
    """An update after a try; `error` is why it has not arrived, None when it has."""

    entry: Entry
    error: DanteError | None


@dataclass(frozen=True)
class Dispatcher:
    """Sends what waits for one server.

    Attributes:
        outbox: where it waits.
        client: of that server.
        server: its base URL.
        seal_key: the operator's, which the site pinned; "" for none.
        full_models: makes full models of updates for types that take no deltas; None where the site does not allow it.
        mark: of the settings, see `outbox.settings_mark`: what is held under others is tried again.
        patience, draw: pauses after failures; `draw` is uniform in [0, 1).
        wait_s: how long to wait for another process that is sending.
        progress: is told the bytes of an update that left and the bytes in all.
    """

    outbox: Outbox
    client: Uploads
    server: str
    mark: str = ""
    seal_key: str = ""
    full_models: FullModels | None = None
    patience: Patience = field(default_factory=Patience)
    draw: Callable[[], float] = randomness.random
    wait_s: float = 0.0
    progress: Progress | None = None

    def send_one(self, update_id: str) -> Tried:
        """Try one update now, whether it is due or not; what has arrived or ended is left as it is.

        Raises:
            StorageError: the disk refuses; the update is in the outbox, whatever was sent.
            TransportError: another process is sending for longer than `wait_s`.
            DeltaError: there is no such update.
        """
        with self.outbox.sending(wait_s=self.wait_s) as mine:
            if not mine:
                raise TransportError("another process is sending; the update waits in the outbox")
            recover(self.outbox, patience=self.patience, share=self.draw(), mark=self.mark)
            entry = self.outbox.find(update_id)
            if entry.state == "waiting":
                return self._try(entry)
        return Tried(entry, None if entry.state == "sent" else TransportError(f"the update is {entry.state}"))

    def send_due(self) -> list[Tried]:
        """Try every update for the server that is due, oldest first; nothing when another process is sending.

        Raises:
            StorageError: the disk refuses.
        """
        tried: list[Tried] = []
        with self.outbox.sending(wait_s=self.wait_s) as mine:
            if not mine:
                return tried
            recover(self.outbox, patience=self.patience, share=self.draw(), mark=self.mark)
            for entry in self.outbox.entries(finished=False):
                if self._is_for_us(entry) and is_due(entry, self.outbox.now_s, self.mark):
                    tried.append(self._try(entry))
                    if isinstance(tried[-1].error, (ServerUnreachableError, AccessDeniedError)):
                        break
        return tried

    def _is_for_us(self, entry: Entry) -> bool:
        return entry.server == checked_address(self.server)

    def _try(self, entry: Entry) -> Tried:
        if not self._is_for_us(entry):
            return Tried(entry, TransportError(f"the update is for {entry.server}; name that server to send it"))
        try:
            capability = self.client.model_info(entry.model_type).capability
        except TransportError as error:
            return self._stays(entry, judge(error, uploading=False), error)
        as_model = entry.kind == "delta" and not takes_deltas(capability) and self.full_models is not None
        path = self.outbox.file_of(entry)
        obstacle = _obstacle(entry, capability, self.seal_key, as_model=as_model)
        if obstacle or path is None:
            return self._stays(entry, *(obstacle or _damaged()))
        with ExitStack() as stack:
            try:
                leaving = stack.enter_context(self._form(entry, path, as_model=as_model))
            except (StorageError, TransportError) as error:
                return self._stays(entry, judge(error, uploading=False), error)
            except DanteError as error:
                return self._stays(entry, Verdict("not-arrived", "no-form", str(error)), error)
            return self._send(entry, leaving, _form_facts(leaving, sealed=bool(self.seal_key), as_model=as_model))

    def _form(self, entry: Entry, path: Path, *, as_model: bool) -> AbstractContextManager[Path]:
        """The file in the form in which it leaves."""
        if as_model and self.full_models is not None:
            return self.full_models.file_for(path, entry.model_type)
        return leaving_file(path, self.seal_key)

    def _send(self, entry: Entry, path: Path, form: Mapping[str, Any]) -> Tried:
        entry = self.outbox.change(entry.update_id, begin)
        self.outbox.audit.append("leaving", {**_facts(entry), **form})
        verdict, failure = ARRIVED, None
        try:
            self.client.upload(entry.model_type, path, entry.dice, self.progress)
        except (TransportError, StorageError) as error:
            verdict, failure = judge(error, uploading=True), error
        verdict = _once_only(verdict) if _FULL_MODEL in form else verdict
        head = self.outbox.audit.append("outcome", _outcome(entry, verdict))
        return Tried(self._settled(entry, verdict, head), failure)

    def _stays(self, entry: Entry, verdict: Verdict, error: DanteError) -> Tried:
        return Tried(self._settled(entry, verdict, None), error)

    def _settled(self, entry: Entry, verdict: Verdict, head: Head | None) -> Entry:
        end = partial(settle, verdict=verdict, patience=self.patience, share=self.draw(), mark=self.mark)
        return self.outbox.change(entry.update_id, end, head)


def dispatch_for(
    settings: Settings,
    outbox: Outbox,
    client: SiteClient,
    server: str,
    *,
    wait_s: float = 0.0,
    progress: Progress | None = None,
) -> Dispatcher:
    """What sends a site's outbox to `server` by `client`, which must be a client of that server."""
    address = checked_address(server)
    return Dispatcher(
        outbox,
        client,
        address,
        settings_mark(settings, outbox.salt),
        settings.seal_key,
        FullModelRoute(client, settings, address) if settings.allow_full_model else None,
        wait_s=wait_s,
        progress=progress,
    )


def cancel_update(outbox: Outbox, name: str) -> Entry:
    """Cancel the update of this name (see Outbox.find), also one whose sending process died.

    Raises:
        DeltaError: there is no such update, it has left, or it is being sent right now.
    """
    entry = outbox.find(name)
    settle_dead(outbox, entry)
    return outbox.cancel(entry.update_id)


def settle_dead(outbox: Outbox, entry: Entry) -> None:
    """Settle what is being sent if the process that did so has died."""
    if entry.state == "sending":
        with outbox.sending() as mine:
            if mine:
                recover(outbox, patience=Patience(), share=0.0, mark="")


def recover(outbox: Outbox, *, patience: Patience, share: float, mark: str) -> list[Entry]:
    """Settle what a process left that died while it was sending; only for who holds `outbox.sending`."""
    found = []
    for entry in outbox.entries(finished=False):
        if entry.state == "sending":
            verdict, head = _verdict_after_crash(outbox, entry)
            end = partial(settle, verdict=verdict, patience=patience, share=share, mark=mark)
            found.append(outbox.change(entry.update_id, end, head))
    return found


def _verdict_after_crash(outbox: Outbox, entry: Entry) -> tuple[Verdict, Head | None]:
    told = "the program ended while the update was being sent"
    records = [record for record in outbox.audit.records() if _is_of(record, entry)]
    for record in records:
        if record.get("event") == "outcome":
            return verdict_of_record(record), None
    if not records:
        return Verdict("not-arrived", "interrupted", told), None
    unknown = Verdict("unknown", "interrupted", told)
    unknown = _once_only(unknown) if any(_FULL_MODEL in record for record in records) else unknown
    return unknown, outbox.audit.append("outcome", _outcome(entry, unknown))


def _is_of(record: Record, entry: Entry) -> bool:
    return (record.get("update_id"), record.get("attempt")) == (entry.update_id, entry.attempts)


def _name_of(entry: Entry) -> dict[str, Any]:
    return {"update_id": entry.update_id, "attempt": entry.attempts}


def _facts(entry: Entry) -> dict[str, Any]:
    """What the log says of an update that is about to leave."""
    return {
        **_name_of(entry),
        "kind": entry.kind,
        "to": entry.server,
        "model_type": entry.model_type,
        "sha256": entry.sha256,
        "bytes": entry.size_bytes,
        "trigger": entry.trigger,
        "may_be_there": entry.doubtful > 0,
        **({"withdraws": entry.withdraws} if entry.withdraws else {}),
    }


def _outcome(entry: Entry, verdict: Verdict) -> dict[str, Any]:
    return {**_name_of(entry), "outcome": verdict.outcome, "why": verdict.why}


def _no_deltas(entry: Entry) -> tuple[Verdict, DanteError]:
    what = "the withdrawal waits" if entry.kind == "withdrawal" else "update.delta is kept and waits"
    text = (
        f"expected a type that takes deltas, found that {entry.model_type} does not say so; nothing was sent, "
        f"{what} in the outbox; ask the operator to publish the type's capability"
    )
    return Verdict("not-arrived", "no-deltas", text), TransportError(text)


def takes_deltas(capability: Capability | None) -> bool:
    """Whether a type says that its operator takes deltas of the version that is written here."""
    return capability is not None and capability.delta >= _DELTA_VERSION


def _obstacle(
    entry: Entry, capability: Capability | None, seal_key: str, *, as_model: bool
) -> tuple[Verdict, DanteError] | None:
    """Why an update does not go to a type that says so of itself; None when it may."""
    if seal_key and (capability is None or capability.seal_key != seal_key):
        return _other_seal_key(entry) if takes_deltas(capability) or as_model else _no_deltas(entry)
    return None if takes_deltas(capability) or as_model else _no_deltas(entry)


def _form_facts(path: Path, *, sealed: bool, as_model: bool) -> dict[str, Any]:
    """What the log says of the bytes that leave where they are not those of the outbox."""
    if not sealed and not as_model:
        return {}
    try:
        size = path.stat().st_size
    except OSError as error:
        raise StorageError("cannot read an update's copy; see the folder for temporary files") from error
    if as_model:
        return {_FULL_MODEL: digest_file(path), "full_model_bytes": size}
    return {"sealed_sha256": digest_file(path), "sealed_bytes": size}


def _once_only(verdict: Verdict) -> Verdict:
    """A full model carries no update_id that its merger would know again: what may have arrived is not sent twice."""
    return replace(verdict, why="unknown-full") if verdict.outcome == "unknown" else verdict


def _other_seal_key(entry: Entry) -> tuple[Verdict, DanteError]:
    text = (
        f"expected {entry.model_type} to name the seal key that is pinned in the settings (seal_key), found another or "
        "none; nothing was sent, the update waits in the outbox; ask the operator by telephone which key is theirs"
    )
    return Verdict("not-arrived", "seal-key", text), TrustError(text)


def _damaged() -> tuple[Verdict, DanteError]:
    text = "expected the update's file in the outbox, found it missing or damaged; cancel it and improve again"
    return Verdict("not-arrived", "damaged", text), StorageError(text)

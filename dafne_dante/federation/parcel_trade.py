"""Bundles both ways: a global model to a site without network, its updates back, and a receipt for them.

    operator --model--> site --updates--> operator --receipt--> site

Invariants
- What goes into a bundle is in the audit log before the bundle is written. An update stays queued until the receipt of
  what it was packed into comes back, or the person says that it was handed over; only then is it sent, for ever.
- Importing twice does no more than once: what was taken is marked, and what a crash left unmarked is found by its
  update_id when it is merged.
- A receipt closes only what the audit log says was packed here: the same bytes, for the same server.
- A site that pinned a seal key packs nothing unsealed.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dafne_dante.config import Settings
from dafne_dante.delta.signing import SIGNING_KEY_FILE, load_signing_key, public_key_text, trusted_keys
from dafne_dante.durable import digest_file, make_folder, write_atomically
from dafne_dante.errors import DeltaError, ServerAnswerError, StorageError, TrustError
from dafne_dante.federation.outbox import Outbox
from dafne_dante.federation.outbox_states import Entry, arrive, begin
from dafne_dante.federation.parcel import Content, Item, Parcel, check_packer, new_content, write_parcel
from dafne_dante.federation.pins import PinFile, Place
from dafne_dante.federation.route import checked_address
from dafne_dante.federation.sealed_copy import leaving_file

__all__ = [
    "close_updates",
    "pack_model",
    "pack_outbox",
    "pack_withdrawal",
    "packers",
    "receive_updates",
    "sender_name",
    "write_receipt",
]

_PACKED = "packed"
_NO_DELTAS = "no-deltas"
_NO_NAME = re.compile(r"[^A-Za-z0-9-]+")


def packers(settings: Settings, server: str, model_types: Collection[str]) -> set[str]:
    """The keys whose bundles are taken: those that are trusted by name, the operator's pinned ones, and our own."""
    keys = set(trusted_keys(settings.folder))
    pins = PinFile(settings.folder)
    keys |= {pins.find(Place(checked_address(server), one), settings.operator_key).public_key for one in model_types}
    if (settings.folder / SIGNING_KEY_FILE).exists():
        keys.add(public_key_text(load_signing_key(settings.folder)))
    return keys - {""}


def pack_model(
    model: Path,
    to: Path,
    key: Ed25519PrivateKey,
    *,
    version: str,
    model_type: str,
    server: str,
    capability: Mapping[str, Any],
) -> Content:
    """Pack one version of a type; `server` is the address that sites know it under."""
    item = Item(version, model_type, digest_file(model), model.stat().st_size)
    content = new_content("model", checked_address(server), [item], capability=capability)
    write_parcel(to, content, [model], key)
    return content


def pack_outbox(outbox: Outbox, server: str, to: Path, key: Ed25519PrivateKey, *, seal_key: str = "") -> Content:
    """Pack every update that waits for `server`, sealed to `seal_key` where one is pinned; they stay in the outbox.

    What waits because its type takes no deltas is left out: whoever imported it would block a stock merger.

    Raises:
        DeltaError: none waits that could be packed.
        StorageError: the disk or the stick refuses.
    """
    address = checked_address(server)
    waiting = [one for one in outbox.entries(finished=False) if one.state == "waiting" and one.server == address]
    meant = [entry for entry in waiting if entry.why != _NO_DELTAS]
    found = [(entry, file) for entry in meant if (file := outbox.file_of(entry)) is not None]
    if not found and len(meant) < len(waiting):
        raise DeltaError(
            "expected an update whose type takes deltas, found only such as take none; ask the operator, and if that "
            "has changed: dafne-dante outbox retry --all"
        )
    if not found:
        raise DeltaError("expected an update that waits for that server, found none; see dafne-dante outbox list")
    return _pack(outbox, found, to, key, seal_key)


def pack_withdrawal(outbox: Outbox, withdrawal: Entry, to: Path, key: Ed25519PrivateKey, *, seal_key: str) -> Content:
    """As `pack_outbox`, of one withdrawal that waits.

    Raises:
        StorageError: the disk or the stick refuses, or the outbox has lost its file.
    """
    file = outbox.file_of(withdrawal)
    if file is None:
        raise StorageError("expected the withdrawal's file in the outbox, found it missing or damaged; withdraw again")
    return _pack(outbox, [(withdrawal, file)], to, key, seal_key)


def _pack(
    outbox: Outbox, found: Sequence[tuple[Entry, Path]], to: Path, key: Ed25519PrivateKey, seal_key: str
) -> Content:
    """Pack entries of one server with their files."""
    with ExitStack() as stack:
        files = [stack.enter_context(leaving_file(file, seal_key)) for _, file in found]
        items = [_item(entry, file) for (entry, _), file in zip(found, files, strict=True)]
        content = new_content("updates", found[0][0].server, items)
        for (entry, _), item in zip(found, items, strict=True):
            more = {"kind": entry.kind, "trigger": entry.trigger}
            # What is packed may be a sealed copy; this is the digest of the file that stays in the outbox.
            more |= {"open_sha256": entry.sha256} if entry.sha256 != item.sha256 else {}
            more |= {"withdraws": entry.withdraws} if entry.withdraws else {}
            outbox.remember(outbox.audit.append(_PACKED, {**_facts(item, content), **more}))
        write_parcel(to, content, files, key)
    return content


def receive_updates(
    parcel: Parcel, marks: Path, scratch: Path, deliver: Callable[[Item, Path], None]
) -> tuple[list[Item], list[Item]]:
    """Hand every update of a bundle to `deliver`, as a file in `scratch`; return those that are new and all.

    Raises:
        ServerAnswerError: a bundle of another kind, or other bytes than were signed.
        StorageError: the disk refuses. What was delivered before is marked.
    """
    if parcel.content.kind != "updates":
        raise ServerAnswerError("expected a bundle with updates, found one of another kind")
    new: list[Item] = []
    for item in parcel.content.items:
        # By who packed it and as what: sealed anew, the same update has other bytes.
        name = hashlib.sha256(f"{parcel.public_key} {item.name}".encode()).hexdigest()
        mark = make_folder(marks) / f"{name}.taken"
        if mark.exists():
            continue
        deliver(item, parcel.copy(item, scratch / "update"))
        write_atomically(mark, parcel.content.parcel_id.encode(), mode=0o600)
        new.append(item)
    return new, list(parcel.content.items)


def write_receipt(parcel: Parcel, to: Path, key: Ed25519PrivateKey) -> Content:
    """A receipt for all of a bundle with updates, signed by `key`."""
    content = new_content("receipt", parcel.content.server, parcel.content.items, answers=parcel.content.parcel_id)
    write_parcel(to, content, [], key)
    return content


def close_updates(outbox: Outbox, content: Content, *, event: str) -> list[Entry]:
    """Mark the updates of a receipt, or of a bundle that a person handed over, as sent; return those that were not yet.

    `event` is the word of the audit log: "receipt" or "handed-over".

    Raises:
        StorageError: the disk refuses, or another process is sending.
    """
    closed = []
    with outbox.sending(wait_s=10.0) as mine:
        if not mine:
            raise StorageError("expected the outbox to become free, found another process sending; try again")
        packed = _packed(outbox)
        named = {item.name: item for item in content.items if (item.name, item.sha256, content.server) in packed}
        for entry in outbox.entries(finished=False):
            item = named.get(entry.update_id)
            if item is not None and entry.state == "waiting" and entry.server == content.server:
                head = outbox.audit.append(event, _facts(item, content))
                outbox.change(entry.update_id, begin)
                closed.append(outbox.change(entry.update_id, arrive, head))
    return closed


def sender_name(parcel: Parcel, settings: Settings) -> str:
    """How the operator calls whoever packed a bundle, as a user's name; TrustError for one who is not trusted."""
    names = trusted_keys(settings.folder)
    check_packer(parcel, names)
    name = _NO_NAME.sub("-", names[parcel.public_key]).strip("-")[:64]
    if not name:
        raise TrustError("expected a trusted key's name with letters or digits, found others; trust it by another name")
    return name


def _item(entry: Entry, file: Path) -> Item:
    """What is carried of an update: the file that leaves, which is a sealed copy where there is a seal key."""
    dice = entry.dice if 0.0 <= entry.dice <= 1.0 else 0.0
    return Item(entry.update_id, entry.model_type, digest_file(file), file.stat().st_size, dice)


def _packed(outbox: Outbox) -> set[tuple[str, str, str]]:
    """update_id, digest and server of everything that was ever packed here."""
    records = [record for record in outbox.audit.records() if record.get("event") == _PACKED]
    return {(str(one.get("update_id")), str(one.get("sha256")), str(one.get("to"))) for one in records}


def _facts(item: Item, content: Content) -> dict[str, Any]:
    """What the audit log says; without `attempt`, since this is none over the network."""
    return {
        "update_id": item.name,
        "to": content.server,
        "model_type": item.model_type,
        "sha256": item.sha256,
        "bytes": item.size_bytes,
        "bundle": content.answers or content.parcel_id,
    }

"""A program: what leaves sealed, as a full model, in a bundle, or in parts over HTTP, killed at the n-th change.

    python crashing_sending.py FOLDER c|python kill|fail|full STEP SCENARIO...

As crashing_outbox.py, whose outbox and checks of the audit log it uses; afterwards other processes go on until nothing
waits. Then the operator has the update once, opened and whole; a full model came at most once, since nobody could tell
a second one; a bundle is whole or absent, and the audit log had its updates before.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import crashing_outbox
from crashing_outbox import DAY_S, DELTAS, IDS, FolderClient, check_log, nothing, one_queued, place_in, queue
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from deltas import KEY
from fake_dafne import FakePhp
from fake_servers import FakeServer
from outboxes import SERVER

from dafne_dante.delta.sealing import open_sealed, seal_key_text
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.parcel import open_parcel
from dafne_dante.federation.parcel_trade import pack_outbox
from dafne_dante.federation.retrying import Retrying, RetryPlan
from dafne_dante.federation.route import Route
from dafne_dante.federation.transport import HttpTransport

SEAL_KEY = X25519PrivateKey.generate()
PUBLIC = seal_key_text(SEAL_KEY)
PART_BYTES = 700


class FullModels:
    """Makes something of a delta that no update_id is in."""

    @contextmanager
    def file_for(self, delta: Path, model_type: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "full.model"
            path.write_bytes(b"full" + delta.read_bytes()[::-1])
            yield path


class MarkedTransport(HttpTransport):
    """Every part that goes is a change of the disk before and after it, so that a kill finds it there."""

    marks: Path

    def send(self, *words, **options):
        (self.marks / "before").write_bytes(b"")
        os.replace(self.marks / "before", self.marks / "mark")
        answer = super().send(*words, **options)
        os.replace(self.marks / "mark", self.marks / "after")
        return answer


class Php:
    """Dafne's PHP server on this machine, as one that outlives the killed."""

    def __init__(self):
        ticks = iter(range(1000, 10**9))
        self.stock = FakePhp(lambda: next(ticks))
        self.stock.info["dafne_dante"] = {"delta": 1}
        self.server = FakeServer(self.stock)

    def client(self, root):
        transport = MarkedTransport(
            self.server.url, "key", timeout_s=20.0, retrying=Retrying(RetryPlan(retries=0)), route=Route()
        )
        transport.marks = root
        return FederationClient(transport, chunk_bytes=PART_BYTES)


PHP = Php()


def dispatcher(root, name):
    place = place_in(root)
    if name == "sealed":
        client = FolderClient(root / "server")
        client.seal_key = PUBLIC
        return place, place.dispatcher(client, seal_key=PUBLIC)
    if name == "full model":
        client = FolderClient(root / "server")
        client.takes_deltas = False
        return place, place.dispatcher(client, full_models=FullModels())
    if name == "parts":
        return place, place.dispatcher(PHP.client(root))
    return place, place.dispatcher(FolderClient(root / "server"))


def sender(name):
    def act(root):
        queue(root, 1)
        dispatcher(root, name)[1].send_due()

    return act


def pack(root):
    pack_outbox(place_in(root).outbox, SERVER, root / "bundle", KEY)


SCENARIOS = {
    "sealed": (nothing, sender("sealed"), (1,)),
    "full model": (nothing, sender("full model"), (1,)),
    "parts": (nothing, sender("parts"), (1,)),
    "pack": (one_queued, pack, (1,)),
}


def check(root, name, numbers, ended):
    place, sending = dispatcher(root, name)
    before = [(entry.state, entry.why, entry.attempts) for entry in sending.outbox.entries()]
    assert before or not (root / "queued1").exists(), "what was queued is there"
    if name == "pack":
        check_bundle(root, sending.outbox, ended)
        before.append((root / "bundle").exists())
    sending.outbox.queue(DELTAS[1], server=SERVER, dice=0.75, trigger="nightly")
    for _ in range(6):
        place.clock.now_s += DAY_S
        sending.send_due()
    if name == "full model":
        check_full_model(root, place, sending)
    [entry] = sending.outbox.entries()
    assert entry.state == "sent" or (name, entry.state) == ("full model", "cancelled"), entry
    arrived = received(root, name)
    opened = {open_sealed(one, [SEAL_KEY]) if name == "sealed" else one for one in arrived}
    assert opened == ({b"full" + DELTAS[1][::-1]} if name == "full model" else {DELTAS[1]})
    assert len(arrived) <= (1 if name == "full model" else 3)
    assert place.files() == []
    log = sending.outbox.audit
    if name in ("pack", "parts"):
        check_log(sending.outbox, arrived)
    digests = {record.get("sealed_sha256", record.get("full_model_sha256")) for record in log.records()}
    assert name in ("pack", "parts") or {hashlib.sha256(one).hexdigest() for one in arrived} <= digests
    assert (fault := log.verify(sending.outbox.audit_head()).fault) == "", fault
    return before


def check_full_model(root, place, sending):
    """What may have arrived is held, until a person has looked whether it did."""
    [entry] = sending.outbox.entries()
    if entry.state != "sent":
        assert entry.why == "unknown-full", entry
        if received(root, "full model"):
            sending.outbox.cancel(entry.update_id)
        else:
            sending.outbox.retry(entry.update_id)
            sending.send_due()


def check_bundle(root, outbox, ended):
    packed = {
        (record["update_id"], record["sha256"]) for record in outbox.audit.records() if record["event"] == "packed"
    }
    assert (root / "bundle").exists() or ended != crashing_outbox.DONE
    if (root / "bundle").exists():
        [item] = open_parcel(root / "bundle").content.items
        assert item.name == IDS[1] and (item.name, item.sha256) in packed
    assert [entry.state for entry in outbox.entries()] == ["waiting"], "it waits for its receipt"
    assert not [path for path in root.iterdir() if path.name.startswith("bundle.")]


def received(root, name):
    if name == "parts":
        return list(PHP.stock.kept.values())
    return [path.read_bytes() for path in sorted((root / "server").glob("*.model"))]


def checked(root, name, numbers, ended):
    try:
        return check(root, name, numbers, ended)
    finally:
        PHP.stock.kept.clear()
        PHP.stock.parts.clear()


if __name__ == "__main__":
    with PHP.server:
        crashing_outbox.main(*sys.argv[1:], scenarios=SCENARIOS, check=checked)

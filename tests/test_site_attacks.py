"""What a server may do to a site that pulls its global model: nothing of the site changes, and nothing is executed.

The site is a real one, with the real client over HTTP; it took release 2 before.
"""

import gzip
import hashlib
import json
import pickle
import time
from dataclasses import replace

import pytest
from fake_servers import FakeServer, answer, drip, drip_headers, endless_100, hang, hang_up, redirect
from sites import snapshot
from test_trusted import KEY, MODEL, OTHER, TYPE, other_weights, signed

from dafne_dante.config import Settings
from dafne_dante.delta.signing import public_key_text
from dafne_dante.errors import DanteError, ModelError, TransportError, TrustError
from dafne_dante.federation.client import connect
from dafne_dante.federation.model_signature import without_signature
from dafne_dante.models.file import serialise_model
from dafne_dante.plugin.base_model import base_from_server
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve

GOOD = serialise_model(signed(2))
NEWER = serialise_model(signed(3, model=other_weights(signed(2))))
TIMEOUT_S = 1.0


class Executes:
    """A pickle of it touches a file when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def listed(content, **changes):
    """What info_model answers of a type whose newest version is `content`."""
    digest = hashlib.sha256(content).hexdigest()
    told = {"latest_timestamp": "2", "hash": digest, "hashes": {"2": digest}, "timestamps": ["2"], **changes}
    return answer(json.dumps(told).encode())


def hands_out(content, as_listed=None):
    """A server with that newest version, listed as it is, or as other bytes."""
    return {"info_model": listed(content if as_listed is None else as_listed), "get_model": answer(content)}


def says(info=None, model=None):
    return {"info_model": info or listed(NEWER), "get_model": model or answer(NEWER)}


def hostile(marker):
    source = f"def apply_model(model, data):\n    open({str(marker)!r}, 'w')\nopen({str(marker)!r}, 'w')\n"
    return replace(signed(3), sources={**MODEL.sources, "apply_model_function": source})


# name: (what the server does, the branches of errors that may tell it)
ATTACKS = {
    "other weights, the old signature": (lambda m: hands_out(serialise_model(other_weights(signed(3)))), TrustError),
    "another key": (lambda m: hands_out(serialise_model(signed(3, key=OTHER))), TrustError),
    "no signature": (lambda m: hands_out(serialise_model(without_signature(signed(3)))), TrustError),
    "an older release": (lambda m: hands_out(serialise_model(signed(1))), TrustError),
    "another model of the same number": (
        lambda m: hands_out(serialise_model(signed(2, model=other_weights(MODEL)))), TrustError
    ),
    "a model of another type": (lambda m: hands_out(serialise_model(signed(3, model_type="Leg"))), TrustError),
    "code in a function": (lambda m: hands_out(serialise_model(hostile(m))), TrustError),
    "code in the pickle": (lambda m: hands_out(pickle.dumps({"weights": Executes(m)})), ModelError),
    "other bytes than it lists": (lambda m: hands_out(NEWER, as_listed=GOOD[:-1]), TransportError),
    "garbage as a model": (lambda m: hands_out(b"\x80\x04garbage" * 1000), ModelError),
    "garbage as a list": (lambda m: says(info=answer(b"<html>moved</html>")), TransportError),
    "a version that is a path": (lambda m: says(info=listed(NEWER, latest_timestamp="../../x")), TransportError),
    "half a model": (lambda m: says(model=answer(NEWER[: len(NEWER) // 2], length=len(NEWER))), TransportError),
    "half a model, listed as whole": (lambda m: hands_out(NEWER[: len(NEWER) // 2]), ModelError),
    "no answer": (lambda m: says(info=hang), TransportError),
    "no model": (lambda m: says(model=hang), TransportError),
    "headers without an end": (lambda m: says(model=drip_headers(0.05)), TransportError),
    "continue without an end": (lambda m: says(info=endless_100(0.05)), TransportError),
    "a model without an end": (lambda m: says(model=drip(0.05)), TransportError),
    "an end without an answer": (lambda m: says(model=hang_up), TransportError),
    "a long list": (lambda m: says(info=answer(b" " * 5_000_000)), TransportError),
    "a deep list": (lambda m: says(info=answer(b"[" * 1_000_000)), TransportError),
    "a bomb in a list": (
        lambda m: says(info=answer(gzip.compress(b" " * 10**8), headers=[("Content-Encoding", "gzip")])), TransportError
    ),
    "a bomb in a pickle": (lambda m: hands_out(b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x"), ModelError),
}  # fmt: skip


class Site:
    """It took release 2 from a server that was honest then; `steps` is what the server does now."""

    def __init__(self, root, url):
        self.root, self.settings = root, Settings(
            folder=root / "site", server=url, api_key="a-key", retries=0, timeout_s=TIMEOUT_S
        )  # fmt: skip
        self.out = root / "results"
        self.out.mkdir()
        (self.out / "summary.json").write_text("{}")

    def pull(self):
        """As before an improvement, for which it is the first thing done."""
        base_from_server(connect(self.settings), TYPE, self.root / "first.model", settings=self.settings)

    def improve(self):
        request = ImprovementRequest(data=CaseRequest((self.root / "none",)), out=self.out, model_type=TYPE)
        improve(request, self.settings, client=connect(self.settings))

    def kept(self):
        """Pins, keys and cache, and results of before."""
        return {**snapshot(self.root / "site"), **snapshot(self.out)}


class Server:
    """Does as `steps` says for each call, until it is told otherwise."""

    def __init__(self):
        self.steps = hands_out(GOOD)

    def __call__(self, handler):
        self.steps[handler.path.strip("/")](handler)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("attack", [*ATTACKS, "another server"])
def test_an_attack_leaves_the_site_as_it_was(attack, tmp_path):
    server, marker = Server(), tmp_path / "executed"
    with FakeServer(server) as running, FakeServer(server) as elsewhere:
        site = Site(tmp_path, running.url)
        site.pull()
        before = site.kept()
        assert public_key_text(KEY) in before[next(path for path in before if path.name == "pins.json")].decode()
        make, branch = ATTACKS.get(
            attack, (lambda m: says(model=redirect(elsewhere.url + "get_model")), TransportError)
        )
        server.steps, begin = make(marker), time.monotonic()
        with pytest.raises(DanteError) as raised:
            site.improve()
        assert time.monotonic() - begin < 30
        assert isinstance(raised.value, branch), raised.value
        assert elsewhere.requests == []
        assert not marker.exists()
        after = site.kept()
        # What was downloaded as the server lists it may lie in the cache, where it is named by its digest.
        new = {path.name: content for path, content in after.items() if path not in before}
        assert all(name == f"{hashlib.sha256(content).hexdigest()}.model" for name, content in new.items()), list(new)
        assert {path: content for path, content in after.items() if path in before} == before
        server.steps = hands_out(GOOD)
        site.pull()
        assert (tmp_path / "first.model").read_bytes() == GOOD

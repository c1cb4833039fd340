"""A stock operator's queue, and how a site with deltas treats it: nothing of ours blocks it, or moves it too far."""

from dataclasses import replace

import pytest
import requests
import torch
from fake_dafne import FakeFastApi, FakePhp, form_of
from fake_servers import FakeServer
from stock_merger import StockMerger
from test_full_model_route import MODEL, NAME, TYPE, Site, delta

from dafne_dante.errors import TransportError
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.depot import FolderDepot, HttpDepot
from dafne_dante.federation.retrying import Retrying, RetryPlan
from dafne_dante.federation.shelf import Shelf
from dafne_dante.federation.transport import HttpTransport
from dafne_dante.models.file import write_model

AMOUNT = 0.01


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    with made.federation.server:
        yield made


@pytest.fixture
def merger(site, tmp_path):
    return StockMerger(site.federation.shelf, TYPE, tmp_path)


def colleague_sends(site, amount=0.1):
    """A stock client's full model."""
    weights = {name: tensor + amount for name, tensor in MODEL.weights.items()}
    write_model(replace(MODEL, weights=weights), site.root / "colleague.model")
    site.federation.client().upload(TYPE, site.root / "colleague.model", 0.5)


def test_what_a_stock_merger_cannot_load_blocks_it(site, merger, tmp_path):
    """The hazard itself, so that the next tests mean something."""
    (tmp_path / "a.delta").write_bytes(delta())
    site.federation.client().upload(TYPE, tmp_path / "a.delta", 0.5)
    [upload] = site.federation.uploads()
    path = site.federation.shelf.upload_path(TYPE, upload.filename)
    path.rename(path.with_name("1000_site.model"))  # long before the other
    colleague_sends(site)
    before = merger.newest()
    assert [merger.merge_oldest() for _ in range(3)] == ["stuck"] * 3
    torch.testing.assert_close(merger.newest().weights[NAME], before.weights[NAME])


def test_no_delta_comes_into_such_a_queue(site, merger):
    tried = site.send(delta())
    assert (tried.entry.state, tried.entry.why) == ("waiting", "no-deltas")
    colleague_sends(site)
    assert merger.merge_all() == ["merged", "idle"]
    torch.testing.assert_close(merger.newest().weights[NAME], MODEL.weights[NAME] + 0.05)


def test_as_a_full_model_it_moves_the_stock_average_by_the_step_that_is_meant(site, merger):
    """Also after others moved the model: W + 2 dW, halved with W, is W + dW."""
    site.publish(MODEL)  # by an operator who signs nothing
    colleague_sends(site)
    assert merger.merge_all() == ["merged", "idle"]
    moved = merger.newest()
    assert site.send(delta(amount=AMOUNT), allow_full_model=True).entry.state == "sent"
    assert merger.merge_all() == ["merged", "idle"]
    for name, tensor in moved.weights.items():
        torch.testing.assert_close(merger.newest().weights[name], tensor + (AMOUNT if name == NAME else 0.0))


class Folder(FakeFastApi):
    """Keeps what comes where the FastAPI server does."""

    def __init__(self, uploads, **info):
        super().__init__(lambda: 1000.0, **info)
        self.uploads = uploads

    def keep(self, content, announced):
        name, fits = super().keep(content, announced)
        (self.uploads / name).write_bytes(content)
        return name, fits

    def take(self, handler):
        if handler.path in ("/info_model", "/upload_model"):
            return super().take(handler)
        return 404, {"detail": "Not Found"}  # it has no calls for merging


def client_of(server):
    transport = HttpTransport(server.url, "key", retrying=Retrying(RetryPlan(retries=0)))
    return FederationClient(transport)


def test_an_operator_of_the_fastapi_server_works_on_its_folder(tmp_path):
    """It has no call that lists or fetches uploads."""
    models = Shelf(tmp_path / "db")
    models.add_type(TYPE, {"dafne_dante": {"delta": 1}})
    (tmp_path / "a.delta").write_bytes(delta())
    with FakeServer(Folder(tmp_path / "db" / "models" / TYPE / "uploads")) as server:
        client_of(server).upload(TYPE, tmp_path / "a.delta", 0.5)
        with pytest.raises(TransportError, match="404"):
            HttpDepot(client_of(server), TYPE).pending()
    depot = FolderDepot(tmp_path / "db" / "models", TYPE)
    [upload] = depot.pending()
    assert (upload.filename, upload.username, upload.size) == ("1000_site.model", "site", len(delta()))
    assert depot.fetch_upload(upload.filename, tmp_path / "got").read_bytes() == (tmp_path / "a.delta").read_bytes()
    depot.remove_upload(upload.filename)
    assert depot.pending() == []


@pytest.mark.parametrize(
    ("field", "change", "kept"),
    [
        ("original_hash", str.lower, True),
        ("original_hash", str.upper, False),
        ("hash", lambda digest: "0" * 64, True),
    ],
    ids=["as we send it", "in capitals", "as the stock client sends it, and not looked at"],
)
def test_which_digest_a_stock_server_looks_at(tmp_path, field, change, kept):
    stock = FakePhp()
    (tmp_path / "a.delta").write_bytes(delta())
    with FakeServer(stock) as server:
        client_of(server).upload(TYPE, tmp_path / "a.delta", 0.5)
        _, path, headers, body = server.requests[-1]
        form = form_of(type("Request", (), {"headers": headers, "body": body}))
        assert "hash" not in form
        content, digest = form.pop("model_binary"), form.pop("original_hash")
        stock.kept.clear()
        fields = {**form, field: change(digest)}
        told = requests.post(server.url + path.strip("/"), data=fields, files={"model_binary": content}, timeout=60)
    assert (told.status_code, len(stock.kept)) == ((200, 1) if kept else (500, 0))

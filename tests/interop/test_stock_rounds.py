"""Rounds with stock Dafne clients only: download, learn, upload; our operator merges; they download what it signed."""

import threading
from dataclasses import replace

import pytest
import torch
from comparison import our_masks, stock_masks, worst_dice
from phantoms import make_case
from test_after_stock_learning import SPACING_MM, labelled_phantom, learn_in_stock, write_ours

from dafne_dante.config import Settings
from dafne_dante.delta.signing import ensure_signing_key, public_key_text
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import connect
from dafne_dante.federation.depot import FolderDepot, HttpDepot
from dafne_dante.federation.model_signature import read_signature, verified_release
from dafne_dante.federation.operator import merge_pending
from dafne_dante.federation.published_versions import hand_in, show_version
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.file import parse_model, read_model

pytest.importorskip("dafne_dl")
pytest.importorskip("dafne_inference")
remote = pytest.importorskip("dafne_dl.RemoteModelProvider")

pytestmark = pytest.mark.filterwarnings("ignore")
TYPE = "Phantom (2D)"
CASE = make_case(5, shape=(16, 16, 16))


class Rounds:
    """Our server with a signed first version, an operator with a key that merges over HTTP, and stock sites."""

    def __init__(self, folder):
        self.folder, root = folder, folder / "server"
        self.shelf, accounts = Shelf(root), Accounts(root)
        self.shelf.add_type(TYPE, {"categories": ["left", "right"], "dafne_dante": {"delta": 1}})
        self.keys = {name: accounts.add_user(name, access=[TYPE]) for name in ("north", "south")}
        self.settings = Settings(
            folder / "operator", api_key=accounts.add_user("operator", merge=[TYPE]), dice_margin=1.0
        )
        self.public_key = public_key_text(ensure_signing_key(self.settings.folder))
        write_ours("unet2d", folder / "first.model")
        self.first = hand_in(FolderDepot(root, TYPE), TYPE, read_model(folder / "first.model"), self.settings)
        self.server = RunningServer(root)

    def provider(self, site):
        (self.folder / site / "temporary").mkdir(parents=True, exist_ok=True)
        return remote.RemoteModelProvider(
            self.folder / site / "models", self.server.url, self.keys[site], str(self.folder / site / "temporary")
        )

    def merge(self):
        settings = replace(self.settings, server=self.server.url)
        return merge_pending(HttpDepot(connect(settings), TYPE), TYPE, [CASE], settings)

    def published(self, version):
        """A version as it lies on the shelf, once its signature is found to be the operator's; and its number."""
        model = parse_model(self.shelf.model_path(TYPE, version).read_bytes())
        signature = read_signature(model)
        assert signature.public_key == self.public_key
        return model, verified_release(signature).number


@pytest.fixture
def rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "TIME_BETWEEN_RETRIES", 0.05)
    made = Rounds(tmp_path)
    with made.server:
        yield made


def send(provider, model):
    provider.upload_model(TYPE, model, 0.75)
    for thread in threading.enumerate():
        if getattr(thread, "_target", None) is remote.upload_model:
            thread.join(60)


def weights_are(stock, model):
    return all(torch.equal(tensor, model.weights[name]) for name, tensor in stock.get_weights().items())


def nudge(stock, amount):
    """What a little learning does: every weight moves."""
    stock.set_weights({
        name: tensor * (1 + amount) if tensor.is_floating_point() else tensor
        for name, tensor in stock.get_weights().items()
    })  # fmt: skip


def test_stock_sites_take_what_we_merge_and_sign_and_go_on_from_it(rounds):
    versions, numbers = [rounds.first], [1]
    for learns in (True, False):
        for site, amount in (("north", 0.01), ("south", 0.02)):
            provider = rounds.provider(site)
            model = provider.load_model(TYPE)
            base, _ = rounds.published(versions[-1])
            assert weights_are(model, base)
            if learns and site == "north":
                learn_in_stock(model)
            else:
                nudge(model, amount)
            send(provider, model)
        report = rounds.merge()
        assert (report.merged, report.quarantined, report.skipped) == (2, (), ())
        assert rounds.shelf.uploads(TYPE) == []
        merged, number = rounds.published(report.version)
        assert any(not torch.equal(tensor, base.weights[name]) for name, tensor in merged.weights.items())
        assert (merged.model_id, merged.plan) == (base.model_id, base.plan)
        versions.append(report.version)
        numbers.append(number)
    assert numbers == [1, 2, 3]

    stock = rounds.provider("north").load_model(TYPE)
    newest, _ = rounds.published(versions[-1])
    assert weights_are(stock, newest)
    image, _ = labelled_phantom()
    assert worst_dice(our_masks(newest, image, SPACING_MM), stock_masks(stock, image, SPACING_MM)) >= 0.999
    facts = show_version(FolderDepot(rounds.folder / "server", TYPE), TYPE, versions[-1], rounds.settings)
    assert {one["username"] for one in facts["contributions"]} == {"north", "south"}
    assert facts["lineage"] == versions[::-1]


def test_a_stock_site_that_missed_a_version_is_merged_from_the_one_it_had(rounds):
    late_provider = rounds.provider("south")
    late = late_provider.load_model(TYPE)
    provider = rounds.provider("north")
    early = provider.load_model(TYPE)
    nudge(early, 0.01)
    send(provider, early)
    second = rounds.merge().version
    nudge(late, 0.02)
    late.reset_timestamp()
    send(late_provider, late)
    report = rounds.merge()
    assert (report.merged, report.quarantined) == (1, ())
    assert int(report.version) > int(second)
    assert weights_are(rounds.provider("south").load_model(TYPE), rounds.published(report.version)[0])

"""The merger with real networks: what it takes, what it quarantines, and what a crash leaves."""

import pickle
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
import torch
from phantoms import LABELS, make_case
from sites import train_model

from dafne_dante.adaptation.low_rank import LowRank
from dafne_dante.config import Settings
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.encode import DeltaFacts, encode_delta
from dafne_dante.delta.signing import ensure_signing_key, public_key_text, trust_key
from dafne_dante.errors import ServerAnswerError, SettingsError, StorageError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import connect
from dafne_dante.federation.depot import FolderDepot, HttpDepot
from dafne_dante.federation.operator import merge_pending
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import digest_weights

TYPE = "Brain"
DICE = dict.fromkeys(["mean", *LABELS], 0.5)
HEAD = "unet_model.model.2.1.conv.unit0.conv.bias"
CASES = [make_case(5), make_case(6)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("base") / "base.model")


class Operator:
    """A server's folder with one published model, an operator who trusts two sites, and those sites."""

    def __init__(self, root, model):
        self.root, self.model = root, model
        self.shelf = Shelf(root / "server")
        self.shelf.add_type(TYPE, {"dafne_dante": {"delta": 1}})
        self.settings = Settings(folder=root / "operator", dice_margin=0.05)
        self.keys = {name: ensure_signing_key(root / name) for name in ("site1", "site2", "stranger")}
        for name in ("site1", "site2"):
            trust_key(self.settings.folder, public_key_text(self.keys[name]), name)
        from dafne_dante.models.file import write_model

        write_model(model, root / "first.model")
        self.first = self.shelf.publish_copy(TYPE, root / "first.model")

    @property
    def depot(self):
        return FolderDepot(self.root / "server", TYPE)

    def delta(self, amount, *, site="site1", updates=None, update_id=None, model=None, labels=LABELS):
        model = model or self.model
        if updates is None:
            updates = [WeightUpdate(HEAD, torch.full_like(model.weights[HEAD], amount))]
        digest = digest_weights(model.weights)
        facts = DeltaFacts(TYPE, model.model_id, self.first, digest, "full", 4, labels, DICE, DICE)
        facts = replace(
            facts, dice_before=dict.fromkeys(["mean", *labels], 0.5), dice_after=dict.fromkeys(["mean", *labels], 0.5)
        )
        return encode_delta(updates, facts, self.keys[site], precision="float16", update_id=update_id)

    def send(self, content, user="site"):
        path = self.root / f"{uuid4()}.part"
        path.write_bytes(content)
        return self.shelf.receive(TYPE, user, path).name

    def merge(self, depot=None):
        return merge_pending(depot or self.depot, TYPE, CASES, self.settings)

    def newest(self):
        return read_model(self.shelf.model_path(TYPE, self.shelf.versions(TYPE)[-1]))

    def moved(self):
        """How far the head's bias lies from the first model's."""
        return (self.newest().weights[HEAD] - self.model.weights[HEAD]).mean().item()

    def quarantined(self):
        folder = self.settings.folder / "operator" / TYPE / "quarantine"
        return {path.name.removesuffix(".reason.txt"): path.read_text() for path in folder.glob("*.reason.txt")}


@pytest.fixture
def operator(tmp_path, base):
    return Operator(tmp_path, base)


def test_nothing_waits(operator):
    report = operator.merge()
    assert (report.version, report.merged, report.reason) == (None, 0, "no update waits")
    assert operator.shelf.versions(TYPE) == [operator.first]


def test_two_sites_are_averaged_and_published(operator):
    for amount, site in ((0.002, "site1"), (0.004, "site2")):
        operator.send(operator.delta(amount, site=site))
    report = operator.merge()
    assert (report.merged, report.step, report.quarantined) == (2, 1.0, ())
    assert report.version == operator.shelf.versions(TYPE)[-1] > operator.first
    assert operator.moved() == pytest.approx(0.003, rel=1e-3)
    assert operator.newest().model_id == operator.model.model_id
    assert operator.shelf.uploads(TYPE) == []
    assert operator.merge().reason == "no update waits"


def test_updates_one_by_one_end_where_one_batch_does(operator):
    for amount, site in ((0.002, "site1"), (0.004, "site2")):
        operator.send(operator.delta(amount, site=site))
        assert operator.merge().merged == 1
    # The second update's base is one version old, so its share of the mean's change is damped by its age.
    assert operator.moved() == pytest.approx(0.002 + 0.001 * 2**-0.5, rel=1e-3)
    assert len(operator.shelf.versions(TYPE)) == 3


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _replayed(operator):
    content = operator.delta(0.001, update_id=UUID(int=9, version=4))
    operator.send(content)
    operator.merge()
    return content


def _nan(operator):
    value = torch.zeros_like(operator.model.weights[HEAD])
    content = operator.delta(0.0, updates=[WeightUpdate(HEAD, value + 0.25)])
    index = len(content) - 2
    return content[:index] + b"\x00\x7e"


BAD = {
    "a replay": (_replayed, "seen"),
    "a stranger's": (lambda one: one.delta(0.001, site="stranger"), "trust"),
    "too long": (lambda one: one.delta(300.0), "length"),
    "not a number": (_nan, "signed"),
    "another family": (lambda one: one.delta(0.001, model=replace(one.model, model_id=UUID(int=8))), "family"),
    "other labels": (lambda one: one.delta(0.001, labels=("ball", "liver")), "labels"),
    "another base": (
        lambda one: one.delta(
            0.001, model=replace(one.model, weights={n: w + 1 for n, w in one.model.weights.items()})
        ),
        "base",
    ),
    "garbage": (lambda one: b"\x07" * 500, "expected"),
    "nothing": (lambda one: b"", "expected"),
    "a pickle": (lambda one: pickle.dumps(Canary(one.root / "canary")), "expected"),
    "a full model": (lambda one: (one.root / "first.model").read_bytes(), "expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_taken_is_quarantined_and_blocks_nothing(operator, name):
    make, reason = BAD[name]
    bad = operator.send(make(operator), user="a-first")
    operator.send(operator.delta(0.002, site="site2"))
    report = operator.merge()
    assert report.merged == 1
    assert [one.upload for one in report.quarantined] == [bad]
    assert reason in report.quarantined[0].reason
    assert operator.quarantined()[bad].strip() == report.quarantined[0].reason
    assert operator.shelf.uploads(TYPE) == []
    assert not (operator.root / "canary").exists()


def test_a_step_that_costs_dice_is_shortened_or_refused(operator):
    ruin = torch.tensor([50.0, -50.0, -50.0])
    operator.settings = replace(operator.settings, max_norm_ratio=100.0)
    upload = operator.send(operator.delta(0, updates=[WeightUpdate(HEAD, ruin)]))
    report = operator.merge()
    assert (report.version, report.step, report.merged) == (None, 0.0, 0)
    assert report.quarantined[0].upload == upload
    assert "step 0.25" in report.reason
    assert operator.shelf.versions(TYPE) == [operator.first]
    assert operator.shelf.uploads(TYPE) == []


def test_a_low_rank_update_moves_the_model_by_its_product(operator):
    name = "unet_model.model.0.conv.unit1.conv.weight"
    rows, columns = operator.model.weights[name].shape[:2]
    torch.manual_seed(0)
    value = LowRank("lora-shared", torch.randn(rows, 2) / 50, torch.randn(2, columns * 27) / 50, 2.0)
    operator.send(operator.delta(0, updates=[WeightUpdate(name, value)]))
    assert operator.merge().step == 1.0
    moved = operator.newest().weights[name] - operator.model.weights[name]
    assert torch.allclose(moved, (2 * value.a @ value.b).reshape(moved.shape), atol=1e-5)


class Failing:
    """A depot whose n-th call fails: before it has an effect, or after."""

    def __init__(self, depot, at, after):
        self._depot, self._at, self._after, self.calls = depot, at, after, 0

    def __getattr__(self, name):
        method = getattr(self._depot, name)

        def call(*arguments):
            self.calls += 1
            if self.calls == self._at and not self._after:
                raise StorageError("the power went")
            result = method(*arguments)
            if self.calls == self._at:
                raise StorageError("the power went")
            return result

        return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 10))
def test_a_crash_at_any_call_is_settled_by_the_next_run(operator, at, after):
    """Two good uploads and a bad one: afterwards exactly one published effect, and nothing is lost."""
    for amount, site in ((0.002, "site1"), (0.004, "site2")):
        operator.send(operator.delta(amount, site=site))
    bad = operator.send(b"garbage")
    failing = Failing(operator.depot, at, after)
    try:
        operator.merge(failing)
    except StorageError:
        operator.merge()
    assert failing.calls >= min(at, 9)
    assert operator.moved() == pytest.approx(0.003, rel=1e-3)
    assert len(operator.shelf.versions(TYPE)) == 2
    assert operator.shelf.uploads(TYPE) == []
    assert bad in operator.quarantined()
    assert operator.merge().reason == "no update waits"
    assert operator.moved() == pytest.approx(0.003, rel=1e-3)


def test_over_http_as_in_a_folder(operator):
    key = Accounts(operator.root / "server").add_user("operator", merge=[TYPE])
    operator.send(operator.delta(0.002))
    with RunningServer(operator.root / "server") as server:
        client = connect(replace(operator.settings, server=server.url, api_key=key))
        report = operator.merge(HttpDepot(client, TYPE))
    assert (report.merged, report.step) == (1, 1.0)
    assert operator.moved() == pytest.approx(0.002, rel=1e-3)


def test_what_is_not_there_is_told(operator, tmp_path):
    with pytest.raises(SettingsError, match="type"):
        FolderDepot(operator.root / "server", "Heart")
    operator.shelf.add_type("Heart", {})
    with pytest.raises(ServerAnswerError, match="publish one first"):
        merge_pending(FolderDepot(operator.root / "server", "Heart"), "Heart", CASES, operator.settings)
    with pytest.raises(SettingsError, match="folder"):
        FolderDepot(tmp_path / "nowhere", TYPE)

"""The story of an improvement against a real server: what is pulled, what is sent, and when nothing is."""

from dataclasses import replace

import pytest
import torch
from sites import NEW_SCANNER, snapshot, train_model, write_cases

from dafne_dante.adaptation.method import METHOD_NAMES
from dafne_dante.config import Settings
from dafne_dante.delta.decode import decode_delta
from dafne_dante.errors import AccessDeniedError, ServerUnreachableError, SettingsError, TransportError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import connect
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.file import read_model
from dafne_dante.plugin.apply import apply_delta_file
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.gate import decide_gate
from dafne_dante.plugin.improve import ImprovementRequest, Progress, improve

TYPE = "Brain"


class Site:
    """A running server with one type, and a site with a key and labelled cases."""

    def __init__(self, root, trained, *, takes_deltas=True):
        self.shelf = Shelf(root / "server")
        self.shelf.add_type(TYPE, {"dafne_dante": {"delta": 1}} if takes_deltas else {})
        self.version = self.shelf.publish_copy(TYPE, trained / "base.model")
        key = Accounts(root / "server").add_user("site", access=[TYPE])
        self.server = RunningServer(root / "server")
        self.settings = Settings(folder=root / "configuration", server=self.server.url, api_key=key, timeout_s=60)
        self.request = ImprovementRequest(
            data=CaseRequest((trained / "new",)), out=root / "out", model_type=TYPE, epochs=3, upload=True
        )

    def improve(self, request=None, settings=None, **options):
        settings = settings or self.settings
        return improve(request or self.request, settings, client=connect(settings), **options)

    def uploads(self):
        return [self.shelf.upload_path(TYPE, one.filename).read_bytes() for one in self.shelf.uploads(TYPE)]


@pytest.fixture
def site(tmp_path, trained):
    site = Site(tmp_path, trained)
    with site.server:
        yield site


def test_the_newest_model_is_pulled_improved_and_only_the_delta_is_sent(site, trained):
    stages, epochs = [], []
    progress = Progress(stage=stages.append, epoch=lambda record, total: epochs.append((record.epoch, total)))
    summary = site.improve(progress=progress)
    out = site.request.out
    assert (out / "base.model").read_bytes() == (trained / "base.model").read_bytes()
    assert site.uploads() == [(out / "update.delta").read_bytes()]
    assert summary.uploaded
    assert summary.dice_after["mean"] > summary.dice_before["mean"]
    assert epochs == [(1, 3), (2, 3), (3, 3)]
    assert any("4 cases" in text or "3 cases to learn from, 1 held out" in text for text in stages)
    base = read_model(out / "base.model")
    delta = decode_delta((out / "update.delta").read_bytes(), base=base.weights, trusted_keys=None)
    manifest = delta.manifest
    assert (manifest.base_timestamp, manifest.model_type, manifest.cases) == (site.version, TYPE, 3)
    assert manifest.dice_after["mean"] == pytest.approx(summary.dice_after["mean"], abs=1e-4)


@pytest.mark.parametrize("method", [name for name in METHOD_NAMES if name != "norm"])
def test_every_method_improves_and_its_delta_gives_the_improved_model(tmp_path, trained, method):
    request = ImprovementRequest(
        data=CaseRequest((trained / "new",)), out=tmp_path / "out", base=trained / "base.model", method=method, epochs=6
    )
    summary = improve(request, Settings(folder=tmp_path / "configuration"))
    assert summary.gate == "passed"
    assert summary.dice_after["mean"] > summary.dice_before["mean"] + 0.05
    applied, manifest = apply_delta_file(trained / "base.model", request.out / "update.delta")
    improved = read_model(request.out / "improved.model")
    assert manifest.method == method
    assert applied.model_id == improved.model_id == read_model(trained / "base.model").model_id
    assert all(torch.equal(applied.weights[name], value) for name, value in improved.weights.items())


def test_norms_alone_move_little_and_lose_nothing(tmp_path, trained):
    request = ImprovementRequest(
        data=CaseRequest((trained / "new",)), out=tmp_path / "out", base=trained / "base.model", method="norm", epochs=6
    )
    summary = improve(request, Settings(folder=tmp_path / "configuration"))
    assert summary.gate == "failed" or summary.step > 0
    assert summary.dice_after["mean"] >= summary.dice_before["mean"] - 0.02


def test_gradual_unfreezing_sends_only_what_was_released(tmp_path, trained):
    request = ImprovementRequest(
        data=CaseRequest((trained / "new",)),
        out=tmp_path / "out",
        base=trained / "base.model",
        method="gradual-unfreezing",
        epochs=2,
    )
    improve(request, Settings(folder=tmp_path / "configuration"))
    delta = decode_delta((request.out / "update.delta").read_bytes(), base=None, trusted_keys=None)
    names = {update.weight for update in delta.updates}
    assert names
    assert not any(name.startswith("unet_model.model.0.") for name in names)


def test_a_type_that_takes_no_deltas_gets_none_and_the_delta_is_kept(tmp_path, trained):
    site = Site(tmp_path, trained, takes_deltas=False)
    with site.server, pytest.raises(TransportError, match=r"update\.delta is kept"):
        site.improve()
    assert site.uploads() == []
    assert (site.request.out / "update.delta").is_file()


def test_without_upload_nothing_is_sent(site):
    summary = site.improve(replace(site.request, upload=False))
    assert not summary.uploaded
    assert site.uploads() == []


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        ({"mean": 0.5, "a": 0.5}, {"mean": 0.5, "a": 0.5}, True),
        ({"mean": 0.5, "a": 0.5, "b": 0.5}, {"mean": 0.55, "a": 0.63, "b": 0.47}, False),
        ({"mean": 0.5, "a": 0.5, "b": 0.5}, {"mean": 0.55, "a": 0.61, "b": 0.49}, True),
        ({"mean": 0.5, "a": 0.5}, {"mean": 0.49, "a": 0.49}, False),
        ({"mean": None, "a": None}, {"mean": 0.9, "a": 0.9}, False),
        ({"mean": 0.5, "a": 0.5, "b": None}, {"mean": 0.6, "a": 0.6, "b": None}, True),
        ({"mean": 0.5, "a": 0.5, "b": 0.2}, {"mean": 0.6, "a": 0.6, "b": None}, False),
    ],
)
def test_the_gate(before, after, passed):
    decision = decide_gate(before, after, margin=0.02)
    assert decision.passed is passed
    assert decision.reason


def test_a_wrong_key_and_a_server_that_is_down_leave_everything_as_it_was(site, tmp_path):
    with pytest.raises(AccessDeniedError, match="401"):
        site.improve(settings=replace(site.settings, api_key="wrong"))
    assert snapshot(site.request.out) == {}
    down = replace(site.settings, server="http://127.0.0.1:9/", timeout_s=1)
    with pytest.raises(ServerUnreachableError):
        site.improve(settings=down)
    assert snapshot(site.request.out) == {}
    with pytest.raises(SettingsError, match="API key"):
        connect(replace(site.settings, api_key=""))


def test_a_server_that_sends_a_harmful_model_changes_nothing(site, tmp_path):
    import os
    import pickle

    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    (tmp_path / "bad.model").write_bytes(pickle.dumps({"weights": Canary()}, 4))
    site.shelf.publish_copy(TYPE, tmp_path / "bad.model")
    with pytest.raises(Exception, match="mkdir"):
        site.improve()
    assert not (tmp_path / "canary").exists()
    assert not (site.request.out / "improved.model").exists()


def test_one_seed_gives_one_delta_but_for_its_id(tmp_path, trained):
    digests = []
    for name in ("a", "b"):
        request = ImprovementRequest(
            CaseRequest((trained / "new",)), tmp_path / name, trained / "base.model", epochs=1, seed=4
        )
        improve(request, Settings(folder=tmp_path / "configuration"))
        delta = decode_delta((request.out / "update.delta").read_bytes(), base=None, trusted_keys=None)
        digests.append({name: entry.sha256 for name, entry in delta.manifest.tensors.items()})
    assert digests[0] == digests[1]


def test_a_second_site_with_another_scanner(tmp_path):
    """Nothing of one site's cases is needed at another: two sites from one base make different deltas."""
    train_model(tmp_path / "base.model")
    contents = []
    for number, options in enumerate((NEW_SCANNER, {"bright": (220.0, 300.0)})):
        data = write_cases(tmp_path / f"site{number}", (41, 42, 43), **options)
        request = ImprovementRequest(CaseRequest((data,)), tmp_path / f"out{number}", tmp_path / "base.model", epochs=1)
        improve(request, Settings(folder=tmp_path / f"configuration{number}"))
        contents.append(decode_delta((request.out / "update.delta").read_bytes(), base=None, trusted_keys=None))
    assert contents[0].public_key != contents[1].public_key
    assert contents[0].manifest.base_sha256 == contents[1].manifest.base_sha256


def test_hardly_any_time_makes_one_short_training_of_three(tmp_path):
    write_cases(tmp_path / "cases", [31, 32])
    train_model(tmp_path / "base.model")
    stages = []
    request = ImprovementRequest(
        CaseRequest((tmp_path / "cases",)), tmp_path / "out", tmp_path / "base.model", minutes=1e-4
    )  # fmt: skip
    summary = improve(request, Settings(folder=tmp_path / "configuration"), progress=Progress(stage=stages.append))
    assert (summary.cross_fit, summary.epochs, summary.held_out) == (False, 3, 1)
    assert "1 case to learn from, 1 held out" in stages
    assert any("over 3 epochs of 5 steps" in stage for stage in stages)
    assert not (tmp_path / "out" / "choice.json").exists(), "it goes with the checkpoint"

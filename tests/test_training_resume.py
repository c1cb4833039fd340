"""Who may go on from an interrupted training, and from where; the kill itself is in test_train_command."""

import json
from dataclasses import replace

import pytest
import torch
from sites import snapshot, write_cases

from dafne_dante.config import Settings
from dafne_dante.errors import SettingsError, TrainingError
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import digest_weights
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.training import TrainingProgress, TrainingRequest, train

PLAN, LAST = "training.json", "training.checkpoint"


class StoppedError(Exception):
    """What a test stops a training with."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("data"), (41, 42, 43, 44))


@pytest.fixture
def request_for(data, tmp_path):
    def make(name="out", **changes):
        wanted = TrainingRequest(CaseRequest((data,)), tmp_path / name, "unet2d", memory_gb=0.15, epochs=2)
        return replace(wanted, **changes)

    return make


@pytest.fixture
def run(tmp_path):
    """Train; the answer and (epoch, learning rate) of what was trained, stopped after `stop` epochs if asked."""

    def start(request, stop=None):
        seen = []

        def on_epoch(record, _total):
            seen.append(record.epoch)
            if len(seen) == stop:
                raise StoppedError

        try:
            outcome = train(request, Settings(folder=tmp_path / "configuration"), TrainingProgress(epoch=on_epoch))
        except StoppedError:
            outcome = None
        return outcome, seen

    return start


def weights(out):
    return digest_weights(read_model(out / "model.model").weights)


def names(out):
    return sorted(path.name for path in out.iterdir())


def test_folds_are_resumed_where_they_were(run, request_for):
    whole, seen = run(request_for("whole", folds=2))
    last = len(seen) - 4
    request = request_for(folds=2)
    assert run(request, stop=3) == (None, [1, 2, 1])
    assert names(request.out) == ["fold-1.checkpoint", "fold-2.checkpoint", PLAN]
    torch.rand(3)
    assert run(replace(request, resume=True), stop=2) == (None, [2, 1]), "fold 1 is not trained again"
    assert LAST in names(request.out)
    resumed, seen = run(replace(request, resume=True))
    assert seen == [2][: last - 1]
    assert resumed.folds == whole.folds
    assert weights(request.out) == weights(request_for("whole").out)
    assert names(request.out) == ["folds.json", "history.csv", "learning_curve.png", "model.model"]


@pytest.mark.parametrize("stop", [3, 5, 6, 7])
def test_the_last_stretch_is_resumed_where_it_was(run, request_for, stop):
    """5 epochs choose the best, 3 go on from it on all studies; stopped before, at the seam, and in the stretch."""
    whole, seen = run(request_for("whole", epochs=8))
    assert seen == list(range(1, 9)) and whole.trained.last_stretch == 3
    assert run(request_for(epochs=8), stop=stop) == (None, seen[:stop])
    assert ("training-last.checkpoint" in names(request_for().out)) == (stop > 5)
    torch.rand(3)
    resumed, seen = run(request_for(epochs=8, resume=True))
    assert seen == list(range(stop + 1, 9))
    assert weights(request_for().out) == weights(request_for("whole").out)
    assert resumed.trained.scores == whole.trained.scores
    assert names(request_for().out) == ["history.csv", "learning_curve.png", "model.model"]


OTHERS = {
    "architecture": {"architecture": "unet3d"},
    "memory-gb": {"memory_gb": 0.4},
    "epochs": {"epochs": 3},
    "seed": {"seed": 1},
    "patience": {"patience": 1},
    "folds": {"folds": 2},
}


def test_another_training_is_refused_by_name(run, request_for, tmp_path):
    run(request_for(), stop=1)
    before = snapshot(request_for().out)
    more = CaseRequest((write_cases(tmp_path / "more", (41, 42, 43, 45)),))
    for name, changes in {**OTHERS, "cases": {"data": more}}.items():
        with pytest.raises(TrainingError, match=f"found other {name};"):
            run(request_for(resume=True, **changes))
        assert snapshot(request_for().out) == before
    with pytest.raises(SettingsError, match="go on with --resume"):
        run(request_for())
    assert snapshot(request_for().out) == before


def test_the_cases_may_lie_elsewhere(run, request_for, tmp_path):
    """What counts is what they hold."""
    run(request_for("whole"))
    run(request_for(), stop=1)
    moved = CaseRequest((write_cases(tmp_path / "moved", (44, 43, 42, 41)),))
    run(request_for(resume=True, data=moved))
    assert weights(request_for().out) == weights(request_for("whole").out)


def test_a_plan_without_a_checkpoint_is_kept_for_the_same_training_only(run, request_for):
    """Killed in the first epoch: memory that is free by now must not give another network."""
    run(request_for(), stop=1)
    kept = (request_for().out / PLAN).read_text()
    (request_for().out / LAST).unlink()
    smaller = json.loads(kept)
    smaller["net_metadata"]["start_channel"] //= 2
    (request_for().out / PLAN).write_text(json.dumps(smaller))
    outcome, _ = run(request_for(resume=True))
    assert outcome.trained.model.plan.first_channels == smaller["net_metadata"]["start_channel"]
    (request_for().out / PLAN).write_text(json.dumps(smaller))
    outcome, _ = run(request_for(resume=True, seed=1))
    assert outcome.trained.model.plan.first_channels == json.loads(kept)["net_metadata"]["start_channel"]


FAULTS = {
    "no JSON": lambda document: "{",
    "deep": lambda document: "[" * 100_000,
    "a list": lambda document: "[]",
    "another version": lambda document: json.dumps({**document, "version": 2}),
    "no plan": lambda document: json.dumps({**document, "net_metadata": None}),
    "a hostile plan": lambda document: json.dumps(
        {**document, "net_metadata": {**document["net_metadata"], "start_channel": 10**12}}
    ),
    "endless batch": lambda document: json.dumps({**document, "batch_size": 10**12}),
    "no batch": lambda document: json.dumps({**document, "batch_size": float("inf")}),
    "no reasons": lambda document: json.dumps({**document, "why": []}),
    "no choices": lambda document: json.dumps({**document, "choices": 3}),
}


def test_a_damaged_plan_is_refused(run, request_for):
    run(request_for(), stop=1)
    path = request_for().out / PLAN
    document = json.loads(path.read_text())
    for name, harm in FAULTS.items():
        path.write_text(harm(document))
        with pytest.raises(TrainingError, match=r"plan of a training in training\.json"):
            pytest.fail(f"{name}: {run(request_for(resume=True))}")
    path.write_text(json.dumps({**document, "batch_size": document["batch_size"] + 1}))
    with pytest.raises(TrainingError, match="of this training"):
        run(request_for(resume=True))
    assert LAST in names(request_for().out)


def test_nothing_that_stays_names_a_case(run, request_for, data):
    run(request_for(), stop=1)
    for name in names(request_for().out):
        content = (request_for().out / name).read_bytes()
        assert b"c41_" not in content
        assert str(data).encode() not in content

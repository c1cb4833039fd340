"""Replayed cases: drawn seldom, learned from by every training, never measured on, and what they are for."""

import json

import numpy as np
import pytest
from phantoms import make_case, tiny_plan
from sites import NEW_SCANNER, write_cases

from dafne_dante.config import Settings
from dafne_dante.plugin import improvement_start, trainings
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import improve
from dafne_dante.plugin.improvement_request import ImprovementRequest, Progress
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.replay import replay_factor, steps_with_replay, with_replay
from dafne_dante.training.sampling import PatchSampler

PLAN = tiny_plan()


@pytest.mark.parametrize(
    ("own", "replayed", "times"), [(1, 0, 1), (1, 1, 1), (1, 2, 2), (4, 2, 1), (7, 2, 1), (2, 3, 2)]
)
def test_half_of_the_draws_at_most_is_replayed(own, replayed, times):
    mine, others = (prepare_cases([make_case(seed) for seed in seeds], PLAN)
                    for seeds in (range(own), range(50, 50 + replayed)))  # fmt: skip
    drawn = with_replay(mine, others)
    turns = drawn.turns if replayed else list(range(own))
    assert sorted(turns) == sorted([*range(own)] * times + [*range(own, own + replayed)])
    assert [id(case) for case in drawn] == [id(case) for case in (*mine, *others)]
    assert replayed <= len(turns) / 2
    steps = steps_with_replay(12, mine, others)
    assert steps == 12 if not replayed else steps >= 12 * replay_factor(own, replayed) - 1e-6
    assert replay_factor(own, replayed) == pytest.approx(len(turns) / (len(turns) - replayed))
    assert steps * (1 - replayed / len(turns)) == pytest.approx(12, abs=1), "of its own cases as many as without"


def test_without_own_cases_there_is_nothing_to_learn_from():
    others = prepare_cases([make_case(1)], PLAN)
    assert not with_replay([], others)
    assert steps_with_replay(5, [], others) == 5


def test_the_sampler_draws_as_often_as_a_case_is_listed():
    dark, bright = prepare_cases([make_case(1), make_case(2)], PLAN)
    sampler = PatchSampler(with_replay([dark], [bright]), PLAN, 0)
    assert len({id(case) for case in sampler._cases}) == 2, "padded once each"
    often = id(sampler._cases[0])
    counts = np.bincount([id(sampler._draw_place()[0]) != often for _ in range(400)])
    assert list(counts) == [200, 200]


@pytest.mark.parametrize("count", [2, 5])
def test_every_training_learns_from_them_and_none_measures_on_them(tmp_path, trained, monkeypatch, count):
    """With two studies there are three trainings, with five one."""
    seen = []
    fit = trainings.fit

    def watched(network, plan, method, training, held_out, **options):
        seen.append([{case.prepared.image.tobytes() for case in cases} for cases in (training, held_out)])
        return fit(network, plan, method, training, held_out, **options)

    monkeypatch.setattr(trainings, "fit", watched)
    said = []
    own = write_cases(tmp_path / "own", range(30, 30 + count), **NEW_SCANNER)
    others = write_cases(tmp_path / "others", (71, 72))
    replayed = {case.prepared.image.tobytes() for case in prepare_cases([make_case(seed) for seed in (71, 72)], PLAN)}
    request = ImprovementRequest(
        CaseRequest((own,)), tmp_path / "out", trained / "base.model", epochs=2, replay=(others,)
    )  # fmt: skip
    summary = improve(request, Settings(folder=tmp_path / "configuration"), progress=Progress(stage=said.append))
    assert "and 2 of the model's own domain, so that less is forgotten" in said
    assert len(seen) == (3 if count == 2 else 1)
    assert all(replayed <= training and not replayed & held_out for training, held_out in seen)
    assert summary.cases == count
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["cases"] == count


@pytest.mark.parametrize("count", [1, 5])
def test_replay_is_half_of_every_training_at_most_and_inside_the_time_budget(tmp_path, trained, monkeypatch, count):
    """A step is said to take a hundredth of a second; a budget is for all steps, those for replayed cases too."""
    taken, shares = [], []
    fit = trainings.fit

    def watched(network, plan, method, training, held_out, **options):
        recipe = options["recipe"]
        taken.append(recipe.epochs * recipe.steps_per_epoch)
        shares.append(2 / len(training.turns))
        return fit(network, plan, method, training, held_out, **options)

    monkeypatch.setattr(trainings, "fit", watched)
    monkeypatch.setattr(improvement_start, "step_seconds", lambda model, batch_size: 0.01)
    own, others = write_cases(tmp_path / "own", range(30, 30 + count)), write_cases(tmp_path / "others", (71, 72))
    minutes = 0.04 if count == 1 else 0.016
    request = ImprovementRequest(
        CaseRequest((own,)), tmp_path / "out", trained / "base.model", minutes=minutes, replay=(others,)
    )  # fmt: skip
    improve(request, Settings(folder=tmp_path / "configuration"))
    assert len(taken) == (3 if count == 1 else 1)
    assert all(share <= 0.5 for share in shares)
    budget = 0.8 * 60 * minutes
    assert 0.5 * budget < 0.01 * sum(taken) <= 1.05 * budget, "but for steps that are rounded up"


def test_less_is_forgotten(tmp_path, trained):
    """The base knows one scanner; the site has another, and many epochs of it.

    With this seed the base knows little of the held-out case: there is much to learn, and much to forget.
    """
    own = write_cases(tmp_path / "own", range(30, 34), **NEW_SCANNER)
    others, reference = write_cases(tmp_path / "others", (71, 72)), write_cases(tmp_path / "reference", (81, 82))
    lost = []
    for replay in ((), (others,)):
        request = ImprovementRequest(
            CaseRequest((own,)), tmp_path / f"out{len(replay)}", trained / "base.model", method="full", epochs=10,
            seed=1, reference=(reference,), replay=replay,
        )  # fmt: skip
        summary = improve(request, Settings(folder=tmp_path / "configuration"))
        lost.append(summary.reference_before["mean"] - summary.reference_after["mean"])
    assert lost[1] < lost[0] - 0.01

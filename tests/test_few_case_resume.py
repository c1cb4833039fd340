"""With fewer than four cases an improvement has several trainings; whatever ends it, none of them is done twice."""

from dataclasses import replace

import pytest
from sites import NEW_SCANNER, write_cases

from dafne_dante.config import Settings
from dafne_dante.delta.decode import decode_delta
from dafne_dante.errors import TrainingError
from dafne_dante.models.build import build_network
from dafne_dante.models.file import read_model
from dafne_dante.plugin.collecting import CaseRequest, collect_cases
from dafne_dante.plugin.division import divide
from dafne_dante.plugin.gate import decide_gate
from dafne_dante.plugin.improve import ImprovementRequest, Progress, improve
from dafne_dante.plugin.interrupted import has_learnt
from dafne_dante.plugin.summary import read_summary
from dafne_dante.training.evaluate import evaluate_cases

EPOCHS = 2


class KilledError(Exception):
    """What a test ends a run with."""


class Site:
    """Improves from `count` cases into a folder of a name, and tells which epochs were trained."""

    def __init__(self, folder, base, count):
        self.folder, self.settings = folder, Settings(folder=folder / "configuration")
        data = write_cases(folder / "cases", range(30, 30 + count), **NEW_SCANNER)
        self.request = ImprovementRequest(CaseRequest((data,)), folder, base, method="lora", epochs=EPOCHS, steps=6)

    def run(self, name, *, killed_after=0, killed_between=False, stop_after=0, asked=False, **changes):
        seen, summary = [], None

        def epoch(record, _all):
            seen.append(record.epoch)
            if len(seen) == killed_after and not killed_between:
                raise KilledError

        def training(part):
            if killed_between and len(seen) == killed_after:
                raise KilledError

        progress = Progress(epoch=epoch, training=training, stop=lambda: asked or 0 < stop_after <= len(seen))
        try:
            summary = improve(
                replace(self.request, out=self.folder / name, **changes), self.settings, progress=progress
            )
        except KilledError:
            assert has_learnt(self.folder / name)
            assert not (self.folder / name / "update.delta").exists()
        return seen, summary

    def sent(self, name):
        content = (self.folder / name / "update.delta").read_bytes()
        manifest = decode_delta(content, base=None, trusted_keys=None).manifest
        return manifest.tensors, manifest.dice_after, manifest.cases

    def first_fold(self):
        """What the first training learns from, and what is held out of it."""
        plan = read_model(self.request.base).plan
        found = collect_cases(self.request.data, self.settings, labels=plan.labels, contrasts=plan.in_channels)
        return divide(found.cases, seed=0).folds[0]

    def files(self, name):
        return {path.name for path in (self.folder / name).iterdir()}


@pytest.fixture(scope="module")
def sites(tmp_path_factory, trained):
    """Sites by how many cases they have, each with a run that nothing interrupted."""
    made = {}

    def site_of(count):
        if count not in made:
            site = made[count] = Site(tmp_path_factory.mktemp("few"), trained / "base.model", count)
            site.trainings = 3 if count == 1 else count + 1
            site.all, _ = site.run("whole")
        return made[count]

    return site_of


@pytest.fixture
def site(sites, request):
    return sites(getattr(request, "param", 2))


POINTS = {
    "in the first fold": (1, False),
    "at the end of the first fold": (EPOCHS, False),
    "between folds": (EPOCHS, True),
    "in the second fold": (EPOCHS + 1, False),
    "before the last training": (-1, True),
    "in the last training": (-2, False),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("site", [1], indirect=True)
def test_a_run_that_is_killed_anywhere_sends_the_same_and_trains_nothing_twice(site, point):
    check_killed(site, point)


@pytest.mark.parametrize("point", ["in the first fold", "between folds", "in the last training"])
@pytest.mark.parametrize("site", [2, 3], indirect=True)
def test_so_it_is_with_two_cases_and_three(site, point):
    check_killed(site, point)


def check_killed(site, point):
    after, between = POINTS[point]
    if after < 0:
        after = EPOCHS * (site.trainings - 1) - (1 + after)
    first, _ = site.run(point, killed_after=after, killed_between=between)
    second, _ = site.run(point, resume=True)
    assert len(first) == after
    assert first + second == site.all
    assert site.sent(point) == site.sent("whole")
    assert site.files(point) == site.files("whole")
    told, whole = (read_summary(site.folder / name / "summary.json") for name in (point, "whole"))
    assert told.live == whole.live and "parameters" in told.live[0]
    assert replace(told, seconds=0.0) == replace(whole, seconds=0.0)


def test_every_night_may_be_as_short_as_one_epoch(site):
    seen, nights = [], 0
    while not (site.folder / "nights" / "update.delta").exists():
        seen += site.run("nights", killed_after=1, resume=True)[0]
        nights += 1
        assert nights <= len(site.all) + 1
    assert seen == site.all
    assert site.sent("nights") == site.sent("whole")


@pytest.mark.parametrize(
    ("site", "stop_after"), [(1, 1), (1, 2 * EPOCHS + 1), (2, EPOCHS), (3, EPOCHS + 1)], indirect=["site"]
)
def test_who_stops_keeps_what_was_measured_on_cases_that_it_did_not_learn_from(site, stop_after):
    name = f"stopped {stop_after}"
    seen, summary = site.run(name, stop_after=stop_after, steps=12)
    assert len(seen) == stop_after, "nothing more is trained"
    if summary.cross_fit:  # one epoch was best here, so that the last training was over
        assert (stop_after, summary.best_epoch) == (2 * EPOCHS + 1, 1)
        return
    assert (summary.cross_fit, summary.held_out, summary.epochs) == (False, 1, min(stop_after, EPOCHS))
    fold, base = site.first_fold(), read_model(site.request.base)
    improved = read_model(site.folder / name / "improved.model")
    for model, told in ((base, summary.dice_before), (improved, summary.dice_after)):
        network = build_network(model.plan, model.weights)
        assert evaluate_cases(network, model.plan, fold.held_out) == pytest.approx(told, abs=1e-3)
    decision = decide_gate(summary.dice_before, summary.dice_after, margin=site.settings.dice_margin)
    assert summary.gate == ("passed" if summary.step and decision.passed else "failed")
    assert summary.gate == "passed" or site.trainings > 3 or stop_after == EPOCHS, "one study is enough to gain from"
    assert site.sent(name)[2] == len(fold.training)
    assert site.files(name) == site.files("whole")


def test_who_stops_gets_the_same_from_a_worker_that_takes_over(site):
    """As when the first one is ended, because its epoch takes too long."""
    site.run("straight", stop_after=EPOCHS + 1)
    site.run("taken over", killed_after=EPOCHS + 1)
    seen, _ = site.run("taken over", resume=True, asked=True)
    assert seen == []
    assert site.sent("taken over") == site.sent("straight")


def test_other_cases_or_choices_are_refused_before_anything_is_trained(site):
    site.run("other", killed_after=EPOCHS + 1)
    before = {path.name: path.read_bytes() for path in (site.folder / "other").iterdir()}
    more = CaseRequest((write_cases(site.folder / "more", range(60, 64), **NEW_SCANNER),))
    for changes in ({"seed": 1}, {"epochs": 5}, {"rank": 2}, {"data": more}):
        with pytest.raises(TrainingError, match="of this training"):
            site.run("other", resume=True, **changes)
        assert {path.name: path.read_bytes() for path in (site.folder / "other").iterdir()} == before
    seen, _ = site.run("other")
    assert seen == site.all, "not resumed: it begins again"
    assert site.files("other") == site.files("whole")


def test_what_was_begun_with_many_cases_is_refused_before_hours_of_folds(site):
    many = CaseRequest((write_cases(site.folder / "many", range(60, 64), **NEW_SCANNER),))
    site.run("fewer", killed_after=1, data=many)
    with pytest.raises(TrainingError, match="of this training"):
        site.run("fewer", resume=True)


def test_a_damaged_result_of_a_fold_is_refused(site):
    site.run("damaged", killed_after=EPOCHS, killed_between=True)
    [result] = (site.folder / "damaged").glob("*.result")
    result.write_bytes(result.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="to be whole, found damage"):
        site.run("damaged", resume=True)

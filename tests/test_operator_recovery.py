"""The merger after crashes, beside other operators, and against sites that are trusted but wrong."""

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
import torch
from phantoms import tiny_plan
from sites import train_model
from test_client import ScriptedTransport
from test_operator import CASES, HEAD, TYPE, Failing, Operator

from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.errors import (
    IncompatibleModelError,
    NotEnoughCasesError,
    ServerAnswerError,
    SettingsError,
    StorageError,
)
from dafne_dante.federation.client import FederationClient
from dafne_dante.federation.operator import merge_pending
from dafne_dante.models.build import build_network
from dafne_dante.models.file import write_model

RUIN = torch.tensor([50.0, -50.0, -50.0])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("base") / "base.model")


@pytest.fixture
def operator(tmp_path, base):
    return Operator(tmp_path, base)


def crash_after(operator, call):
    """Let a merge stop right after the effect of a call; the call's own answer is lost."""

    class LosingAnswer(Failing):
        def __getattr__(self, name):
            method = getattr(self._depot, name)

            def run(*arguments):
                result = method(*arguments)
                if name == call:
                    raise StorageError("the power went")
                return result

            return run

    with pytest.raises(StorageError, match="power"):
        operator.merge(LosingAnswer(operator.depot, 0, after=True))


def test_a_publish_whose_answer_was_lost_is_found_again_behind_a_newer_version(operator):
    """Another operator publishes between the crash and the next run: nothing is merged a second time."""
    operator.send(operator.delta(0.002))
    crash_after(operator, "publish")
    ours = operator.newest()
    write_model(replace(ours, weights={**ours.weights, HEAD: ours.weights[HEAD] + 0.1}), operator.root / "theirs.model")
    theirs = operator.shelf.publish_copy(TYPE, operator.root / "theirs.model")
    report = operator.merge()
    assert (report.version, report.merged, report.quarantined) == (None, 0, ())
    assert operator.shelf.versions(TYPE)[-1] == theirs
    assert operator.shelf.uploads(TYPE) == []
    assert operator.moved() == pytest.approx(0.102, rel=1e-3)


def test_what_a_crash_left_in_the_queue_is_not_called_a_replay(operator):
    operator.send(operator.delta(0.002))
    crash_after(operator, "publish")
    report = operator.merge()
    assert (report.quarantined, report.reason) == ((), "no update waits")
    assert operator.quarantined() == {}
    assert operator.shelf.uploads(TYPE) == []


def test_the_same_update_under_another_name_is_a_replay(operator):
    content = operator.delta(0.002)
    operator.send(content)
    operator.merge()
    again = operator.send(content)
    report = operator.merge()
    assert [one.upload for one in report.quarantined] == [again]
    assert "seen before" in report.reason + report.quarantined[0].reason
    assert operator.moved() == pytest.approx(0.002, rel=1e-3)


def test_the_same_update_twice_in_one_batch_counts_once(operator):
    content = operator.delta(0.002)
    first, second = operator.send(content, user="a"), operator.send(content, user="b")
    report = operator.merge()
    assert report.merged == 1
    assert [one.upload for one in report.quarantined] in ([first], [second])
    assert operator.moved() == pytest.approx(0.002, rel=1e-3)


def test_one_update_that_spoils_a_batch_does_not_take_the_others_with_it(operator):
    operator.settings = replace(operator.settings, max_norm_ratio=100.0)
    good = operator.send(operator.delta(0.002, site="site1"))
    bad = operator.send(operator.delta(0, site="site2", updates=[WeightUpdate(HEAD, RUIN)]))
    report = operator.merge()
    assert (report.merged, report.step) == (1, 1.0)
    assert [one.upload for one in report.quarantined] == [bad]
    assert "Dice of" in operator.quarantined()[bad]
    assert good not in operator.quarantined()
    assert operator.moved() == pytest.approx(0.002, rel=1e-3)


def test_a_refused_update_is_not_taken_when_it_comes_again(operator):
    operator.settings = replace(operator.settings, max_norm_ratio=100.0)
    content = operator.delta(0, updates=[WeightUpdate(HEAD, RUIN)], update_id=UUID(int=5, version=4))
    operator.send(content)
    assert operator.merge().version is None
    again = operator.send(content)
    assert "seen before" in {one.upload: one.reason for one in operator.merge().quarantined}[again]


@pytest.mark.parametrize("plan", [tiny_plan(first_channels=6), replace(tiny_plan(), levels=2)])
def test_an_update_of_an_old_base_that_does_not_fit_the_newest_model_blocks_nothing(operator, plan):
    """The operator has published a wider, or a flatter, model of the same family since."""
    inner = "unet_model.model.1.submodule.1.submodule.conv.unit1.conv.weight"
    old = operator.send(
        operator.delta(0, updates=[WeightUpdate(inner, torch.full_like(operator.model.weights[inner], 1e-4))])
    )
    torch.manual_seed(0)
    wider = replace(operator.model, plan=plan, weights=dict(build_network(plan).state_dict()))
    write_model(wider, operator.root / "wider.model")
    operator.shelf.publish_copy(TYPE, operator.root / "wider.model")
    operator.send(operator.delta(1e-4, model=wider))
    report = operator.merge()
    assert report.merged == 1
    assert [one.upload for one in report.quarantined] == [old]
    assert "expected" in operator.quarantined()[old]
    assert operator.shelf.uploads(TYPE) == []


class Withholding:
    """A depot that lists one upload which it cannot hand out."""

    def __init__(self, depot, filename, error):
        self._depot, self._filename, self._error = depot, filename, error

    def __getattr__(self, name):
        return getattr(self._depot, name)

    def fetch_upload(self, filename, destination):
        if filename == self._filename:
            raise self._error
        return self._depot.fetch_upload(filename, destination)


def test_an_upload_that_cannot_be_fetched_stays_and_is_told(operator):
    missing = operator.send(operator.delta(0.5), user="a")
    operator.send(operator.delta(0.002), user="b")
    report = operator.merge(Withholding(operator.depot, missing, ServerAnswerError("expected a file, found none")))
    assert report.merged == 1
    assert [one.upload for one in report.skipped] == [missing]
    assert report.as_json()["skipped"] == [{"upload": missing, "reason": "expected a file, found none"}]
    assert [one.filename for one in operator.shelf.uploads(TYPE)] == [missing]


def test_an_odd_file_name_in_the_queue_is_told_and_blocks_nothing(operator):
    operator.send(operator.delta(0.002))
    odd = operator.root / "server" / "models" / TYPE / "uploads" / "1_o'neil.model"
    odd.write_bytes(operator.delta(0.5))
    report = operator.merge()
    assert (report.merged, report.quarantined) == (1, ())
    [skipped] = report.as_json()["skipped"]
    assert "o'neil" in skipped["upload"] and "by hand" in skipped["reason"]
    assert odd.exists()
    assert operator.moved() == pytest.approx(0.002, rel=1e-3)


def test_an_odd_file_name_on_a_server_is_told_and_blocks_nothing(operator):
    """As Dafne's PHP server lists whatever lies in the folder."""
    operator.send(operator.delta(0.002))

    class Listing:
        def __init__(self, depot):
            self._depot = depot

        def __getattr__(self, name):
            return getattr(self._depot, name)

        def pending(self):
            rows = [{"filename": one.filename, "size": one.size} for one in self._depot.pending()]
            answer = {"uploads": [{"filename": "1_o'neil.model", "size": 9}, *rows]}
            return FederationClient(ScriptedTransport(get_pending_uploads=answer)).pending_uploads(TYPE)

    report = operator.merge(Listing(operator.depot))
    assert report.merged == 1
    assert ["o'neil" in one.upload for one in report.skipped] == [True]


def test_a_disk_that_fails_stops_the_merge_and_loses_nothing(operator):
    waiting = operator.send(operator.delta(0.002))
    with pytest.raises(StorageError, match="full"):
        operator.merge(Withholding(operator.depot, waiting, StorageError("the disk is full")))
    assert [one.filename for one in operator.shelf.uploads(TYPE)] == [waiting]
    assert operator.merge().merged == 1


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"rot")])
def test_without_its_archive_a_group_is_not_summed_up(operator, spoil):
    operator.send(operator.delta(0.002))
    operator.merge()
    [archived] = (operator.settings.folder / "operator" / TYPE / "archive").iterdir()
    spoil(archived)
    waiting = operator.send(operator.delta(0.002, site="site2"))
    with pytest.raises(StorageError):
        operator.merge()
    assert [one.filename for one in operator.shelf.uploads(TYPE)] == [waiting]
    assert operator.moved() == pytest.approx(0.002, rel=1e-3)


def test_a_damaged_ledger_is_told_and_nothing_is_taken(operator):
    operator.send(operator.delta(0.002))
    folder = operator.settings.folder / "operator" / TYPE
    folder.mkdir(parents=True)
    (folder / "ledger.json").write_text('{"format": "dafne-dante-ledger", "version": 1}')
    with pytest.raises(StorageError, match=r"ledger\.json"):
        operator.merge()
    assert len(operator.shelf.uploads(TYPE)) == 1


def test_the_operators_labels_may_come_in_another_order(operator):
    swapped = np.array([0, 2, 1], np.uint8)
    cases = [replace(case, segmentation=swapped[case.segmentation], labels=(" Box", "BALL")) for case in CASES]
    operator.send(operator.delta(0.002))
    report = merge_pending(operator.depot, TYPE, cases, operator.settings)
    assert report.merged == 1
    plain = operator.merge  # the same cases in the model's order give the same Dice
    operator.send(operator.delta(0.002, site="site2"))
    assert plain().dice_before == pytest.approx(report.dice_after)
    assert report.dice_before["ball"] != report.dice_before["box"]


@pytest.mark.parametrize(
    ("cases", "error"),
    [
        ([], NotEnoughCasesError),
        ([replace(case, segmentation=np.zeros_like(case.segmentation)) for case in CASES], NotEnoughCasesError),
        ([replace(case, labels=("ball", "liver")) for case in CASES], IncompatibleModelError),
    ],
)
def test_without_cases_that_can_tell_nothing_is_published_or_refused(operator, cases, error):
    operator.send(b"garbage")
    operator.send(operator.delta(0.002))
    with pytest.raises(error):
        merge_pending(operator.depot, TYPE, cases, operator.settings)
    assert len(operator.shelf.uploads(TYPE)) == 2
    assert [path.name for path in (operator.settings.folder / "operator" / TYPE).iterdir()] == ["lock"]


@pytest.mark.parametrize("name", ["../outside", "under_score", "", "a/b", " Brain"])
def test_a_types_name_never_becomes_a_path(operator, name):
    with pytest.raises(SettingsError, match="type"):
        merge_pending(operator.depot, name, CASES, operator.settings)
    assert not (operator.settings.folder / "operator").exists()


def test_what_a_killed_merge_has_opened_is_gone_before_the_next_begins(operator):
    """A sealed update lies open there while it is merged; so only its owner may look, and only so long."""
    scratch = operator.settings.folder / "operator" / TYPE / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "left").write_bytes(b"opened")
    operator.send(operator.delta(0.002))
    seen = []

    class Looking:
        def __init__(self, depot):
            self._depot = depot

        def __getattr__(self, name):
            return getattr(self._depot, name)

        def fetch_upload(self, filename, destination):
            seen.append(({path.name for path in scratch.iterdir()}, scratch.stat().st_mode & 0o777, destination.parent))
            return self._depot.fetch_upload(filename, destination)

    assert operator.merge(Looking(operator.depot)).merged == 1
    assert all("left" not in names and (mode, parent) == (0o700, scratch) for names, mode, parent in seen) and seen
    assert not scratch.exists()

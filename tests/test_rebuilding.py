"""The newest version again without an update: its effect is gone, that of all others stays, and the ledger says so."""

from uuid import UUID

import pytest
from merging import SMALL_CASE, QuickOperator
from test_operator import TYPE

from dafne_dante.errors import SettingsError
from dafne_dante.federation.ledger import Store
from dafne_dante.federation.published_versions import hand_in, list_versions, show_version
from dafne_dante.federation.rebuilding import rebuild_without
from dafne_dante.federation.withdrawal import make_withdrawal
from dafne_dante.federation.withdrawn import versions_that_hold
from dafne_dante.models.file import read_model

BAD, GOOD, OTHER = (str(UUID(int=number << 100, version=4)) for number in (1, 2, 3))


@pytest.fixture
def operator(tmp_path):
    return QuickOperator(tmp_path)


def ledger(operator):
    return Store(operator.settings.folder / "operator" / TYPE).load()


def rebuild(operator, *without, **options):
    return rebuild_without(operator.depot, TYPE, without, [SMALL_CASE], operator.settings, **options)


def merged_together(tmp_path_factory, *updates):
    """How far the model moves where these updates, (site, change, base's place), were merged one after the other."""
    other = QuickOperator(tmp_path_factory.mktemp("other"))
    for site, change in updates:
        other.send(other.delta(change, site=site))
    other.merge()
    return other.moved()


def test_one_of_a_batch_is_left_out_as_if_it_had_never_come(operator, tmp_path_factory):
    operator.send(operator.delta(0.01, update_id=UUID(BAD)))
    operator.send(operator.delta(0.04, site="site2", update_id=UUID(GOOD)))
    polluted = operator.merge().version
    assert operator.moved() != pytest.approx(0.04, abs=1e-3)
    found = rebuild(operator, BAD)
    assert (found.start, found.kept, found.left_out) == (operator.first, (GOOD,), (BAD,))
    assert operator.shelf.versions(TYPE)[-1] == found.version > polluted
    assert operator.moved() == pytest.approx(merged_together(tmp_path_factory, ("site2", 0.04)), abs=1e-6)
    known = ledger(operator)
    assert versions_that_hold(known, BAD) == (polluted,)
    assert versions_that_hold(known, GOOD) == (polluted, found.version)
    assert known.publications[found.version].kind == "rebuilt"
    assert known.lineage(found.version) == (found.version, operator.first)


def test_later_merges_are_done_again_without_it(operator):
    operator.send(operator.delta(0.01, update_id=UUID(BAD)))
    operator.send(operator.delta(0.03, site="site2", update_id=UUID(GOOD)))
    first = operator.merge().version
    operator.send(operator.delta(0.05, site="site1", update_id=UUID(OTHER)))
    second = operator.merge().version
    found = rebuild(operator, BAD)
    assert found.kept == tuple(sorted((GOOD, OTHER))) and found.start == operator.first
    known = ledger(operator)
    assert versions_that_hold(known, OTHER) == (second, found.version)
    assert versions_that_hold(known, BAD) == (first, second)
    assert 0.03 < operator.moved() < 0.05, "the mean of the two that stayed"


def test_after_it_merging_and_a_second_rebuild_go_on(operator):
    operator.send(operator.delta(0.01, update_id=UUID(BAD)))
    operator.send(operator.delta(0.03, site="site2", update_id=UUID(GOOD)))
    operator.merge()
    rebuilt = rebuild(operator, BAD)
    operator.send(operator.delta(0.05, site="site1", update_id=UUID(OTHER)))
    assert operator.merge().merged == 1
    assert sorted(ledger(operator).held_by(operator.shelf.versions(TYPE)[-1])) == sorted((GOOD, OTHER))
    again = rebuild(operator, GOOD)
    assert (again.start, again.kept) == (operator.first, (OTHER,))
    assert int(again.version) > int(rebuilt.version)
    operator.send(operator.delta(0.01, update_id=UUID(BAD)))
    assert operator.merge().merged == 0, "what was left out is not taken a second time"


def test_what_its_site_withdrew_stays_out_as_well(operator):
    operator.send(operator.delta(0.01, update_id=UUID(BAD)))
    operator.send(operator.delta(0.02, site="site2", update_id=UUID(GOOD)))
    operator.send(operator.delta(0.05, site="site1", update_id=UUID(OTHER)))
    operator.merge()
    operator.send(make_withdrawal(GOOD, TYPE, operator.keys["site2"]))
    told = operator.merge().withdrawn
    assert f"publish rebuild --without {GOOD}" in told[0].reason
    found = rebuild(operator, BAD)
    assert found.kept == (OTHER,)
    assert operator.moved() == pytest.approx(0.05, abs=1e-3)


def test_versions_and_the_new_one_s_page_tell_of_it(operator):
    operator.send(operator.delta(0.01, update_id=UUID(BAD)))
    operator.send(operator.delta(0.03, site="site2", update_id=UUID(GOOD)))
    operator.merge()
    found = rebuild(operator, BAD)
    newest, polluted, _ = list_versions(operator.depot, TYPE, operator.settings)
    assert (newest.kind, newest.updates, polluted.updates) == ("rebuilt", 1, 2)
    shown = show_version(operator.depot, TYPE, found.version, operator.settings)
    assert shown["held"] == [GOOD]
    assert [one["update_id"] for one in shown["contributions"]] == [GOOD]


@pytest.mark.parametrize("why", ["not held", "nothing left", "handed in since", "unknown first"])
def test_what_cannot_be_built_again_is_told_and_nothing_is_published(operator, why):
    operator.send(operator.delta(0.01, update_id=UUID(BAD)))
    if why != "nothing left":
        operator.send(operator.delta(0.03, site="site2", update_id=UUID(GOOD)))
    operator.merge()
    if why == "handed in since":
        version = operator.shelf.versions(TYPE)[-1]
        model = read_model(operator.depot.fetch_model(version, operator.root / "one.model"))
        hand_in(operator.depot, TYPE, model, operator.settings)
    if why == "unknown first":
        store = Store(operator.settings.folder / "operator" / TYPE)
        from dataclasses import replace

        store.save(replace(store.load(), publications={}))
    before = operator.shelf.versions(TYPE)
    with pytest.raises(SettingsError):
        rebuild(operator, OTHER if why == "not held" else BAD)
    assert operator.shelf.versions(TYPE) == before


def test_the_command_rebuilds(operator, monkeypatch, command, tmp_path):
    from sites import write_cases

    operator.send(operator.delta(0.01, update_id=UUID(BAD)))
    operator.send(operator.delta(0.03, site="site2", update_id=UUID(GOOD)))
    operator.merge()
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(operator.settings.folder))
    monkeypatch.setenv("DAFNE_DANTE_DICE_MARGIN", "1.0")
    cases = write_cases(tmp_path / "cases", (1,))
    code, out, err = command(
        "publish",
        "rebuild",
        "--without",
        BAD,
        "--validation",
        cases,
        "--folder",
        operator.root / "server",
        "--type",
        TYPE,
    )
    assert code == 0, err
    assert "left out: " + BAD in out and "1 update(s)" in out

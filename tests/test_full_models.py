"""Full models of stock clients: merged as differences to their base, or quarantined with the reason."""

from dataclasses import replace
from uuid import UUID

import pytest
import torch
from merging import QuickOperator
from test_operator import HEAD, TYPE

from dafne_dante.federation.operator import MergeOptions
from dafne_dante.federation.published_versions import list_versions, show_version
from dafne_dante.models.file import read_model, serialise_model


@pytest.fixture
def operator(tmp_path):
    return QuickOperator(tmp_path)


def tuned(model, amount, **changes):
    return replace(model, weights={**model.weights, HEAD: model.weights[HEAD] + amount}, **changes)


def send(operator, model, user="stock"):
    return operator.send(serialise_model(model), user=user)


def test_a_model_moves_the_global_one_by_its_difference(operator):
    send(operator, tuned(operator.model, 0.004))
    report = operator.merge()
    assert (report.merged, report.quarantined) == (1, ())
    assert operator.moved() == pytest.approx(0.004, rel=1e-3)
    [one] = show_version(operator.depot, TYPE, report.version, operator.settings)["contributions"]
    assert (one["username"], one["method"], one["key"], one["cases"]) == ("stock", "full model", "", 0)


def test_models_and_deltas_are_averaged(operator):
    send(operator, tuned(operator.model, 0.006))
    operator.send(operator.delta(0.002))
    assert operator.merge().merged == 2
    assert operator.moved() == pytest.approx(0.004, rel=1e-3)


def test_an_account_with_a_keys_name_is_the_same_site(operator):
    """Else a hospital with both would weigh as two, and two of the five from which on trimming begins."""
    send(operator, tuned(operator.model, 0.010), user="site1")
    operator.send(operator.delta(0.002, site="site1"))
    operator.send(operator.delta(0.004, site="site2"))
    assert operator.merge().merged == 3
    assert operator.moved() == pytest.approx((0.5 * (0.002 + 0.010) + 0.004) / 2, rel=1e-3)
    assert list_versions(operator.depot, TYPE, operator.settings)[0].contributors == 2


def test_another_account_is_a_site_of_its_own(operator):
    send(operator, tuned(operator.model, 0.010), user="Site1")
    operator.send(operator.delta(0.002, site="site1"))
    operator.send(operator.delta(0.004, site="site2"))
    assert operator.merge().merged == 3
    # Of three sites, which weigh 1, 2 and 2, the longest is scaled to the median.
    assert operator.moved() == pytest.approx((0.004 + 2 * 0.002 + 2 * 0.004) / 5, rel=1e-3)
    assert list_versions(operator.depot, TYPE, operator.settings)[0].contributors == 3


def test_a_tie_between_account_and_key_holds_for_what_is_in_the_archive(operator):
    send(operator, tuned(operator.model, 0.010), user="site1")
    operator.send(operator.delta(0.004, site="site2"))
    operator.merge()
    before = operator.moved()
    operator.send(operator.delta(0.002, site="site1"))
    operator.merge()
    # Both means over two sites, of which site1 has sent one update and then two; the change is damped by its age.
    first = (0.010 + 0.004) / 2
    assert before == pytest.approx(first, rel=1e-3)
    second = (0.5 * (0.010 + 0.002) + 0.004) / 2
    assert operator.moved() == pytest.approx(first + (second - first) * 2**-0.5, rel=1e-3)


def test_a_later_update_of_the_same_base_finds_the_model_in_the_archive(operator):
    send(operator, tuned(operator.model, 0.004))
    operator.merge()
    operator.send(operator.delta(0.008))
    assert operator.merge().merged == 1
    assert operator.moved() == pytest.approx(0.004 + 0.002 * 2**-0.5, rel=1e-3)


def test_the_base_is_the_version_that_it_was_tuned_from(operator):
    """Not the newest: what others contributed since is not taken back."""
    operator.send(operator.delta(0.002))
    operator.merge()
    send(operator, tuned(operator.model, 0.006, metadata={**operator.model.metadata, "latest_timestamp": "1"}))
    assert operator.merge().merged == 1
    assert operator.moved() == pytest.approx(0.002 + 0.002 * 2**-0.5, rel=1e-3)


def test_the_base_may_be_named_by_what_the_client_noted(operator):
    metadata = {**operator.model.metadata, "latest_timestamp": operator.first}
    send(operator, tuned(operator.model, 0.004, timestamp=5, metadata=metadata))
    assert operator.merge().merged == 1


BAD = {
    "unknown base": (lambda one: tuned(one.model, 0.004, timestamp=5), "kept here"),
    "another family": (lambda one: tuned(one.model, 0.004, model_id=UUID(int=8)), "family"),
    "other labels": (
        lambda one: tuned(one.model, 0.004, plan=replace(one.model.plan, labels=("ball", "liver"))),
        "labels",
    ),
    "too far": (lambda one: tuned(one.model, 1e4), "length"),
    "a published version": (lambda one: one.model, "as it was published"),
    "fewer weights": (
        lambda one: replace(one.model, weights={n: w for n, w in one.model.weights.items() if n != HEAD}),
        "expected",
    ),
    "another shape": (
        lambda one: replace(one.model, weights={**one.model.weights, HEAD: torch.zeros(4)}),
        "expected",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_taken_is_quarantined_and_blocks_nothing(operator, name):
    make, reason = BAD[name]
    bad = send(operator, make(operator), user="a")
    operator.send(operator.delta(0.002))
    report = operator.merge()
    assert report.merged == 1
    assert [one.upload for one in report.quarantined] == [bad]
    assert reason in operator.quarantined()[bad]


def test_the_same_weights_are_one_update_whoever_sends_them(operator):
    first = send(operator, tuned(operator.model, 0.004), user="a")
    again = send(
        operator, tuned(operator.model, 0.004, metadata={**operator.model.metadata, "note": "other"}), user="b"
    )
    other = operator.send(operator.delta(0.002))
    report = operator.merge()
    assert (report.merged, len(report.quarantined)) == (2, 1)
    assert set(operator.quarantined()) < {first, again}
    assert other not in operator.quarantined()
    assert operator.moved() == pytest.approx(0.003, rel=1e-3)


def test_an_operator_may_refuse_them(operator):
    bad = send(operator, tuned(operator.model, 0.004))
    report = operator.merge(options=MergeOptions(take_full_models=False))
    assert (report.merged, [one.upload for one in report.quarantined]) == (0, [bad])
    assert "does not take" in operator.quarantined()[bad]


def test_file_timestamps_rise_though_versions_are_quick(operator):
    """Two versions of one second would be the same base to a stock client."""
    for amount in (0.002, 0.004):
        operator.send(operator.delta(amount))
        operator.merge()
    stamps = [read_model(operator.shelf.model_path(TYPE, one)).timestamp for one in operator.shelf.versions(TYPE)]
    assert stamps == sorted(set(stamps))

"""The model card: what the ledger holds, no more, and no text that changes its layout."""

import json

import pytest
from merging import QuickOperator, untrained_model
from test_operator import TYPE

from dafne_dante.errors import SettingsError
from dafne_dante.federation.ledger import Entry, Ledger, Publication
from dafne_dante.federation.model_card import card_of
from dafne_dante.federation.operator import MergeOptions
from dafne_dante.federation.publishing import Statement


def ledger():
    updates = {
        "a": Entry("b", "key1", "u1", "c1", "2", "anna", 4, "lora"),
        "b": Entry("b", "key1", "u2", "c2", "3", "anna", 7, "full"),
        "c": Entry("b", "", "u3", "c3", "3", "ben", 0, "full model"),
        "d": Entry("b", "key4", "u4", "c4", "", "carl", 9, "full", "refused"),
        "e": Entry("b", "key5", "u5", "c5", "4", "dora", 9, "full"),
    }
    told = {
        "2": Publication("merge", "2026-01-01T00:00:00Z", "1"),
        "3": Publication("merge", "2026-01-02T00:00:00Z", "2", step=0.5, dice_before={"mean": 0.5, "ball": None},
                         dice_after={"mean": 0.75, "ball": None}, validation_cases=3, licence="CC0"),
        "4": Publication("merge", "2026-01-03T00:00:00Z", "3"),
        "5": Publication("rollback", "2026-01-04T00:00:00Z", "3"),
    }  # fmt: skip
    return Ledger(updates=updates, versions={str(n): f"digest{n}" for n in range(1, 6)}, publications=told)


def test_it_counts_what_the_weights_hold():
    card = card_of(TYPE, "3", untrained_model(), ledger())
    assert (card.sites, card.updates, card.cases) == (2, 3, 7)
    assert card.methods == {"full": 1, "full model": 1, "lora": 1}
    assert [one.version for one in card.lineage] == ["3", "2", "1"]
    assert card.lineage[-1].kind == "published by hand"
    back = card_of(TYPE, "5", untrained_model(), ledger())
    assert (back.updates, [one.version for one in back.lineage]) == (3, ["5", "3", "2", "1"])


def test_it_names_no_site():
    card = card_of(TYPE, "3", untrained_model(), ledger())
    for text in (card.json_text(), card.markdown()):
        assert not any(name in text for name in ("anna", "ben", "carl", "key1", "u1"))


def test_both_forms_say_the_same():
    card = card_of(TYPE, "3", untrained_model(), ledger())
    document = json.loads(card.json_text())
    assert document["dice_after"] == {"mean": 0.75, "ball": None}
    text = card.markdown()
    assert "| mean | 0.500 | 0.750 |" in text
    assert "| ball | - | - |" in text
    assert "Licence: CC0" in text
    assert "not stated by the operator" in text
    assert "On 3 cases of the operator; step 0.5" in text


def test_text_cannot_change_the_layout():
    hostile = "a|b\n# Title <script>x</script> [l](http://x) `code`"
    told = {"2": Publication("merge", "now", "1", dice_after={hostile: 0.5}, intended_use=hostile, licence=hostile)}
    entries = {"a": Entry("b", "k", "u", "c", "2", "anna", 4, "full")}
    text = card_of(
        TYPE, "2", untrained_model(), Ledger(updates=entries, versions={"2": "d"}, publications=told)
    ).markdown()
    assert "<script" not in text.replace("\\<script", "")
    assert "](http" not in text.replace("\\](http", "").replace("\\]\\(http", "")
    assert sum(line.startswith("# ") for line in text.splitlines()) == 1
    [row] = [line for line in text.splitlines() if "0.500" in line]
    assert row.replace("\\|", "").count("|") == 4


def test_every_merge_writes_one_beside_the_version_and_keeps_the_operators_words(tmp_path):
    operator = QuickOperator(tmp_path)
    operator.send(operator.delta(0.002))
    options = MergeOptions(Statement("To measure muscles.", "CC-BY-4.0"))
    first = operator.merge(options=options).version
    operator.send(operator.delta(0.004, site="site2"))
    second = operator.merge().version
    for version, updates in ((first, 1), (second, 2)):
        beside = operator.shelf.model_path(TYPE, version).with_name(f"{version}.card.json")
        document = json.loads(beside.read_text())
        assert (document["version"], document["updates"], document["labels"]) == (version, updates, ["ball", "box"])
        assert (document["intended_use"], document["licence"]) == ("To measure muscles.", "CC-BY-4.0")
        own = operator.settings.folder / "operator" / TYPE / "cards" / f"{version}.json"
        assert own.read_text() == beside.read_text()
    assert operator.shelf.versions(TYPE) == [operator.first, first, second]


def test_a_card_that_a_crash_left_out_is_written_by_the_next_merge(tmp_path):
    operator = QuickOperator(tmp_path)
    operator.send(operator.delta(0.002))
    version = operator.merge().version
    own = operator.settings.folder / "operator" / TYPE / "cards" / f"{version}.md"
    text = own.read_text()
    own.unlink()
    operator.merge()
    assert own.read_text() == text


def test_words_have_a_bound():
    with pytest.raises(SettingsError, match="10000"):
        Statement("x" * 10_001)

"""summary.json: what is in it, and that older and newer ones are read."""

import json

import pytest
from phantoms import make_case
from reports import report_facts

from dafne_dante.errors import StorageError
from dafne_dante.plugin.division import divide
from dafne_dante.plugin.report.page import report_page
from dafne_dante.plugin.report.words import held_out_in_words
from dafne_dante.plugin.summary import VERSION, read_summary, write_summary

WHY = "lora, because there is only 1 study to learn from"
LIVE = ("1 of 4 stages move: 10 of 99 parameters (10.1%), 40% of a step's work", "from epoch 5 on 4 of 4 stages move")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "summary.json"


def test_what_was_written_is_read_again(path):
    summary = report_facts(why=WHY, live=LIVE).summary
    write_summary(path, summary)
    assert read_summary(path) == summary
    assert json.loads(path.read_text())["version"] == VERSION == 2


def test_one_of_an_earlier_version_is_read(path):
    write_summary(path, report_facts().summary)
    document = json.loads(path.read_text())
    for name in ("why", "live", "version", "reference_before", "reference_after"):
        del document[name]
    path.write_text(json.dumps(document))
    found = read_summary(path)
    assert (found.why, found.live, found.version, found.reference_before) == ("", (), 1, None)
    assert found.dice_after == report_facts().summary.dice_after


def test_what_a_later_version_adds_is_left_out(path):
    write_summary(path, report_facts(why=WHY).summary)
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 3, "more": [1]}))
    assert (read_summary(path).why, read_summary(path).version) == (WHY, 3)


@pytest.mark.parametrize("change", [{"gate": "open"}, {"dice_after": 1}, {"live": 3}, {"version": "x"}])
def test_what_is_no_summary_is_refused(path, change):
    write_summary(path, report_facts().summary)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(StorageError, match="found a fault in summary"):
        read_summary(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000])
def test_what_is_damaged_is_refused(path, content):
    path.write_text(content)
    with pytest.raises(StorageError, match="found a fault in summary"):
        read_summary(path)


def test_the_report_says_why_and_what_could_move():
    page = report_page(report_facts(why=WHY, live=LIVE)).decode()
    assert "Why this method</dt><dd>Because there is only 1 study to learn from.</dd>" in page
    assert "<li>1 of 4 stages move: 10 of 99 parameters (10.1 %), 40 % of a step&#39;s work.</li>" in page
    assert "<li>From epoch 5 on 4 of 4 stages move.</li>" in page
    assert "<dd>Everything.</dd>" in report_page(report_facts(live=("everything",))).decode()
    without = report_page(report_facts()).decode()
    assert "Why this method" not in without and "What could move" not in without


def test_the_report_of_a_half_says_that_it_is_one():
    division = divide([make_case(1)], seed=0)
    halves = held_out_in_words(division)
    assert "each half of the labelled slices was set aside once" in halves
    assert held_out_in_words(division.first_fold()).startswith("Half of the labelled slices were set aside")
    several = divide([make_case(seed) for seed in (1, 2, 3)], seed=0).first_fold()
    assert held_out_in_words(several).startswith("1 of 3 cases were set aside")

"""What is made of outcomes: the common peak, what is saved, intervals, promises; against values worked out by hand."""

import csv

import pytest
from outcomes import made_cell, made_outcome

from dafne_dante.benchmark.comparison import make_rows, saved
from dafne_dante.benchmark.intervals import mean_interval
from dafne_dante.benchmark.outcome import read_outcome, write_outcome
from dafne_dante.benchmark.protocol import Cell, Effort, Grid, parse_shots
from dafne_dante.benchmark.report import report_text
from dafne_dante.benchmark.requirements import check_promises
from dafne_dante.benchmark.summary import summarise
from dafne_dante.benchmark.tables import RESULT_COLUMNS, write_curves, write_results
from dafne_dante.errors import SettingsError, StorageError


def read_table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def rows_of(**curves):
    """One group's rows by method."""
    outcomes = {made_cell(name.replace("_", "-")): made_outcome(curve) for name, curve in curves.items()}
    return {row.method: row for row in make_rows(outcomes)}


def test_an_interval_is_student_s():
    # Mean 2, standard deviation 1, t(0.975, 2 degrees) = 4.302653: half width 4.302653 / sqrt(3).
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    assert interval.half_width == pytest.approx(2.484138, abs=1e-6)
    assert interval.words() == "2.000 ± 2.484"
    # t(0.975, 1 degree) = 12.706205; the standard deviation of 0.4 and 0.6 is 0.141421.
    assert mean_interval([0.4, 0.6]).half_width == pytest.approx(12.706205 * 0.141421 / 2**0.5, rel=1e-4)


def test_what_does_not_exist_is_left_out_and_one_value_has_no_interval():
    assert mean_interval([None, 0.25, None]).words() == "0.250"
    assert mean_interval([None, None]) is None
    assert mean_interval([]) is None


def test_the_common_peak_is_the_highest_of_all_methods_in_any_epoch():
    rows = rows_of(scratch=[0.1, 0.5, 0.69], full=[0.3, 0.8, 0.7], lora=[0.2, 0.68, None])
    assert {row.peak for row in rows.values()} == {0.8}
    # 85 % of 0.8 is 0.68.
    assert (rows["scratch"].reached.epoch, rows["scratch"].reached.seconds) == (3, 6.0)
    assert rows["full"].reached.epoch == 2
    assert (rows["lora"].reached.epoch, rows["lora"].reached.processor_seconds) == (2, 2.0)


def test_saved_shares_are_against_scratch_and_bounds_are_told():
    rows = rows_of(scratch=[0.0, 0.0, 0.0, 0.9], full=[0.9, 0.9, 0.9, 0.9], lora=[0.1] * 8)
    saving = saved(rows["full"], rows["scratch"])
    assert (saving.epochs, saving.seconds, saving.processor_seconds, saving.bound) == (0.75, 0.75, 0.75, "")
    never = saved(rows["lora"], rows["scratch"])
    assert (never.epochs, never.bound) == (-1.0, "≤"), "eight epochs at least, scratch took four"
    rows = rows_of(scratch=[0.1] * 5, full=[0.9] * 5, lora=[0.1] * 5)
    assert (saved(rows["full"], rows["scratch"]).epochs, saved(rows["full"], rows["scratch"]).bound) == (0.8, "≥")
    assert saved(rows["lora"], rows["scratch"]) is None, "neither came there"


def test_a_group_without_any_dice_has_no_peak():
    rows = rows_of(scratch=[None, None], full=[0.0, 0.0])
    assert rows["full"].peak == 0.0
    assert rows["full"].reached is None


def test_scratch_belongs_to_the_groups_of_all_pretrainings():
    outcomes = {
        made_cell("scratch"): made_outcome([0.2]),
        made_cell("full", pretraining="small"): made_outcome([0.4]),
        made_cell("full", pretraining="rich"): made_outcome([0.8]),
    }
    peaks = {(row.group.pretraining, row.method): row.peak for row in make_rows(outcomes)}
    assert peaks == {("small", "scratch"): 0.4, ("small", "full"): 0.4, ("rich", "scratch"): 0.8, ("rich", "full"): 0.8}


def test_seeds_are_summarised_together_and_groups_are_not_mixed():
    outcomes = {}
    for seed, dice in enumerate([0.5, 0.6, 0.7]):
        outcomes[made_cell("scratch", seed=seed)] = made_outcome([0.1, 0.2, 0.9 + seed / 100], dice=dice - 0.2)
        outcomes[made_cell("lora", seed=seed)] = made_outcome([0.9, 0.9, 0.9], dice=dice)
    (methods,) = summarise(make_rows(outcomes)).values()
    assert list(methods) == ["scratch", "lora"]
    lora = methods["lora"]
    assert lora.dice.mean == pytest.approx(0.6)
    assert lora.dice.half_width == pytest.approx(0.248414, abs=1e-5)
    assert lora.epochs_to_85.mean == 1.0
    assert lora.epochs_saved.mean == pytest.approx(2 / 3)
    assert (lora.reached, lora.bounds) == (3, "")


def promises_of(scratch, full, lora, *, shots=1):
    outcomes = {
        made_cell("scratch", shots=shots): made_outcome([0.1, 0.1, 0.5], dice=scratch),
        made_cell("full", shots=shots): made_outcome([0.5], dice=full),
        made_cell("lora", shots=shots): made_outcome([0.5], dice=lora),
    }
    return {one.words: one for one in check_promises(summarise(make_rows(outcomes)))}


def test_promises_are_kept_or_not_and_the_worst_is_told():
    found = promises_of(scratch=0.5, full=0.61, lora=0.606)
    assert [one.kept for one in found.values()] == [1, 1, 1, 1, 0]
    assert found["70 % fewer seconds to 85 % of the common peak"].worst == "+0.667 (one, 1, rich)"
    found = promises_of(scratch=0.5, full=0.5, lora=0.5)
    assert found["LoRA is above scratch in Dice"].kept == 0, "equal is not above"
    found = promises_of(scratch=0.5, full=0.62, lora=0.49)
    assert [one.kept for one in found.values()] == [0, 0, 0, 1, 0]
    assert found["LoRA is above scratch in Dice"].worst == "-0.010 (one, 1, rich)"
    assert "gradual unfreezing is above scratch in Dice" not in found, "nothing was measured for it"
    assert len(promises_of(0.5, 0.5, 0.5, shots=4)) == 4, "few-shot 1 and 2 only"


def checked(outcomes):
    return {one.words: one for one in check_promises(summarise(make_rows(outcomes)))}


@pytest.mark.parametrize(
    ("auto", "kept", "worst"),
    [
        # LoRA's mean is 0.6, full fine-tuning's 0.65: auto is judged against full.
        ((0.60, 0.70), 1, "+0.000 (full)"),
        ((0.58, 0.70), 1, "-0.010 (full)"),
        ((0.57, 0.70), 0, "-0.015 (full)"),
    ],
)
def test_auto_is_compared_with_the_best_fixed_method_on_average(auto, kept, worst):
    outcomes = {}
    for target, dice, lora, full in (("one", auto[0], 0.7, 0.5), ("two", auto[1], 0.5, 0.8)):
        outcomes[made_cell("auto", target=target)] = made_outcome([0.5], dice=dice)
        outcomes[made_cell("lora", target=target)] = made_outcome([0.5], dice=lora)
        outcomes[made_cell("full", target=target)] = made_outcome([0.5], dice=full)
        outcomes[made_cell("dante-lora", target=target)] = made_outcome([0.5], dice=0.9)
    found = checked(outcomes)["auto is at most 0.01 below any fixed method in Dice, on average"]
    assert (found.kept, found.settings, found.worst) == (kept, 1, worst), "Dante's methods are no choice of auto's"
    without = {cell: outcome for cell, outcome in outcomes.items() if cell.method != "auto"}
    assert not any("auto" in words for words in checked(without))


def dante_promises(*, dice=0.5, bytes_sent=(40, 60), epochs=1):
    """Ours against Dante's two: Dice 0.5 and 0.4, uploads of 1000 and 1200 bytes, 3 and 4 epochs of 1 s to the peak."""
    never = [0.1] * (epochs - 1)
    outcomes = {
        made_cell("lora"): made_outcome([*never, 0.9], dice=dice, sent_bytes=bytes_sent[0]),
        made_cell("gradual-unfreezing"): made_outcome([0.1] * 6, dice=dice - 0.1, sent_bytes=bytes_sent[1]),
        made_cell("dante-lora"): made_outcome([0.1, 0.1, 0.9], dice=0.4, sent_bytes=1000),
        made_cell("dante-gradual-unfreezing"): made_outcome([0.1, 0.1, 0.1, 0.9], dice=0.5, sent_bytes=1200),
    }
    return {words: one for words, one in checked(outcomes).items() if "Dante" in words}


def test_ours_are_compared_with_the_better_of_dante_s():
    dice, seconds, sent = dante_promises().values()
    assert [(one.kept, one.settings) for one in (dice, seconds, sent)] == [(1, 1), (1, 1), (0, 1)]
    assert dice.worst.startswith("+0.000"), "0.5 is not below 0.5"
    assert seconds.worst.startswith("+0.667"), "1 s of 3 s"
    assert sent.worst.startswith("-0.060"), "the larger of ours over the smaller of theirs"


def test_what_dante_does_better_is_told():
    dice, seconds, sent = dante_promises(dice=0.49, bytes_sent=(40, 50), epochs=2).values()
    assert [one.kept for one in (dice, seconds, sent)] == [0, 0, 1]
    assert dice.worst.startswith("-0.010")
    assert seconds.worst.startswith("+0.333"), "2 s of 3 s"
    assert sent.worst.startswith("-0.050")
    assert not any("Dante" in words for words in promises_of(0.5, 0.6, 0.6)), "nothing of Dante's was measured"


@pytest.mark.parametrize(("after", "kept"), [(0.77, 1), (0.76, 0), (0.9, 1)])
def test_what_auto_forgets_is_judged_for_few_shots_only(after, kept):
    words = "few-shot: auto forgets at most 0.03 of the source's Dice"
    outcomes = {
        made_cell("auto", shots=4): made_outcome([0.5], before=0.8, after=after),
        made_cell("auto", shots=None): made_outcome([0.5], before=0.8, after=0.1),
        made_cell("auto", shots=1, target="other-labels"): made_outcome([0.5], before=None, after=None),
    }
    found = checked(outcomes)[words]
    assert (found.kept, found.settings) == (kept, 1)
    assert found.worst == f"{after - 0.8:+.3f} (one, 4, rich)"
    assert words not in checked({made_cell("lora", shots=1): made_outcome([0.5])})


def test_tables_have_a_row_each_and_empty_fields(tmp_path):
    outcomes = {
        made_cell("scratch", shots=2): made_outcome([0.1, None], before=None, after=None),
        made_cell("lora", shots=2): made_outcome([0.5, 0.8]),
    }
    rows = make_rows(outcomes)
    write_results(tmp_path / "results.csv", rows)
    write_curves(tmp_path / "curves.csv", outcomes)
    table = read_table(tmp_path / "results.csv")
    assert list(table[0]) == list(RESULT_COLUMNS)
    scratch, lora = table
    assert (scratch["epochs_to_85"], scratch["source_dice_after"]) == ("", "")
    assert (lora["shots"], lora["common_peak"], lora["epochs_to_85"], lora["seconds_to_85"]) == (
        "2",
        "0.8000",
        "2",
        "4.000",
    )
    assert lora["test_dice_by_label"] == "a 0.5000"
    curve = read_table(tmp_path / "curves.csv")
    assert [(one["method"], one["epoch"], one["dice"]) for one in curve] == [
        ("scratch", "1", "0.1000"), ("scratch", "2", ""), ("lora", "1", "0.5000"), ("lora", "2", "0.8000")
    ]  # fmt: skip


def test_the_report_says_what_was_measured():
    outcomes = {made_cell("scratch"): made_outcome([0.1, 0.8], dice=0.4, after=None, before=None)}
    outcomes[made_cell("lora")] = made_outcome([0.8, 0.8], dice=0.625, sent_bytes=12_345)
    text = report_text(make_rows(outcomes), Effort(epochs=2))
    assert "| one | full | rich | 0.400 | 0.625 |" in text
    assert "| one | full | rich | 2.0, 2.00 s | 1.0, 1.00 s |" in text
    assert "| one | full | rich | 50%, 50% |" in text
    assert "| lora | 10 | 12,345 | 1 | 2.0 |" in text
    assert "| lora | 0.100 |" in text
    assert "2 epochs of 6 steps" in text


def test_an_outcome_is_kept_and_read_back(tmp_path):
    outcome = made_outcome([0.1, None, 0.3], before=None)
    write_outcome(tmp_path / "cell.json", outcome)
    assert read_outcome(tmp_path / "cell.json") == outcome


DAMAGED = {
    "cut off": lambda text: text[:100],
    "another object": lambda text: "{}",
    "a list": lambda text: "[1]",
    "not a number": lambda text: text.replace('"zero_shot": 0.1', '"zero_shot": NaN'),
    "no epoch": lambda text: text.replace('"curve": [', '"curve": [], "best": ['),
    "deep": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_outcome_is_refused(tmp_path, damage):
    path = tmp_path / "cell.json"
    write_outcome(path, made_outcome([0.1]))
    path.write_text(damage(path.read_text()))
    with pytest.raises(StorageError, match=r"a finished cell in cell\.json"):
        read_outcome(path)


def test_a_cell_is_its_name():
    for cell in Grid(("one", "two-b"), ("scratch", "lora"), seeds=(0, 11)).cells():
        assert Cell.from_name(cell.name) == cell
    assert Cell("one", None, "rich", "lora", 3).name == "one_full_rich_lora_3"


@pytest.mark.parametrize(
    "name", ["", "a_b", "one_0_rich_lora_0", "one_full_huge_lora_0", "one_1_rich_lora_x", "a_1_rich_../b_0"]
)
def test_what_is_no_cell_is_refused(name):
    with pytest.raises(SettingsError):
        Cell.from_name(name)


def test_a_grid_has_every_cell_once_and_scratch_once_for_all_pretrainings():
    grid = Grid(("one", "two"), ("scratch", "full", "lora"))
    cells = list(grid.cells())
    assert len(cells) == len(set(cells)) == 2 * 4 * 3 * (1 + 2 * 2)
    with pytest.raises(SettingsError, match="expected different targets"):
        Grid(("one", "one"), ("lora",))
    with pytest.raises(SettingsError, match="letters, digits and dashes"):
        Grid(("one_two",), ("lora",))


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "9" * 9])
def test_shots_are_full_or_a_number(text):
    assert (parse_shots("full"), parse_shots("3")) == (None, 3)
    with pytest.raises(SettingsError, match="full or a number from 1"):
        parse_shots(text)

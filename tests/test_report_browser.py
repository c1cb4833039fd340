"""The report in a real browser: something is to be seen at every width, light and dark, and nothing is asked for."""

import numpy as np
import pytest
from browser import look_at
from reports import report_facts

from dafne_dante.plugin.report.page import report_page

WIDTHS = (360, 1600)
LIVE = ("1 of 4 stages move: 10 of 99 parameters (10.1%), 40% of a step's work", "from epoch 5 on 4 of 4 stages move")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    labels = ("ball", "a label with so long a name that no column of a telephone is as wide as it is")
    path.write_bytes(report_page(report_facts(labels=labels, why="lora, because there are few", live=LIVE)))
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_there_in_its_colours_and_asks_for_nothing(report, tmp_path, width, dark):
    look = look_at(report, tmp_path, width=width, dark=dark)
    assert look.picture.shape[1] == width
    assert look.asked == set()
    brightness = look.picture.mean(axis=-1)
    paper = np.median(brightness)
    assert paper < 40 if dark else paper > 230
    for part in np.array_split(brightness[:1800], 6):
        assert np.abs(part - paper).max() > 80, "no part of the window is empty"
    coloured = np.ptp(look.picture.astype(int), axis=-1) > 60
    assert coloured.mean() > 0.0005, "the outlines and charts have colours"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off_at_the_side(report, tmp_path, width):
    """What did not fit would make the page wider than its window: the column at the right edge stays paper."""
    edge = look_at(report, tmp_path, width=width).picture[:, -6:].mean(axis=-1)
    assert np.abs(edge - np.median(edge)).max() < 12


def test_a_page_that_asks_is_found_out(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<img src="http://tracker.example/x.png"><link rel="stylesheet" href="https://fonts.example/y.css">'
    )
    assert look_at(page, tmp_path, width=500, height=300).asked == {"tracker.example", "fonts.example"}


def test_without_a_browser_the_test_is_skipped_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="no browser on this machine; install one of chromium"):
        look_at(tmp_path / "page.html", tmp_path, width=500)

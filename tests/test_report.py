"""The report: self-contained, harmless whatever it is given, honest, readable and small."""

import base64
import dataclasses
import hashlib
import re
import stat
import time
from html.parser import HTMLParser

import pytest
from phantoms import make_case
from reports import big_cases, report_facts
from sites import snapshot

from dafne_dante.errors import SettingsError
from dafne_dante.plugin.report.page import report_page
from dafne_dante.plugin.report.writing import check_report_place

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnirts\x00\x07",
    "{{ 7 * 7 }}",
    "a" * 5000,
    "</style>\ud800&amp;",
)
VOID = {"meta", "image", "use", "path", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Tags, their attributes, the text, and whether every element is closed in its turn."""

    def __init__(self, content):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.words, self.captions = [], [], [], {}
        self.feed(content.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open[-1:] != ["style"]:
            self.words.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, tag, name):
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]


@pytest.fixture(scope="module")
def facts():
    return report_facts()


@pytest.fixture(scope="module")
def content(facts):
    return report_page(facts)


def test_it_tells_what_happened(facts, content):
    text = Page(content).text
    before, after = facts.summary.dice_before["mean"], facts.summary.dice_after["mean"]
    expected = [
        "The model got better", f"{before:.3f} → {after:.3f}", "3 labelled cases with 48 labelled slices",
        "3 trainings were made", "LoRA", "120 numbers were learned, 12.0 %", "1 min 15 s", "100 %: all of what",
        "No images, no patient data.", hashlib.sha256(facts.delta).hexdigest(), f"{len(facts.delta):,} bytes",
        "Nothing was sent: sending was not asked for", "ball", "box", "This page stays here.",
    ]  # fmt: skip
    assert [words for words in expected if words not in text] == []
    assert all(f"{one.after.dice['ball']:.3f}" in text for one in facts.held_out)


def test_nothing_is_loaded_run_or_linked_and_the_policy_says_so(content):
    page = Page(content)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "a", "img", "base"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
    hrefs = page.values("image", "href") + page.values("use", "href")
    assert all(re.match(r"data:image/png;base64,|#slice-[0-9]$", href) for href in hrefs)
    policy = page.values("meta", "content")[0]
    style = re.search(rb"<style>(.*?)</style>", content, re.S).group(1)
    assert "url(" not in style.decode()
    assert "@import" not in style.decode()
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_label_stays_text(name):
    facts = dataclasses.replace(report_facts(labels=(name, "box")), model_type=name)
    facts = dataclasses.replace(facts, summary=dataclasses.replace(facts.summary, gate_reason=f"Dice of {name} fell"))
    page = Page(report_page(facts))
    plain = Page(report_page(report_facts()))
    assert [tag for tag, _ in page.tags if tag != "bdi"] == [tag for tag, _ in plain.tags if tag != "bdi"]
    assert not set(page.text) & set("\u202e\x00\x07\ud800")
    shown = re.sub("[\u202e\x00\x07\ud800]", "\ufffd", name)[:100]
    assert page.text.count(shown) >= 4


def test_no_name_of_a_case_is_told():
    facts = report_facts()
    content = report_page(facts).decode()
    assert not [case.case_id for case in facts.division.cases if case.case_id in content]


@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({"step": 0.0, "gate": "failed", "gate_reason": "no step does better"}, "Nothing better was found"),
        ({"gate": "failed", "gate_reason": "Dice of box fell"}, "Not good enough: the update was held back"),
        ({"dice_after": {"mean": 0.5}, "dice_before": {"mean": 0.5}}, "as good as before, not better"),
        ({"dice_after": {"mean": None}, "dice_before": {"mean": None}}, "as good as before, not better"),
        ({"uploaded": True}, "Sent to the federation server."),
        ({"reference_before": {"mean": 0.9, "ball": 0.9}, "reference_after": {"mean": 0.8, "ball": 0.8}}, "−0.100"),
    ],
)
def test_it_says_plainly_how_it_ended(changes, headline):
    assert headline in Page(report_page(report_facts(**changes))).text


def test_what_was_not_measured_is_no_fault():
    facts = report_facts(cases=[make_case(1)], before=(16,), after=(16,))
    bare = dataclasses.replace(facts, history=(), held_out=())
    for one in (facts, bare):
        text = Page(report_page(one)).text
        assert "each half of the labelled slices" in text
    assert "How it learned" not in Page(report_page(bare)).text


def test_every_picture_and_chart_has_words_and_a_table(content):
    page = Page(content)
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len([one for one in drawn if one.get("role") == "img"]) == 6 + 1 + 2
    assert all(one.get("aria-label") or one.get("aria-hidden") == "true" for one in drawn)
    assert len([tag for tag, _ in page.tags if tag == "caption"]) >= 5
    assert ("html", {"lang": "en"}) in page.tags


def luminance(colour):
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast_is_enough_in_light_and_dark(content, scheme):
    blocks = re.findall(r":root \{(.*?)\}", content.decode(), re.S)
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", blocks[scheme]))
    text = [("ink", "paper"), ("ink", "card"), ("quiet", "paper"), ("quiet", "card"), ("after", "paper")]
    text += [(tone, f"{tone}-paper") for tone in ("good", "hold", "same")]
    text += [("ink", f"{tone}-paper") for tone in ("good", "hold", "same")]
    shapes = [(name, "paper") for name in ("before", "after", "c1", "c2", "c3", "c4", "c5")]
    assert [pair for pair in text if contrast(*(colours[name] for name in pair)) < 4.5] == []
    assert [pair for pair in shapes if contrast(*(colours[name] for name in pair)) < 3] == []


def test_large_noisy_cases_stay_small_and_quick():
    facts = report_facts(cases=list(big_cases()))
    begin = time.process_time()
    content = report_page(facts)
    assert time.process_time() - begin < 5
    assert len(content) < 3_000_000


def test_many_labels_cases_and_epochs_stay_small():
    labels = ("ball", "box", *(f"label {number}" for number in range(252)))
    facts = report_facts(labels=labels)
    history = [dataclasses.replace(facts.history[0], epoch=1 + number) for number in range(1500)]
    facts = dataclasses.replace(facts, history=history, held_out=facts.held_out * 100)
    everywhere = {"mean": 0.5, **dict.fromkeys(labels, 0.5)}
    summary = dataclasses.replace(facts.summary, dice_before=everywhere, dice_after=everywhere)
    assert len(report_page(dataclasses.replace(facts, summary=summary))) < 3_000_000
    content = report_page(facts)
    assert len(content) < 3_000_000
    assert "252 more in the table: labels that moved less" in Page(content).text


def test_improve_writes_it_where_it_was_asked_for(command, trained, tmp_path):
    arguments = ["improve", "--base", trained / "base.model", "--data", trained / "new", "--epochs", "1", "--out"]
    assert command(*arguments, tmp_path / "out")[0] == 0
    path = tmp_path / "out" / "report.html"
    page = Page(path.read_bytes())
    assert "4 labelled cases" in page.text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert command(*arguments, tmp_path / "other", "--report", tmp_path / "reports" / "mine.html")[0] == 0
    assert (tmp_path / "reports" / "mine.html").is_file()
    assert not (tmp_path / "other" / "report.html").exists()


def test_a_place_where_no_report_can_lie_is_told_before_training(tmp_path):
    (tmp_path / "folder.html").mkdir()
    for name in ("report.txt", "folder.html"):
        with pytest.raises(SettingsError, match=r"ends with \.html"):
            check_report_place(tmp_path / name)
    assert snapshot(tmp_path) == {}

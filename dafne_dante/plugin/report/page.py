"""The pages of a report and of a comparison: from the facts to the bytes of one HTML file.

Invariants
- The page loads nothing, runs nothing and sends nothing: no script, no link; pictures and style are in it, and its
  content security policy allows that style (by its hash) and pictures from `data:` alone.
- Text that comes from outside (names of labels, of the model and of its weights) is escaped, and its control and
  direction characters are replaced, so that it can neither become markup nor reorder what stands around it.
- It names no patient, no file, no folder and no date of a study: cases are numbered.
- It shows slices of patients' images and says so: it belongs to the site and is no part of what is sent.
"""

import base64
import hashlib
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np

from dafne_dante._version import __version__
from dafne_dante.delta.describe import describe_delta
from dafne_dante.plugin.report import charts, words
from dafne_dante.plugin.report.facts import ReportFacts
from dafne_dante.plugin.report.measured import HeldOutCase
from dafne_dante.plugin.report.slices import choose_cases, picture_of, pictures_of

__all__ = ["comparison_page", "report_page"]

_MOST_COMPARED = 6
_MOST_WEIGHTS = 40
_MOST_CHARACTERS = 80
_MANIFEST = ("update_id", "model_type", "model_id", "base_timestamp", "base_sha256", "method", "cases", "created",
             "software", "fingerprint")  # fmt: skip


def report_page(facts: ReportFacts) -> bytes:
    """The whole page as UTF-8; DeltaError where `facts.delta` is no proper delta."""
    return _rendered("report.html.jinja", _content(facts))


def comparison_page(model_type: str, held_out: HeldOutCase, before: str, after: str) -> bytes:
    """Two models side by side on one case, as UTF-8.

    Args:
        before, after: what the models are called.
    """
    pictures = pictures_of("", held_out, most=_MOST_COMPARED)
    names = {"model_type": model_type, "before_name": before, "after_name": after}
    return _rendered("comparison.html.jinja", {"case": held_out, "pictures": pictures, **names})


def _rendered(template: str, content: Mapping[str, Any]) -> bytes:
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    page = _environment().get_template(template).render(style=style, style_hash=digest, software=__version__, **content)
    return page.encode()


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dafne_dante.plugin.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        dice=words.dice_in_words, bytes=words.bytes_in_words, duration=words.duration_in_words, short=_short
    )
    environment.globals["change"] = words.change_in_words
    return environment


def _printable(value: Any) -> Any:
    """Text without characters that do not show, that break lines or that change the direction of reading."""
    if not isinstance(value, str) or (value.isascii() and value.isprintable()):
        return value
    shown = "".join("\ufffd" if unicodedata.category(one) in _UNSEEN and one != "\n" else one for one in value)
    return type(value)(shown)


_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _short(text: str, most: int = _MOST_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _content(facts: ReportFacts) -> dict[str, Any]:
    summary, division = facts.summary, facts.division
    labels = facts.base.plan.labels
    return {
        "summary": summary,
        "model_type": facts.model_type,
        "labels": labels,
        "verdict": words.verdict(summary),
        "method": words.method_in_words(summary.method),
        "why": words.why_in_words(summary),
        "live": words.live_in_words(summary),
        "held_out_words": words.held_out_in_words(division),
        "step": words.step_in_words(summary.step),
        "sending": words.sending_in_words(summary, upload=facts.upload),
        "learned": _learned(facts),
        "moved": _moved(facts),
        "held_out": facts.held_out,
        "shown_cases": facts.held_out[: charts.MOST_CASES],
        "dumbbells": charts.dumbbells(summary.dice_before, summary.dice_after, facts.held_out),
        "pictures": [picture_of(rank, one) for rank, one in choose_cases(facts.held_out)],
        "dice_curves": charts.dice_curves(facts.history, labels, summary.best_epoch),
        "loss_curves": charts.loss_curves(facts.history, summary.best_epoch),
        "history": facts.history,
        "forgetting": _forgetting(facts),
        "delta": _delta(facts.delta),
    }


def _learned(facts: ReportFacts) -> dict[str, Any]:
    """Cases, labelled slices, and in how many slices each label is drawn."""
    counts = np.zeros(256, dtype=np.int64)
    slices = 0
    for case in facts.division.cases:
        for index in np.flatnonzero(case.annotated):
            counts += np.bincount(case.segmentation[:, :, index].reshape(-1), minlength=256) > 0
            slices += 1
    names = [(name, int(counts[value])) for value, name in enumerate(facts.base.plan.labels, start=1)]
    studies = len({case.case_id for case in facts.division.cases})
    return {"cases": studies, "from": facts.division.learned_from, "slices": slices, "labels": names}


def _moved(facts: ReportFacts) -> dict[str, Any]:
    """How many numbers were learned, and how far the weights went, each beside the whole model."""
    weights = [weight for weight in facts.base.weights.values() if weight.is_floating_point()]
    length = sum(float(weight.double().square().sum()) for weight in weights) ** 0.5
    trained = max((record.trainable_parameters for record in facts.history), default=0)
    return {"trained": trained, "numbers": sum(weight.numel() for weight in weights), "length": length}


def _forgetting(facts: ReportFacts) -> dict[str, Any] | None:
    before, after = facts.summary.reference_before, facts.summary.reference_after
    if before is None or after is None:
        return None
    return {"before": before, "after": after, "dumbbells": charts.dumbbells(before, after)}


def _delta(content: bytes) -> dict[str, Any]:
    """What `inspect` says of the file, and the digest by which the operator and the audit log know it."""
    description = describe_delta(content)
    return {
        **description,
        "sha256": hashlib.sha256(content).hexdigest(),
        "facts": [(name.replace("_", " "), str(description[name])) for name in _MANIFEST],
        "some_weights": description["weights"][:_MOST_WEIGHTS],
    }

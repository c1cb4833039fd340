"""What a report says in words: the verdict, the method, how cases were held out, and figures as people read them.

Invariants: the verdict follows the figures of the summary and nothing else; when nothing was better it says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dafne_dante.plugin.division import Division
from dafne_dante.plugin.summary import ImprovementSummary

__all__ = [
    "Verdict",
    "bytes_in_words",
    "change_in_words",
    "dice_in_words",
    "duration_in_words",
    "held_out_in_words",
    "live_in_words",
    "method_in_words",
    "sending_in_words",
    "step_in_words",
    "verdict",
    "why_in_words",
]

_METHODS: Mapping[str, str] = {
    "lora": "LoRA: beside each layer of the network a narrow pair of small matrices is learned, and the layer itself "
    "stays as it is. The file that is sent holds only these pairs.",
    "gradual-unfreezing": "Gradual unfreezing: layers of the network are released for learning one group after the "
    "other, and what is not released stays as it is.",
    "full": "Full fine-tuning: every weight of the network may move.",
    "head": "Head only: only the last layer may move, all others stay as they are.",
    "norm": "Normalisation only: only scales and offsets of the normalisation layers may move.",
    "scratch": "From scratch: a new network of the same shape is learned, which starts from chance.",
}
_VISIBLE = 0.0005


@dataclass(frozen=True)
class Verdict:
    """`tone` is "better", "same" or "held"; `mark` repeats it as a sign, so that colour alone says nothing."""

    tone: str
    mark: str
    headline: str
    explanation: str


def verdict(summary: ImprovementSummary) -> Verdict:
    """Whether the model got better, in a sentence and a reason."""
    reason = f"{summary.gate_reason[:1].upper()}{summary.gate_reason[1:]}."
    if summary.step == 0:
        return Verdict("same", "=", "Nothing better was found: the global model stays", reason)
    if summary.gate != "passed":
        return Verdict("held", "!", "Not good enough: the update was held back", reason)
    before, after = summary.dice_before.get("mean") or 0.0, summary.dice_after.get("mean") or 0.0
    if after - before < _VISIBLE:
        return Verdict("same", "=", "The model is as good as before, not better", reason)
    return Verdict("better", "+", "The model got better", reason)


def method_in_words(name: str) -> str:
    """A sentence or two for a person who is no engineer."""
    return _METHODS.get(name, f"Method: {name}.")


def why_in_words(summary: ImprovementSummary) -> str:
    """Why auto chose the method, which is named above it already; "" where somebody chose."""
    reason = summary.why.removeprefix(f"{summary.method}, ")
    return f"{reason[:1].upper()}{reason[1:]}." if reason else ""


def live_in_words(summary: ImprovementSummary) -> list[str]:
    """What could move, one entry each time that it changed."""
    return [f"{words[:1].upper()}{words[1:]}.".replace("%", " %") for words in summary.live]


def held_out_in_words(division: Division) -> str:
    """How it was made sure that Dice is measured on what was not learned from."""
    if division.is_one_of_many and len({case.case_id for case in division.cases}) == 1:
        return (
            "Half of the labelled slices were set aside before training began. Nothing was learned from them, and "
            "every Dice on this page is measured on them."
        )
    if not division.is_cross_fit:
        return (
            f"{division.held_out} of {len(division.cases)} cases were set aside before training began. "
            "Nothing was learned from them, and every Dice on this page is measured on them."
        )
    rounds = len(division.folds)
    single = len({case.case_id for case in division.cases}) == 1
    what = "each half of the labelled slices" if single else "each case"
    return (
        f"There are too few cases to set some aside for good, so {what} was set aside once: {rounds} trainings were "
        "made, each was measured on what it had not seen, and a last one then learned from everything. Dice on this "
        f"page is that of the {rounds} trainings; the last model, which has seen it all, cannot be measured on it."
    )


def step_in_words(step: float) -> str:
    """How much of what training moved is kept."""
    if step == 0:
        return "0 %: every share of what training moved (25, 50, 75 or 100 %) did worse than the global model"
    if step == 1:
        return "100 %: all of what training moved"
    return f"{step:.0%} of what training moved: more or less of it did worse on the held-out cases".replace(
        "%", " %", 1
    )


def sending_in_words(summary: ImprovementSummary, *, upload: bool) -> str:
    """What became of the file."""
    if summary.uploaded:
        return "Sent to the federation server."
    if upload and summary.gate == "passed":
        return "Not sent yet when this page was written; until the server has it, it waits in the outbox."
    if upload:
        return "Nothing was sent: the quality gate held the update back."
    return "Nothing was sent: sending was not asked for. The file is on this machine only."


def dice_in_words(value: float | None) -> str:
    """Three decimals; a dash for what could not be measured."""
    return "–" if value is None else f"{value:.3f}"


def change_in_words(before: float | None, after: float | None) -> str:
    """With its sign; a dash where one of them could not be measured."""
    if before is None or after is None:
        return "–"
    change = round(after - before, 3)
    return f"{'+' if change > 0 else '−' if change < 0 else '±'}{abs(change):.3f}"


def bytes_in_words(count: int) -> str:
    """As file managers count: 1 kB is 1000 bytes."""
    if count < 1000:
        return f"{count} bytes"
    value, unit = (count / 1e3, "kB") if count < 1e6 else (count / 1e6, "MB") if count < 1e9 else (count / 1e9, "GB")
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def duration_in_words(seconds: float) -> str:
    """The two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

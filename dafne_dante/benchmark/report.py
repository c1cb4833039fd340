"""results.md: what came out, for a person.

Invariants: every figure is a mean over seeds, with its 95 % interval (Student's t) where there are several; what was
not measured is a dash.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from dafne_dante.benchmark.clock import WallTime
from dafne_dante.benchmark.comparison import Row
from dafne_dante.benchmark.intervals import Interval
from dafne_dante.benchmark.protocol import Effort, shots_in_words
from dafne_dante.benchmark.requirements import check_promises
from dafne_dante.benchmark.summary import BASELINE, Setting, Summary, in_order, mean_of, summarise
from dafne_dante.durable import write_atomically

__all__ = ["report_text", "write_report"]

_Summaries = Mapping[Setting, Mapping[str, Summary]]
_DASH = "-"
_MIB = 1 << 20


def write_report(path: Path, rows: Sequence[Row], effort: Effort, wall: WallTime, *, jobs: int) -> None:
    """Write results.md; StorageError where the disk refuses."""
    took = f"All of it took {wall.words}, {jobs} training{'' if jobs == 1 else 's'} at a time."
    write_atomically(path, report_text(rows, effort, took=took).encode())


def report_text(rows: Sequence[Row], effort: Effort, *, took: str = "") -> str:
    """The report in Markdown; `took` says how long it took, in a sentence."""
    summaries = summarise(rows)
    methods = in_order(row.method for row in rows)
    seeds = len({row.group.seed for row in rows})
    parts = [
        "# Benchmark of adaptation",
        f"{effort.epochs} epochs of {effort.steps_per_epoch} steps of {effort.batch_size} patches for every method; "
        f"{seeds} seed{'' if seeds == 1 else 's'}; ± is half the 95 % interval over seeds.",
        *([took] if took else []),
        "## Dice on test cases",
        _by_setting(summaries, methods, lambda one: _words(one.dice)),
        "## To 85 % of the common peak: epochs, seconds",
        "Seconds of one thread's work. In brackets in how many of the seeds the method came there, where not in all.",
        _by_setting(summaries, methods, _time),
        f"## Saved against {BASELINE}: epochs, seconds",
        "At least so much (≥) where scratch never came to 85 % of the common peak in its time, at most so much (≤) "
        "where the method did not; of seconds of one thread's work.",
        _by_setting(summaries, [name for name in methods if name != BASELINE], _saving),
        "## What it costs, mean over all settings",
        _costs(rows, methods),
        "## Source's Dice lost, mean over targets with the source's labels",
        _forgotten(rows, methods),
        "## Promises",
        _table(
            ["promise", "kept in", "of settings", "worst"],
            ([one.words, str(one.kept), str(one.settings), one.worst] for one in check_promises(summaries)),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _by_setting(summaries: _Summaries, methods: Sequence[str], words: Callable[[Summary], str]) -> str:
    lines = (
        [
            *(setting.target, shots_in_words(setting.shots), setting.pretraining),
            *(words(found[name]) if name in found else _DASH for name in methods),
        ]
        for setting, found in summaries.items()
    )
    return _table(["target", "shots", "pretraining", *methods], lines)


def _time(one: Summary) -> str:
    if one.epochs_to_85 is None or one.seconds_to_85 is None:
        return _DASH
    part = "" if one.reached == len(one.rows) else f" ({one.reached} of {len(one.rows)})"
    return f"{one.epochs_to_85.mean:.1f}, {one.seconds_to_85.mean:.2f} s{part}"


def _saving(one: Summary) -> str:
    if one.epochs_saved is None or one.seconds_saved is None:
        return _DASH
    return f"{one.bounds and f'{one.bounds} '}{one.epochs_saved.mean:.0%}, {one.seconds_saved.mean:.0%}"


def _costs(rows: Sequence[Row], methods: Sequence[str]) -> str:
    lines = []
    for method in methods:
        own = [row for row in rows if row.method == method]
        figures = [
            mean_of(own, lambda row: row.outcome.trainable_parameters),
            mean_of(own, lambda row: row.outcome.sent_bytes),
            mean_of(own, lambda row: row.outcome.peak_bytes / _MIB),
            mean_of(own, lambda row: row.outcome.curve[-1].processor_seconds),
        ]
        numbers = [
            _DASH if one is None else f"{one.mean:,.{1 if place == 3 else 0}f}" for place, one in enumerate(figures)
        ]
        lines.append([method, *numbers])
    return _table(["method", "trainable numbers", "bytes sent", "peak MiB", "seconds of training"], lines)


def _forgotten(rows: Sequence[Row], methods: Sequence[str]) -> str:
    shots = list(dict.fromkeys(row.group.shots for row in rows))
    lines = []
    for method in methods:
        if method != BASELINE:
            own = [[row for row in rows if row.method == method and row.group.shots == one] for one in shots]
            lines.append([method, *(_mean_words(mean_of(some, lambda row: row.forgotten)) for some in own)])
    return _table(["method", *map(shots_in_words, shots)], lines)


def _words(interval: Interval | None) -> str:
    return _DASH if interval is None else interval.words()


def _mean_words(interval: Interval | None) -> str:
    return _DASH if interval is None else f"{interval.mean:.3f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])

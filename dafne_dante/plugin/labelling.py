"""The names that a site's studies have for structures, what a model makes of them, and settings for those it does not
know, ready to be pasted.

Invariants: only names are read, no image; nothing is written and nothing is mapped until a person has put it into the
settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tomli_w

from dafne_dante.annotations.search import find_studies_in
from dafne_dante.annotations.store.opening import open_case_store, store_exists
from dafne_dante.annotations.store.stored import find_stored_studies
from dafne_dante.annotations.study import Study
from dafne_dante.annotations.suggestions import Suggestion, suggest_labels
from dafne_dante.config import Settings
from dafne_dante.errors import NotEnoughCasesError
from dafne_dante.plugin.collecting import CaseRequest, reading_of

__all__ = ["NameSurvey", "survey_names", "toml_block"]


@dataclass(frozen=True)
class NameSurvey:
    """What the names of some studies come to.

    Attributes:
        known: name to the model's label.
        suggestions: one for each name that the model does not know.
        counts: name to the number of studies that have it.
        missing: labels of the model that no study has a name for.
    """

    known: dict[str, str]
    suggestions: tuple[Suggestion, ...]
    counts: dict[str, int]
    missing: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "known": self.known,
            "unknown": {one.name: {"suggested": list(one.labels), "clear": one.clear} for one in self.suggestions},
            "counts": self.counts,
            "missing": list(self.missing),
        }


def survey_names(request: CaseRequest, settings: Settings, labels: Sequence[str]) -> NameSurvey:
    """Look at the names that the studies use; NotEnoughCasesError where no labelled study is found."""
    counts: dict[str, int] = {}
    for study in _studies(request, settings):
        for name in dict.fromkeys(study.labels):
            counts[name] = counts.get(name, 0) + 1
    if not counts:
        raise NotEnoughCasesError("expected labelled studies, found none; name a folder with --data")
    found = reading_of(settings.annotations).names.resolve(sorted(counts), labels)
    known = {name: labels[value - 1] for name, value in found.values.items()}
    return NameSurvey(known, suggest_labels(found.unknown, labels), dict(sorted(counts.items())), found.missing)


def toml_block(survey: NameSurvey) -> str:
    """The section `[labels]` with every clear suggestion; what is not clear stands there as a comment."""
    clear = {one.name: one.labels[0] for one in survey.suggestions if one.clear}
    lines = [tomli_w.dumps({"labels": clear}).rstrip() if clear else "[labels]"]
    for one in survey.suggestions:
        if not one.clear:
            for label in one.labels or ("?",):
                pair = tomli_w.dumps({one.name: label}).strip()
                lines.append(f"# {pair}" + ("" if one.labels else "  # no label is like it"))
    return "\n".join(lines)


def _studies(request: CaseRequest, settings: Settings) -> Sequence[Study]:
    studies = find_studies_in(request.paths, series=request.series).studies if request.paths else ()
    if (not request.paths or request.with_kept) and store_exists(settings):
        studies = (*studies, *find_stored_studies(open_case_store(settings, say=lambda words: None)).studies)
    return studies

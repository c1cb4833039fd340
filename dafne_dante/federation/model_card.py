"""What is told of a published version: a model card, as JSON and as Markdown.

Terms: a card follows Mitchell et al., "Model Cards for Model Reporting" (arXiv 1810.03993), with what an operator's
ledger can say; the *lineage* is the version and those whose weights it starts from, newest first.

Invariants: pure; free text comes from the operator alone (intended use, licence); sites are counted, never named; what
a model or a site wrote (labels, methods) is shown as text that cannot change the layout; nothing is told that the
ledger does not hold.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dafne_dante.federation.full_models import site_of
from dafne_dante.federation.ledger import Entry, Ledger
from dafne_dante.models.global_model import GlobalModel

__all__ = ["Ancestor", "ModelCard", "card_of", "contributor_of"]

_FORMAT, _VERSION = "dafne-dante-model-card", 1
_MAX_LINEAGE = 1000
_UNSAID = "not stated by the operator"
_ESCAPED = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")


@dataclass(frozen=True)
class Ancestor:
    """One version of the lineage; `kind` is "published by hand" where the ledger does not know more."""

    version: str
    kind: str
    created: str
    weights_sha256: str
    updates: int


@dataclass(frozen=True)
class ModelCard:
    """A version's card.

    Attributes:
        model_type, version, model_id, architecture: which model it is.
        created: UTC; "" when unknown.
        weights_sha256: digest of its weights.
        labels: what it segments.
        intended_use, licence: the operator's words, "" when there are none.
        sites: how many sites' updates its weights hold.
        updates: how many updates these are.
        cases: labelled cases behind them, as the sites say; a site's largest number counts.
        methods: how many updates were trained by which method.
        step: of the merge that made it.
        validation_cases: the operator's own, on which the Dice were measured.
        dice_before, dice_after: per label and "mean".
        lineage: this version first.
    """

    model_type: str
    version: str
    model_id: str
    architecture: str
    created: str
    weights_sha256: str
    labels: tuple[str, ...]
    intended_use: str
    licence: str
    sites: int
    updates: int
    cases: int
    methods: Mapping[str, int]
    step: float
    validation_cases: int
    dice_before: Mapping[str, float | None]
    dice_after: Mapping[str, float | None]
    lineage: tuple[Ancestor, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain Python values, with the card's own format and version."""
        lineage = [asdict(one) for one in self.lineage]
        return {"format": _FORMAT, "format_version": _VERSION, **asdict(self), "lineage": lineage}

    def json_text(self) -> str:
        """The card as a JSON file."""
        return json.dumps(self.as_json(), sort_keys=True, indent=1) + "\n"

    def markdown(self) -> str:
        """The card for people."""
        return "\n\n".join([*_facts(self), *_contributions(self), *_dice(self), *_lineage(self)]) + "\n"


def card_of(model_type: str, version: str, model: GlobalModel, ledger: Ledger) -> ModelCard:
    """The card of a version that the ledger knows; `model` is that version, or another of its family and plan."""
    held = ledger.held_by(version)
    told = ledger.publications.get(version)
    return ModelCard(
        model_type=model_type,
        version=version,
        model_id=str(model.model_id),
        architecture=model.plan.architecture,
        created=told.created if told else "",
        weights_sha256=ledger.versions.get(version, ""),
        labels=model.plan.labels,
        intended_use=told.intended_use if told else "",
        licence=told.licence if told else "",
        sites=len({contributor_of(entry) for entry in held.values()}),
        updates=len(held),
        cases=_cases(held),
        methods=dict(sorted(Counter(entry.method or "unknown" for entry in held.values()).items())),
        step=told.step if told else 0.0,
        validation_cases=told.validation_cases if told else 0,
        dice_before=_ordered(told.dice_before, model) if told else {},
        dice_after=_ordered(told.dice_after, model) if told else {},
        lineage=tuple(_ancestor(one, ledger) for one in ledger.lineage(version)[:_MAX_LINEAGE]),
    )


def contributor_of(entry: Entry) -> str:
    """The site behind an update: its public key, or its user name where nobody signed."""
    return entry.public_key or entry.site or site_of(entry.username)


def _ordered(dice: Mapping[str, float | None], model: GlobalModel) -> dict[str, float | None]:
    """In the model's order of labels, whatever order the ledger's file has."""
    first = [name for name in ("mean", *model.plan.labels) if name in dice]
    return {name: dice[name] for name in [*first, *sorted(dice.keys() - set(first))]}


def _cases(held: Mapping[str, Entry]) -> int:
    largest: dict[str, int] = {}
    for entry in held.values():
        site = contributor_of(entry)
        largest[site] = max(entry.cases, largest.get(site, 0))
    return sum(largest.values())


def _ancestor(version: str, ledger: Ledger) -> Ancestor:
    told = ledger.publications.get(version)
    updates = sum(entry.is_first_in(version) for entry in ledger.updates.values())
    kind, created = (told.kind, told.created) if told else ("published by hand", "")
    return Ancestor(version, kind, created, ledger.versions.get(version, ""), updates)


def _facts(card: ModelCard) -> list[str]:
    rows = {
        "Family": f"`{card.model_id}`",
        "Network": _shown(card.architecture),
        "Published": card.created or "unknown",
        "Weights (SHA-256)": f"`{card.weights_sha256}`",
        "Labels": ", ".join(_shown(label) for label in card.labels),
        "Licence": _shown(card.licence or _UNSAID),
    }
    listed = "\n".join(f"- {name}: {value}" for name, value in rows.items())
    title = f"# {_shown(card.model_type)}, version {card.version}"
    return [title, listed, "## Intended use", _shown(card.intended_use or _UNSAID)]


def _contributions(card: ModelCard) -> list[str]:
    methods = ", ".join(f"{_shown(name)} ({count})" for name, count in card.methods.items()) or "none"
    return [
        "## What it learned from",
        f"- Sites: {card.sites}\n- Updates: {card.updates}\n- Cases, as the sites say: {card.cases}\n"
        f"- Methods (updates): {methods}",
    ]


def _dice(card: ModelCard) -> list[str]:
    if not card.dice_after:
        return ["## Dice", "Not measured by this operator."]
    head = "| Label | Before | After |\n|---|---|---|"
    rows = [
        f"| {_shown(label)} | {_number(card.dice_before.get(label))} | {_number(after)} |"
        for label, after in card.dice_after.items()
    ]
    return [
        "## Dice",
        f"On {card.validation_cases} cases of the operator; step {card.step:g} of the merge.",
        "\n".join([head, *rows]),
    ]


def _lineage(card: ModelCard) -> list[str]:
    head = "| Version | How | Published | Updates | Weights |\n|---|---|---|---|---|"
    rows = [
        f"| {one.version} | {one.kind} | {one.created or 'unknown'} | {one.updates} | `{one.weights_sha256[:16]}` |"
        for one in card.lineage
    ]
    return ["## Lineage", "\n".join([head, *rows])]


def _number(dice: float | None) -> str:
    return "-" if dice is None else f"{dice:.3f}"


def _shown(text: str) -> str:
    """Text on one line in which no character means anything to Markdown or HTML."""
    plain = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return _ESCAPED.sub(r"\\\1", plain)

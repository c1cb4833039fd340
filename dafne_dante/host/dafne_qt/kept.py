"""Kept cases in words, and how many updates wait; no Qt here; invariants as in `readiness`."""

from dataclasses import dataclass

from dafne_dante.annotations.store.contents import CaseHeader
from dafne_dante.annotations.store.opening import open_case_store, store_exists
from dafne_dante.config import Settings
from dafne_dante.federation.outbox import open_outbox, outbox_exists
from dafne_dante.federation.outbox_states import WORDS as OUTBOX_WORDS
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.moments import local_moment

__all__ = ["CaseLine", "case_lines", "kept_headers", "outbox_sentence"]


@dataclass(frozen=True)
class CaseLine:
    """A kept case, by its pseudonym, in words."""

    case_id: str
    told: str


def kept_headers(settings: Settings) -> list[CaseHeader]:
    """The headers of all kept cases; DanteError where the store cannot be read."""
    if not store_exists(settings):
        return []
    return [case.header for case in open_case_store(settings, say=lambda text: None).cases()]


def case_lines(settings: Settings) -> list[CaseLine]:
    """Every kept case, the newest first; DanteError where the store cannot be read."""
    return [
        CaseLine(
            one.case_id,
            words.CASE.format(
                when=local_moment(one.saved_ns / 1e9), slices=words.counted(words.SLICES, one.annotated_slices)
            ),
        )
        for one in sorted(kept_headers(settings), key=lambda header: -header.saved_ns)
    ]


def outbox_sentence(settings: Settings) -> str:
    """How many updates wait to be sent, and why the first does; "" when none does; DanteError as the outbox."""
    if not outbox_exists(settings):
        return ""
    waiting = [one for one in open_outbox(settings).entries(finished=False) if one.state in ("waiting", "sending")]
    if not waiting:
        return ""
    form = words.OUTBOX_ONE if len(waiting) == 1 else words.OUTBOX
    return form.format(count=len(waiting), why=OUTBOX_WORDS.get(waiting[0].why, waiting[0].why))

"""A study that was found -> a Case.

Invariants
- Labels are matched by name (see `labels`), never by value or position: value 1 of one site need not be value 1 of
  another. The segmentation's values follow the order of the model's labels.
- A label that a study has no name for is a fault unless the caller says that it is absent then: a missing mask may
  mean "absent", "not drawn yet" or "mistyped", and to guess would teach the network that a structure is background.
- `case_id` is HMAC-SHA256(key, SHA-256 of the image's shape and intensities), 16 hexadecimal digits: without the key
  nobody can tell from it whether somebody holds a given image, and one study has one id in whatever form it came.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.labels import LabelNames
from dafne_dante.annotations.study import EmptySlices, LabelledImage, Study
from dafne_dante.annotations.suggestions import hint
from dafne_dante.errors import AnnotationError, NotEnoughCasesError, TrustError, UnknownLabelError
from dafne_dante.types import AnnotatedSlices, Image

__all__ = ["CaseNotes", "Reading", "own_labels", "pseudonym", "read_case"]

_KEY_OF_THIS_PROCESS = secrets.token_bytes(32)
_ID_DIGITS = 16
_MAX_LABELS = 255


@dataclass(frozen=True)
class Reading:
    """How a site wants its studies to be read.

    Attributes:
        names: its table of label names.
        empty_slices: what a slice without any mask means; None leaves it to the kind of source.
        missing_is_absent: a label that a study has no name for is absent there; False refuses the study.
        key: the site's secret for case_id; None for one that this process forgets, so that ids differ next time.
    """

    names: LabelNames = field(default_factory=LabelNames)
    empty_slices: EmptySlices | None = None
    missing_is_absent: bool = False
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CaseNotes:
    """What a person should know of a case that was read.

    Attributes:
        unknown: names of labels that the model does not have; their voxels are background to it.
        absent: labels of the model that the study has no name for.
        annotated: how many slices count as labelled.
        slices: how many there are.
        remarks: sentences about the source.
        hint: what the unknown names perhaps stand for, in words.
    """

    unknown: tuple[str, ...]
    absent: tuple[str, ...]
    annotated: int
    slices: int
    remarks: tuple[str, ...]
    hint: str = ""


def read_case(
    study: Study, labels: Sequence[str] | None = None, reading: Reading | None = None
) -> tuple[Case, CaseNotes]:
    """Read one study for a model's labels, in the model's order; None for the study's own.

    Raises:
        UnknownLabelError: the study has no name for one of the labels, or one of its own for none of them; or there
            are more labels than a segmentation has values.
        NotEnoughCasesError: no slice counts as labelled.
        UnreadableImageError, GeometryMismatchError, AnnotationError: as the kind of source tells.
        TrustError: an empty key.
    """
    reading = reading or Reading()
    wanted = own_labels(study, reading.names) if labels is None else tuple(labels)
    if len(wanted) > _MAX_LABELS:
        raise UnknownLabelError(f"expected at most {_MAX_LABELS} labels, found {len(wanted)}; leave some out")
    found = reading.names.resolve(study.labels, wanted)
    if not found.values or (found.missing and not reading.missing_is_absent):
        raise UnknownLabelError(_mismatch(study, wanted, found.unknown))
    image = study.read(found.values)
    annotated = _annotated(image, reading.empty_slices or study.empty_slices)
    case = Case(
        case_id=pseudonym(image.grid.image, _KEY_OF_THIS_PROCESS if reading.key is None else reading.key),
        image=image.grid.image,
        segmentation=image.segmentation,
        annotated=annotated,
        affine=image.grid.affine,
        labels=wanted,
    )
    notes = CaseNotes(
        found.unknown,
        found.missing,
        int(annotated.sum()),
        len(annotated),
        image.notes,
        hint(found.unknown, wanted),
    )
    return case, notes


def own_labels(study: Study, names: LabelNames) -> tuple[str, ...]:
    """The labels of a study itself, under the names of the site's table, each once, without what is ignored."""
    return tuple(dict.fromkeys(names.canonical(name) for name in study.labels if not names.is_ignored(name)))


def pseudonym(image: Image, key: bytes) -> str:
    """The case_id of an image (C, X, Y, Z) float32; TrustError for an empty key."""
    if not key:
        raise TrustError(
            "expected a secret key for the pseudonyms of cases, found an empty one; create the site's keys"
        )
    content = hashlib.sha256(str(image.shape).encode())
    content.update(np.ascontiguousarray(image, dtype="<f4").data)
    return hmac.new(key, content.digest(), "sha256").hexdigest()[:_ID_DIGITS]


def _mismatch(study: Study, wanted: Sequence[str], unknown: Sequence[str]) -> str:
    found = ", ".join(study.labels) or "no label"
    likely = hint(unknown, wanted)
    return (
        f"{study.name}: expected the model's labels {', '.join(wanted)}, found {found}"
        + ("; write under [labels] of the settings what stands for what, or choose another model" if unknown else "")
        + (f" ({likely})" if likely else "")
        + ("" if unknown else "; draw what is missing, or set missing_labels to absent if it is not there")
    )


def _annotated(image: LabelledImage, empty_slices: EmptySlices) -> AnnotatedSlices:
    """(Z,) bool: what the source says, else by what an empty slice means."""
    if image.annotated is not None:
        annotated = image.annotated
    elif empty_slices == "background":
        annotated = np.ones(image.grid.shape[2], dtype=np.bool_)
    else:
        annotated = np.asarray(image.segmentation.any(axis=(0, 1)))
    if not annotated.any():
        raise NotEnoughCasesError(f"{image.grid.name}: expected at least one labelled slice, found none; draw a label")
    if image.segmentation[..., ~annotated].any():
        raise AnnotationError(f"{image.grid.name}: expected masks on labelled slices only, found others; save it again")
    return annotated

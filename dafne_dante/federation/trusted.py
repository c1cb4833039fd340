"""Whether a site takes the global model that a server hands out: pure rules, no file, no network.

Terms: a *pin* is what a site remembers of a model type on a server: the operator's key, and the highest release that
the key signed. A key is pinned *beforehand* (by a person, or in the settings) or on *first use*: the key of the first
signed model that came. A federation is *unsigned* as long as no key is pinned and no model is signed.

Invariants, after The Update Framework (its client's set of trusted metadata): a model is judged against a pin and the
result is the next pin, or an error and no pin; what was signed once is never taken unsigned again; a release's number
never falls, so that a server cannot bring back an older model, only its operator can, by signing it anew with a higher
number; of one number there is one release. That a server withholds newer releases cannot be seen; how old a release
is, is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Literal

from dafne_dante.delta.signing import PublicKeyText, fingerprint
from dafne_dante.errors import TrustError
from dafne_dante.federation.model_signature import (
    ModelSignature,
    changes_since_signing,
    read_signature,
    verified_release,
)
from dafne_dante.federation.release import Release
from dafne_dante.models.global_model import GlobalModel

__all__ = ["NOT_PINNED", "Judgement", "Origin", "Pin", "judge"]

Origin = Literal["beforehand", "first use"]
_WORDS: Mapping[Origin, str] = {
    "beforehand": "by the operator's key that was pinned beforehand",
    "first use": "by the key that was pinned when it was first seen",
}


@dataclass(frozen=True)
class Pin:
    """What a site remembers of a type on a server.

    Attributes:
        public_key: the operator's; "" when none is pinned.
        origin: how the key came to be pinned.
        number: of the highest release taken; 0 for none.
        statement_sha256: of that release's statement; "" for none.
    """

    public_key: PublicKeyText = ""
    origin: Origin = "beforehand"
    number: int = 0
    statement_sha256: str = ""


NOT_PINNED = Pin()


@dataclass(frozen=True)
class Judgement:
    """A model that may be taken: the pin from now on, the release (None in an unsigned federation), and words on it."""

    pin: Pin
    release: Release | None
    words: str


def judge(pin: Pin, model: GlobalModel, model_type: str, *, now: datetime | None = None) -> Judgement:
    """Judge a model that a server handed out as `model_type`; `now` is for the words on its age.

    Raises:
        TrustError: it is not signed by the pinned key, is for another type, was changed since, or is older than one
            that was taken before. The message says what to do when this is meant.
        UnsupportedModelError: the plan that was signed is none that this version reads.
    """
    found = read_signature(model)
    if found is None:
        return _unsigned(pin, model_type)
    _check_key(pin, found, model_type)
    release = verified_release(found)
    if release.model_type != model_type:
        raise TrustError(
            f"expected a model signed as {model_type}, found one signed as another type; tell the operator that the "
            "server hands out the wrong file"
        )
    if changed := changes_since_signing(release, model):
        raise TrustError(
            f"expected the model as its operator signed it, found other {' and '.join(changed)}; nothing of it is "
            "used; tell the operator"
        )
    _check_number(pin, found, release)
    first = not pin.public_key
    taken = replace(
        pin,
        public_key=found.public_key,
        origin="first use" if first else pin.origin,
        number=release.number,
        statement_sha256=found.sha256,
    )
    return Judgement(taken, release, _words(taken, release, first, now))


def _unsigned(pin: Pin, model_type: str) -> Judgement:
    if pin.public_key:
        raise TrustError(
            f"expected {model_type} signed by {fingerprint(pin.public_key)}, found a model without a signature; ask "
            f"the operator, and only if they sign no more: dafne-dante keys unpin {model_type!r}"
        )
    return Judgement(pin, None, "this federation is unsigned: nothing but the server's word tells who made this model")


def _check_key(pin: Pin, found: ModelSignature, model_type: str) -> None:
    if pin.public_key and found.public_key != pin.public_key:
        raise TrustError(
            f"expected {model_type} signed by {fingerprint(pin.public_key)}, found a signature by "
            f"{fingerprint(found.public_key)}; ask the operator by telephone which key is theirs, and if it is the new "
            f"one: dafne-dante keys pin {model_type!r} {found.public_key}"
        )


def _check_number(pin: Pin, found: ModelSignature, release: Release) -> None:
    if release.number < pin.number:
        raise TrustError(
            f"expected release {pin.number} or a later one, found release {release.number}, which was replaced; the "
            "server handed out an old model: tell the operator (to bring one back: dafne-dante publish rollback)"
        )
    if release.number == pin.number and found.sha256 != pin.statement_sha256:
        raise TrustError(
            f"expected the release {pin.number} that was taken before, found another one of that number; tell the "
            "operator: their key signed two"
        )


def _words(pin: Pin, release: Release, first: bool, now: datetime | None) -> str:
    age = _days_old(release, now or datetime.now(timezone.utc))
    told = f"release {release.number}, {age}"
    if release.rollback_to:
        told += f", brings back release {release.rollback_to}"
    if first:
        return (
            f"{told}; signed by {fingerprint(pin.public_key)}, a key that is pinned from now on: compare it with the "
            "operator by telephone"
        )
    return f"{told}; signed {_WORDS[pin.origin]}, {fingerprint(pin.public_key)}"


def _days_old(release: Release, now: datetime) -> str:
    try:
        made = datetime.strptime(release.created, "%Y-%m-%dT%H:%MZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return "of an unknown day"
    days = (now - made).days
    if days < 0:
        return "signed in the future by this machine's clock"
    return "signed within a day" if days == 0 else f"signed {days} days ago"

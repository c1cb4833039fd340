"""Whether the versions that a depot hands out are those that this operator published, or took over.

Terms: depot, version and ledger as in `depot` and `ledger`; a version is *known* when the ledger has its digest; to
*adopt* one is to take it over although nothing vouches for it (`adopting`).

Invariants: pure. Whoever runs the depot can put any file there, and take any away. So nothing is built on a version
that is known and differs from what is known of it, nor on the newest one where the newest that is known has gone, nor,
where the operator has a signing key, on one that is neither known nor signed by that key for this type, with a number
above all that were published before (else an old release would come back as a new version).
"""

from collections.abc import Collection

from dafne_dante.errors import ModelError, TrustError, UntrustedVersionError
from dafne_dante.federation.ledger import Ledger
from dafne_dante.federation.model_signature import changes_since_signing, read_signature, verified_release
from dafne_dante.federation.release import Release
from dafne_dante.models.global_model import GlobalModel, digest_weights

__all__ = ["check_listed", "check_unchanged", "check_vouched"]


def check_listed(listed: Collection[str], ledger: Ledger) -> None:
    """UntrustedVersionError when the newest version that the ledger knows is not among those of the depot."""
    newest = max(ledger.versions, key=int, default=None)
    if newest is not None and newest not in listed:
        raise UntrustedVersionError(
            f"expected version {newest}, the newest that is known here, found it gone; "
            "put it back from a copy, or take over what is the newest now with publish adopt"
        )


def check_unchanged(version: str, model: GlobalModel, file_sha256: str, ledger: Ledger) -> None:
    """UntrustedVersionError when the ledger knows the version, and this is another; an old ledger knows the weights."""
    if version in ledger.files:
        is_same = ledger.files[version] == file_sha256
    else:
        is_same = version not in ledger.versions or ledger.versions[version] == digest_weights(model.weights)
    if not is_same:
        raise UntrustedVersionError(
            f"expected version {version} as it is known here, found another file in its place; "
            "put it back from a copy and find out who changed it, or take over the newest version with publish adopt"
        )


def check_vouched(
    version: str, model: GlobalModel, ledger: Ledger, *, public_key: str, model_type: str, is_newest: bool
) -> None:
    """UntrustedVersionError when an operator with this key ("": with none) has no reason to build on the version.

    `is_newest`: its number must then be above those of all publications.
    """
    if not public_key or version in ledger.versions:
        return
    release = _signed_by(public_key, model, model_type)
    known = max((told.number for told in ledger.publications.values()), default=0)
    if release is None or (is_newest and release.number <= known):
        found = "one that is not" if release is None else f"an old release, number {release.number}, under a new one"
        raise UntrustedVersionError(
            f"expected version {version} to be published from here or signed by this operator's key, found {found}; "
            f"if it is to be taken over as it is: publish adopt {version}"
        )


def _signed_by(public_key: str, model: GlobalModel, model_type: str) -> Release | None:
    """What this key signed of the whole model for this type, None when it did not."""
    try:
        found = read_signature(model)
        if found is None or found.public_key != public_key:
            return None
        release = verified_release(found)
        is_whole = release.model_type == model_type and not changes_since_signing(release, model)
    except (TrustError, ModelError):
        return None
    return release if is_whole else None

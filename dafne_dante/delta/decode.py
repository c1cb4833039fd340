"""From the bytes of a stranger's delta file to updates that are what was signed.

The checks, in DESIGN's order, each with an error of its own:
1. size, 2. header (`delta.container`), 3. manifest (`delta.manifest`), 4. signature (`delta.envelope`),
5. the tensor list equals the manifest's, 6. shapes fit each other and the base, 7. digests of the stored bytes,
8. finiteness (`delta.contents`).

Invariants: nothing of a file is used unless all of it is right; every failure is a DeltaError; a file with one bit
changed anywhere is refused.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import hypot

from dafne_dante.delta.container import StoredTensor
from dafne_dante.delta.contents import check_contents
from dafne_dante.delta.describe import describe_delta
from dafne_dante.delta.difference import WeightUpdate
from dafne_dante.delta.envelope import Envelope, open_envelope
from dafne_dante.delta.manifest import Manifest
from dafne_dante.delta.measuring import restored
from dafne_dante.delta.outline import Outline
from dafne_dante.delta.signing import PublicKeyText
from dafne_dante.types import Weights

__all__ = ["Delta", "decode_delta", "decode_envelope", "describe_delta"]


@dataclass(frozen=True, eq=False)
class Delta:
    """A delta whose every check passed.

    Attributes:
        manifest: what it says about itself.
        public_key: of the site that signed it.
        tensors: those of the file, in their stored form, by stored name.
        lengths: of each update its outline, sorted by the name of its weight, and the L2 norm of its dense form.
    """

    manifest: Manifest
    public_key: PublicKeyText
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    lengths: Mapping[Outline, float] = field(repr=False)

    @property
    def length(self) -> float:
        """L2 norm over the dense forms of all updates."""
        return hypot(*self.lengths.values())

    @cached_property
    def updates(self) -> tuple[WeightUpdate, ...]:
        """In float32, sorted by the name of their weight; built when first asked for."""
        return tuple(restored(outline, self.tensors) for outline in self.lengths)


def decode_delta(content: bytes, *, base: "Weights | None", trusted_keys: Collection[str] | None) -> Delta:
    """Read a delta file.

    Args:
        content: the file.
        base: the weights that it was made from; None leaves out the comparison with them.
        trusted_keys: public keys; None checks the signature but takes any key, which is for looking only.

    Raises:
        DeltaTooLargeError: the file or its header is beyond its limit.
        DeltaFormatError: another layout, a manifest that breaks its rules, or tensors that are not the manifest's.
        DeltaSignatureError: not signed, signed by a key that is not trusted, or changed after signing.
        DeltaBaseError: made from another base.
        DeltaShapeError: a tensor does not fit its partner or the base.
        DeltaDigestError: stored bytes are not those that were signed.
        DeltaValueError: a number is not finite, or its product would not be.
    """
    return decode_envelope(open_envelope(content, trusted_keys=trusted_keys), base=base)


def decode_envelope(envelope: Envelope, *, base: "Weights | None") -> Delta:
    """As `decode_delta`, of a file whose first four checks passed."""
    return Delta(envelope.manifest, envelope.public_key, envelope.tensors, check_contents(envelope, base))

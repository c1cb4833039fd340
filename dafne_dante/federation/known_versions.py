"""The versions that updates are still taken for: their digests, ages and weights.

Terms: a version's *digest* is `digest_weights` of its weights; its *age* is how many versions it lies behind the
newest; its *file timestamp* is what its file says of itself, which stock clients copy into the models that they tune.

Invariants: a version is read once in the operator's life for its digest, and again only when its weights are asked
for, and then it must be the one that the ledger knows; where two versions have the same weights (a rollback) the newer
one counts. What the ledger knows of a version is never replaced by what the depot says now (`vouching`).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from dafne_dante.durable import digest_file
from dafne_dante.errors import DeltaBaseError, ModelError, ServerAnswerError, UntrustedVersionError
from dafne_dante.federation.depot import Depot
from dafne_dante.federation.ledger import Ledger
from dafne_dante.federation.vouching import check_unchanged
from dafne_dante.models.file import read_model
from dafne_dante.models.global_model import GlobalModel, digest_weights
from dafne_dante.models.known_weights import KnownWeights
from dafne_dante.types import Weights

__all__ = ["KEPT_VERSIONS", "KnownVersions"]

KEPT_VERSIONS = 20
"""Updates of older versions are refused."""


class KnownVersions(Mapping[str, Weights]):
    """Digest of a kept version to its weights, read from the depot only when asked for.

    Empty until `look_up`, but for `versions` and `current`.

    Attributes:
        versions: the kept ones, oldest first.
        digests: version to digest.
        timestamps: version to file timestamp.
        ages: digest to age.
        current: the newest version's model.
        listed: all versions of the depot, oldest first.
        files: version to the SHA-256 of its file, of those that were read.

    Raises:
        TransportError, StorageError: a version cannot be fetched; ServerAnswerError when there is none.
        UntrustedVersionError: a version cannot be read, or an older one is not the one that the ledger knows.
    """

    def __init__(self, depot: Depot, folder: Path) -> None:
        self._depot, self._folder = depot, folder
        self.listed = depot.versions()
        self.versions = self.listed[-KEPT_VERSIONS:]
        if not self.versions:
            raise ServerAnswerError("expected a published version of this type, found none; publish one first")
        self.files: dict[str, str] = {}
        self._ledger = Ledger()
        self.current = self.model(self.versions[-1])
        self.digests: dict[str, str] = {}
        self.timestamps: dict[str, int] = {}
        self.ages: dict[str, int] = {}
        self._by_digest: dict[str, str] = {}
        self._last: tuple[str, KnownWeights] | None = None

    def look_up(self, ledger: Ledger) -> None:
        """Fill in digests, timestamps and ages: from the ledger, else from the versions themselves."""
        self._ledger = ledger
        facts = {version: self._facts(version, ledger) for version in self.versions}
        self.digests = {version: digest for version, (digest, _) in facts.items()}
        self.timestamps = {version: timestamp for version, (_, timestamp) in facts.items()}
        self._by_digest = {digest: version for version, digest in self.digests.items()}
        last = len(self.versions) - 1
        self.ages = {self.digests[version]: last - place for place, version in enumerate(self.versions)}

    @property
    def newest(self) -> str:
        """The newest version."""
        return self.versions[-1]

    def __getitem__(self, digest: str) -> Weights:
        if self._last is None or self._last[0] != digest:
            version = self._by_digest[digest]
            self._last = None  # so that two versions are never in memory for this
            model = self.current if version == self.newest else self.model(version)
            self._last = digest, KnownWeights(model.weights)
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_digest)

    def __len__(self) -> int:
        return len(self._by_digest)

    def model(self, version: str) -> GlobalModel:
        """The model of a version, read from the depot and compared with what the ledger knows of it."""
        path = self._depot.fetch_model(version, self._folder / "version.model")
        self.files[version] = digest_file(path)
        try:
            model = read_model(path)
        except ModelError as error:
            raise UntrustedVersionError(f"version {version} cannot be used: {error}") from error
        check_unchanged(version, model, self.files[version], self._ledger)
        return model

    def remembered(self, ledger: Ledger, versions: Collection[str]) -> Ledger:
        """The ledger that knows these versions as they are, too; what it knew of others, and of these, stays."""
        new = [version for version in self.versions if version in versions or version in ledger.versions]
        return replace(
            ledger,
            versions={**{version: self.digests[version] for version in new}, **ledger.versions},
            timestamps={**{version: self.timestamps[version] for version in new}, **ledger.timestamps},
            files={**{version: self.files[version] for version in new if version in self.files}, **ledger.files},
        )

    def base_of(self, model: GlobalModel) -> str:
        """The digest of the version that a full model of a stock client was tuned from.

        It is the version whose file has the model's own timestamp, which stock clients keep while they learn; else the
        one that was the newest when the client downloaded, which they note in the metadata.

        Raises:
            DeltaBaseError: none that is kept.
        """
        noted = str(model.metadata.get("latest_timestamp"))
        same = [version for version, stamp in self.timestamps.items() if stamp == model.timestamp]
        candidates = same or [version for version in self.versions if version == noted]
        if not candidates:
            raise DeltaBaseError(
                "expected a full model of a version that is kept here, found one of another; update the client's model"
            )
        return self.digests[noted if noted in candidates else candidates[-1]]

    def _facts(self, version: str, ledger: Ledger) -> tuple[str, int]:
        if version == self.newest:
            return digest_weights(self.current.weights), self.current.timestamp
        if version in ledger.versions and version in ledger.timestamps:
            return ledger.versions[version], ledger.timestamps[version]
        model = self.model(version)
        return digest_weights(model.weights), model.timestamp

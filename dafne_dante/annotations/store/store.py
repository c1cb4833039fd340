"""A site's own cases, sealed on its disk: added, listed, read, removed, verified.

Terms: a *version* of a case is what was drawn on one image at one time; versions have one case_id and replace each
other.

Invariants
- Whatever happens at whatever moment (kill, power cut, full disk), every case is its old or its new version, whole:
  the new file is on the disk before the index names it, and the old one is deleted after that.
- Two processes may use one store at the same time. Files are written and deleted under the index's write lock only.
- Nothing but pseudonyms, random names and sizes is in clear. What is damaged is told by its case_id, costs no other
  case, and is never deleted by itself.
"""

import hmac
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.store.contents import describe
from dafne_dante.annotations.store.files import CaseFiles, case_id_of, checked_case_id
from dafne_dante.annotations.store.headers import HeaderSeal
from dafne_dante.annotations.store.index import INDEX_FILE, Index, Row, Rows
from dafne_dante.annotations.store.key import StoreKey
from dafne_dante.annotations.store.prepared_files import PreparedFiles
from dafne_dante.annotations.store.records import Added, Damage, Listing, Report, StoredCase
from dafne_dante.annotations.store.retention import Limits, beyond_limits
from dafne_dante.annotations.store.tidying import delete_doomed, strays, tidy
from dafne_dante.durable import make_folder, move_file
from dafne_dante.errors import StorageError, TrustError

__all__ = ["CaseStore", "rebuild_index"]

_PREPARED = "prepared"
_OLD_INDEX = f"{INDEX_FILE}.damaged"


class CaseStore:
    """The store in a folder, which is made when it is not there.

    Raises (this and every method):
        StorageError: the disk refuses, the index is damaged, or another process was writing all the time.
        TrustError: the store was made with another key; it is left as it is.
    """

    def __init__(
        self, folder: Path, key: StoreKey, *, limits: Limits | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._files, self._index, self._seal = CaseFiles(_private(folder), key), Index(folder), HeaderSeal(key)
        self._limits, self._clock = limits or Limits(), clock
        self._prepared = PreparedFiles(folder / _PREPARED, key, self.holds, self._limits.prepared_bytes)
        self._index.create()
        self._check_key(key.derive("key check"))
        # Busy or full: what is left over waits for the next opening, and is of no harm.
        with suppress(StorageError):
            with self._index.writing(wait_s=0) as rows:
                tidy(rows, self._files, self._seal)
            self._sweep(wait_s=0)

    def add(self, case: Case) -> Added:
        """Keep the case, in place of an older version of it, and drop what is beyond the limits.

        Raises:
            AnnotationError: its case_id is no pseudonym.
        """
        checked_case_id(case.case_id)
        header = describe(case, saved_ns=self._clock())
        written, is_committed = "", False
        try:
            with self._index.writing() as rows:
                before = self._seal.header_if_sound(rows.get(case.case_id))
                if before is not None and before.digest == header.digest:
                    return Added(case.case_id, "unchanged")
                if before is not None and before.saved_ns >= header.saved_ns:  # a clock that was put back
                    header = describe(case, saved_ns=before.saved_ns + 1)
                written, size = self._files.write(case, header)
                rows.put(self._seal.row(header, written, size))
                dropped = self._drop_beyond_limits(rows)
            is_committed = True
        finally:
            if written and not is_committed:
                self._take_back(written)
        self._sweep(corrected=case.case_id)
        return Added(case.case_id, "replaced" if before else "new", dropped)

    @property
    def prepared(self) -> PreparedFiles:
        """The cases of this store as networks see them; what leaves the store leaves these, too."""
        return self._prepared

    def holds(self, case_id: str) -> bool:
        """Whether there is such a case, damaged or not."""
        with self._index.reading() as rows:
            return rows.get(case_id) is not None

    def listing(self) -> Listing:
        """Headers of all cases, and the damaged rows; no file is opened."""
        with self._index.reading() as rows:
            found = rows.all()
        cases, damaged = [], []
        for row in found:
            try:
                cases.append(StoredCase(self._seal.header(row), row.file_bytes))
            except StorageError as error:
                damaged.append(Damage(row.case_id, str(error)))
        return Listing(tuple(cases), tuple(damaged))

    def cases(self) -> tuple[StoredCase, ...]:
        """Headers of all cases that are not damaged, by case_id; no file is opened."""
        return self.listing().cases

    def read(self, case_id: str) -> Case:
        """The newest version of a case, as it was added; StorageError naming it when it is absent or damaged."""
        with self._index.reading() as rows:
            row = rows.get(case_id)
            if row is None:
                raise _absent(case_id)
            known, stream = self._seal.header(row), self._files.open(row.file)
        with stream:
            header, case = self._files.decode(stream, row.file)
        if header != known:
            raise StorageError(f"case {case_id}: expected its file to fit the index, found another; remove the case")
        return case

    def remove(self, case_id: str) -> None:
        """Forget a case, damaged or not, and delete its files; StorageError when there is none."""
        with self._index.writing() as rows:
            files = [file for file in strays(rows, self._files) if case_id_of(file) == case_id]
            for file in files:
                rows.doom(file)
            if not rows.drop(case_id) and not files:
                raise _absent(case_id)
        self._sweep()

    def verify(self) -> Report:
        """Read everything there is; one case is in memory at a time."""
        with self._index.reading() as rows:
            fault, found, unknown = rows.fault(), rows.all(), strays(rows, self._files)
        reasons = {row.case_id: self._fault(row) for row in found}
        sound = tuple(case_id for case_id, reason in reasons.items() if not reason)
        damaged = [Damage(case_id, reason) for case_id, reason in reasons.items() if reason]
        for file in unknown:
            reason = f"case {case_id_of(file)}: expected its file in the index, found a file that nothing names"
            damaged.append(Damage(case_id_of(file), f"{reason}; open the store again, or remove the case"))
        return Report(sound, tuple(damaged), fault)

    def _fault(self, row: Row) -> str:
        try:
            self.read(row.case_id)
        except StorageError as error:
            return str(error)
        return ""

    def _check_key(self, expected: bytes) -> None:
        with self._index.reading() as rows:
            known = rows.key_check()
        if known and not hmac.compare_digest(known, expected):
            raise TrustError(
                "expected the key that the case store was made with, found another; restore that key. If it is the "
                "right one, the index is damaged: run dafne-dante cases verify --repair"
            )
        if not known:
            with self._index.writing() as rows:
                if not rows.key_check():
                    _check_key_opens(self._files)
                    rows.set_key_check(expected)

    def _drop_beyond_limits(self, rows: Rows) -> tuple[str, ...]:
        kept = []
        for row in rows.all():
            header = self._seal.header_if_sound(row)
            if header is not None:  # what is damaged has no age; a person decides about it
                kept.append(StoredCase(header, row.file_bytes))
        dropped = beyond_limits(kept, self._limits, now_ns=self._clock())
        for case_id in dropped:
            rows.drop(case_id)
        return dropped

    def _take_back(self, written: str) -> None:
        """After a failure: delete the new file, unless the index has it in spite of all; else the next opening does."""
        with suppress(StorageError), self._index.writing() as rows:
            if written not in {row.file for row in rows.all()}:
                self._files.delete(written)

    def _sweep(self, *, wait_s: float | None = None, corrected: str = "") -> None:
        """Delete doomed files, and what was prepared of cases that are gone, or of the version before a correction.

        What cannot be deleted now, for example because it is open, waits for the next time.
        """
        held: set[str] | None = None
        with suppress(StorageError), self._index.writing(wait_s=wait_s) as rows:
            held = {row.case_id for row in rows.all()}
            delete_doomed(rows, self._files)
        if held is not None:
            with suppress(StorageError):
                self._prepared.keep_only(held - {corrected})


def rebuild_index(folder: Path, key: StoreKey, *, limits: Limits | None = None) -> CaseStore:
    """Move a damaged index aside and make it anew from the cases' files; the store, open.

    Raises:
        TrustError: the key opens none of the files.
        StorageError: the disk refuses.
    """
    _check_key_opens(CaseFiles(folder, key))
    # The journal first: without its database it would be rolled into the new one.
    for name in (f"{INDEX_FILE}-journal", INDEX_FILE):
        if (folder / name).exists():
            move_file(folder / name, folder / name.replace(INDEX_FILE, _OLD_INDEX))
    return CaseStore(folder, key, limits=limits)


def _check_key_opens(files: CaseFiles) -> None:
    """TrustError when there are files and the key opens none of them."""
    finished = files.finished()
    for file in finished:
        with suppress(StorageError):
            files.read(file)
            return
    if finished:
        raise TrustError("expected the key that the case store was made with, found another; restore that key")


def _private(folder: Path) -> Path:
    """The folder, made for its owner alone when it is not there."""
    if not folder.exists():
        make_folder(folder)
        with suppress(OSError):  # file systems without permissions; what lies inside is sealed anyway
            folder.chmod(0o700)
    return folder


def _absent(case_id: str) -> StorageError:
    return StorageError(f"expected a case {case_id} in the store, found none; see: dafne-dante cases list")

"""Each case is prepared once: held in memory within a limit, beyond it on disk, sealed.

Terms: a *piece* is one PreparedCase, a volume or a slice; all pieces of a case are prepared, written and counted
together.

Invariants
- What comes out equals what `prepare_cases` makes, bit for bit, wherever it was meanwhile.
- The disk is only ever a help. A file that is missing or damaged is prepared and written anew; where the disk refuses,
  that is told once, and the cases are held in memory, beyond the limit, too. So is what has no place on the disk:
  cases that the store does not hold, and what goes beyond its limit.
- Preparing again for another training of the same process, such as the next fold, costs nothing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import scipy

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.store.prepared_files import PreparedFiles
from dafne_dante.errors import StorageError
from dafne_dante.models.plan import ModelPlan
from dafne_dante.training.prepared import PREPARATION, PreparedCase, check_case, prepare_case
from dafne_dante.training.prepared_bytes import decode_prepared, encode_prepared

__all__ = ["PreparedCache"]


@dataclass(eq=False)
class _Entry:
    """A case and the plan that it is prepared for; its file ("" for none), and its pieces when they are in memory."""

    case: Case
    plan: ModelPlan
    file: str = ""
    pieces: Sequence[PreparedCase] | None = None


class PreparedCache:
    """Prepares cases, and remembers them.

    Args:
        files: of the site's store; None for memory only.
        max_memory_bytes: of what is held although it lies on the disk, too; None for no limit.
        say: is told, once, why nothing is kept on the disk.
    """

    def __init__(
        self,
        files: PreparedFiles | None = None,
        *,
        max_memory_bytes: int | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._files, self._max_memory_bytes, self._say = files, max_memory_bytes, say
        self._writes = files is not None
        self._entries: dict[tuple[Case, str], _Entry] = {}
        self._memory_bytes = 0

    def prepare(self, cases: Sequence[Case], plan: ModelPlan) -> Sequence[PreparedCase]:
        """As `prepare_cases`, with the same errors; what is not in memory is read whenever it is asked for."""
        for case in cases:
            check_case(case, plan)
        entries = [self._entry(case, plan) for case in cases]
        return _Pieces(self, [(entry, number) for entry in entries for number in range(_count(entry.case, plan))])

    def piece(self, entry: _Entry, number: int) -> PreparedCase:
        """One piece, from memory, or from the disk, or prepared again."""
        if entry.pieces is None:
            try:
                return self._read(entry, number)
            except StorageError:
                return self._prepare(entry)[number]
        return entry.pieces[number]

    def _entry(self, case: Case, plan: ModelPlan) -> _Entry:
        how = _how(plan)
        entry = self._entries.get((case, how))
        if entry is None:
            entry = self._entries[case, how] = _Entry(case, plan, self._file(case, how))
            if not self._take_from_disk(entry):
                self._prepare(entry)
        return entry

    def _take_from_disk(self, entry: _Entry) -> bool:
        """Whether all pieces lie there; they are held where there is room for them."""
        if not entry.file:
            return False
        try:
            pieces = [self._read(entry, number) for number in range(_count(entry.case, entry.plan))]
        except StorageError:
            return False
        self._hold(entry, pieces, is_on_disk=True)
        return True

    def _prepare(self, entry: _Entry) -> Sequence[PreparedCase]:
        pieces = prepare_case(entry.case, entry.plan)
        self._hold(entry, pieces, is_on_disk=self._write(entry, pieces))
        return pieces

    def _hold(self, entry: _Entry, pieces: Sequence[PreparedCase], *, is_on_disk: bool) -> None:
        size = sum(piece.prepared.image.nbytes + piece.target.nbytes + piece.known.nbytes for piece in pieces)
        is_full = self._max_memory_bytes is not None and self._memory_bytes + size > self._max_memory_bytes
        if not (is_on_disk and is_full):
            entry.pieces = pieces
            self._memory_bytes += size

    def _file(self, case: Case, how: str) -> str:
        try:
            return self._files.name_for(case, how) if self._files else ""
        except StorageError as error:
            self._write_no_more(error)
            return ""

    def _read(self, entry: _Entry, number: int) -> PreparedCase:
        if self._files is None:
            raise StorageError("expected a prepared case on the disk, found none")
        return decode_prepared(self._files.read(entry.file, number), entry.case.case_id)

    def _write(self, entry: _Entry, pieces: Sequence[PreparedCase]) -> bool:
        try:
            if not entry.file or self._files is None or not self._writes:
                return False
            return self._files.write(entry.file, [encode_prepared(piece) for piece in pieces])
        except StorageError as error:
            self._write_no_more(error)
            return False

    def _write_no_more(self, error: StorageError) -> None:
        if self._writes:
            self._writes = False
            self._say(f"cases that are prepared from now on are held in memory only: {error}")


class _Pieces(Sequence[PreparedCase]):
    """Pieces of several cases, each taken from the cache when it is asked for."""

    def __init__(self, cache: PreparedCache, places: Sequence[tuple[_Entry, int]]) -> None:
        self._cache, self._places = cache, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> PreparedCase: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PreparedCase]: ...
    def __getitem__(self, index: int | slice) -> PreparedCase | Sequence[PreparedCase]:
        if isinstance(index, slice):
            return _Pieces(self._cache, self._places[index])
        return self._cache.piece(*self._places[index])


def _count(case: Case, plan: ModelPlan) -> int:
    """Pieces of the case."""
    return int(case.annotated.sum()) if plan.dimensions == 2 else 1


def _how(plan: ModelPlan) -> str:
    """All that a preparation depends on besides the case."""
    return json.dumps([PREPARATION, np.__version__, scipy.__version__, plan.dimensions, plan.spacing_mm])

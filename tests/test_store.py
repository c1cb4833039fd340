"""The case store: versions replace each other, damage is told and costs no other case, nothing is in clear."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stored_cases import KEY, OTHER_KEY, case_id, is_same, stored_case

from dafne_dante.annotations.case import Case
from dafne_dante.annotations.collect import collect
from dafne_dante.annotations.reading import Reading, pseudonym
from dafne_dante.annotations.store.index import INDEX_FILE
from dafne_dante.annotations.store.retention import Limits
from dafne_dante.annotations.store.store import CaseStore, rebuild_index
from dafne_dante.annotations.store.stored import find_stored_studies
from dafne_dante.errors import AnnotationError, StorageError, TrustError

DAY = 86_400 * 10**9


class Clock:
    def __init__(self, now=1_700_000_000 * 10**9):
        self.now = now

    def __call__(self):
        return self.now


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def case_files(folder):
    return [name for name in names(folder) if name.endswith(".case")]


@pytest.fixture
def folder(tmp_path):
    """A store with three cases."""
    store = CaseStore(tmp_path / "cases", KEY)
    for number in range(3):
        store.add(stored_case(number))
    return tmp_path / "cases"


def test_what_was_added_is_read_by_another_process_as_it_was(folder):
    store = CaseStore(folder, KEY)
    for number in range(3):
        assert is_same(store.read(case_id(number)), stored_case(number))
    listed = store.cases()
    assert [case.case_id for case in listed] == sorted(case_id(number) for number in range(3))
    assert {case.header.labels for case in listed} == {("fat", "bone")}
    assert [case.file_bytes for case in listed] == [(folder / name).stat().st_size for name in case_files(folder)]
    assert store.verify().is_sound
    assert sorted(store.verify().sound) == sorted(case_id(number) for number in range(3))


def test_a_later_correction_wins_and_leaves_nothing_of_the_older(folder):
    store, clock = CaseStore(folder, KEY), Clock(5)
    before = {case.case_id: case.saved_ns for case in store.cases()}
    added = CaseStore(folder, KEY, clock=clock).add(stored_case(1, version=1))
    assert (added.case_id, added.outcome, added.dropped) == (case_id(1), "replaced", ())
    assert is_same(store.read(case_id(1)), stored_case(1, version=1))
    assert len(case_files(folder)) == 3
    saved = {case.case_id: case.saved_ns for case in store.cases()}
    assert saved[case_id(1)] > before[case_id(1)], "also when the clock was put back"
    assert store.verify().is_sound


def test_the_same_again_writes_nothing(folder):
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    assert CaseStore(folder, KEY).add(stored_case(1)).outcome == "unchanged"
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before


def test_what_is_removed_is_gone(folder):
    store = CaseStore(folder, KEY)
    store.remove(case_id(1))
    assert len(case_files(folder)) == 2
    for again in (lambda: store.read(case_id(1)), lambda: store.remove(case_id(1)), lambda: store.read("x" * 16)):
        with pytest.raises(StorageError, match="found none"):
            again()
    assert CaseStore(folder, KEY).verify().is_sound
    assert store.add(stored_case(1)).outcome == "new"


def test_limits_hold_after_every_addition_and_tell_what_was_dropped(tmp_path):
    clock = Clock()
    store = CaseStore(tmp_path, KEY, limits=Limits(cases=2, days=10), clock=clock)
    dropped = []
    for number in range(4):
        clock.now += DAY
        dropped.append(store.add(stored_case(number)).dropped)
    assert dropped == [(), (), (case_id(0),), (case_id(1),)]
    clock.now += 10 * DAY
    assert store.add(stored_case(2, version=1)).dropped == ()
    clock.now += 1
    assert store.add(stored_case(2, version=2)).dropped == (case_id(3),), "a correction makes its case young again"
    assert len(case_files(tmp_path)) == 1
    assert store.verify().sound == (case_id(2),)


def test_only_pseudonyms_are_taken(tmp_path):
    store = CaseStore(tmp_path, KEY)
    case = stored_case()
    for name in ("Doe^Jane", "../../etc/passwd", "", case.case_id.upper(), case.case_id + "\n"):
        named = Case(name, case.image, case.segmentation, case.annotated, case.affine, case.labels)
        with pytest.raises(AnnotationError, match="case_id of 16 hexadecimal digits") as caught:
            store.add(named)
        assert "Doe" not in str(caught.value)
    assert case_files(tmp_path) == []


def test_what_could_not_be_added_leaves_no_file_behind(folder):
    """The index refuses when the new file is there already: it goes at once, not at the next opening."""
    before = names(folder)
    with sqlite3.connect(folder / INDEX_FILE) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON cases BEGIN SELECT RAISE(ABORT, 'full'); END")
    connection.close()
    store = CaseStore(folder, KEY)
    for case in (stored_case(1, version=1), stored_case(9)):
        with pytest.raises(StorageError, match="full"):
            store.add(case)
    assert names(folder) == before
    assert is_same(store.read(case_id(1)), stored_case(1))


def test_another_key_opens_nothing_and_changes_nothing(folder):
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    with pytest.raises(TrustError, match="found another; restore that key"):
        CaseStore(folder, OTHER_KEY)
    with pytest.raises(TrustError):
        rebuild_index(folder, OTHER_KEY)
    (folder / INDEX_FILE).rename(folder / "aside")
    with pytest.raises(TrustError):
        CaseStore(folder, OTHER_KEY)
    os.replace(folder / "aside", folder / INDEX_FILE)
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert CaseStore(folder, KEY).verify().is_sound


def test_the_store_is_its_owners_only(folder):
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in names(folder)} == {0o600}


def test_a_flipped_bit_anywhere_in_a_file_is_told_by_its_case_and_costs_no_other(folder):
    store, name = CaseStore(folder, KEY), case_files(folder)[1]
    content = (folder / name).read_bytes()
    for position in [*range(0, 60), *range(60, len(content), 17), len(content) - 1]:
        changed = bytearray(content)
        changed[position] ^= 0x10
        (folder / name).write_bytes(changed)
        with pytest.raises(StorageError, match=f"case {name[:16]}: expected it as it was sealed"):
            store.read(name[:16])
    report = store.verify()
    assert [damage.case_id for damage in report.damaged] == [name[:16]]
    assert len(report.sound) == 2
    assert len(store.cases()) == 3
    (folder / name).write_bytes(content)
    assert store.verify().is_sound


def test_files_that_are_exchanged_cut_or_gone_are_told(folder):
    store, (first, second, third) = CaseStore(folder, KEY), case_files(folder)
    contents = {name: (folder / name).read_bytes() for name in (first, second, third)}
    (folder / first).write_bytes(contents[second])
    (folder / second).write_bytes(contents[second][:-1])
    (folder / third).unlink()
    assert {damage.case_id for damage in store.verify().damaged} == {first[:16], second[:16], third[:16]}
    with pytest.raises(StorageError, match=f"case {third[:16]}: cannot read its file"):
        store.read(third[:16])
    store.remove(third[:16])
    assert store.add(stored_case(0)).outcome != "unchanged" or third[:16] != case_id(0)


def test_an_older_file_of_the_same_case_does_not_pass_for_the_newer(folder):
    store = CaseStore(folder, KEY)
    name = next(name for name in case_files(folder) if name.startswith(case_id(1)))
    old = (folder / name).read_bytes()
    store.add(stored_case(1, version=1))
    newer = next(name for name in case_files(folder) if name.startswith(case_id(1)))
    (folder / newer).write_bytes(old)
    with pytest.raises(StorageError, match="exchanged"):
        store.read(case_id(1))


def test_a_changed_column_of_the_index_is_told_and_costs_no_other(folder):
    victim = case_id(1)
    changes = {
        "header": "UPDATE cases SET header = zeroblob(200) WHERE case_id = ?",
        "size": "UPDATE cases SET file_bytes = file_bytes + 1 WHERE case_id = ?",
        "type": "UPDATE cases SET header = 7 WHERE case_id = ?",
        "file": "UPDATE cases SET file = '../../etc/passwd' WHERE case_id = ?",
        "text": "UPDATE cases SET file = CAST(x'ff61' AS TEXT) WHERE case_id = ?",
        "id": "UPDATE cases SET case_id = '0000' WHERE case_id = ?",
    }
    whole = (folder / INDEX_FILE).read_bytes()
    store = CaseStore(folder, KEY)
    for name, change in changes.items():
        (folder / INDEX_FILE).write_bytes(whole)
        with sqlite3.connect(folder / INDEX_FILE) as connection:
            connection.execute(change, (victim,))
        connection.close()
        listing = store.listing()
        assert [damage.case_id for damage in listing.damaged] == ["0000" if name == "id" else victim], name
        assert len(listing.cases) == 2
        for number in (0, 2):
            assert is_same(store.read(case_id(number)), stored_case(number))
        with pytest.raises(StorageError, match=f"case {victim}"):
            store.read(victim)
        healed = CaseStore(folder, KEY) if name in ("file", "text") else rebuild_index(folder, KEY)
        assert is_same(healed.read(victim), stored_case(1)), name


def test_a_flipped_bit_in_the_index_loses_no_case(folder):
    """Whatever SQLite makes of it: the case is there, or is told, and everything is back after a repair."""
    whole = (folder / INDEX_FILE).read_bytes()
    random = np.random.default_rng(3)
    told = 0
    for position in random.choice(8 * len(whole), 250, replace=False):
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << position % 8
        (folder / INDEX_FILE).write_bytes(changed)
        try:
            store = CaseStore(folder, KEY)
            report = store.verify()
            for name in report.sound:
                assert is_same(store.read(name), stored_case([case_id(n) for n in range(3)].index(name)))
            assert not report.is_sound or len(report.sound) == 3, position
            told += not report.is_sound
        except (StorageError, TrustError):
            told += 1
        assert len(case_files(folder)) == 3
    assert told > 5
    (folder / INDEX_FILE).write_bytes(b"\0" * len(whole))
    with pytest.raises(StorageError, match="--repair"):
        CaseStore(folder, KEY)
    assert len(rebuild_index(folder, KEY).verify().sound) == 3


def test_rows_that_are_out_of_order_are_never_taken_for_each_other(folder):
    """SQLite searches rows as if they were in order; one changed digit of a key, and it finds another's row."""
    content = bytearray((folder / INDEX_FILE).read_bytes())
    middle = sorted(case_id(number) for number in range(3))[1]
    content[content.index(middle.encode())] ^= 2
    (folder / INDEX_FILE).write_bytes(content)
    store = CaseStore(folder, KEY)
    wrong = store.listing().damaged[0].case_id
    assert wrong[1:] == middle[1:]
    for name in (wrong, middle):
        with pytest.raises(StorageError, match=f"case {name}"):
            store.read(name)
        with pytest.raises(StorageError):
            store.remove(name)
    for number in range(3):
        if case_id(number) != middle:
            assert is_same(store.read(case_id(number)), stored_case(number))
    assert len(rebuild_index(folder, KEY).verify().sound) == 3


def test_a_lost_index_is_made_again_from_the_files(folder):
    (folder / INDEX_FILE).unlink()
    store = CaseStore(folder, KEY)
    assert len(store.verify().sound) == 3
    assert is_same(store.read(case_id(2)), stored_case(2))


def test_a_damaged_file_that_nothing_names_is_told_and_can_be_removed(folder):
    name = case_files(folder)[0]
    (folder / name).write_bytes(b"rotten")
    store = rebuild_index(folder, KEY)
    assert [damage.case_id for damage in store.verify().damaged] == [name[:16]]
    store.remove(name[:16])
    assert store.verify().is_sound
    assert len(case_files(folder)) == 2


def test_files_of_others_are_left_alone(folder):
    for name in ("notes.txt", ".hidden", "x.case", f"{case_id(1)}.case", "a.part"):
        (folder / name).write_bytes(b"mine")
    (folder / ".left-over.part").write_bytes(b"ours")
    CaseStore(folder, KEY).add(stored_case(7))
    assert {"notes.txt", ".hidden", "x.case", f"{case_id(1)}.case", "a.part"} <= set(names(folder))
    assert ".left-over.part" not in names(folder)


def test_stored_cases_are_studies_like_any_other(tmp_path):
    store = CaseStore(tmp_path, KEY)
    drawn = stored_case(3)
    own = pseudonym(drawn.image, KEY.case_ids)
    case = Case(own, drawn.image, drawn.segmentation, drawn.annotated, drawn.affine, drawn.labels)
    store.add(case)
    collection = collect(find_stored_studies(store), None, Reading(key=KEY.case_ids))
    turned = collect(find_stored_studies(store), ("Bone", "FAT"), Reading(key=KEY.case_ids)).cases[0]
    assert collection.cases[0].labels == ("bone", "fat")
    assert turned.case_id == collection.cases[0].case_id == own
    assert turned.labels == ("Bone", "FAT")
    np.testing.assert_array_equal(turned.segmentation, np.array([0, 2, 1], np.uint8)[drawn.segmentation])
    assert is_same(Case(own, turned.image, case.segmentation, turned.annotated, turned.affine, case.labels), case), (
        "image, geometry and labelled slices are untouched"
    )
    store.add(stored_case(4))
    (tmp_path / next(name for name in case_files(tmp_path) if name.startswith(own))).write_bytes(b"")
    collection = collect(find_stored_studies(store), ("bone", "fat"), Reading(key=KEY.case_ids))
    assert [left.name for left in collection.left] == [own]
    assert len(collection.cases) == 1


PROCESS = """
import sys
from pathlib import Path
from stored_cases import KEY, case_id, is_same, stored_case
from dafne_dante.annotations.store.store import CaseStore
folder, own = Path(sys.argv[1]), int(sys.argv[2])
for version in range(8):
    store = CaseStore(folder, KEY)
    store.add(stored_case(own, version))
    store.add(stored_case(100, 50 * own + version))
    for case in store.cases():
        store.read(case.case_id)
    assert is_same(store.read(case_id(own)), stored_case(own, version))
    if version % 5 == 3:
        store.remove(case_id(own))
"""


def test_processes_that_share_a_store_do_not_disturb_each_other(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path), str(own)], env=environment) for own in range(3)
    ]
    assert [run.wait() for run in runs] == [0, 0, 0]
    store = CaseStore(tmp_path, KEY)
    assert len(store.verify().sound) == len(case_files(tmp_path)) == 4
    assert set(names(tmp_path)) == {INDEX_FILE, *case_files(tmp_path)}
    for own in range(3):
        assert is_same(store.read(case_id(own)), stored_case(own, 7))

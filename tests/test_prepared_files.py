"""What is prepared of a case leaves the disk with the case, stays within its limit, and is noise to everybody else."""

import os
import stat
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
from limbs import LABELS
from prepared_limbs import PLANS, content, files, fill_store, limb, opened
from stored_cases import KEY, OTHER_KEY, case_id

from dafne_dante.annotations.store.prepared_files import PreparedFiles
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.errors import StorageError
from dafne_dante.training.prepared import prepare_cases
from dafne_dante.training.prepared_cache import PreparedCache

THREE = tuple(case_id(number) for number in range(3))
PARTS = [[memoryview(b"first"), memoryview(b" part")], [memoryview(bytes(range(256)) * 9000)], []]


@pytest.fixture
def folder(tmp_path):
    return fill_store(tmp_path / "cases")


def ids(folder):
    return sorted(path.name[:16] for path in files(folder))


def files_in(folder, *, held=THREE, max_bytes=1 << 30, key=KEY):
    return PreparedFiles(folder, key, lambda name: name in held, max_bytes)


def test_every_part_comes_back_by_itself(tmp_path):
    place = files_in(tmp_path / "prepared")
    name = place.name_for(limb(0), "somehow")
    assert not place.has(name)
    assert place.write(name, PARTS)
    assert place.has(name)
    for number in (2, 0, 1):
        assert files_in(tmp_path / "prepared").read(name, number) == b"".join(PARTS[number])
    for number in (3, -1):
        with pytest.raises(StorageError, match="damaged"):
            place.read(name, number)


@pytest.mark.parametrize("name", ["", "readme.txt", "../index.sqlite", f"{case_id(0)}-{'0' * 64}.case"])
def test_a_name_that_is_none_of_ours_is_never_touched(tmp_path, name):
    place = files_in(tmp_path)
    (tmp_path / "readme.txt").write_bytes(b"x")
    assert not place.has(name)
    assert not place.write(name, PARTS)
    with pytest.raises(StorageError, match="found no such file"):
        place.read(name, 0)
    place.keep_only(())
    assert [path.name for path in tmp_path.iterdir()] == ["readme.txt"]


def test_only_what_the_store_holds_is_on_the_disk(folder):
    stranger = replace(limb(0), case_id=case_id(99))
    PreparedCache(opened(folder).prepared).prepare([stranger, limb(1)], PLANS[3])
    assert ids(folder) == [case_id(1)]


CHANGES = {
    "removed": (lambda store: store.remove(case_id(1)), case_id(1)),
    "corrected": (lambda store: store.add(limb(1, version=1)), case_id(1)),
    "dropped": (lambda store: store.add(limb(7)), case_id(0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_leaves_the_store_leaves_nothing_prepared(folder, name):
    cases = [limb(number) for number in range(3)]
    for plan in PLANS.values():
        PreparedCache(opened(folder).prepared).prepare(cases, plan)
    assert ids(folder) == sorted(2 * THREE)
    change, gone = CHANGES[name]
    change(opened(folder, cases=3))
    assert ids(folder) == sorted(2 * tuple(set(THREE) - {gone}))
    assert opened(folder).verify().is_sound


def test_the_same_again_deletes_no_other_case(folder):
    PreparedCache(opened(folder).prepared).prepare([limb(0), limb(1)], PLANS[3])
    opened(folder).add(limb(0))
    assert ids(folder) == sorted(THREE[:2])


def test_a_training_that_still_uses_a_removed_case_does_not_bring_it_back(folder):
    cases = [limb(number) for number in range(3)]
    found = PreparedCache(opened(folder).prepared, max_memory_bytes=0).prepare(cases, PLANS[3])
    opened(folder).remove(case_id(1))
    assert content(found) == content(prepare_cases(cases, PLANS[3]))
    assert case_id(1) not in ids(folder)


def test_a_case_that_is_removed_while_it_is_written_is_gone(tmp_path):
    seen = []

    def holds(name):
        seen.append(len(files(tmp_path)))
        return len(seen) == 1

    place = PreparedFiles(tmp_path / "prepared", KEY, holds, 1 << 30)
    assert not place.write(place.name_for(limb(0), "somehow"), PARTS)
    assert seen == [0, 1], "looked up before, and once the file is there"
    assert files(tmp_path) == []


def test_what_a_dead_process_left_is_swept_when_the_store_is_opened(folder):
    PreparedCache(opened(folder).prepared).prepare([limb(0)], PLANS[3])
    names = (f"{case_id(99)}-{'0' * 64}.prepared", ".old.part", ".young.part", "readme.txt")
    orphan, old, young, foreign = (folder / "prepared" / name for name in names)
    for path in (orphan, old, young, foreign):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    opened(folder)
    assert [path.exists() for path in (orphan, old, young, foreign)] == [False, False, True, True]


def aged(place, name, seconds):
    os.utime(place / name, (time.time() - seconds,) * 2)


def test_the_least_recently_used_go_first(tmp_path):
    writer = files_in(tmp_path)
    names = [writer.name_for(limb(number), "somehow") for number in range(3)]
    for name in names[:2]:
        assert writer.write(name, PARTS)
    size = (tmp_path / names[0]).stat().st_size
    aged(tmp_path, names[0], 50)
    aged(tmp_path, names[1], 70)
    files_in(tmp_path).read(names[1], 0)  # used again
    later = files_in(tmp_path, max_bytes=int(2.5 * size))
    aged(tmp_path, names[1], 10)
    assert later.write(names[2], PARTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_using_a_file_is_remembered(tmp_path):
    place = files_in(tmp_path)
    name = place.name_for(limb(0), "somehow")
    place.write(name, PARTS)
    aged(tmp_path, name, 1000)
    place.read(name, 0)
    assert time.time() - (tmp_path / name).stat().st_mtime < 100


def test_what_is_in_use_is_never_deleted_for_another(tmp_path):
    place = files_in(tmp_path)
    names = [place.name_for(limb(number), "somehow") for number in range(2)]
    place.write(names[0], PARTS)
    size = (tmp_path / names[0]).stat().st_size
    small = files_in(tmp_path, max_bytes=int(1.5 * size))
    small.read(names[0], 0)
    assert not small.write(names[1], PARTS)
    assert small.has(names[0])
    assert small.write(names[0], PARTS), "in place of itself"


def test_a_run_that_needs_more_than_the_limit_holds_the_rest(folder):
    cases = [limb(number) for number in range(3)]
    PreparedCache(opened(folder).prepared).prepare(cases[:1], PLANS[3])
    size = files(folder)[0].stat().st_size
    room = opened(folder, prepared_bytes=int(1.5 * size)).prepared
    found = PreparedCache(room, max_memory_bytes=0).prepare(cases, PLANS[3])
    assert len(files(folder)) == 1
    assert content(found) == content(prepare_cases(cases, PLANS[3]))
    assert found[2] is found[2], "held"


def test_no_room_at_all_is_no_disk_and_deletes_what_there_was(folder):
    PreparedCache(opened(folder).prepared).prepare([limb(0)], PLANS[3])
    none = opened(folder, prepared_bytes=0).prepared
    assert not files(folder)
    PreparedCache(none).prepare([limb(0)], PLANS[3])
    assert not files(folder)


def test_another_key_reads_nothing_and_recognises_nothing(folder, tmp_path):
    case = limb(0)
    PreparedCache(opened(folder).prepared).prepare([case], PLANS[3])
    other = CaseStore(tmp_path / "other", OTHER_KEY)
    other.add(case)
    PreparedCache(other.prepared).prepare([case], PLANS[3])
    (ours,), (theirs,) = files(folder), files(tmp_path / "other")
    assert ours.name[:16] == theirs.name[:16]
    assert ours.name != theirs.name
    theirs.write_bytes(ours.read_bytes())
    with pytest.raises(StorageError, match="damaged"):
        other.prepared.read(theirs.name, 0)


def test_nothing_of_a_case_is_in_clear(folder):
    case = limb(0)
    affine = np.diag([0.7001, 0.8003, 1.9007, 1.0])
    case = replace(case, image=np.full_like(case.image, 12345.0), affine=affine)
    PreparedCache(opened(folder).prepared).prepare([case], PLANS[3])
    (path,) = files(folder)
    sealed = path.read_bytes()
    for secret in (*(label.encode() for label in LABELS), b"record", b"shape", struct.pack("<d", 0.7001), KEY.secret):
        assert secret not in sealed
    assert len(np.unique(np.frombuffer(sealed, np.uint8))) > 200
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

"""Watch folders: what is new, what is still being written, what is remembered, and what a crash costs."""

import os
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from sites import write_cases

from dafne_dante.annotations.study import Left
from dafne_dante.annotations.watch import reason_to_wait, scan
from dafne_dante.annotations.watch_memory import KEPT_LOOKS, StudyState, WatchMemory
from dafne_dante.annotations.watched_files import FileFacts, is_temporary, look_at_folder
from dafne_dante.errors import StorageError, TrustError

KEY = b"k" * 32
LATER = 3600.0
"""Seconds after which everything that the test wrote has been left alone for long enough."""


class Clock:
    """A clock that runs only when it is told to, an hour after the test's files were written."""

    def __init__(self):
        self.now = time.time() + LATER

    def after(self, seconds):
        self.now += seconds
        return self.now


@pytest.fixture
def folder(tmp_path):
    return write_cases(tmp_path / "archive", (1, 2))


@pytest.fixture
def memory(tmp_path):
    return WatchMemory(tmp_path / "memory" / "watch.sqlite", KEY)


@pytest.fixture
def look(memory):
    """Scan one folder, by default two minutes after the last look."""
    clock = Clock()
    return lambda folder, after=120.0, memory=memory, **options: scan([folder], memory, clock.after(after), **options)


def names(studies):
    return [one.study.name for one in studies]


def keep_all(found, memory):
    for one in found.ready:
        memory.keep(one.tag, one.fingerprint)
    return found


def touch(path, seconds=0.0):
    """Another modification time, as after a correction."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + int((seconds or 1) * 1e9)))


def test_a_study_is_offered_until_it_was_kept_and_again_when_it_changed(folder, memory, look):
    assert names(look(folder).ready) == ["c1", "c2"]
    first = look(folder)
    assert names(first.ready) == ["c1", "c2"], "nobody said that it was kept"
    memory.keep(first.ready[0].tag, first.ready[0].fingerprint)
    assert names(look(folder).ready) == ["c2"]
    keep_all(look(folder), memory)
    assert (look(folder).ready, look(folder).unchanged) == ((), 2)
    write_cases(folder, (1,), noise=9.0)
    changed = look(folder)
    assert (names(changed.ready), changed.unchanged) == (["c1"], 1)


def test_a_touched_file_is_a_change_and_a_file_that_is_gone_is_forgotten(folder, memory, look):
    keep_all(look(folder), memory)
    touch(folder / "labelsTr" / "c2.nii.gz")
    assert names(keep_all(look(folder), memory).ready) == ["c2"]
    (folder / "imagesTr" / "c1_0000.nii.gz").unlink()
    (folder / "labelsTr" / "c1.nii.gz").unlink()
    look(folder)
    assert memory.count(memory.tag(folder)) == 1
    write_cases(folder, (1,))
    assert names(look(folder).ready) == ["c1"]


def test_a_study_that_gains_or_loses_a_file_has_changed(tmp_path, memory, look):
    site = tmp_path / "site"
    write_cases(tmp_path / "from", (1,))
    site.mkdir()
    shutil.copy(tmp_path / "from/imagesTr/c1_0000.nii.gz", site / "c1.nii.gz")
    shutil.copy(tmp_path / "from/labelsTr/c1.nii.gz", site / "c1_mask_ball.nii.gz")
    keep_all(look(site), memory)
    shutil.copy(site / "c1_mask_ball.nii.gz", site / "c1_mask_box.nii.gz")
    assert names(keep_all(look(site), memory).ready) == ["c1"]
    (site / "c1_mask_box.nii.gz").unlink()
    assert names(look(site).ready) == ["c1"]


def test_a_young_file_waits_even_if_a_copy_kept_its_old_modification_time(folder, memory, look):
    for path in folder.rglob("*.gz"):
        os.utime(path, (1e9, 1e9))
    found = look(folder, after=-LATER)
    assert (found.ready, [one.name for one in found.waiting]) == ((), ["c1", "c2"])
    assert "less than 60 s ago" in found.waiting[0].reason
    assert names(look(folder, after=61).ready) == ["c1", "c2"]


def test_what_changed_between_two_looks_waits_although_its_stamps_look_old(folder, memory, look):
    """A server whose clock is behind: only our own looks tell that somebody writes."""
    keep_all(look(folder), memory)
    for _ in range(3):
        touch(folder / "labelsTr" / "c1.nii.gz")
        found = look(folder, after=30)
        assert (found.ready, [one.name for one in found.waiting], found.unchanged) == ((), ["c1"], 1)
    assert not look(folder, after=59).ready
    assert names(look(folder, after=1).ready) == ["c1"]


def test_a_stamp_in_the_future_does_not_block_a_study_for_ever(folder, memory, look):
    ahead = time.time() + 30 * 24 * LATER
    os.utime(folder / "imagesTr" / "c1_0000.nii.gz", (ahead, ahead))
    assert names(look(folder).ready) == ["c2"]
    assert names(look(folder, after=59).ready) == ["c2"]
    assert names(look(folder, after=1).ready) == ["c2", "c1"], "what was touched last comes last"


def test_a_clock_that_is_set_back_delays_by_quiet_s_and_no_more(folder, memory, look):
    os.utime(folder / "imagesTr" / "c1_0000.nii.gz", (4e9, 4e9))
    look(folder, after=10 * LATER)
    assert names(look(folder, after=-9 * LATER).ready) == ["c2"]
    assert names(look(folder, after=60).ready) == ["c2", "c1"]
    keep_all(look(folder, after=1), memory)
    assert look(folder, after=-10 * LATER).unchanged == 2


@pytest.mark.parametrize(
    ("name", "waits"),
    [
        ("c1_0000.nii.gz.part", True),
        ("c1_0000.nii.gz~", True),
        (".c1_0000.nii.gz.aB3xY9", True),
        (".~lock.c1_0000.nii.gz#", True),
        ("c1_0000.nii.gz.LOCK", True),
        ("c1_0000.crdownload", True),
        ("c3_0000.nii.gz.part", False),
        ("notes.txt", False),
    ],
)
def test_a_temporary_beside_a_file_means_that_somebody_is_at_work_for_a_day_at_most(folder, memory, name, waits, look):
    (folder / "imagesTr" / name).write_bytes(b"x")
    found = look(folder)
    assert ([one.name for one in found.waiting], names(found.ready)) == (
        (["c1"], ["c2"]) if waits else ([], ["c1", "c2"])
    )
    if waits:
        assert name in found.waiting[0].reason
        assert is_temporary(name)
    assert names(look(folder, after=25 * LATER).ready) == ["c1", "c2"]


def test_a_young_temporary_of_another_name_holds_its_folder_back():
    facts = [FileFacts("series/slice1.dcm", 10, 0, 1000.0)]
    beside = {"series": [FileFacts("series/upload.tmp", 3, 0, 1990.0)]}
    state = StudyState("seen", 1000.0)
    assert "upload.tmp" in reason_to_wait(facts, beside, state, 2000.0, 60.0)
    assert reason_to_wait(facts, beside, state, 2050.0, 60.0) == ""
    assert reason_to_wait(facts, {"elsewhere": beside["series"]}, state, 2000.0, 60.0) == ""


def test_a_folder_that_is_gone_or_suddenly_empty_is_told_and_not_forgotten(folder, memory, tmp_path, look):
    keep_all(look(folder), memory)
    away = folder.rename(tmp_path / "away")
    found = look(folder)
    assert [one.name for one in found.left] == ["archive"]
    assert "connect its drive" in found.left[0].reason
    folder.mkdir()
    found = look(folder)
    assert "is empty, and had 2 studies" in found.left[0].reason
    folder.rmdir()
    away.rename(folder)
    assert look(folder).unchanged == 2
    (tmp_path / "new").mkdir()
    assert look(tmp_path / "new").left == (), "an empty folder that was always empty is no fault"


def test_a_refused_study_is_not_tried_again_before_it_or_the_policy_changes(folder, memory, look):
    one = look(folder, policy="a").ready[0]
    memory.refuse(one.tag, one.fingerprint, "c1: expected more", "a")
    keep_all(look(folder, policy="a"), memory)
    found = look(folder, policy="a")
    assert (found.ready, found.left, found.unchanged) == ((), (), 2)
    assert look(folder, policy="a", again=True).left == (Left("c1", "c1: expected more"),)
    assert names(look(folder, policy="b").ready) == ["c1"]
    touch(folder / "labelsTr" / "c1.nii.gz")
    assert names(look(folder, policy="a").ready) == ["c1"]


def test_a_folder_where_nothing_is_left_to_do_is_searched_again_after_hours_only(folder, memory, look):
    searches = []

    def find(paths):
        from dafne_dante.annotations.search import find_studies_in

        searches.append(paths)
        return find_studies_in(paths)

    keep_all(look(folder, find=find), memory)
    for _ in range(3):
        assert look(folder, find=find).unchanged == 2
    assert len(searches) == 2, "once to find, once to see that nothing is left"
    look(folder, find=find, again=True)
    look(folder, find=find, after=21 * 3600)
    assert len(searches) == 4
    (folder / "imagesTr" / "readme.txt").write_text("new")
    look(folder, find=find)
    assert len(searches) == 5


def test_a_search_that_breaks_off_forgets_nothing(folder, memory, look):
    keep_all(look(folder), memory)
    touch(folder / "dataset.json")

    def broken(paths):
        raise StorageError("cannot list the folder imagesTr: Input/output error")

    assert look(folder, find=broken).left == (Left("archive", "cannot list the folder imagesTr: Input/output error"),)
    touch(folder / "dataset.json")
    assert look(folder).unchanged == 2


def test_memory_stays_bounded_when_no_look_is_complete(memory):
    tag = memory.tag(Path("share"))
    for number in range(100):
        memory.look(tag, [number.to_bytes(32, "big")], float(number), quiet_s=1.0, complete=False)
    assert memory.count(tag) == KEPT_LOOKS + 1


def test_links_to_folders_end_and_links_to_files_count(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "x.dcm").write_bytes(b"1")
    (inner / "loop").symlink_to(tmp_path / "a")
    (inner / "broken").symlink_to(tmp_path / "nothing")
    (inner / "other").symlink_to(inner / "x.dcm")
    os.mkfifo(inner / "pipe")
    assert [one.path for one in look_at_folder(tmp_path).files] == ["a/b/other", "a/b/x.dcm"]


def test_nested_folders_offer_a_study_once(folder, memory):
    found = scan([folder, folder.parent / "archive", folder.parent], memory, time.time() + LATER)
    assert names(found.ready) == ["c1", "c2"]


def test_nothing_of_a_site_is_in_clear(tmp_path, look):
    folder = write_cases(tmp_path / "CANARYFOLDER", (1, 2))
    memory = WatchMemory(tmp_path / "watch.sqlite", KEY)
    one = look(folder, memory=memory).ready[0]
    memory.refuse(one.tag, one.fingerprint, "CANARYREASON of c1", "CANARYPOLICY")
    content = (tmp_path / "watch.sqlite").read_bytes()
    hidden = (b"CANARY", b"c1", b"imagesTr", b"nii", str(one.facts[0].modified_ns).encode(), b"refused", b"since")
    assert [word for word in hidden if word in content] == []
    assert (tmp_path / "watch.sqlite").stat().st_mode & 0o077 == 0
    assert len(look(folder, memory=WatchMemory(tmp_path / "watch.sqlite", b"other")).ready) == 2, (
        "another key knows nothing"
    )


def test_a_damaged_memory_is_begun_anew_and_a_flipped_bit_offers_a_study_again(folder, tmp_path, look):
    path = tmp_path / "watch.sqlite"
    keep_all(look(folder, memory=WatchMemory(path, KEY)), WatchMemory(path, KEY))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE studies SET state = zeroblob(40)")
    connection.close()
    assert len(look(folder, memory=WatchMemory(path, KEY), again=True).ready) == 2
    for damage in (b"no database at all", path.read_bytes()[:5000] + b"\xff" * 3000):
        path.write_bytes(damage)
        assert len(look(folder, memory=WatchMemory(path, KEY)).ready) == 2
    assert path.with_name("watch.sqlite.damaged").exists()
    with pytest.raises(TrustError, match="empty"):
        WatchMemory(path, b"")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        WatchMemory(tmp_path / "file" / "watch.sqlite", KEY)

"""New studies of watch folders become cases: once, whole, again after a crash; with a real writer and real kills."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from phantoms import make_case
from sites import snapshot, without_voxels, write_cases
from studies import DrawnStudy, block

from dafne_dante.annotations.labels import LabelNames
from dafne_dante.annotations.reading import Reading
from dafne_dante.annotations.store.key import StoreKey
from dafne_dante.annotations.store.store import CaseStore
from dafne_dante.annotations.study import Found
from dafne_dante.annotations.watch_memory import WatchMemory
from dafne_dante.annotations.watch_taking import reading_policy, take_new
from dafne_dante.errors import StorageError

KEY = b"k" * 32


@pytest.fixture
def memory(tmp_path):
    return WatchMemory(tmp_path / "watch.sqlite", KEY)


@pytest.fixture
def take(memory):
    """Take what is new, two minutes later each time, and give the names taken, the reasons, and the cases."""
    now = time.time() + 3600

    def once(folder, *, keep=None, **options):
        nonlocal now
        now += 120
        cases = []
        outcome = take_new([folder], memory, keep or cases.append, clock=lambda: now, **options)
        return outcome, [one.name for one in outcome.taken], cases

    return once


def test_every_study_is_taken_once_with_its_own_labels(tmp_path, take):
    folder = write_cases(tmp_path / "site", (1, 2))
    outcome, taken, cases = take(folder)
    assert (taken, outcome.left, outcome.waiting) == (["c1", "c2"], (), ())
    for case, seed in zip(cases, (1, 2), strict=True):
        assert case.labels == ("ball", "box")
        assert np.array_equal(case.segmentation.sum(), make_case(seed).segmentation.sum())
    assert [one.case_id for one in outcome.taken] == [case.case_id for case in cases]
    assert take(folder)[1] == []
    write_cases(folder, (3,))
    assert take(folder)[1] == ["c3"]


def test_a_bad_study_costs_no_other_and_is_tried_again_when_it_was_corrected(tmp_path, take):
    folder = write_cases(tmp_path / "site", (1, 2))
    without_voxels(folder / "imagesTr" / "c1_0000.nii.gz")
    outcome, taken, _ = take(folder)
    assert taken == ["c2"]
    assert [left.name for left in outcome.left] == ["c1"]
    assert take(folder)[0].left == ()
    again = take(folder, again=True)[0]
    assert (again.left[0].reason, again.taken) == (outcome.left[0].reason, ())
    write_cases(folder, (1,))
    assert take(folder)[1] == ["c1"]


def test_a_refused_study_is_tried_again_when_the_site_explains_a_name(tmp_path, take):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.bin").write_bytes(b"x")
    study = DrawnStudy("a", {"couch": block(0, 8)}, files=(tmp_path / "site" / "a.bin",))
    ignoring, using = Reading(LabelNames(ignored=("couch",))), Reading()
    options = {"find": lambda paths: Found((study,))}
    assert len(take(tmp_path / "site", reading=ignoring, **options)[0].left) == 1
    assert take(tmp_path / "site", reading=ignoring, **options)[0].left == ()
    assert take(tmp_path / "site", reading=using, **options)[1] == ["a"]
    assert reading_policy(ignoring) != reading_policy(using) == reading_policy(Reading(key=b"other"))


def test_what_a_disk_refused_is_tried_again_at_once(tmp_path, take):
    (tmp_path / "a.bin").write_bytes(b"x")
    study = DrawnStudy("a", {"bone": block(1, 3)}, files=(tmp_path / "a.bin",), fault=StorageError("cannot read a.bin"))
    for _ in range(2):
        outcome, _, _ = take(tmp_path, find=lambda paths: Found((study,)))
        assert [left.reason for left in outcome.left] == ["cannot read a.bin"]


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path, take):
    path = tmp_path / "site" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(b"x")

    class Overwritten(DrawnStudy):
        def read(self, values):
            path.write_bytes(b"longer")
            return super().read(values)

    study = Overwritten("a", {"bone": block(1, 3)}, files=(path,))
    outcome, taken, cases = take(path.parent, find=lambda paths: Found((study,)))
    assert (taken, cases, outcome.left) == ([], [], ())
    assert [(one.name, one.reason) for one in outcome.waiting] == [("a", "changed while it was read")]


def test_a_store_that_refuses_loses_nothing(tmp_path, take):
    folder = write_cases(tmp_path / "site", (1, 2, 3))
    kept = []

    def full_after_one(case):
        if kept:
            raise StorageError("cannot write: the disk is full")
        kept.append(case)

    with pytest.raises(StorageError, match="full"):
        take(folder, keep=full_after_one)
    assert take(folder)[1] == ["c2", "c3"]


def test_the_store_holds_the_corrected_version_only(tmp_path, take):
    store = CaseStore(tmp_path / "store", StoreKey(bytes(32)))
    folder = write_cases(tmp_path / "site", (1,))
    reading = Reading(key=StoreKey(bytes(32)).case_ids)
    take(folder, keep=store.add, reading=reading)
    write_label_of_seed_2 = write_cases(tmp_path / "other", (2,)) / "labelsTr" / "c2.nii.gz"
    (folder / "labelsTr" / "c1.nii.gz").write_bytes(write_label_of_seed_2.read_bytes())
    assert take(folder, keep=store.add, reading=reading)[1] == ["c1"]
    (stored,) = store.cases()
    corrected = store.read(stored.case_id).segmentation
    assert np.array_equal(np.bincount(corrected.ravel()), np.bincount(make_case(2).segmentation.ravel()))


CHILD = """
    import os, signal, sys, time
    from pathlib import Path
    from dafne_dante.annotations.reading import Reading
    from dafne_dante.annotations.store.key import StoreKey
    from dafne_dante.annotations.store.store import CaseStore
    from dafne_dante.annotations.watch_memory import WatchMemory
    from dafne_dante.annotations.watch_taking import take_new
    here, kept = Path(sys.argv[1]), []
    store = CaseStore(here / "store", StoreKey(bytes(32)))

    def keep(case):
        store.add(case)
        kept.append(case)
        if len(kept) == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    take_new([here / "site"], WatchMemory(here / "watch.sqlite", b"k" * 32), keep,
             reading=Reading(key=StoreKey(bytes(32)).case_ids), clock=lambda: time.time() + 3600)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_kill_between_storing_and_remembering_offers_the_study_again_and_keeps_it_once(tmp_path, take):
    folder = write_cases(tmp_path / "site", (1, 2, 3))
    before = snapshot(folder)
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path), "2"]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    store = CaseStore(tmp_path / "store", StoreKey(bytes(32)))
    assert len(store.cases()) == 2
    outcome, taken, _ = take(folder, keep=store.add, reading=Reading(key=StoreKey(bytes(32)).case_ids))
    assert taken == ["c2", "c3"], "c2 was stored and not remembered"
    assert outcome.unchanged == 1
    assert len(store.cases()) == 3
    assert snapshot(folder) == before, "watching writes nothing into the folder"


WRITER = """
    import shutil, sys, time
    from pathlib import Path
    source, target = map(Path, sys.argv[1:])
    for path in sorted(source.rglob("*")):
        goal = target / path.relative_to(source)
        if path.is_dir():
            goal.mkdir(parents=True, exist_ok=True)
            continue
        content = path.read_bytes()
        with goal.open("wb", buffering=0) as stream:
            for part in range(5):
                stream.write(content[part * len(content) // 5 : (part + 1) * len(content) // 5])
                time.sleep(0.06)
        shutil.copystat(path, goal)
"""


def test_a_slow_writer_is_waited_for(tmp_path, memory):
    """Polled all the time while another process writes: nothing half is read, so nothing is ever refused."""
    source, site = write_cases(tmp_path / "source", (1, 2)), tmp_path / "site"
    site.mkdir()
    cases, waited, refused = [], 0, []
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(source), str(site)]
    with subprocess.Popen(command) as writer:
        deadline = time.monotonic() + 30
        while len(cases) < 2 and time.monotonic() < deadline:
            outcome = take_new([site], memory, cases.append, quiet_s=0.5)
            waited += len(outcome.waiting)
            refused += [left for left in outcome.left if left.name in {"c1", "c2"}]
            time.sleep(0.03)
    assert writer.returncode == 0
    assert waited > 3
    assert refused == []
    assert sorted(int(case.segmentation.sum()) for case in cases) == sorted(
        int(make_case(seed).segmentation.sum()) for seed in (1, 2)
    )
    assert not take_new([site], memory, cases.append, quiet_s=0.5).taken


def test_the_folder_is_named_by_its_place(memory):
    assert memory.tag(Path("a")) == memory.tag(Path.cwd() / "a") != memory.tag(Path("b"))

"""A program: do one thing to a case store, killed or failing at its n-th change of the disk, for every n.

    python crashing.py FOLDER c|python kill|fail|full SCENARIO...

After each attempt the store is opened anew and must hold every case in its old or its new version, whole, and nothing
else. Prints one JSON object: for each scenario how many points there were, how many different results, and how the
attempts ended. The mode "order" does the thing once and prints what was done to the disk, in order.
"""

import json
import os
import shutil
import sys
import traceback
from collections import Counter
from pathlib import Path

from crashing_seams import KILLED, UnderPython, UnderTheCLibrary
from stored_cases import KEY, case_id, is_same, stored_case

from dafne_dante.annotations.store.index import INDEX_FILE
from dafne_dante.annotations.store.retention import Limits
from dafne_dante.annotations.store.store import CaseStore, rebuild_index
from dafne_dante.errors import StorageError

DONE, REFUSED, NOT_REACHED, WRONG = 0, 18, 20, 1
ENDS = {DONE: "done", REFUSED: "refused", KILLED: "killed", NOT_REACHED: "not reached"}
MODES = {"kill": 1, "fail": 2, "full": 3}
DAY = 86_400 * 10**9
START = 1_700_000_000 * 10**9
OLD = {number: stored_case(number) for number in range(3)}


def fill(folder, numbers=range(3)):
    for number in numbers:
        CaseStore(folder, KEY, clock=lambda number=number: START + number * DAY).add(OLD[number])


def with_leftovers(folder):
    """Case 0 is stored, with an older stray; case 1 with a newer one; case 2 is a stray alone; one file is half."""
    fill(folder, (0, 1, 2))
    for number, version in ((0, 1), (1, 1)):
        shutil.copytree(folder, folder.parent / "other")
        CaseStore(folder.parent / "other", KEY).add(stored_case(number, version))
        if number == 0:  # the newer version is stored, the older one is the stray
            (old,) = folder.glob(f"{case_id(0)}-*")
            shutil.copy(old, folder.parent / "old")
            CaseStore(folder, KEY).add(stored_case(0, 1))
            shutil.copy(folder.parent / "old", folder / old.name)
        else:
            (new,) = (folder.parent / "other").glob(f"{case_id(1)}-*")
            shutil.copy(new, folder / new.name)
        shutil.rmtree(folder.parent / "other")
    index = (folder / INDEX_FILE).read_bytes()
    CaseStore(folder, KEY)
    (folder / INDEX_FILE).write_bytes(index)
    (folder / ".half.part").write_bytes(b"half")


def damaged_index(folder):
    fill(folder)
    (folder / INDEX_FILE).write_bytes(b"\0" * 8192)


def nothing(folder):
    pass


def opened(folder, **options):
    return CaseStore(folder, KEY, **options)


# name: (what is there before, what is done, versions that each study may have then; None stands for absent)
SCENARIOS = {
    "replace": (fill, lambda f: opened(f).add(stored_case(1, 1)), {0: [0], 1: [0, 1], 2: [0]}),
    "new": (fill, lambda f: opened(f).add(stored_case(3)), {0: [0], 1: [0], 2: [0], 3: [None, 0]}),
    "remove": (fill, lambda f: opened(f).remove(case_id(1)), {0: [0], 1: [0, None], 2: [0]}),
    "drop": (
        fill,
        lambda f: opened(f, limits=Limits(cases=2)).add(stored_case(3)),
        {0: [0, None], 1: [0, None], 2: [0], 3: [None, 0]},
    ),
    "begin": (nothing, lambda f: opened(f).add(OLD[0]), {0: [None, 0]}),
    "tidy": (with_leftovers, opened, {0: [1], 1: [1], 2: [0]}),
    "rebuild": (damaged_index, lambda f: rebuild_index(f, KEY), {0: [0], 1: [0], 2: [0]}),
}


def attempt(folder, act, seam, nth, mode):
    """In a child process: how it ended."""
    child = os.fork()
    if child == 0:
        code = WRONG
        try:
            seam.arm(nth, mode)
            act(folder)
            code = DONE
        except StorageError:
            code = REFUSED
        except BaseException:  # a child must never return into the loop
            traceback.print_exc()
        fired = seam.fired()
        seam.disarm()
        os._exit(code if fired or code == WRONG else NOT_REACHED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(folder, versions, ended):
    """AssertionError unless every study has one of its versions, the last of them when the deed was done."""
    if (folder / INDEX_FILE).exists() and (folder / INDEX_FILE).read_bytes().startswith(b"\0"):
        rebuild_index(folder, KEY)
    store = opened(folder)
    report = store.verify()
    assert report.is_sound, report
    found = {}
    for number, allowed in versions.items():
        if case_id(number) not in report.sound:
            found[number] = None
        else:
            case = store.read(case_id(number))
            (found[number],) = [v for v in allowed if v is not None and is_same(case, stored_case(number, v))]
        assert found[number] in allowed, (number, found)
        assert ended != DONE or found[number] == allowed[-1], (number, found)
    assert found.get(0, 0) == found.get(1, 0) or ended != "drop"
    # A journal that was never completed is of no effect; SQLite takes it away with the next change.
    unimportant = {f"{INDEX_FILE}{ending}" for ending in ("-journal", ".damaged", ".damaged-journal")}
    files = {path.name for path in folder.iterdir()} - unimportant
    assert len(files) == 1 + len(report.sound), files
    assert {name[:16] for name in files - {INDEX_FILE}} == set(report.sound)
    return found


def try_all(root, scenario, mode, seam):
    prepare, act, versions = SCENARIOS[scenario]
    prepare(root / "before")
    ends, nth, results = Counter(), 0, set()
    while True:
        nth += 1
        folder = root / "now"
        if (root / "before").exists():
            shutil.copytree(root / "before", folder)
        ended = attempt(folder, act, seam, nth, mode)
        assert ended in ENDS, ended
        try:
            results.add(str(check(folder, versions, DONE if ended == NOT_REACHED else ended)))
        except AssertionError as error:
            raise AssertionError(f"{scenario}, point {nth}, mode {mode}: {error}") from error
        shutil.rmtree(folder)
        ends[ENDS[ended]] += 1
        if ended == NOT_REACHED:
            return {"points": nth - 1, "results": len(results), **ends}


def order(root, scenario, seam):
    prepare, act, _ = SCENARIOS[scenario]
    prepare(root / "before")
    seam.arm(0, 0)
    act(root / "before")
    return [[name, Path(detail).name if "/" in detail else detail] for name, detail in seam.log]


def main(folder, where, how, *scenarios):
    seam = {"c": UnderTheCLibrary, "python": UnderPython}[where]()
    answers = {}
    for scenario in scenarios:
        root = Path(folder) / scenario
        root.mkdir()
        seam.disarm()
        answers[scenario] = order(root, scenario, seam) if how == "order" else try_all(root, scenario, MODES[how], seam)
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A program: keep, choose or forget an improved model, killed or failing at its n-th change of the disk, for every n.

    python crashing_local.py FOLDER kill|fail|full SCENARIO...

After each attempt the shelf is opened anew: its state is the old one or the new one, and every file that it names is
there with its digest; when the thing is done again, nothing else is left in the folder. Prints one JSON object as
crashing.py does.
"""

import hashlib
import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from crashing import DONE, ENDS, MODES, NOT_REACHED, attempt
from crashing_seams import UnderPython

from dafne_dante.plugin.local.shelf import KEEP, LocalShelf
from dafne_dante.plugin.local.versions import LocalVersion

TYPE = "Thigh"
FIRST = LocalVersion(1, "", "0" * 64, (), "7", 5, 0.5, 0.6, 0, "made")


def contents(number):
    return f"model {number}".encode() * 1000, f"delta {number}".encode() * 100


def digest(content):
    return hashlib.sha256(content).hexdigest()


def shelf(root):
    return LocalShelf(root / "shelf", TYPE)


def add(root, number):
    model, delta = contents(number)
    made = replace(FIRST, number=number, model=digest(model), deltas=((digest(delta), 1.0),))
    return shelf(root).add(lambda state: made, model, delta, seen="7")


def filled(root):
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, KEEP + 2):
        add(root, number)


def nothing(root):
    root.mkdir(parents=True)


SCENARIOS = {
    "first": (nothing, lambda root: add(root, 1)),
    "replace": (filled, lambda root: add(root, KEEP + 2)),
    "back": (filled, lambda root: shelf(root).choose(0, "back")),
    "forget": (filled, lambda root: shelf(root).forget()),
}


def summed(state):
    return [state.chosen, [one.number for one in state.versions]]


def checked(root):
    """What is kept; AssertionError unless all of it is whole."""
    state = shelf(root).state()
    for version in state.versions:
        model, delta = contents(version.number)
        assert shelf(root).model_path(version).read_bytes() == model
        assert [shelf(root).delta(sha256) for sha256, _ in version.deltas] == [delta]
    return summed(state)


def check(root, allowed, act):
    found = checked(root)
    assert found in allowed, (found, allowed)
    act(root)
    assert checked(root) == allowed[1]
    names = {path.name for path in (root / "shelf").glob("*")}
    count = len(allowed[1][1])
    assert len(names) == 2 * count + (count > 0), names
    return str(found)


def try_all(root, scenario, mode, seam):
    prepare, act = SCENARIOS[scenario]
    prepare(root / "before")
    shutil.copytree(root / "before", root / "after")
    act(root / "after")
    allowed = [checked(root / "before"), checked(root / "after")]
    ends, nth, results = Counter(), 0, set()
    while ends["not reached"] == 0:
        nth += 1
        shutil.copytree(root / "before", root / "now")
        ended = attempt(root / "now", act, seam, nth, mode)
        assert ended in ENDS, ended
        assert ended not in (DONE, NOT_REACHED) or checked(root / "now") == allowed[1]
        results.add(check(root / "now", allowed, act))
        shutil.rmtree(root / "now")
        ends[ENDS[ended]] += 1
    return {"points": nth - 1, "results": len(results), **ends}


if __name__ == "__main__":
    place, way, *names = sys.argv[1:]
    disk = UnderPython()
    print(json.dumps({name: try_all(Path(place) / name, name, MODES[way], disk) for name in names}))

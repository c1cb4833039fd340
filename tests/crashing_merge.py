"""A program: merge what waits, killed by SIGKILL at its n-th change of the disk, for every STEP-th n.

    python crashing_merge.py FOLDER STEP [FIRST]

The depot is a folder with a small real network, two good updates and an upload that is none; a publish is a change of
the disk as well, so a kill finds it before, in the middle of, and after what the server takes. After each attempt
another process merges again. Whatever was opened lies in the operator's own folder, for its owner only, and has gone
after the next merge. Then there is one new version with the effect of one merge, what was refused lies in
quarantine with its reason, the queue is empty, the ledger names both updates once, and the version has its card.
Prints one JSON object: how many attempts were killed, and the point that was not reached any more.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from crashing_seams import KILL, KILLED, UnderPython
from merging import QuickOperator
from test_operator import TYPE

from dafne_dante.federation.published_versions import show_version


def prepare(root):
    operator = QuickOperator(root)
    for amount, site in ((0.002, "site1"), (0.004, "site2")):
        operator.send(operator.delta(amount, site=site))
    operator.send(b"garbage", user="bad")
    return operator


def attempt(operator, seam, nth):
    """In a child process: whether it was killed."""
    child = os.fork()
    if child == 0:
        seam.arm(nth, KILL)
        operator.merge()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def check(operator):
    """One published effect and nothing lost, after one more merge; nothing opened lies about, before or after it."""
    scratch = operator.settings.folder / "operator" / TYPE / "scratch"
    assert {path.name for path in operator.root.parent.iterdir()} == {"before", "now"}, "the temporary folder is empty"
    assert not scratch.exists() or scratch.stat().st_mode & 0o777 == 0o700
    operator.merge()
    assert not scratch.exists()
    first, *others = operator.shelf.versions(TYPE)
    assert (first, len(others)) == (operator.first, 1), others
    assert abs(operator.moved() - 0.003) < 1e-5, operator.moved()
    assert operator.shelf.uploads(TYPE) == []
    assert [name for name in operator.quarantined() if "bad" in name], operator.quarantined()
    assert len(operator.quarantined()) == 1, operator.quarantined()
    shown = show_version(operator.depot, TYPE, others[0], operator.settings)
    assert (shown["kind"], len(shown["contributions"]), shown["step"]) == ("merge", 2, 1.0), shown
    card = operator.shelf.model_path(TYPE, others[0]).with_name(f"{others[0]}.card.md")
    assert card.read_text().count("site") >= 1
    assert operator.merge().reason == "no update waits"


def main(folder, step, first=1):
    torch.set_num_threads(1)
    seam, ends, nth = UnderPython(), Counter(), first
    leave = os._exit
    os._exit = lambda code: os.kill(os.getpid(), signal.SIGKILL) if code == KILLED else leave(code)
    root = Path(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(root)  # what a killed merge leaves there goes with it
    before = prepare(root / "before")
    while True:
        shutil.copytree(root / "before", root / "now")
        operator = before.moved_to(root / "now")
        was_killed = attempt(operator, seam, nth)
        try:
            check(operator)
        except AssertionError as error:
            raise AssertionError(f"point {nth}: {error}") from error
        shutil.rmtree(root / "now")
        ends["killed" if was_killed else "done"] += 1
        if not was_killed:
            print(json.dumps({"points_below": nth, **ends}))
            return
        nth += step


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))

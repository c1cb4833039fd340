"""Merges each queue named on the command line in a process of its own, and prints their peaks (Linux).

Arguments: folders with `server` and `operator` in them. Output: a JSON list of [updates merged, peak in bytes]. The
processes are forked when everything is imported, so a peak counts what the merge takes and a start that all share.
"""

import json
import os
import re
import sys
from pathlib import Path

from merging import SMALL_CASE
from test_operator import TYPE

from dafne_dante.config import Settings
from dafne_dante.federation.depot import FolderDepot
from dafne_dante.federation.operator import merge_pending


def merged(folder):
    settings = Settings(folder / "operator", dice_margin=1.0)
    report = merge_pending(FolderDepot(folder / "server", TYPE), TYPE, [SMALL_CASE], settings)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return report.merged, 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def in_a_fork(folder):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(merged(folder)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return json.loads(answer)


if __name__ == "__main__":
    print(json.dumps([in_a_fork(Path(name)) for name in sys.argv[1:]]))

"""`merge --watch`: merges what comes, tells it line by line, one at a time, and ends when it is told to."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from merging import SMALL_CASE, QuickOperator
from sites import write_cases
from test_operator import TYPE, Failing

from dafne_dante.config import write_settings
from dafne_dante.errors import SettingsError, StorageError
from dafne_dante.federation.operator import MergeOptions
from dafne_dante.federation.operator_turn import operator_turn
from dafne_dante.federation.watching import Stop, watch_queue


@pytest.fixture
def operator(tmp_path):
    return QuickOperator(tmp_path)


def watch(operator, act, *, depot=None, **options):
    """Watch in this thread; `act` gets every event and the stop."""
    stop, events = Stop(), []

    def tell(event):
        events.append(event)
        json.dumps(event)
        act(event["event"], stop, len(events))

    settings = options.pop("settings", operator.settings)
    watch_queue(
        depot or operator.depot, TYPE, [SMALL_CASE], settings,
        options=MergeOptions(**options), every_s=0.01, stop=stop, tell=tell,
    )  # fmt: skip
    return events


def test_it_merges_what_comes_and_says_so(operator):
    sent = iter([0.002, 0.004])

    def act(event, stop, _count):
        if event == "waiting":
            amount = next(sent, None)
            stop.ask() if amount is None else operator.send(operator.delta(amount))

    events = watch(operator, act)
    assert [one["event"] for one in events] == [
        "started", "waiting", "merged", "waiting", "merged", "waiting", "stopped",
    ]  # fmt: skip
    assert [one["merged"] for one in events if one["event"] == "merged"] == [1, 1]
    assert len(operator.shelf.versions(TYPE)) == 3
    assert all(one["at"].endswith("Z") for one in events)


def test_a_server_that_fails_is_asked_again(operator):
    operator.send(operator.delta(0.002))

    def act(event, stop, _count):
        if event == "waiting":
            stop.ask()

    events = watch(operator, act, depot=Failing(operator.depot, 3, after=False))
    assert [one["event"] for one in events] == ["started", "failed", "merged", "waiting", "stopped"]
    assert events[1]["reason"] == "the power went"


def test_what_only_the_operator_can_correct_ends_it(operator):
    (operator.settings.folder / "trusted_keys.json").write_text("{}")
    with pytest.raises(Exception, match="expected") as caught:
        watch(operator, lambda *_: None)
    assert type(caught.value).__module__ == "dafne_dante.errors"


@pytest.mark.parametrize("steps", range(1, 5))
def test_it_stops_inside_a_merge_and_nothing_is_lost(operator, steps):
    for amount, site in ((0.002, "site1"), (0.004, "site2")):
        operator.send(operator.delta(amount, site=site))
    asked = []

    class Asking(Stop):
        def is_asked(self):
            asked.append(1)
            return len(asked) > steps

    stop, events = Asking(), []
    watch_queue(
        operator.depot, TYPE, [SMALL_CASE], operator.settings,
        options=MergeOptions(), every_s=0.01, stop=stop, tell=events.append,
    )  # fmt: skip
    assert events[-1]["event"] == "stopped"
    operator.merge()
    assert operator.moved() == pytest.approx(0.003, rel=1e-3)
    assert len(operator.shelf.versions(TYPE)) == 2
    assert operator.quarantined() == {}


def test_a_second_operator_is_told(operator):
    """The lock is one of threads and processes alike; who holds it may take it again."""
    program = (
        "import sys, pathlib\n"
        "from dafne_dante.federation.operator_turn import operator_turn\n"
        "with operator_turn(pathlib.Path(sys.argv[1]), 'Brain'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, operator.settings.folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match="another operator"):
            operator.merge()
        with pytest.raises(StorageError, match="another operator"):
            watch(operator, lambda *_: None)
    finally:
        other.kill()  # the lock goes with the process
        other.communicate()
    with operator_turn(operator.settings.folder, TYPE):
        assert operator.merge().reason == "no update waits"


@pytest.mark.parametrize("name", ["../x", "", "a_b"])
def test_a_lock_is_never_outside_its_folder(tmp_path, name):
    with pytest.raises(SettingsError), operator_turn(tmp_path, name):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_by_a_signal_with_code_0(operator, number):
    data = write_cases(operator.root / "cases", (5,))
    write_settings(replace(operator.settings, folder=operator.root / "operator"))
    operator.send(operator.delta(0.002))
    process = subprocess.Popen(
        [
            sys.executable, "-m", "dafne_dante", "merge", "--watch", "--every", "1", "--json", "--type", TYPE,
            "--folder", operator.root / "server", "--validation", data,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "DAFNE_DANTE_CONFIG": str(operator.root / "operator"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        events = [json.loads(process.stdout.readline())["event"] for _ in range(3)]
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert events == ["started", "merged", "waiting"]
    assert (process.returncode, json.loads(out)["event"], "Traceback" in err) == (0, "stopped", False)
    assert len(operator.shelf.versions(TYPE)) == 2

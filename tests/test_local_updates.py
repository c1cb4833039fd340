"""A newer global model is compared with what was learned here before either replaces the other, beside all else."""

import sys
import time
from dataclasses import replace

import psutil
import pytest
from crashing_local import FIRST, contents, digest
from queues import TYPE

from dafne_dante.config import Settings, WorkerSettings, write_settings
from dafne_dante.errors import ServerUnreachableError, TrainingError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.client import ModelInfo, connect
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.models.file import read_model, write_model
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve
from dafne_dante.plugin.jobs import open_jobs
from dafne_dante.plugin.keeping import keep_studies
from dafne_dante.plugin.local.shelf import local_shelf
from dafne_dante.plugin.local.updating import UpdateProcess, is_behind, update_here
from dafne_dante.plugin.local.using import keep_improvement, local_model
from dafne_dante.plugin.night_updates import update_improved_models

PATIENCE_S = 120


def keep(settings, model_type, *, seen):
    """Keep an improved model of a type that was compared with the global version `seen`."""
    model, delta = contents(1)
    shelf = local_shelf(settings, model_type)
    made = replace(FIRST, model=digest(model), deltas=((digest(delta), 1.0),), base=seen)
    shelf.add(lambda state: made, model, delta, seen=seen)
    return shelf


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "configuration", "https://federation.example/", "key")


def test_a_newer_global_model_is_used_until_it_was_compared(settings):
    shelf = keep(settings, TYPE, seen="7")
    assert [newest for newest in ("", "6", "7", "8", "x") if is_behind(settings, TYPE, newest)] == ["8"]
    assert local_model(settings, TYPE).number == local_model(settings, TYPE, newest="7").number == 1
    used = local_model(settings, TYPE, newest="8")
    assert (used.file, used.number) == (None, 0)
    assert "global version 8 is used" in used.words
    shelf.choose(1, "compared", seen="8")
    assert local_model(settings, TYPE, newest="8").number == 1
    shelf.choose(0, "back")
    assert not is_behind(settings, TYPE, "9"), "the global model is used anyway"
    assert not is_behind(settings, "Leg", "9")


class Client:
    """Knows the newest versions; "" for a server that is away."""

    def __init__(self, **newest):
        self.newest = newest

    def model_info(self, model_type):
        if not self.newest[model_type]:
            raise ServerUnreachableError("no answer")
        return ModelInfo(self.newest[model_type], (self.newest[model_type],), {}, None)


class Updates:
    """Makes updates that take a look each, and remembers what was done."""

    def __init__(self):
        self.done, self.looks = [], 0

    def __call__(self, settings, model_type):
        self.type, self.looks = model_type, 0
        return self

    def start(self):
        self.done.append(f"start {self.type}")

    def wait(self, timeout_s):
        self.looks += 1
        return self.looks > 1

    def stop(self):
        self.done.append(f"stop {self.type}")

    @property
    def told(self):
        return "carried over"


def night(settings, updates, must_end=lambda: "", **newest):
    return update_improved_models(
        settings, must_end, make_update=updates, connecting=lambda settings: Client(**newest)
    )  # fmt: skip


def test_at_night_only_what_is_behind_is_updated_and_a_fault_costs_the_others_nothing(settings):
    for name in ("A", "B", "C"):
        keep(settings, name, seen="7")
    updates = Updates()
    told, early = night(settings, updates, A="", B="7", C="8")
    assert (told, early) == (["A: the improved model stays as it is: no answer", "C: carried over"], "")
    assert updates.done == ["start C"]
    assert night(replace(settings, server=""), updates) == ([], "")


def test_a_night_that_must_end_ends_the_update(settings):
    for name in ("A", "B"):
        keep(settings, name, seen="7")
    updates, answers = Updates(), ["", "somebody uses the machine"]
    told, early = night(settings, updates, lambda: answers.pop(0), A="8", B="8")
    assert (told, early, updates.done) == ([], "somebody uses the machine", ["start A", "stop A"])


@pytest.fixture
def behind(tmp_path, trained):
    """A site with kept cases and an improved model, and a server with a newer global one."""
    served = Shelf(tmp_path / "server")
    served.add_type(TYPE, {"dafne_dante": {"delta": 1}})
    first = served.publish_copy(TYPE, trained / "base.model")
    key = Accounts(tmp_path / "server").add_user("site", access=[TYPE])
    with RunningServer(tmp_path / "server") as server:
        settings = Settings(tmp_path / "configuration", server.url, key, worker=WorkerSettings(threads=1))
        write_settings(settings)
        keep_studies([trained / "new"], settings, say=lambda words: None)
        request = ImprovementRequest(CaseRequest(), tmp_path / "out", None, TYPE, "lora", 4)
        assert improve(request, settings, client=connect(settings)).gate == "passed"
        base = read_model(trained / "base.model")
        write_model(replace(base, timestamp=base.timestamp + 1), tmp_path / "newer.model")
        second = served.publish_copy(TYPE, tmp_path / "newer.model")
        yield settings, first, second


def test_the_comparison_is_done_in_a_process_of_the_lowest_priority_and_never_beside_a_job(behind):
    settings, first, second = behind
    assert (is_behind(settings, TYPE, first), is_behind(settings, TYPE, second)) == (False, True)
    queue = open_jobs(settings)
    with queue.working(TYPE), pytest.raises(TrainingError, match="nobody else to improve the model"):
        update_here(TYPE, settings, queue, connect(settings))
    assert is_behind(settings, TYPE, second), "it is for another time"
    update = UpdateProcess(settings, TYPE)
    update.start()
    assert not update.is_over
    assert nice_of(update) == 19
    assert update.wait(PATIENCE_S)
    assert update.told.startswith("carried over: on global version"), update.told
    state = local_shelf(settings, TYPE).state()
    assert (state.seen, state.current.base, state.current.number) == (second, second, 2)
    assert local_model(settings, TYPE, newest=second).number == 2


def nice_of(update):
    """The highest niceness that the process had while it ran."""
    process, highest = psutil.Process(update._process.pid), 0
    until_s = time.monotonic() + PATIENCE_S
    while not update.is_over and highest < 19 and time.monotonic() < until_s:
        highest = max(highest, process.nice())
    return highest


def test_a_global_model_that_came_while_an_older_one_was_improved_is_compared_with_it(behind, tmp_path):
    settings, first, second = behind
    out = tmp_path / "out"
    local_shelf(settings, TYPE).forget()
    keep(settings, TYPE, seen=second)
    keep_improvement(settings, out / "improved.model", out / "update.delta")
    assert local_shelf(settings, TYPE).state().current.base == first
    assert is_behind(settings, TYPE, second)


def test_an_update_that_is_stopped_or_cannot_begin_changes_nothing(settings):
    keep(settings, TYPE, seen="7")
    update = UpdateProcess(settings, TYPE, command=[sys.executable, "-c", "import time; time.sleep(600)"])
    update.start()
    assert not update.wait(0.05)
    update.stop()
    assert (update.is_over, update.told) == (True, "")
    broken = UpdateProcess(settings, TYPE, command=[sys.executable, "-c", "print('cannot')"])
    broken.start()
    assert broken.wait(PATIENCE_S)
    assert broken.told == "cannot"
    assert local_shelf(settings, TYPE).state().chosen == 1

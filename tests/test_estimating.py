"""How long an improvement will take and how much it will send, told before the first one."""

import json
from dataclasses import replace

import pytest
from phantoms import tiny_plan

from dafne_dante.config import Settings, WorkerSettings
from dafne_dante.errors import TrainingError
from dafne_dante.host.dafne_qt.desk import Desk
from dafne_dante.host.dafne_qt.readiness import ready_to_improve
from dafne_dante.models.plan import plan_to_net_metadata
from dafne_dante.plugin.estimating import expected_bytes, expected_seconds
from dafne_dante.plugin.jobs import open_jobs
from dafne_dante.plugin.keeping import keep_studies
from dafne_dante.plugin.step_times import StepTime, known_step, measure_elsewhere, measure_step, step_by_parts

TYPE = "Thigh"
STEP = StepTime(0.5, 245_000_000)


@pytest.fixture
def settings(tmp_path):
    return Settings(
        folder=tmp_path / "configuration",
        server="https://me:secret@federation.example:8443/",
        api_key="k" * 20,
        worker=WorkerSettings(threads=1),
    )


class Machine:
    """Takes so many seconds a voxel for a step, and remembers what was tried."""

    def __init__(self, seconds_a_voxel):
        self.seconds_a_voxel, self.tried = seconds_a_voxel, []

    def __call__(self, patches, patch):
        voxels = patches
        for size in patch:
            voxels *= size
        self.tried.append(voxels)
        return voxels * self.seconds_a_voxel


def test_a_step_is_measured_by_parts_that_are_done_in_two_seconds():
    plan = replace(tiny_plan(), patch=(64, 64, 64))
    whole = 2 * 64**3
    for seconds in (0.01, 1.0, 5.0, 15.0):
        machine = Machine(seconds / whole)
        assert step_by_parts(plan, machine) == pytest.approx(seconds)
        assert sum(machine.tried) * machine.seconds_a_voxel <= 2.0
    fast, slow = Machine(0.01 / whole), Machine(15.0 / whole)
    step_by_parts(plan, fast), step_by_parts(plan, slow)
    assert fast.tried[-2:] == [whole, whole], "the first of a size also warms up"
    assert slow.tried == [whole // 16]
    endless = Machine(100.0 / whole)
    step_by_parts(plan, endless)
    assert endless.tried == [whole // 16], "the smallest part once, whatever it takes"


def test_what_was_measured_is_remembered_for_this_machine_type_and_plan(settings):
    plan = tiny_plan()
    assert known_step(settings, TYPE) is None
    found = measure_step(settings, TYPE, plan)
    assert found.seconds > 0 and found.model_bytes > 1000
    measure_step(settings, "Other", plan)
    assert known_step(settings, TYPE) == known_step(settings, TYPE, plan) == found
    assert known_step(settings, TYPE, replace(plan, first_channels=64)) is None, "another network"
    assert known_step(replace(settings, worker=WorkerSettings(threads=2)), TYPE) is None, "another speed"
    assert known_step(settings, "unknown") is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_memory_is_made_anew(settings, content):
    settings.folder.mkdir()
    (settings.folder / "step-times.json").write_bytes(content)
    assert known_step(settings, TYPE) is None
    assert known_step(settings, TYPE) is None
    assert measure_step(settings, TYPE, tiny_plan()) == known_step(settings, TYPE)


@pytest.mark.parametrize("fault", [{"seconds": "nan"}, {"seconds": -1}, {"model_bytes": None}, {"plan": None}])
def test_a_strange_entry_is_not_believed(settings, fault):
    measure_step(settings, TYPE, tiny_plan())
    path = settings.folder / "step-times.json"
    content = json.loads(path.read_text())
    for types in content.values():
        types[TYPE] |= fault
    path.write_text(json.dumps(content))
    assert known_step(settings, TYPE, tiny_plan()) is None


def test_another_process_measures_and_only_once(settings):
    found = measure_elsewhere(settings, TYPE, tiny_plan())
    assert found is not None and found == known_step(settings, TYPE)
    assert measure_elsewhere(settings, TYPE, tiny_plan(), command=["no such program"]) == found
    with pytest.raises(TrainingError, match="expected to measure a training step"):
        measure_elsewhere(settings, "Other", tiny_plan(), command=["no such program"])


def test_the_estimate_is_of_all_trainings_of_what_auto_would_choose():
    assert expected_seconds(STEP, 4) == 1 * 20 * 20 * 0.5 * 1.25
    assert expected_seconds(STEP, 1) == expected_seconds(STEP, 2) == 3 * 20 * 20 * 0.5 * 1.25
    assert expected_seconds(STEP, 3) == 4 * 20 * 20 * 0.5 * 1.25
    assert expected_seconds(STEP, 3, minutes=2) == pytest.approx(120, rel=0.25)
    assert expected_seconds(STEP, 3, minutes=2) <= 120
    assert expected_seconds(STEP, 3, minutes=600) == expected_seconds(STEP, 3)
    assert expected_seconds(replace(STEP, seconds=60.0), 1, minutes=5) == 300


def test_the_size_is_by_the_method_and_by_what_auto_would_choose():
    assert expected_bytes(STEP, "lora", 9) == 4_900_000
    assert expected_bytes(STEP, "gradual-unfreezing", 1) == 61_250_000
    assert expected_bytes(STEP, "auto", 1) == expected_bytes(STEP, "lora", 1)
    assert expected_bytes(STEP, "auto", 9) == expected_bytes(STEP, "gradual-unfreezing", 9)
    assert expected_bytes(STEP, "full", 9) == 0


def test_the_dialog_is_told_before_the_first_job(settings, trained):
    keep_studies([trained / "own"], settings, say=print)
    before = ready_to_improve(settings, TYPE, tiny_plan)
    assert (before.about_s, before.about_bytes, before.server) == (0.0, {}, "federation.example:8443")
    step = measure_step(settings, TYPE, tiny_plan())
    ready = ready_to_improve(settings, TYPE, tiny_plan)
    assert ready.about_s == expected_seconds(step, 2)
    assert ready.about_bytes["lora"] == expected_bytes(step, "lora", 2) > 0
    hasty = replace(settings, worker=WorkerSettings(threads=1, job_minutes=0.001))
    assert ready_to_improve(hasty, TYPE, tiny_plan).about_s == pytest.approx(0.06)


def test_a_job_of_the_button_has_the_minutes_of_the_settings(settings):
    for wanted, given in ((0.0, None), (7.5, 7.5)):
        desk = Desk(
            replace(settings, folder=settings.folder / str(wanted), worker=WorkerSettings(job_minutes=wanted)),
            open_jobs(replace(settings, folder=settings.folder / str(wanted))),
        )
        assert desk.improve(TYPE, "auto", send=False).options.minutes == given


class Model:
    def __init__(self, metadata):
        self.metadata = metadata


def test_a_model_that_dafne_loads_is_measured_once_in_another_thread(settings):
    from threading import Event, current_thread

    asked, done, said = [], Event(), []

    def measure(found, model_type, plan):
        asked.append((model_type, plan.labels, current_thread().name))
        done.set()
        raise TrainingError("no time")

    desk = Desk(settings, open_jobs(settings), measure=measure)
    desk.say = lambda words: (said.append(words), told.set())
    told = Event()
    model = Model({"net_metadata": plan_to_net_metadata(tiny_plan())})
    for strange in (None, Model(None), Model({"net_metadata": {"model_name": "something"}})):
        desk.model_seen("Keras", strange)
    desk.model_seen(TYPE, model)
    desk.model_seen(TYPE, model)
    assert done.wait(10) and told.wait(10)
    assert asked == [(TYPE, tiny_plan().labels, "dante-step")]
    assert said == [f"{TYPE}: how long an improvement takes is not known: no time"]

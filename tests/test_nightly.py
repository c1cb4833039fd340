"""A nightly run improves what is new, in its window, and leaves the machine when somebody needs it."""

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from nights import FakeWorker, Site, at
from queues import OTHER, TYPE, WORKER

from dafne_dante.config import NightlySettings, Settings, WorkerSettings, load_settings, write_settings
from dafne_dante.errors import ServerUnreachableError, SettingsError, TrainingError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.plugin.job_states import UNTRIED, JobOptions
from dafne_dante.plugin.jobs import jobs_folder, open_jobs
from dafne_dante.plugin.keeping import keep_studies
from dafne_dante.plugin.night import window_at
from dafne_dante.plugin.nightly import run_night
from dafne_dante.plugin.worker import newest_case_ns


@pytest.mark.parametrize(
    ("start", "stop", "hours", "is_now", "begin"),
    [
        ("20:00", "06:00", 21, True, 20),
        ("20:00", "06:00", 3, True, -4),
        ("20:00", "06:00", 6, False, -4),
        ("20:00", "06:00", 12, False, -4),
        ("20:00", "06:00", 20, True, 20),
        ("01:00", "05:00", 2, True, 1),
        ("01:00", "05:00", 0.5, False, -23),
        ("01:00", "05:00", 5, False, 1),
        ("00:00", "00:00", 13, True, 0),
    ],
)
def test_the_window_may_go_over_midnight(start, stop, hours, is_now, begin):
    window = window_at(NightlySettings(start=start, stop=stop), at(hours))
    assert (window.is_now, window.begin) == (is_now, at(begin))


@pytest.fixture
def site(tmp_path, monkeypatch):
    return Site(tmp_path, monkeypatch)


def test_models_with_new_cases_are_worked_on_most_cases_first(site):
    for name, until_ns in (("old", 30), ("few", 20), ("many", 5)):
        site.done(name, until_ns)
    site.saved = [10, 20, 30]
    plan = site.plan()
    assert [(one.model_type, one.why) for one in plan.chosen] == [("many", "3 new cases"), ("few", "1 new case")]
    assert [(one.model_type, one.why) for one in plan.left] == [("old", "no new case since the last job")]
    assert site.run().jobs[0].trigger == "nightly"
    assert site.worked == ["many", "few"]
    assert site.run().jobs == (), "nothing is new after it"


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_failed_is_not_tried_again_with_the_same_cases(site, state):
    site.done(TYPE, 0, state)
    kept_ns = int(site.jobs.clock() * 1e9)
    site.saved = [kept_ns - 1]
    assert site.plan().chosen == ()
    site.saved.append(kept_ns + 1)
    assert site.plan().chosen[0].why == "1 new case"


def test_what_had_no_way_to_the_server_is_tried_again_the_next_night(site):
    site.moment = datetime.fromtimestamp(site.jobs.clock(), timezone.utc).replace(hour=21, minute=0)
    site.jobs.clock.now_s = site.moment.timestamp()
    site.saved = [int(site.jobs.clock() * 1e9) - 1]
    queue = site.jobs.queue
    job = queue.claim(queue.add(TYPE, "saved").job_id, WORKER)
    queue.finish(job.job_id, WORKER, "failed", "no answer", learned_until_ns=UNTRIED)
    assert site.plan().chosen == (), "not again in the same night"
    assert site.plan(at_once=True).chosen[0].why == "1 new case", "a person may say otherwise"
    site.moment += timedelta(days=1)
    assert site.plan().chosen[0].why == "1 new case"
    site.moment += timedelta(hours=-10)
    assert site.plan().refused, "it is day"


def test_a_night_sends_what_waits_before_it_learns_and_learns_whatever_comes_of_it(site):
    site.jobs.queue.add(TYPE, "saved")
    order = []

    def sending(settings):
        order.append(list(site.worked))
        raise ServerUnreachableError("no answer")

    night = site.run(sending=sending)
    assert (night.sent, order) == ("nothing was sent from the outbox: no answer", [[]])
    assert site.worked == [TYPE]
    site.idle = False
    assert site.run(sending=sending).sent == "", "a night that may not work sends nothing"


def test_improved_models_are_looked_after_only_when_a_night_came_to_its_end(site):
    asked = []

    def updating(settings, must_end):
        asked.append(must_end())
        return ["Thigh: carried over"], must_end()

    site.jobs.queue.add(TYPE, "saved")
    night = site.run(updating=updating)
    assert (night.updated, night.ended_early, asked) == (("Thigh: carried over",), "", [""])
    site.jobs.queue.add(TYPE, "saved")
    site.ends = ""
    assert site.run(updating=updating).ended_early == "the time is over"
    assert len(asked) == 1, "not when it was ended early"
    site.moment, site.power = at(21, day=1), False
    assert site.run(updating=updating).plan.refused
    assert len(asked) == 1, "nor when it may not work"


def test_a_job_that_waits_or_was_interrupted_is_done_as_it_is(site):
    waits = site.jobs.queue.add("waits", "saved", JobOptions(epochs=3))
    interrupted = site.jobs.running("interrupted")
    held = site.jobs.queue.claim(site.jobs.queue.add("held", "button").job_id, OTHER)
    site.jobs.census.gone.add(WORKER)
    plan = site.plan()
    assert [(one.job_id, one.why) for one in plan.chosen] == [
        (interrupted.job_id, "a job was interrupted"),
        (waits.job_id, "a job waits"),
    ]
    assert [(one.model_type, one.why) for one in plan.left] == [(held.model_type, "another process works on it")]


def test_a_model_that_was_never_improved_is_worked_on_when_it_is_named(site):
    site.saved = [1]
    assert site.plan().chosen == ()
    assert [one.model_type for one in site.plan(also=("new",)).chosen] == ["new"]


def test_what_a_person_chose_for_one_job_is_not_what_the_night_does(tmp_path, monkeypatch):
    site = Site(tmp_path, monkeypatch)
    quiet = WorkerSettings(automatic_send=False, automatic_method="lora", job_minutes=5.0)
    site.settings = replace(site.settings, worker=quiet)
    button = JobOptions("base.model", ("a", "b"), "full", 7, seed=3, upload=True, server="https://other/", minutes=9.0)
    job = site.jobs.queue.claim(site.jobs.queue.add(TYPE, "button", button).job_id, WORKER)
    site.jobs.queue.finish(job.job_id, WORKER, "done", "")
    site.saved = [1]
    (chosen,) = site.plan().chosen
    assert chosen.options == JobOptions(method="lora", upload=False)
    (done,) = site.run().jobs
    assert (done.options.method, done.options.upload, done.options.base, done.options.server) == ("lora", False, "", "")


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_what_a_person_asked_for_and_was_not_done_yet_is_done_as_asked(site, is_interrupted):
    wanted = JobOptions(method="lora", upload=True, server="https://other/")
    job = site.jobs.queue.add(TYPE, "button", wanted)
    if is_interrupted:
        site.jobs.queue.claim(job.job_id, WORKER)
        site.jobs.census.gone.add(WORKER)
    (done,) = site.run().jobs
    assert (done.job_id, done.options) == (job.job_id, wanted)


@pytest.mark.parametrize(
    ("power", "idle", "hours", "why"),
    [
        (False, True, 21, "the machine runs on its battery"),
        (True, False, 21, "somebody uses the machine"),
        (True, True, 12, "it is not between 20:00 and 06:00"),
    ],
)
def test_a_run_does_nothing_where_it_may_not(site, power, idle, hours, why):
    site.jobs.queue.add(TYPE, "saved")
    site.power, site.idle, site.moment = power, idle, at(hours)
    assert site.run().plan.refused == why
    assert site.worked == []
    assert site.run(at_once=True).plan.refused == "", "a person may say otherwise"
    assert site.worked == [TYPE]


def test_what_is_allowed_is_not_asked(tmp_path, monkeypatch):
    site = Site(tmp_path, monkeypatch, only_on_power=False, only_when_idle=False)
    site.power = site.idle = False
    assert site.plan().refused == ""


def test_a_missed_window_is_made_up_for_once_and_only_while_nobody_is_there(site):
    site.run()
    site.jobs.queue.add(TYPE, "saved")
    site.moment = at(12, day=1)
    assert site.run().plan.refused, "last night's run was"
    site.moment, site.idle = at(12, day=2), False
    assert site.run().plan.refused == "somebody uses the machine"
    site.idle = True
    assert site.plan().catching_up
    assert site.run().plan.refused == ""
    assert site.worked == [TYPE]
    assert site.run().plan.refused.startswith("it is not between")


def test_the_first_call_in_the_day_makes_up_for_nothing(site):
    site.jobs.queue.add(TYPE, "saved")
    site.moment = at(12)
    assert site.run().plan.refused
    assert site.run().plan.refused


def test_the_budget_ends_a_job_that_goes_on_the_next_night(tmp_path, monkeypatch):
    site = Site(tmp_path, monkeypatch, max_minutes=30)
    site.ends = ""
    site.jobs.queue.add(TYPE, "saved")
    site.jobs.queue.add("later", "saved")
    night = site.run()
    assert night.ended_early == "the time is over"
    assert site.moment <= at(21.5)
    [job] = night.jobs
    assert (job.state, job.holder, job.attempts) == ("running", "", 0)
    assert site.plan().chosen[0].why == "a job was interrupted"


def test_the_end_of_the_window_ends_the_run(site):
    site.ends, site.moment = "", at(5.6, day=1)
    site.jobs.queue.add(TYPE, "saved")
    assert site.run().ended_early == "the time is over"
    assert at(6, day=1) <= site.moment < at(6.2, day=1)


@pytest.mark.parametrize("what", ["power", "idle"])
def test_somebody_who_comes_gets_the_machine(site, what):
    site.ends = ""
    site.jobs.queue.add(TYPE, "saved")

    class Leaves(FakeWorker):
        def wait(self, timeout_s):
            setattr(site, what, False)
            return False

    night = run_night(
        site.settings, site.jobs.queue, **site.options(make_worker=lambda job_id: Leaves(site, job_id))
    )  # fmt: skip
    assert night.ended_early in ("the machine runs on its battery", "somebody uses the machine")
    assert len(site.paused) == 1


def test_of_two_runs_the_second_is_refused(site):
    site.jobs.queue.add(TYPE, "saved")

    class Inner(FakeWorker):
        def start(self):
            with pytest.raises(TrainingError, match="no other nightly run"):
                site.run()
            super().start()

    run_night(site.settings, site.jobs.queue, **site.options(make_worker=lambda job_id: Inner(site, job_id)))
    assert site.worked == [TYPE]


@pytest.mark.parametrize("content", ["", "[]", '{"begun_s": "x"}', '{"begun_s": null}', "[" * 4000])
def test_a_damaged_memory_is_as_none(site, content):
    site.jobs.queue.add(TYPE, "saved")
    (jobs_folder(site.settings) / "nightly.json").write_text(content)
    assert not site.plan().catching_up
    assert site.run().plan.refused == ""


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('start = "24:00"', "nightly.start must be a time of day"),
        ('stop = "6:00"', "nightly.stop must be a time of day"),
        ("start = 20", "start must be a text"),
        ("max_minutes = 0", "max_minutes must be a number from 1"),
        ('only_on_power = "yes"', "only_on_power must be true or false"),
    ],
)
def test_settings_of_the_night_are_checked(tmp_path, lines, fault):
    (tmp_path / "settings.toml").write_text(f"[nightly]\n{lines}\n")
    with pytest.raises(SettingsError, match=fault):
        load_settings(tmp_path, {})


def test_settings_of_the_night_come_back_as_they_were_written(tmp_path):
    wanted = Settings(
        tmp_path,
        nightly=NightlySettings("01:30", "05:00", 60.0, only_on_power=False, only_when_idle=False),
        worker=WorkerSettings(2, 1.5),
    )
    write_settings(wanted)
    assert load_settings(tmp_path, {}) == wanted


@pytest.fixture
def federation(tmp_path, trained):
    """A running server with a type, and the settings of a site that keeps cases of another scanner."""
    shelf = Shelf(tmp_path / "server")
    shelf.add_type(TYPE, {"dafne_dante": {"delta": 1}})
    shelf.publish_copy(TYPE, trained / "base.model")
    key = Accounts(tmp_path / "server").add_user("site", access=[TYPE])
    with RunningServer(tmp_path / "server") as server:
        settings = Settings(
            tmp_path / "configuration", server.url, key, timeout_s=60.0, worker=WorkerSettings(threads=1)
        )  # fmt: skip
        write_settings(settings)
        keep_studies([trained / "new"], settings, say=lambda words: None)
        yield shelf, settings


def test_a_night_from_kept_cases_to_a_delta_on_the_server(federation, command):
    shelf, settings = federation
    queue = open_jobs(settings)
    queue.add(TYPE, "saved", JobOptions(epochs=3, upload=True))
    code, out, _ = command("nightly", "--dry-run", "--now", "--json")
    assert (code, json.loads(out)["chosen"]) == (0, [{"type": TYPE, "why": "a job waits"}])
    assert shelf.uploads(TYPE) == []
    code, out, err = command("nightly", "--now", "--json")
    assert code == 0, err
    [told] = json.loads(out)["jobs"]
    assert (told["state"], told["type"]) == ("done", TYPE)
    assert len(shelf.uploads(TYPE)) == 1
    [job] = queue.jobs()
    assert job.learned_until_ns == newest_case_ns(settings) > 0
    code, out, _ = command("nightly", "--now", "--json")
    assert json.loads(out)["left"] == [{"type": TYPE, "why": "no new case since the last job"}]
    code, out, _ = command("jobs", "list", "--all")
    assert (code, "done" in out and TYPE in out) == (0, True)
    assert command("jobs", "cancel", job.job_id)[0] == 1


def test_jobs_are_listed_shown_and_cancelled(command, tmp_path):
    assert command("jobs", "list")[1] == "no job\n"
    assert command("jobs", "show", "abcd")[0] == 1
    queue = open_jobs(Settings(tmp_path / "configuration"))
    job = queue.add(TYPE, "saved")
    assert job.job_id in command("jobs", "list")[1]
    shown = json.loads(command("jobs", "show", job.job_id[:8], "--json")[1])
    assert (shown["state"], shown["trigger"], shown["progress"]) == ("queued", "saved", {})
    assert json.loads(command("jobs", "cancel", job.job_id[:8], "--json")[1])["state"] == "cancelled"
    assert command("jobs", "list")[1] == "no job\n"


def test_the_models_of_a_night_share_what_is_left_of_its_time(tmp_path, monkeypatch):
    site = Site(tmp_path, monkeypatch, max_minutes=60)
    for name in ("one", "other"):
        site.done(name, 0)
    site.saved = [10]
    first, second = site.run().jobs
    assert first.options.minutes == pytest.approx(30)
    assert second.options.minutes == pytest.approx(50), "the first took ten minutes"


def test_a_correction_that_waits_gets_the_nights_share_and_keeps_its_choices(site):
    job = site.jobs.queue.add(TYPE, "saved", JobOptions(method="lora", minutes=5.0))
    (done,) = site.run().jobs
    assert (done.job_id, done.trigger) == (job.job_id, "nightly")
    assert (done.options.method, done.options.minutes) == ("lora", 5.0)


def test_an_interrupted_job_keeps_its_time(site):
    site.jobs.running(TYPE)
    site.jobs.census.gone.add(WORKER)
    (done,) = site.run().jobs
    assert done.options.minutes is None

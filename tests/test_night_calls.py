"""A scheduler calls a nightly run often: a night goes on, is made up for, and is never done twice."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from nights import Site, at
from queues import TYPE, WORKER

from dafne_dante.config import NightlySettings, Settings, write_settings
from dafne_dante.plugin.job_states import UNTRIED
from dafne_dante.plugin.jobs import jobs_folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    return Site(tmp_path, monkeypatch)


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


def test_a_night_in_which_somebody_worked_all_the_time_is_made_up_for_as_often_as_it_is_refused(site):
    site.run()
    site.jobs.queue.add(TYPE, "saved")
    site.idle = False
    for hours in (20, 20.5, 29):
        site.moment = at(hours, day=1)
        assert site.run().plan.refused == "somebody uses the machine"
    for hours in (7, 8):
        site.moment = at(hours, day=2)
        assert site.run().plan.refused == "somebody uses the machine"
    site.moment, site.idle = at(9, day=2), True
    assert site.run().plan.catching_up
    assert site.worked == [TYPE]


def test_half_an_hour_later_the_night_goes_on_and_does_nothing_twice(site):
    site.jobs.queue.add(TYPE, "saved")
    site.idle = False
    assert site.run().plan.refused
    site.moment, site.idle = at(21.5), True
    assert [job.state for job in site.run().jobs] == ["done"]
    site.moment = at(22)
    assert site.run().jobs == ()
    site.jobs.queue.add("later", "saved")
    site.moment = at(22.5)
    assert [job.model_type for job in site.run().jobs] == ["later"]
    assert site.worked == [TYPE, "later"]


def test_all_runs_of_a_night_together_have_its_minutes(tmp_path, monkeypatch):
    site = Site(tmp_path, monkeypatch, max_minutes=30)
    for name in ("one", "two"):
        site.jobs.queue.add(name, "saved")
        site.run()  # ten minutes each
    assert site.plan().until == site.moment + timedelta(minutes=10)
    site.jobs.queue.add("three", "saved")
    site.run()
    site.jobs.queue.add("four", "saved")
    assert site.run().plan.refused == "the 30 minutes of this night are used"
    assert site.worked == ["one", "two", "three"]
    assert site.plan(at_once=True).refused == "", "a person may say otherwise"
    site.moment = at(20, day=1)
    assert [job.model_type for job in site.run().jobs] == ["four"]


def test_a_call_outside_the_window_is_over_before_anything_is_loaded(command, tmp_path, monkeypatch):
    now = datetime.now().astimezone()
    around = [(now + timedelta(hours=hours)).strftime("%H:%M") for hours in (2, 4)]
    settings = Settings(tmp_path / "configuration", nightly=NightlySettings(*around))
    write_settings(settings)
    assert command("nightly", "--json")[0] == 0, "the first call ever is remembered"
    monkeypatch.setattr("dafne_dante.plugin.nightly.run_night", None)
    code, out, _ = command("nightly", "--json")
    assert (code, json.loads(out)) == (0, {"refused": f"it is not between {around[0]} and {around[1]}"})


def test_the_first_call_in_the_day_makes_up_for_nothing(site):
    site.jobs.queue.add(TYPE, "saved")
    site.moment = at(12)
    assert site.run().plan.refused
    assert site.run().plan.refused


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


@pytest.mark.parametrize(
    "content", ["", "[]", '{"begun_s": "x"}', '{"begun_s": 1, "used_s": NaN}', '{"begun_s": null}', "[" * 4000]
)
def test_a_damaged_memory_is_as_none(site, content):
    site.jobs.queue.add(TYPE, "saved")
    (jobs_folder(site.settings) / "nightly.json").write_text(content)
    assert not site.plan().catching_up
    assert site.run().plan.refused == ""

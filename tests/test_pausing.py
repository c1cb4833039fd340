"""While it is paused, only what somebody asks for begins; what was saved waits and begins afterwards."""

from dataclasses import replace

import pytest
from queues import TYPE, Jobs

from dafne_dante.config import Settings
from dafne_dante.errors import StorageError
from dafne_dante.host.starting_jobs import JobStarter
from dafne_dante.plugin.jobs import automatic_options, jobs_folder
from dafne_dante.plugin.nightly import plan_night
from dafne_dante.plugin.pausing import is_paused, set_paused


class Worker:
    is_over = False

    def start(self):
        pass


@pytest.fixture
def settings(tmp_path):
    return Settings(folder=tmp_path / "configuration")


def test_a_pause_lasts_until_it_is_ended(settings):
    assert not is_paused(settings)
    for paused in (True, True, False, False):
        set_paused(settings, paused=paused)
        assert is_paused(settings) is paused


def test_a_pause_that_cannot_be_kept_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        set_paused(Settings(folder=tmp_path / "file"), paused=True)


def test_what_was_saved_waits_and_the_button_does_not(settings):
    jobs = Jobs(jobs_folder(settings))
    saved = jobs.queue.add(TYPE, "saved")
    jobs.clock.now_s += 1000
    starter = JobStarter(jobs.queue, lambda job_id: Worker(), print, is_paused=lambda: is_paused(settings))
    set_paused(settings, paused=True)
    assert starter.look() == []
    asked = jobs.queue.add("Other", "button")
    assert starter.look() == [asked.job_id]
    set_paused(settings, paused=False)
    assert starter.look() == [saved.job_id]


def test_the_night_says_why_it_does_nothing(settings):
    jobs = Jobs(jobs_folder(settings))
    set_paused(settings, paused=True)
    quiet = type("Machine", (), {"is_on_power": lambda self: True, "is_idle": lambda self: True})()
    assert (
        "paused" in plan_night(settings, jobs.queue, machine=quiet).refused
        or "between" in plan_night(settings, jobs.queue, machine=quiet).refused
    )
    assert plan_night(settings, jobs.queue, machine=quiet, at_once=True).refused == "", "a person asked"


def test_the_command_line_pauses_too(settings, monkeypatch, command):
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(settings.folder))
    for word, paused in (("pause", True), ("resume", False)):
        code, out, _ = command("jobs", word)
        assert code == 0 and out.strip()
        assert is_paused(settings) is paused


def test_automatic_jobs_do_what_the_settings_say(settings):
    options = automatic_options(settings)
    assert (options.method, options.upload) == ("auto", True)
    quiet = replace(settings, worker=replace(settings.worker, automatic_method="lora", automatic_send=False))
    options = automatic_options(quiet)
    assert (options.method, options.upload) == ("lora", False)

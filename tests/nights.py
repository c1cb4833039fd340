"""Nights on a machine that does as a test says, with workers that do every job at once."""

from datetime import datetime, timedelta, timezone

from queues import OTHER, WORKER, Jobs

from dafne_dante.config import NightlySettings, Settings
from dafne_dante.plugin import nightly
from dafne_dante.plugin.jobs import jobs_folder
from dafne_dante.plugin.nightly import plan_night, run_night

__all__ = ["DAY", "FakeWorker", "Site", "at"]

DAY = datetime(2026, 11, 23, tzinfo=timezone.utc)


def at(hours, day=0):
    """A moment of that day."""
    return DAY + timedelta(days=day, hours=hours)


class Site:
    """A queue, a machine that does as a test says, cases that were kept, and workers that do every job at once."""

    def __init__(self, folder, monkeypatch, **nightly_settings):
        self.settings = Settings(folder=folder, nightly=NightlySettings(**nightly_settings))
        self.jobs = Jobs(jobs_folder(self.settings))
        self.power, self.idle, self.saved, self.moment = True, True, [], at(21)
        self.paused, self.worked, self.ends = [], [], "done"
        monkeypatch.setattr(nightly, "_saved_ns", lambda settings: list(self.saved))
        monkeypatch.setattr(nightly, "_ASK_MACHINE_S", -1.0)

    def is_on_power(self):
        return self.power

    def is_idle(self):
        return self.idle

    def options(self, **changes):
        return {"machine": self, "now": lambda: self.moment, **changes}

    def plan(self, **changes):
        return plan_night(self.settings, self.jobs.queue, **self.options(**changes))

    def run(self, **changes):
        wanted = self.options(make_worker=lambda job_id: FakeWorker(self, job_id), **changes)
        return run_night(self.settings, self.jobs.queue, **wanted)

    def done(self, model_type, until_ns, state="done"):
        queue = self.jobs.queue
        job = queue.claim(queue.add(model_type, "button").job_id, WORKER)
        queue.finish(job.job_id, WORKER, state, "", learned_until_ns=until_ns)


class FakeWorker:
    """Ends its job at once, or never, as the site says."""

    def __init__(self, site, job_id):
        self.site, self.job_id = site, job_id

    def start(self):
        queue = self.site.jobs.queue
        self.site.worked.append(queue.get(self.job_id).model_type)
        queue.claim(self.job_id, OTHER)
        if self.site.ends:
            queue.finish(self.job_id, OTHER, self.site.ends, "", learned_until_ns=10**19 // 2)

    def wait(self, timeout_s):
        self.site.moment += timedelta(minutes=10)
        return bool(self.site.ends)

    def take(self):
        return []

    def pause(self):
        self.site.jobs.census.gone.add(OTHER)
        self.site.paused.append(self.job_id)
        return self.site.jobs.queue.put_back(self.job_id)

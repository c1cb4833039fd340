"""A job whose update cannot leave is done; what arrives later is told in its results, and the server's absence is no
reason to leave a model alone for good."""

import io
import json

import pytest
from queues import TYPE

from dafne_dante.config import Settings, WorkerSettings, write_settings
from dafne_dante.errors import ServerUnreachableError, StorageError
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.outbox import open_outbox
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.plugin.arrivals import note_arrivals
from dafne_dante.plugin.delivering import send_what_waits
from dafne_dante.plugin.job_run import results_of
from dafne_dante.plugin.job_states import UNTRIED, JobOptions
from dafne_dante.plugin.jobs import open_jobs
from dafne_dante.plugin.local.using import local_model
from dafne_dante.plugin.worker import work
from dafne_dante.plugin.worker_events import EventWriter

EPOCHS = 3


class Site:
    """A site with cases of another scanner, and a server whose type takes deltas or not, as a test says."""

    def __init__(self, root, trained):
        self.trained, self.shelf = trained, Shelf(root / "server")
        self.shelf.add_type(TYPE, {})
        self.shelf.publish_copy(TYPE, trained / "base.model")
        self.key = Accounts(root / "server").add_user("site", access=[TYPE])
        self.server, self.folder = RunningServer(root / "server"), root / "configuration"

    @property
    def settings(self):
        return Settings(
            self.folder, self.server.url, self.key, timeout_s=20.0, retries=0, worker=WorkerSettings(threads=1)
        )

    def take_deltas(self):
        self.shelf.add_type(TYPE, {"dafne_dante": {"delta": 1}})

    @property
    def queue(self):
        return open_jobs(self.settings)

    def add(self):
        return self.queue.add(TYPE, "button", JobOptions(data=(str(self.trained / "new"),), epochs=EPOCHS, upload=True))

    def work(self, job, **options):
        events = io.StringIO()
        return work(job.job_id, self.settings, self.queue, EventWriter(events), **options)

    def results(self, job):
        out = results_of(self.queue.folder_of(job.job_id))
        return json.loads((out / "summary.json").read_text())["uploaded"], (out / "report.html").read_text()


@pytest.fixture
def site(tmp_path, trained):
    site = Site(tmp_path, trained)
    with site.server:
        yield site


WAITS, SENT = "it waits in the outbox", "Sent to the federation server."


def test_a_job_whose_update_cannot_leave_is_done_and_what_arrives_later_is_told_in_its_results(site, command):
    job = site.add()
    assert site.work(job) == "done"
    done = site.queue.get(job.job_id)
    assert "its update went into the outbox and waits there: " in done.told
    assert "ask the operator to publish" in done.told
    assert done.learned_until_ns == 0, "it was for folders"
    assert local_model(site.settings, TYPE).number == 1, "and the model is in use"
    uploaded, report = site.results(job)
    assert (uploaded, WAITS in report, SENT in report) == (False, True, False)
    assert note_arrivals(site.settings) == [], "nothing has arrived"
    site.take_deltas()
    write_settings(site.settings)
    code, _, err = command("outbox", "retry", "--all")
    assert code == 0, err
    uploaded, report = site.results(job)
    assert (uploaded, WAITS in report, SENT in report) == (True, False, True)
    assert sorted(path.name for path in results_of(site.queue.folder_of(job.job_id)).iterdir()) == [
        *("base.model", "history.csv", "improved.model", "report.html", "summary.json", "update.delta")
    ]
    assert len(site.shelf.uploads(TYPE)) == 1


def test_what_waits_goes_when_it_is_due_and_is_told_by_whoever_sends_it(site):
    job = site.add()
    site.work(job)
    assert send_what_waits(site.settings) == [], "a pause after the first try"
    site.take_deltas()
    [entry] = open_outbox(site.settings).entries()
    open_outbox(site.settings).retry(entry.update_id)
    [tried] = send_what_waits(site.settings)
    assert tried.error is None
    assert site.results(job)[0] is True


def test_what_was_sent_when_the_process_died_is_told_by_the_next_one(site, monkeypatch):
    site.take_deltas()
    job = site.add()
    with monkeypatch.context() as patched:
        patched.setattr("dafne_dante.plugin.delivering.note_arrivals", died)
        with pytest.raises(KeyboardInterrupt):
            site.work(job)
    assert len(site.shelf.uploads(TYPE)) == 1
    assert site.results(job)[0] is False
    monkeypatch.setattr("dafne_dante.plugin.job_holder.SystemCensus.is_gone", lambda self, holder, silent_s: True)
    assert site.work(site.queue.get(job.job_id)) == "done"
    uploaded, report = site.results(job)
    assert (uploaded, SENT in report, len(site.shelf.uploads(TYPE))) == (True, True, 1)


def died(*arguments, **options):
    raise KeyboardInterrupt


def test_results_that_are_complete_when_the_server_is_away_end_the_job_as_done(site, monkeypatch):
    site.take_deltas()
    job = site.add()
    with monkeypatch.context() as patched:
        patched.setattr("dafne_dante.plugin.improve.deliver", died)
        with pytest.raises(KeyboardInterrupt):
            site.work(job)
    monkeypatch.setattr("dafne_dante.plugin.job_holder.SystemCensus.is_gone", lambda self, holder, silent_s: True)
    site.key = ""
    assert site.work(site.queue.get(job.job_id)) == "done"
    assert "waits there: expected an API key" in site.queue.get(job.job_id).told
    [entry] = open_outbox(site.settings).entries()
    assert entry.state == "waiting", "it is in the outbox, whatever is wrong with the way"


def test_without_a_server_that_answers_the_cases_count_as_not_tried(site):
    job = site.add()

    def away(*arguments, **options):
        raise ServerUnreachableError("the server gives no answer")

    assert site.work(job, improving=away) == "failed"
    assert site.queue.get(job.job_id).learned_until_ns == UNTRIED


def test_a_summary_that_is_damaged_is_told_and_the_next_look_tries_again(site):
    job = site.add()
    site.work(job)
    site.take_deltas()
    summary = results_of(site.queue.folder_of(job.job_id)) / "summary.json"
    kept = summary.read_text()
    summary.write_text("{")
    [entry] = open_outbox(site.settings).entries()
    open_outbox(site.settings).retry(entry.update_id)
    with pytest.raises(StorageError, match=r"fault in summary\.json"):
        send_what_waits(site.settings)
    summary.write_text(kept)
    assert send_what_waits(site.settings) == []
    assert site.results(job)[0] is True

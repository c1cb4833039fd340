"""What Dafne's windows show and do, without Qt: jobs, versions, cases, the outbox, pause, settings, comparison."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dafne_dante.annotations.store.opening import open_case_store
from dafne_dante.config import Settings
from dafne_dante.errors import NotEnoughCasesError, SettingsError, StorageError, TrainingError
from dafne_dante.host.dafne_qt import words
from dafne_dante.host.dafne_qt.desk import Desk
from dafne_dante.host.dafne_qt.kept import outbox_sentence
from dafne_dante.host.dafne_qt.model_plan import Loaded
from dafne_dante.host.dafne_qt.readiness import ready_to_improve
from dafne_dante.models.file import read_model
from dafne_dante.plugin import comparing
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.comparing import compare_models
from dafne_dante.plugin.improve import ImprovementRequest, improve
from dafne_dante.plugin.job_holder import own_holder
from dafne_dante.plugin.jobs import open_jobs
from dafne_dante.plugin.keeping import keep_studies
from dafne_dante.plugin.local.using import local_model

TYPE = "Brain"
SERVER = "https://federation.example/"


@pytest.fixture(scope="module")
def improved(tmp_path_factory, trained):
    """A site that keeps its cases and improved its model once; read only."""
    root = tmp_path_factory.mktemp("desk")
    settings = Settings(folder=root / "configuration", server=SERVER, api_key="k" * 20)
    keep_studies([trained / "new"], settings, say=print)
    request = ImprovementRequest(CaseRequest((trained / "new",)), root / "out", trained / "base.model", TYPE, "lora", 6)
    assert improve(request, settings).gate == "passed"
    return settings, root / "out", trained / "base.model"


@pytest.fixture
def site(tmp_path, improved):
    """A copy to change, with a job that ended as the improvement did."""
    settings, out, base = improved
    shutil.copytree(settings.folder, tmp_path / "configuration")
    settings = replace(settings, folder=tmp_path / "configuration")
    queue = open_jobs(settings)
    job = queue.add(TYPE, "button")
    shutil.copytree(out, queue.folder_of(job.job_id) / "out")
    desk = Desk(settings, queue)
    desk.stop(job.job_id, keep=False)
    return desk, job, base


def test_before_anything_is_there_every_window_has_something_to_say(tmp_path):
    settings = Settings(folder=tmp_path / "configuration")
    desk = Desk(settings, open_jobs(settings))
    found = desk.activity()
    assert (found.jobs, found.locals, found.told, found.outbox, found.paused) == ([], [], "", "", False)
    assert desk.ready("").missing == words.NO_MODEL
    assert desk.ready(TYPE).missing == words.NO_SERVER
    desk.settings = replace(settings, server=SERVER)
    ready = desk.ready(TYPE)
    assert (ready.missing, ready.can_send) == (words.NOTHING_KEPT, True)
    assert desk.choices(TYPE)[1] == []


def ready_for(desk, plan):
    return ready_to_improve(desk.settings, TYPE, lambda: plan, desk.queue)


def test_the_dialog_knows_what_is_kept_and_how_long_it_took(site):
    ready = ready_for(site[0], read_model(site[2]).plan)
    assert (ready.kept, ready.cases, ready.labels, ready.left, ready.missing) == (4, 4, ("ball", "box"), (), "")
    assert ready.slices > 0 and ready.last_s > 0


def test_what_the_model_has_no_names_for_is_left_out_with_the_reason_and_nothing_can_begin(site):
    desk, _, base = site
    plan = replace(read_model(base).plan, labels=("balls", "square"))
    ready = ready_for(desk, plan)
    assert (ready.kept, ready.cases) == (4, 0)
    assert ready.left == (
        "4 studies are left out: nothing on it is called balls, square, and the model does not know "
        "ball (perhaps balls), box.",
    )
    assert ready.missing == "1 more study is needed: draw balls, square, and save its masks."
    mapped = replace(desk.settings.annotations, labels={"balls": ("ball",), "square": ("box",)})
    desk.settings = replace(desk.settings, annotations=mapped)
    assert (ready_for(desk, plan).cases, ready_for(desk, plan).missing) == (4, "")


def test_one_structure_without_a_name_counts_as_the_settings_say(site):
    desk, _, base = site
    plan = replace(read_model(base).plan, labels=("ball", "box", "third"))
    assert ready_for(desk, plan).left == ("4 studies are left out: nothing on it is called third.",)
    desk.settings = replace(desk.settings, annotations=replace(desk.settings.annotations, missing_labels="absent"))
    ready = ready_for(desk, plan)
    assert (ready.cases, ready.labels, ready.missing) == (4, ("ball", "box"), "")


def test_a_model_of_another_kind_is_said_before_anything_is_asked(site):
    assert site[0].ready(TYPE, Loaded(is_loaded=True)).missing == words.OTHER_KIND


def test_the_status_says_what_came_of_it(site):
    desk, job, _ = site
    found = desk.activity()
    assert [line.job_id for line in found.jobs] == [job.job_id]
    assert found.jobs[0].report.name == "report.html"
    assert found.told.startswith(f"{TYPE}: improved ") and "Dice 0." in found.told and "sent" not in found.told
    desk.pause(paused=True)
    assert desk.activity().told.startswith("Dante is paused.") and desk.activity().paused
    desk.pause(paused=False)
    assert not desk.activity().paused


def test_going_back_and_forth_keeps_every_version_and_makes_dafne_load_anew(site):
    desk, _, _ = site
    loaded = []
    desk.forget_models = lambda: loaded.append("anew")
    versions, cases = desk.choices(TYPE)
    assert [(line.number, line.is_used) for line in versions] == [(1, True), (0, False)]
    assert len(cases) == 4 and all("slice" in line.told for line in cases)
    desk.use(TYPE, 0)
    assert local_model(desk.settings, TYPE).file is None
    assert [line.is_improved for line in desk.activity().locals] == [False]
    desk.use(TYPE, 1)
    assert local_model(desk.settings, TYPE).number == 1
    assert loaded == ["anew", "anew"]
    with pytest.raises(SettingsError, match="one of the versions 1"):
        desk.use(TYPE, 7)


def test_two_models_are_shown_side_by_side_on_the_chosen_case(site, monkeypatch):
    desk, _, base = site
    client = SimpleNamespace(download_model=lambda name, version, target: shutil.copyfile(base, target))
    monkeypatch.setattr(comparing, "connect", lambda settings: client)
    case_id = desk.choices(TYPE)[1][0].case_id
    page = desk.compare(TYPE, case_id, 0, 1)
    text = page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    assert "Global model" in text and "Improved model 1" in text and "<svg" in text
    assert case_id not in text and "<script" not in text
    assert local_model(desk.settings, TYPE).number == 1, "looking chooses nothing"
    assert desk.compare(TYPE, case_id, 1, 0).read_text() != text
    assert [line.model_type for line in desk.activity().locals] == [TYPE], "the page is no type"


def test_what_is_not_there_cannot_be_compared(site, tmp_path):
    desk, _, _ = site
    case_id = open_case_store(desk.settings, say=print).cases()[0].case_id
    with pytest.raises(StorageError, match="improved model 9"):
        compare_models(desk.settings, TYPE, case_id, 9, 1)
    with pytest.raises(NotEnoughCasesError, match="choose another"):
        compare_models(desk.settings, TYPE, "0" * 16, 1, 1)
    with pytest.raises(StorageError, match="improve the model first"):
        compare_models(Settings(folder=tmp_path / "other", server=SERVER), TYPE, case_id, 0, 0)


def test_changed_settings_are_in_force_for_the_next_job(site, monkeypatch):
    desk, _, _ = site
    monkeypatch.setenv("DAFNE_DANTE_SITE_CONFIG", str(desk.settings.folder / "nothing"))
    desk.change({"after_save_s": 5.0, "automatic_send": False})
    assert desk.settings.worker.automatic_send is False
    job = desk.queue.add("Other", "saved")
    assert job.not_before_s - job.created_s == 5.0


@pytest.mark.parametrize("learnt", ["improvement.checkpoint", "improvement-fold-1.checkpoint"])
def test_whether_there_is_anything_to_keep_is_known_before_somebody_stops(site, learnt):
    desk, _, _ = site
    job = desk.queue.claim(desk.queue.add(TYPE, "button").job_id, own_holder())
    assert desk.activity().jobs[0].can_keep is False
    with pytest.raises(TrainingError, match="nothing to keep yet: the first training has not finished an epoch"):
        desk.stop(job.job_id, keep=True)
    assert (desk.queue.get(job.job_id).state, desk.queue.get(job.job_id).wish) == ("running", "")
    out = desk.queue.folder_of(job.job_id) / "out"
    out.mkdir()
    (out / learnt).write_bytes(b"an epoch")
    assert desk.activity().jobs[0].can_keep is True
    desk.queue.finish(job.job_id, job.holder, "done", "")
    assert [line.can_keep for line in desk.activity().jobs] == [False, False], "what has ended is not stopped"


def test_what_waits_to_be_sent_is_told_with_its_reason(site):
    from dafne_dante.federation.outbox import open_outbox

    desk, job, _ = site
    assert outbox_sentence(desk.settings) == ""
    delta = (desk.queue.folder_of(job.job_id) / "out" / "update.delta").read_bytes()
    open_outbox(desk.settings).queue(delta, server=SERVER, dice=0.5, trigger="button")
    assert desk.activity().outbox == "1 update waits to be sent: it was not tried yet"


def test_leaving_asks_what_runs_to_end_with_the_best_so_far_and_waits_for_nobody(site):
    desk, ended, _ = site
    running = desk.queue.add("Thigh", "button")
    assert desk.queue.claim(running.job_id, own_holder()) is not None
    desk.leave([ended.job_id, running.job_id])
    assert desk.queue.get(running.job_id).wish == "keep"
    assert [line.is_running for line in desk.activity().jobs if line.job_id == running.job_id] == [True]


def test_what_waits_and_what_has_left_stand_line_by_line(site):
    from dafne_dante.federation.outbox import open_outbox
    from dafne_dante.federation.outbox_states import begin

    desk, job, _ = site
    found = desk.activity()
    assert (found.waiting, found.sent) == ([], [])
    out = desk.queue.folder_of(job.job_id) / "out"
    outbox = open_outbox(desk.settings)
    entry = outbox.queue((out / "update.delta").read_bytes(), server=SERVER, dice=0.5, trigger="button")
    (line,) = desk.activity().waiting
    assert (line.model_type, line.why, line.report) == (TYPE, "it was not tried yet", out / "report.html")
    assert line.size.endswith("kB") and line.since
    outbox.change(entry.update_id, begin)
    facts = {"update_id": entry.update_id, "attempt": 1}
    outbox.audit.append(
        "leaving",
        {**facts, "to": SERVER, "model_type": TYPE, "sha256": entry.sha256, "bytes": entry.size_bytes},
    )
    assert desk.activity().waiting[0].why == words.SENDING_NOW
    (sent,) = desk.activity().sent
    assert (sent.to, sent.model_type, sent.sha256, sent.report) == (SERVER, TYPE, entry.sha256, out / "report.html")
    assert sent.outcome == "not known yet"
    outbox.audit.append("outcome", {**facts, "outcome": "arrived", "why": ""})
    again = {"update_id": "another", "attempt": 1, "sealed_sha256": "b" * 64, "sealed_bytes": 5, "sha256": "c" * 64}
    outbox.audit.append("leaving", {**again, "to": SERVER, "model_type": TYPE, "bytes": 9})
    newest, oldest = desk.activity().sent
    assert oldest.outcome == "arrived"
    assert (newest.sha256, newest.size, newest.report) == ("b" * 64, "5 bytes", None), "what left is the sealed copy"


def test_names_that_somebody_gives_labels_hold_beside_those_that_had_some(site, monkeypatch):
    desk, _, base = site
    monkeypatch.setenv("DAFNE_DANTE_SITE_CONFIG", str(desk.settings.folder / "nothing"))
    desk.change({"labels": {"first": ["one"]}})
    desk.name_labels({"ball": "balls", "box": "square"})
    assert desk.settings.annotations.labels == {"first": ("one",), "balls": ("ball",), "square": ("box",)}
    look = desk.look_at_settings()
    assert look.settings == desk.settings and look.faults == ()
    desk.settings = replace(desk.settings, server=SERVER)
    assert ready_for(desk, replace(read_model(base).plan, labels=("balls", "square"))).cases == 4

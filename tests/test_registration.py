"""What a host gets when it registers the plugin, and what the button does, with a fake host."""

import json
from types import SimpleNamespace
from uuid import uuid4

import nibabel
import pytest
import torch
from fakes import FakeHost
from phantoms import LABELS, make_case, tiny_plan

import dafne_dante
from dafne_dante.adaptation.lora import plain_weights
from dafne_dante.annotations.store.opening import open_case_store
from dafne_dante.config import load_settings
from dafne_dante.errors import SettingsError
from dafne_dante.host.hosted_jobs import HostedJobs
from dafne_dante.host.registration import ACTION_ID, ACTION_LABEL
from dafne_dante.host.starting_jobs import JobStarter
from dafne_dante.models.build import build_network
from dafne_dante.models.file import write_model
from dafne_dante.models.global_model import GlobalModel
from dafne_dante.models.stock_functions import stock_metadata, stock_sources
from dafne_dante.plugin.jobs import jobs_exist, open_jobs


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(tmp_path / "settings"))
    for name in ("SERVER", "API_KEY", "TIMEOUT_S"):
        monkeypatch.delenv(f"DAFNE_DANTE_{name}", raising=False)


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for seed in range(4):
        case = make_case(seed)
        nibabel.save(nibabel.Nifti1Image(case.image[0], case.affine), folder / "imagesTr" / f"h{seed}_0000.nii.gz")
        nibabel.save(nibabel.Nifti1Image(case.segmentation, case.affine), folder / "labelsTr" / f"h{seed}.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, LABELS[0]: 1, LABELS[1]: 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    plan = tiny_plan()
    weights = plain_weights(build_network(plan))
    path = tmp_path / "heads.model"
    write_model(GlobalModel(uuid4(), 7, plan, weights, stock_metadata(plan), stock_sources(plan)), path)
    return path


def registered(tmp_path, **what):
    host = FakeHost(tmp_path / "results", **what)
    dafne_dante.register(host)
    return host


def test_registering_adds_the_action_and_starts_nothing(tmp_path):
    host = registered(tmp_path)
    assert {name: label for name, (label, _) in host.actions.items()} == {ACTION_ID: ACTION_LABEL}
    assert [event for event, _ in host.subscriptions] == ["annotation-saved"]
    assert (host.waiting, host.notices) == ([], [])


def test_a_save_is_kept_away_from_the_window_and_asks_for_one_job_where_there_is_a_server(
    tmp_path, study, model, monkeypatch
):
    host = registered(tmp_path, study=study, model=model)
    begun = []
    monkeypatch.setattr(HostedJobs, "begin", lambda jobs, settings, job_id, model_type: begun.append(settings.server))
    ((_, saved),) = host.subscriptions
    saved()
    assert len(host.waiting) == 1
    host.finish_background()
    settings = load_settings()
    assert len(open_case_store(settings, say=print).cases()) == 4
    assert not jobs_exist(settings) or open_jobs(settings).jobs() == []
    assert begun == []

    monkeypatch.setenv("DAFNE_DANTE_SERVER", "https://federation.example")
    monkeypatch.setenv("DAFNE_DANTE_API_KEY", "k" * 20)
    saved()
    host.finish_background()
    assert open_jobs(settings).jobs() == [], "the same masks once more are nothing to learn from"
    for label in (study / "labelsTr").iterdir():
        image = nibabel.load(label)
        drawn = image.get_fdata()
        drawn[:2] = 1
        nibabel.save(nibabel.Nifti1Image(drawn.astype("uint8"), image.affine), label)
    saved()
    host.finish_background()
    (job,) = open_jobs(settings).jobs()
    assert (job.model_type, job.trigger, job.options.upload) == ("Heads", "saved", True)
    assert begun == ["https://federation.example/"]


def test_a_save_without_a_labelled_study_is_told(tmp_path, model):
    (tmp_path / "nothing").mkdir()
    host = registered(tmp_path, study=tmp_path / "nothing", model=model)
    host.subscriptions[0][1]()
    host.finish_background()
    assert [severity for severity, _ in host.notices] == ["warning"]
    assert "expected a labelled study" in host.notices[0][1]


@pytest.mark.parametrize("version", [0, 2, 99])
def test_a_host_of_another_version_is_refused_before_anything_is_added(tmp_path, version):
    host = FakeHost(tmp_path, api_version=version)
    with pytest.raises(SettingsError, match=f"expected a host with plugin API version 1, found {version}"):
        dafne_dante.register(host)
    assert host.actions == {}


def test_without_a_model_or_a_study_the_user_is_told_what_to_do(tmp_path, study, model):
    for what, hint in (({"study": study}, "segment with one first"), ({"model": model}, "annotate a study first")):
        host = registered(tmp_path, **what)
        host.choose(ACTION_ID)
        assert host.waiting == []
        assert [severity for severity, text in host.notices if hint in text] == ["warning"]


def test_the_button_asks_for_a_job_like_any_other_and_the_host_gets_what_comes_of_it(
    tmp_path, study, model, monkeypatch
):
    started = []

    def start(starter):
        started.append(starter)

    monkeypatch.setattr(JobStarter, "start", start)
    host = registered(tmp_path, study=study, model=model)
    host.choose(ACTION_ID)
    assert len(host.waiting) == 1 and not jobs_exist(load_settings())
    host.finish_background()
    settings = load_settings()
    queue = open_jobs(settings)
    (job,) = queue.jobs()
    assert (job.model_type, job.trigger, job.options.method) == ("Heads", "button", "auto")
    assert (job.options.base, job.options.upload) == (str(model), False), "without a server, the host's own model"
    assert len(open_case_store(settings, say=print).cases()) == 4
    host.choose(ACTION_ID)
    host.finish_background()
    assert [one.job_id for one in queue.jobs()] == [job.job_id], "one for a model"
    (starter,) = started
    starter._ended()
    assert host.model_provider.offered == {} and "Improving" in host.notices[-1][1], "nothing has ended yet"

    queue.ask_to_stop(job.job_id)
    monkeypatch.setattr(
        "dafne_dante.plugin.local.using.local_model",
        lambda settings, name: SimpleNamespace(file=model, number=1),
    )
    starter._ended()
    starter._ended()
    assert host.notices[-1] == ("warning", "Heads: cancelled before it began")
    assert host.model_provider.offered == {"Heads": model.read_bytes()}
    assert [text for _, text in host.notices].count("Heads: cancelled before it began") == 1


def test_with_a_server_the_job_takes_the_newest_global_model(tmp_path, study, model, monkeypatch):
    monkeypatch.setattr(JobStarter, "start", lambda starter: None)
    monkeypatch.setenv("DAFNE_DANTE_SERVER", "https://federation.example")
    monkeypatch.setenv("DAFNE_DANTE_API_KEY", "k" * 20)
    host = registered(tmp_path, study=study, model=model)
    host.choose(ACTION_ID)
    host.finish_background()
    (job,) = open_jobs(load_settings()).jobs()
    assert (job.options.base, job.options.upload) == ("", False)


def test_a_failure_is_one_sentence_and_offers_nothing(tmp_path, model):
    (tmp_path / "empty").mkdir()
    host = registered(tmp_path, study=tmp_path / "empty", model=model)
    host.choose(ACTION_ID)
    host.finish_background()
    severity, text = host.notices[-1]
    assert severity == "error"
    assert text.startswith("The model was not improved: expected ")
    assert str(tmp_path) not in text
    assert host.model_provider.offered == {}

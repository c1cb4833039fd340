"""What the plugin does in Dafne when there is no server, a Keras model, a foreign family or a fault: Dafne works on.

Window and models are stand-ins with Dafne's own names; tests/dafne_client drives the real ones.
"""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_dafne_saving import DRAWN, window

from dafne_dante.annotations.store.opening import open_case_store, store_exists
from dafne_dante.config import Settings, load_settings, look_at_settings
from dafne_dante.errors import SettingsError
from dafne_dante.host.dafne_qt import start, words
from dafne_dante.host.dafne_qt.desk import Desk
from dafne_dante.host.dafne_qt.mending import mend
from dafne_dante.host.dafne_qt.model_lines import local_lines
from dafne_dante.host.dafne_qt.provider import SiteFirstProvider, is_known
from dafne_dante.models.file import read_model
from dafne_dante.models.plan import plan_to_net_metadata
from dafne_dante.plugin.collecting import CaseRequest
from dafne_dante.plugin.improve import ImprovementRequest, improve
from dafne_dante.plugin.jobs import open_jobs
from dafne_dante.plugin.local.shelf import local_shelf

TYPE = "Brain"


class Model:
    """A model object of Dafne's."""

    def __init__(self, model_id, metadata, weights):
        self.model_id, self.metadata, self.weights = model_id, metadata, weights

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights


class Provider:
    """Dafne's provider: gives one model whatever is asked for."""

    def __init__(self, model):
        self.model, self.asked = model, []

    def load_model(self, name, *arguments, **options):
        self.asked.append((name, arguments, options))
        return self.model

    def available_models(self):
        return [TYPE]


def of(path, **changed):
    model = read_model(path)
    metadata = {"net_metadata": plan_to_net_metadata(model.plan)}
    return Model(**{"model_id": str(model.model_id), "metadata": metadata, "weights": model.weights, **changed})


def plugin_with(settings):
    plugin = start.Plugin(Desk(settings, open_jobs(settings)))
    plugin.attached = SimpleNamespace(wanted=SimpleNamespace(emit=lambda: plugin.opened_dialogs.append(1)))
    plugin.opened_dialogs = []
    return plugin


def showing(model):
    shown = window(TYPE, **DRAWN)
    shown.get_model_for_class = lambda name: (model, name)
    return shown


@pytest.fixture
def settings(tmp_path):
    return Settings(folder=tmp_path / "configuration", server="https://federation.example/", api_key="k" * 20)


def test_a_save_of_a_known_model_is_the_plugin_s_to_learn_from(settings, trained):
    plugin = plugin_with(settings)
    assert plugin.saved(showing(of(trained / "base.model"))) is True
    (job,) = plugin.desk.queue.jobs()
    assert (job.model_type, job.trigger, job.options.upload, job.options.method) == (TYPE, "saved", True, "auto")
    assert plugin.learns(showing(of(trained / "base.model"))) and plugin.opened_dialogs == [1]


@pytest.mark.parametrize("kind", ["keras", "no metadata", "no plan", "not loaded"])
def test_a_model_of_another_kind_is_kept_and_left_to_dafne(settings, trained, kind, capsys):
    model = {
        "keras": Model("1", {"net_metadata": None}, [np.zeros(3)]),
        "no metadata": SimpleNamespace(),
        "no plan": of(trained / "base.model", metadata={"net_metadata": {"model_name": "something"}}),
        "not loaded": None,
    }[kind]
    plugin = plugin_with(settings)
    assert plugin.saved(showing(model)) is False
    assert plugin.learns(showing(model)) is False and plugin.opened_dialogs == []
    assert plugin.desk.queue.jobs() == []
    assert len(open_case_store(settings, say=print).cases()) == 1, "the annotations are kept all the same"
    assert "learns in Dafne's own way" in capsys.readouterr().err
    assert not is_known(model)


def test_without_a_server_the_case_is_kept_and_dafne_learns_itself(settings, trained):
    plugin = plugin_with(replace(settings, server="", api_key=""))
    shown = showing(of(trained / "base.model"))
    assert plugin.saved(shown) is False and plugin.learns(shown) is False
    assert plugin.desk.queue.jobs() == []
    assert store_exists(settings)


def test_a_fault_of_the_store_is_said_and_the_save_goes_on(settings, trained, capsys):
    (settings.folder).mkdir(parents=True)
    (settings.folder / "cases").write_bytes(b"not a folder")
    plugin = plugin_with(settings)
    assert plugin.saved(showing(of(trained / "base.model"))) is False
    assert "the annotations were not kept" in capsys.readouterr().err


def test_nothing_drawn_is_nothing_kept(settings):
    plugin = plugin_with(settings)
    assert plugin.saved(window(TYPE)) is False
    assert not store_exists(settings)


class SecretError(Exception):
    """Nobody has thought of it."""


def fails(*arguments, **options):
    raise SecretError("Jane Doe")


SEAMS = {
    "saved": ("keep_save", lambda plugin, window: plugin.saved(window) is False),
    "learns": ("is_known", lambda plugin, window: plugin.learns(window) is False),
    "opened": ("JobStarter", lambda plugin, window: plugin.opened(window) is None),
    "provider": ("SiteFirstProvider", lambda plugin, window: plugin.provider(window) is window),
    "closing": (None, lambda plugin, window: plugin.closing(window) is None),
}


@pytest.mark.parametrize("seam", SEAMS)
def test_a_fault_that_nobody_thought_of_stays_in_the_plugin_and_is_told_by_its_class(
    settings, trained, seam, monkeypatch, capsys
):
    broken, works_on = SEAMS[seam]
    plugin = plugin_with(settings)
    plugin.attached.leave = fails
    if broken:
        monkeypatch.setattr(start, broken, fails)
    attaching = SimpleNamespace(Attached=lambda window, desk: plugin.attached)
    monkeypatch.setitem(sys.modules, "dafne_dante.host.dafne_qt.attaching", attaching)
    assert works_on(plugin, showing(of(trained / "base.model")))
    told = capsys.readouterr().err
    assert "a fault of the plugin's own, SecretError" in told and "Jane Doe" not in told


def test_ctrl_c_is_never_held_up(settings, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "drawn_study", stop)
    with pytest.raises(KeyboardInterrupt):
        plugin_with(settings).saved(window(TYPE, **DRAWN))


def test_a_fault_while_the_improved_model_is_loaded_leaves_dafne_its_own(improved, trained, monkeypatch):
    said, given = [], of(trained / "base.model")
    monkeypatch.setattr("dafne_dante.host.dafne_qt.provider.read_model", fails)
    assert SiteFirstProvider(Provider(given), improved[0], said.append).load_model(TYPE) is given
    assert len(said) == 1 and "SecretError" in said[0] and "Jane Doe" not in said[0]


@pytest.fixture(scope="module")
def improved(tmp_path_factory, trained):
    root = tmp_path_factory.mktemp("provider")
    settings = Settings(folder=root / "configuration")
    request = ImprovementRequest(CaseRequest((trained / "new",)), root / "out", trained / "base.model", TYPE, "lora", 6)
    assert improve(request, settings).gate == "passed"
    return settings, root / "out" / "improved.model"


def total(weights):
    return float(sum(tensor.double().abs().sum() for tensor in weights.values()))


def test_dafne_gets_the_site_s_improved_weights(improved, trained):
    settings, better = improved
    said, provider = [], Provider(of(trained / "base.model"))
    first = SiteFirstProvider(provider, settings, said.append)
    model = first.load_model(TYPE, None, force_download=False)
    assert total(model.weights) == total(read_model(better).weights)
    assert said == [f"{TYPE}: the model that was improved here is used"]
    assert provider.asked == [(TYPE, (None,), {"force_download": False})]
    assert first.available_models() == [TYPE], "everything else is Dafne's"


@pytest.mark.parametrize(("newest", "is_used"), [("", True), ("1700000000", True), ("1700000001", False)])
def test_a_newer_global_model_is_used_until_it_was_compared(tmp_path, improved, trained, newest, is_used):
    shutil.copytree(improved[0].folder, tmp_path / "configuration")
    settings, better = replace(improved[0], folder=tmp_path / "configuration"), improved[1]
    said, newer, given = [], {}, of(trained / "base.model")
    given.metadata["latest_timestamp"] = newest
    before = total(given.weights)
    first = SiteFirstProvider(Provider(given), settings, said.append, newer=newer.__setitem__)
    expected = total(read_model(better).weights) if is_used else before
    assert total(first.load_model(TYPE).weights) == expected
    assert newer == ({} if is_used else {TYPE: newest})
    (line,) = local_lines(settings, newer)
    assert ("still to be compared" in line.told) is (not is_used) and line.is_improved
    shelf = local_shelf(settings, TYPE)
    shelf.choose(1, "carried over: on global version 1700000001 Dice is better", seen="1700000001")
    assert total(first.load_model(TYPE).weights) == total(read_model(better).weights), "it was compared"
    (line,) = local_lines(settings, newer)
    assert "carried over: on global version" in line.told
    shelf.choose(0, "dropped: on global version 1700000001 Dice is worse")
    (line,) = local_lines(settings, newer)
    assert line.told.startswith(f"{TYPE}: the global model is used (dropped: on global")


@pytest.mark.parametrize("case", ["version asked for", "version asked for by place", "another type", "nothing"])
def test_what_was_asked_for_otherwise_stays_as_dafne_gave_it(improved, trained, case):
    settings, _ = improved
    given = None if case == "nothing" else of(trained / "base.model")
    before = given and total(given.weights)
    first = SiteFirstProvider(Provider(given), settings, print)
    arguments, options = {
        "version asked for": ((), {"timestamp": 5}),
        "version asked for by place": ((None, False, 5), {}),
    }.get(case, ((), {}))
    model = first.load_model("Thigh" if case == "another type" else TYPE, *arguments, **options)
    assert model is given and (given is None or total(model.weights) == before)


@pytest.mark.parametrize("case", ["another family", "another network", "keras", "damaged"])
def test_what_does_not_fit_is_said_and_the_global_model_is_used(tmp_path, improved, trained, case):
    settings, _ = improved
    shutil.copytree(settings.folder, tmp_path / "configuration")
    settings = replace(settings, folder=tmp_path / "configuration")
    given = of(trained / "base.model")
    if case == "another family":
        given.model_id = "11111111-1111-1111-1111-111111111111"
    elif case == "another network":
        given.weights = {**given.weights, "more": torch.zeros(1)}
    elif case == "keras":
        given.weights = [np.zeros(3)]
    else:
        for path in (settings.folder / "local-models").rglob("*.model"):
            path.write_bytes(path.read_bytes()[:100])
    before, said = given.weights, []
    model = SiteFirstProvider(Provider(given), settings, said.append).load_model(TYPE)
    assert model.weights is before
    assert case == "damaged" or (len(said) == 1 and "the global model is used" in said[0])


@pytest.fixture
def dafne(monkeypatch, tmp_path):
    """Dafne's own modules as stand-ins, so that nothing of a person's is touched; what was begun, and its hooks."""
    found = SimpleNamespace(begun=[], hooks=None)
    stock = type("MuscleSegmentation", (), {})
    program = SimpleNamespace(MuscleSegmentation=stock, main=lambda: found.begun.append(list(sys.argv)))
    module = SimpleNamespace(MuscleSegmentation=stock)
    application = SimpleNamespace(instance=lambda: object())
    for name, fake in {
        "PyQt5": SimpleNamespace(), "PyQt5.QtWidgets": SimpleNamespace(QApplication=application),
        "dafne": SimpleNamespace(), "dafne.bin": SimpleNamespace(dafne=program), "dafne.bin.dafne": program,
        "dafne.ui": SimpleNamespace(MuscleSegmentation=module), "dafne.ui.MuscleSegmentation": module,
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, fake)

    def with_hooks(window_class, hooks):
        found.hooks = hooks
        return window_class

    window_module = SimpleNamespace(Hooks=lambda *hooks: hooks, with_hooks=with_hooks)
    monkeypatch.setitem(sys.modules, "dafne_dante.host.dafne_qt.window", window_module)
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setenv("DAFNE_DANTE_CONFIG", str(tmp_path))
    return found


def test_without_usable_settings_dafne_starts_in_its_own_way_with_the_entry_that_mends_them(
    tmp_path, dafne, capsys, monkeypatch
):
    attached = []
    entry = SimpleNamespace(RepairEntry=lambda toolbox, why: attached.append((toolbox, why)))
    monkeypatch.setitem(sys.modules, "dafne_dante.host.dafne_qt.repair_entry", entry)
    (tmp_path / "settings.toml").write_text("[worker]\nthreads = -4\n")
    start.start_dafne(["a study"])
    assert dafne.begun == [["dafne", "a study"]]
    assert "Dafne runs without the plugin" in capsys.readouterr().err
    saved, opened, provider, learns, closing = dafne.hooks
    window = SimpleNamespace(toolbox_window="the toolbox")
    opened(window)
    ((toolbox, why),) = attached
    assert toolbox == "the toolbox" and "threads must be" in why
    assert (saved(window), learns(window), provider("Dafne's"), closing(window)) == (False, False, "Dafne's", None)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-c", "Thigh", "--remote-model", "study.nii.gz"], ["--save-masks", "-q"]]
)
def test_every_argument_of_the_command_goes_to_dafne(dafne, command, arguments):
    code, out, _ = command("dafne", *arguments)
    assert code == 0 and "Usage" not in out
    assert dafne.begun == [["dafne", *arguments]]


def test_a_save_asks_for_no_job_where_the_settings_say_so(settings, trained):
    quiet = replace(settings, worker=replace(settings.worker, after_save=False))
    plugin = plugin_with(quiet)
    assert plugin.saved(showing(of(trained / "base.model"))) is False
    assert plugin.desk.queue.jobs() == [] and len(open_case_store(quiet, say=print).cases()) == 1


def test_mending_keeps_what_is_sound_and_says_what_is_still_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("DAFNE_DANTE_SITE_CONFIG", str(tmp_path / "nothing"))
    (tmp_path / "settings.toml").write_text("[worker]\nthreads = -4\nmemory_gib = 3.0\nafter_save_s = -1\n")
    look = look_at_settings(tmp_path, {})
    assert look.faulty == ("threads", "after_save_s") and look.settings.worker.memory_gib == 3.0
    with pytest.raises(SettingsError, match="after_save_s must"):
        mend(tmp_path, {"threads": 1})
    assert mend(tmp_path, {"threads": 1, "after_save_s": 5.0}) == words.SETTINGS_MENDED
    assert load_settings(tmp_path, {}).worker.threads == 1

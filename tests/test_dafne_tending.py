"""An open Dafne sends what waits, and has a newer global model compared; nothing is tried for ever."""

from types import SimpleNamespace

import pytest

from dafne_dante.config import Settings
from dafne_dante.errors import SettingsError
from dafne_dante.host.dafne_qt import tending as module
from dafne_dante.host.dafne_qt.tending import Tending
from dafne_dante.plugin.pausing import set_paused


class Update:
    def __init__(self, model_type):
        self.model_type, self.is_over, self.begun, self.told = model_type, False, False, "carried over"

    def start(self):
        self.begun = True


class Scene:
    """A desk, the updates that were begun, what was said, and a clock."""

    def __init__(self, tmp_path, monkeypatch):
        self.forgotten, self.updates, self.said, self.sent, self.moment_s = 0, [], [], [], 1000.0
        settings = Settings(folder=tmp_path, server="https://federation.example/")
        self.desk = SimpleNamespace(settings=settings, newer={}, forget_models=self._forget)
        self.behind = {"Thigh", "Leg"}
        monkeypatch.setattr(module, "is_behind", lambda settings, name, newest: bool(newest) and name in self.behind)
        self.tending = Tending(
            self.desk, self.said.append, make_update=self._make, sending=self._send, now_s=lambda: self.moment_s
        )

    def _forget(self):
        self.forgotten += 1

    def _make(self, settings, model_type):
        self.updates.append(Update(model_type))
        return self.updates[-1]

    def _send(self, settings):
        if isinstance(self.sent, Exception):
            raise self.sent
        return self.sent


@pytest.fixture
def scene(tmp_path, monkeypatch):
    return Scene(tmp_path, monkeypatch)


def test_a_newer_global_model_is_compared_once_and_then_loaded(scene):
    scene.tending.look()
    assert scene.updates == []
    scene.desk.newer["Thigh"] = "8"
    scene.tending.look()
    scene.tending.look()
    (update,) = scene.updates
    assert update.begun and update.model_type == "Thigh" and scene.forgotten == 0
    scene.behind.discard("Thigh")
    update.is_over = True
    scene.tending.look()
    assert (scene.forgotten, scene.desk.newer) == (1, {})
    assert scene.said == ["Thigh: carried over"]


def test_one_that_came_to_nothing_is_tried_again_later_and_not_at_every_look(scene):
    scene.desk.newer = {"Leg": "9", "Thigh": "8"}
    scene.tending.look()
    scene.updates[0].is_over = True
    scene.tending.look()
    assert [one.model_type for one in scene.updates] == ["Leg", "Thigh"], "one at a time, the other one next"
    scene.updates[1].is_over = True
    scene.tending.look()
    assert len(scene.updates) == 2 and scene.forgotten == 0 and scene.desk.newer == {"Leg": "9", "Thigh": "8"}
    scene.moment_s += 601
    scene.tending.look()
    assert [one.model_type for one in scene.updates] == ["Leg", "Thigh", "Leg"]


def test_what_waits_is_sent_and_what_goes_wrong_is_told_once(scene):
    scene.sent = [SimpleNamespace(error=None)]
    scene.tending.look()
    assert scene.said == ["1 of 1 updates that waited in the outbox were sent"]
    scene.sent = SettingsError("no key")
    scene.tending.look()
    scene.tending.look()
    assert scene.said[1:] == ["what waits in the outbox goes on waiting: no key"]
    scene.sent = RuntimeError("Jane Doe")
    scene.desk.newer["Thigh"] = "8"
    scene.tending.look()
    assert "RuntimeError" in scene.said[-1] and "Jane" not in scene.said[-1]
    assert [one.model_type for one in scene.updates] == ["Thigh"], "the rest goes on"


def test_while_it_is_paused_nothing_begins(scene):
    set_paused(scene.desk.settings, paused=True)
    scene.sent, scene.desk.newer["Thigh"] = [SimpleNamespace(error=None)], "8"
    scene.tending.look()
    assert scene.said == [] and scene.updates == []
    set_paused(scene.desk.settings, paused=False)
    scene.tending.look()
    assert scene.said and scene.updates


def test_without_a_server_nothing_is_compared(scene):
    scene.desk.settings = Settings(folder=scene.desk.settings.folder)
    scene.desk.newer["Thigh"] = "8"
    scene.tending.look()
    assert scene.updates == []

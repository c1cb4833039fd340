"""Whoever chose another model, Dafne loads it anew: a job of this Dafne or of an earlier one, the night, a person."""

import threading

import pytest
from crashing_local import FIRST, contents, digest

from dafne_dante.config import Settings
from dafne_dante.host.dafne_qt.model_watch import ModelWatch
from dafne_dante.plugin.local.shelf import local_folder, local_shelf


@pytest.fixture
def settings(tmp_path):
    return Settings(folder=tmp_path / "configuration")


def keep(settings, model_type, number):
    from dataclasses import replace

    model, delta = contents(number)
    made = replace(FIRST, number=number, model=digest(model), deltas=((digest(delta), 1.0),))
    local_shelf(settings, model_type).add(lambda state: made, model, delta, seen="7")


def test_every_change_of_the_choice_is_told_once(settings):
    told = []
    watch = ModelWatch(lambda: settings, lambda: told.append("anew"), print)
    keep(settings, "Thigh", 1)
    assert not watch.look() and told == [], "what Dafne loads now is this"
    assert not watch.look()
    keep(settings, "Leg", 1)
    assert watch.look() and not watch.look()
    keep(settings, "Thigh", 2)
    assert watch.look()
    local_shelf(settings, "Thigh").choose(0, "back")
    assert watch.look()
    local_shelf(settings, "Thigh").choose(0, "back once more")
    assert not watch.look(), "the same model"
    local_shelf(settings, "Leg").forget()
    assert watch.look() and told == ["anew"] * 4


def test_a_shelf_that_is_damaged_is_another_choice_and_no_fault(settings):
    told, said = [], []
    keep(settings, "Thigh", 1)
    watch = ModelWatch(lambda: settings, lambda: told.append("anew"), said.append)
    watch.look()
    (state,) = local_folder(settings).rglob("state.json")
    whole = state.read_bytes()
    state.write_bytes(whole[:40])
    watch.look()
    state.write_bytes(whole)
    watch.look()
    assert told == ["anew"] * 2 and said == []


def test_it_looks_by_itself_until_it_is_stopped(settings):
    changed = threading.Event()
    watch = ModelWatch(lambda: settings, changed.set, print, look_s=0.01)
    watch.look()
    watch.start()
    keep(settings, "Thigh", 1)
    assert changed.wait(10)
    watch.stop()
